//! Kubernetes objects of the lab: Nodes and the status of Pods, as a cluster's other parts would report them.

use k8s_openapi::api::core::v1::Node as NodeObject;
use serde_json::json;

use crate::topology::{Node, Pod};

/// The Node object of a lab node, Ready, with its addresses.
///
/// # Panics
/// Never: the literal is a Node.
#[must_use]
pub fn node(node: &Node) -> NodeObject {
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": node.name(), "labels": { "kubernetes.io/hostname": node.name() } },
        "spec": { "podCIDR": node.pod_cidrs()[0], "podCIDRs": node.pod_cidrs() },
        "status": {
            "addresses": [
                { "type": "InternalIP", "address": node.ipv4() },
                { "type": "InternalIP", "address": node.ipv6() },
                { "type": "Hostname", "address": node.name() },
            ],
            "conditions": [{ "type": "Ready", "status": "True" }],
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "osImage": "lab", "bootID": "", "machineID": "",
                "systemUUID": "", "containerRuntimeVersion": "lab://1", "kernelVersion": "", "kubeProxyVersion": "",
                "kubeletVersion": "v1.33.0",
            },
        },
    }))
    .expect("a Node")
}

/// A merge patch for the Pod's status subresource, as its kubelet would write it.
#[must_use]
pub fn pod_status(pod: &Pod, host: &Node) -> serde_json::Value {
    json!({
        "status": {
            "phase": "Running",
            "hostIP": host.ipv4(),
            "hostIPs": [{ "ip": host.ipv4() }, { "ip": host.ipv6() }],
            "podIP": pod.ipv4,
            "podIPs": [{ "ip": pod.ipv4 }, { "ip": pod.ipv6 }],
            "conditions": [{ "type": "Ready", "status": "True" }, { "type": "ContainersReady", "status": "True" }],
            "containerStatuses": [{
                "name": "server", "image": "lab/serve", "imageID": "lab/serve", "ready": true,
                "restartCount": 0, "started": true, "state": { "running": {} },
            }],
        },
    })
}
