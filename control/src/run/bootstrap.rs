//! The objects every cluster has: four namespaces, and the API server's own Service with its endpoints.
//!
//! Called by [`super::serve`] before the first request. Made if missing, put right if changed; what cannot be made is
//! logged and does not keep the server from starting.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::api::{Part, Registry, Status, WriteOptions};
use crate::resources::{self, Ranges, Resource};

const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// Sees to it that all of them are there; `server` is where the cluster reaches this process.
pub(super) async fn ensure(registry: &Registry, ranges: &Ranges, server: SocketAddr) {
    for name in NAMESPACES {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        ensure_one(registry, "", "namespaces", namespace).await;
    }
    let Some(cluster_ip) = ranges.kubernetes_service_ip() else {
        return;
    };
    ensure_one(
        registry,
        "",
        "services",
        service(&cluster_ip.to_string(), server.port()),
    )
    .await;
    if server.ip().is_loopback() {
        tracing::warn!(
            "a loopback address cannot be an endpoint: Pods will not reach the API through default/kubernetes; \
             name another one with --advertise"
        );
        return;
    }
    ensure_one(registry, "discovery.k8s.io", "endpointslices", endpoint_slice(server)).await;
    ensure_one(registry, "", "endpoints", endpoints(server)).await;
}

fn service(cluster_ip: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": port }],
            "sessionAffinity": "None",
        },
    })
}

fn endpoint_slice(server: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "kubernetes.io/service-name": "kubernetes" },
        },
        "addressType": if server.is_ipv6() { "IPv6" } else { "IPv4" },
        "endpoints": [{ "addresses": [server.ip()], "conditions": { "ready": true } }],
        "ports": [{ "name": "https", "port": server.port(), "protocol": "TCP" }],
    })
}

fn endpoints(server: SocketAddr) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" },
        },
        "subsets": [{
            "addresses": [{ "ip": server.ip() }],
            "ports": [{ "name": "https", "port": server.port(), "protocol": "TCP" }],
        }],
    })
}

async fn ensure_one(registry: &Registry, group: &str, plural: &str, wanted: Value) {
    let Some(resource) = resources::find(group, "v1", plural) else {
        return;
    };
    let name = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if let Err(status) = try_ensure(registry, resource, &name, wanted).await {
        tracing::error!(kind = resource.kind, name, reason = status.message, "cannot be made");
    }
}

async fn try_ensure(registry: &Registry, resource: &'static Resource, name: &str, wanted: Value) -> Result<(), Status> {
    let namespace = resource.namespaced.then_some("default");
    let options = WriteOptions::default();
    let found = match registry.get(resource, namespace, name) {
        Ok(found) => found,
        Err(status) if status.is_not_found() => {
            return registry.create(resource, namespace, wanted, &options).await.map(drop);
        }
        Err(status) => return Err(status),
    };
    let mut merged = found.clone();
    overlay(&mut merged, &wanted);
    if merged == found {
        return Ok(());
    }
    tracing::info!(kind = resource.kind, name, "putting it right");
    registry
        .update(resource, (namespace, name), Part::Main, merged, &options)
        .await
        .map(drop)
}

/// Sets in `object` what `wanted` says, element by element in lists of the same length, and leaves the rest.
fn overlay(object: &mut Value, wanted: &Value) {
    match (object, wanted) {
        (Value::Object(object), Value::Object(wanted)) => {
            for (key, value) in wanted {
                overlay(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(object), Value::Array(wanted)) if object.len() == wanted.len() => {
            object
                .iter_mut()
                .zip(wanted)
                .for_each(|(object, wanted)| overlay(object, wanted));
        }
        (object, wanted) => *object = wanted.clone(),
    }
}
