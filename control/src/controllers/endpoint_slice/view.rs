//! What the controller keeps of Services and Pods: a fraction of each object.
//!
//! Made by the informers of [`super`]; read by [`super::desired`] and [`super::plan`].

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Node, Pod, Service, ServicePort};

/// A Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ServiceView {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) labels: BTreeMap<String, String>,
    /// Empty when the slices are somebody else's business: no selector, or type ExternalName.
    pub(super) selector: BTreeMap<String, String>,
    /// `IPv4`, `IPv6`, in order of preference.
    pub(super) families: Vec<String>,
    pub(super) headless: bool,
    pub(super) publish_not_ready: bool,
    pub(super) ports: Vec<ServicePort>,
    pub(super) traffic_distribution: Option<String>,
}

/// A Pod.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PodView {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) node: Option<String>,
    pub(super) hostname: Option<String>,
    pub(super) subdomain: Option<String>,
    /// The Ready condition is true.
    pub(super) ready: bool,
    /// Deletion was asked for.
    pub(super) terminating: bool,
    /// Phase Succeeded or Failed: it will never serve again.
    pub(super) ended: bool,
    /// Name, protocol and number of the named ports of containers and sidecars.
    pub(super) ports: Vec<(String, String, i32)>,
}

impl ServiceView {
    /// What is kept of `service`.
    pub(super) fn of(service: Service, _revision: u64) -> Self {
        let (metadata, spec) = (service.metadata, service.spec.unwrap_or_default());
        let external = spec.type_.as_deref() == Some("ExternalName");
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            selector: spec.selector.filter(|_| !external).unwrap_or_default(),
            families: spec.ip_families.unwrap_or_default(),
            headless: spec.cluster_ip.as_deref() == Some("None"),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            ports: spec.ports.unwrap_or_default(),
            traffic_distribution: spec.traffic_distribution,
        }
    }

    /// Whether the selector selects a Pod with these labels.
    pub(super) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.selector.is_empty() && self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl PodView {
    /// What is kept of `pod`.
    pub(super) fn of(pod: Pod, _revision: u64) -> Self {
        let (metadata, spec, status) = (
            pod.metadata,
            pod.spec.unwrap_or_default(),
            pod.status.unwrap_or_default(),
        );
        let mut addresses: Vec<_> = status.pod_ips.into_iter().flatten().map(|address| address.ip).collect();
        if addresses.is_empty() {
            addresses.extend(status.pod_ip);
        }
        let conditions = status.conditions.unwrap_or_default();
        let sidecars = spec.init_containers.into_iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let containers: Vec<Container> = spec.containers.into_iter().chain(sidecars).collect();
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            addresses: addresses.iter().filter_map(|address| address.parse().ok()).collect(),
            node: spec.node_name.filter(|name| !name.is_empty()),
            hostname: spec.hostname.filter(|name| !name.is_empty()),
            subdomain: spec.subdomain,
            ready: conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            terminating: metadata.deletion_timestamp.is_some(),
            ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            ports: containers.into_iter().flat_map(named_ports).collect(),
        }
    }
}

/// The zone of a Node, which is all that is kept of it.
pub(super) fn zone_of(node: Node, _revision: u64) -> Option<String> {
    let mut labels = node.metadata.labels.unwrap_or_default();
    labels
        .remove("topology.kubernetes.io/zone")
        .filter(|zone| !zone.is_empty())
}

fn named_ports(container: Container) -> impl Iterator<Item = (String, String, i32)> {
    container.ports.into_iter().flatten().filter_map(|port| {
        let protocol = port.protocol.unwrap_or_else(|| "TCP".into());
        Some((port.name?, protocol, port.container_port))
    })
}
