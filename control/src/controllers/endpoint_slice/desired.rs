//! From a Service and its Pods to the endpoints that should be in its slices, as kube-controller-manager has them.
//!
//! Called by [`super::plan`]; plain functions without I/O. Facts: the `Endpoint` type's documentation in
//! `discovery.k8s.io/v1`, KEP-752 (slices), KEP-1672 (terminating), KEP-4444 (traffic distribution).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::view::{PodView, ServiceView};

/// What makes two sets of ports the same: name, protocol, number and application protocol of each.
pub(super) type PortKey = Vec<(Option<String>, Option<String>, Option<i32>, Option<String>)>;

/// Endpoints that serve the same ports and so may share slices.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    pub(super) ports: Vec<EndpointPort>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// The endpoints of one address family, by their ports. `zone_of` knows the zone of a Node, or that there is no such
/// Node.
pub(super) fn groups(
    service: &ServiceView,
    family: &str,
    pods: &[Arc<PodView>],
    zone_of: &dyn Fn(&str) -> Option<Option<String>>,
) -> BTreeMap<PortKey, Group> {
    let mut groups = BTreeMap::<PortKey, Group>::new();
    for pod in pods.iter().filter(|pod| !pod.ended) {
        let Some(endpoint) = endpoint(service, family, pod, zone_of) else {
            continue;
        };
        let ports = ports(service, pod);
        let group = groups.entry(port_key(&ports)).or_insert_with(|| Group {
            ports,
            endpoints: Vec::new(),
        });
        group.endpoints.push(endpoint);
    }
    groups
}

/// The key of a set of ports, whatever their order.
pub(super) fn port_key(ports: &[EndpointPort]) -> PortKey {
    let part = |port: &EndpointPort| {
        (
            port.name.clone(),
            port.protocol.clone(),
            port.port,
            port.app_protocol.clone(),
        )
    };
    let mut key: PortKey = ports.iter().map(part).collect();
    key.sort();
    key
}

/// The Pod's endpoint; none if it has no address of the family, or is on a Node that is gone, which only
/// `publishNotReadyAddresses` overlooks.
fn endpoint(
    service: &ServiceView,
    family: &str,
    pod: &PodView,
    zone_of: &dyn Fn(&str) -> Option<Option<String>>,
) -> Option<Endpoint> {
    let of_family = pod
        .addresses
        .iter()
        .filter(|address| address.is_ipv6() == (family == "IPv6"));
    let addresses: Vec<_> = of_family.map(ToString::to_string).collect();
    if addresses.is_empty() {
        return None;
    }
    let zone = match pod.node.as_deref().map(zone_of) {
        Some(Some(zone)) => zone,
        Some(None) if !service.publish_not_ready => return None,
        Some(None) | None => None,
    };
    let ready = service.publish_not_ready || (pod.ready && !pod.terminating);
    let named = pod.subdomain.as_deref() == Some(&service.name) && pod.namespace == service.namespace;
    Some(Endpoint {
        addresses,
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(pod.ready),
            terminating: Some(pod.terminating),
        }),
        hints: hints(service, ready, zone.as_deref(), pod.node.as_deref()),
        hostname: pod.hostname.clone().filter(|_| named),
        node_name: pod.node.clone(),
        target_ref: Some(ObjectReference {
            kind: Some("Pod".into()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        }),
        zone,
        ..Endpoint::default()
    })
}

/// Hints for a Service whose traffic should stay near: each ready endpoint serves its own zone, or its own node.
fn hints(service: &ServiceView, ready: bool, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let for_zones = || zone.map(|zone| vec![ForZone { name: zone.into() }]);
    let for_nodes = || node.map(|node| vec![ForNode { name: node.into() }]);
    let hints = match service.traffic_distribution.as_deref().filter(|_| ready)? {
        "PreferClose" | "PreferSameZone" => EndpointHints {
            for_zones: for_zones(),
            for_nodes: None,
        },
        "PreferSameNode" => EndpointHints {
            for_zones: for_zones(),
            for_nodes: for_nodes(),
        },
        _ => return None,
    };
    (hints != EndpointHints::default()).then_some(hints)
}

/// The Service's ports as they are on this Pod: a named target port is whatever the Pod's containers call so; one that
/// they do not have is left out.
fn ports(service: &ServiceView, pod: &PodView) -> Vec<EndpointPort> {
    let on_pod = |port: &ServicePort| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        let number = match &port.target_port {
            None => port.port,
            Some(IntOrString::Int(number)) if *number == 0 => port.port,
            Some(IntOrString::Int(number)) => *number,
            Some(IntOrString::String(name)) => {
                let named = pod
                    .ports
                    .iter()
                    .find(|(known, spoken, _)| known == name && *spoken == protocol);
                named.map(|(.., number)| *number)?
            }
        };
        Some(EndpointPort {
            name: Some(port.name.clone().unwrap_or_default()),
            protocol: Some(protocol),
            port: Some(number),
            app_protocol: port.app_protocol.clone(),
        })
    };
    service.ports.iter().filter_map(on_pod).collect()
}
