//! Kubernetes objects into the agent's own types, once, at the edge.
//!
//! Called by [`kinds`](super::kinds) for every object that arrives; what comes out goes to [`model`](crate::model) as an
//! event and is not checked again. What can't be read in an object is left out, and for Services said in `warnings`.

use std::{fmt::Display, net::IpAddr, str::FromStr};

use k8s_openapi::api::{
    core::v1::{Node as NodeObject, Service as ServiceObject, ServiceSpec},
    discovery::v1::{Endpoint, EndpointConditions, EndpointSlice},
};
use kube::api::ObjectMeta;

use crate::{
    config::parse_algorithm,
    model::{
        Conditions, Family, Node, Protocol, Service, ServiceName, ServicePort, Slice, SliceEndpoint, SliceName,
        SlicePort,
    },
};

/// The annotation that chooses a Service's algorithm.
pub const ALGORITHM_ANNOTATION: &str = "waggle.dev/algorithm";
/// `sessionAffinityConfig.clientIP.timeoutSeconds` where an object has none.
const AFFINITY_SECS: u32 = 10_800;
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// The taint of cluster-autoscaler on a node it is about to delete; load balancers should leave it (KEP-3836).
const DELETION_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// The name of a Service object.
pub fn service_name(meta: &ObjectMeta) -> ServiceName {
    let (namespace, name) = full_name(meta);
    ServiceName { namespace, name }
}

/// The name of an EndpointSlice object.
pub fn slice_name(meta: &ObjectMeta) -> SliceName {
    let (namespace, name) = full_name(meta);
    SliceName { namespace, name }
}

fn full_name(meta: &ObjectMeta) -> (String, String) {
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

/// A Service; `None` if it has no virtual address (headless, `ExternalName`).
pub fn service(object: &ServiceObject) -> Option<Service> {
    let spec = object.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") || !has_cluster_ip(spec) {
        return None;
    }
    let mut warnings = Vec::new();
    let kind = spec.type_.as_deref().unwrap_or("ClusterIP");
    let externally_reachable = kind != "ClusterIP" || spec.external_ips.iter().flatten().next().is_some();
    let created = object.metadata.creation_timestamp.as_ref();
    Some(Service {
        name: service_name(&object.metadata),
        uid: object.metadata.uid.clone().unwrap_or_default(),
        created: created.map_or(i64::MAX, |time| time.0.as_second()),
        ports: ports(spec, kind, &mut warnings),
        cluster_ips: addresses("spec.clusterIPs", cluster_ips(spec), &mut warnings),
        external_ips: addresses("spec.externalIPs", spec.external_ips.iter().flatten(), &mut warnings),
        load_balancer_ips: load_balancer_ips(object, kind, &mut warnings),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        external_local: externally_reachable && spec.external_traffic_policy.as_deref() == Some("Local"),
        affinity_secs: affinity_secs(spec),
        algorithm: algorithm(&object.metadata, &mut warnings),
        health_port: spec
            .health_check_node_port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0),
        warnings,
    })
}

fn has_cluster_ip(spec: &ServiceSpec) -> bool {
    spec.cluster_ip
        .as_deref()
        .is_some_and(|ip| !ip.is_empty() && ip != "None")
}

/// `clusterIPs`, or the one `clusterIP` of an object from before it had several.
fn cluster_ips(spec: &ServiceSpec) -> impl Iterator<Item = &String> {
    let several = spec.cluster_ips.as_ref().filter(|ips| !ips.is_empty());
    let single = if several.is_none() {
        spec.cluster_ip.as_ref()
    } else {
        None
    };
    several.into_iter().flatten().chain(single)
}

fn load_balancer_ips(object: &ServiceObject, kind: &str, warnings: &mut Vec<String>) -> Vec<IpAddr> {
    if kind != "LoadBalancer" {
        return Vec::new();
    }
    let balancer = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer
        .and_then(|balancer| balancer.ingress.as_ref())
        .into_iter()
        .flatten();
    let virtual_ips = ingress
        .filter(|i| i.ip_mode.as_deref().unwrap_or("VIP") == "VIP")
        .filter_map(|i| i.ip.as_ref());
    addresses("status.loadBalancer.ingress", virtual_ips, warnings)
}

fn affinity_secs(spec: &ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let client_ip = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref());
    let seconds = client_ip.and_then(|config| config.timeout_seconds);
    seconds
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0)
        .unwrap_or(AFFINITY_SECS)
}

fn algorithm(meta: &ObjectMeta, warnings: &mut Vec<String>) -> Option<proxy_ebpf::abi::Algorithm> {
    let word = meta.annotations.as_ref()?.get(ALGORITHM_ANNOTATION)?;
    parse_algorithm(word)
        .map_err(|why| warnings.push(format!("annotation {ALGORITHM_ANNOTATION}: {why}; the default is used")))
        .ok()
}

fn ports(spec: &ServiceSpec, kind: &str, warnings: &mut Vec<String>) -> Vec<ServicePort> {
    let mut parsed = Vec::new();
    for port in spec.ports.iter().flatten() {
        let name = port.name.clone().unwrap_or_default();
        let number = u16::try_from(port.port).ok().filter(|port| *port != 0);
        let (Some(protocol), Some(number)) = (Protocol::parse(port.protocol.as_deref()), number) else {
            warnings.push(format!("port '{name}' has no known protocol or number and is left out"));
            continue;
        };
        let node_port = port
            .node_port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port != 0);
        let node_port = node_port.filter(|_| kind != "ClusterIP");
        parsed.push(ServicePort {
            name,
            protocol,
            port: number,
            node_port,
        });
    }
    parsed
}

fn addresses<'a, T>(field: &str, texts: impl Iterator<Item = &'a T>, warnings: &mut Vec<String>) -> Vec<IpAddr>
where
    T: AsRef<str> + Display + 'a,
{
    let mut parsed = Vec::new();
    for text in texts {
        match IpAddr::from_str(text.as_ref()) {
            Ok(address) if !parsed.contains(&address) => parsed.push(address),
            Ok(_) => {}
            Err(_) => warnings.push(format!("{field}: '{text}' is not an IP address and is left out")),
        }
    }
    parsed
}

/// An EndpointSlice; `None` if it belongs to no Service or its addresses are names.
pub fn slice(object: &EndpointSlice) -> Option<Slice> {
    let family = match object.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        _ => return None,
    };
    let name = slice_name(&object.metadata);
    let owner = object
        .metadata
        .labels
        .as_ref()?
        .get(SERVICE_NAME_LABEL)
        .filter(|owner| !owner.is_empty())?;
    let service = ServiceName {
        namespace: name.namespace.clone(),
        name: owner.clone(),
    };
    let ports = object.ports.iter().flatten().filter_map(|port| {
        Some(SlicePort {
            name: port.name.clone().unwrap_or_default(),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            port: u16::try_from(port.port?).ok().filter(|port| *port != 0)?,
        })
    });
    let endpoints = object.endpoints.iter().filter_map(|e| endpoint(e, family));
    Some(Slice {
        service,
        family,
        ports: ports.collect(),
        endpoints: endpoints.collect(),
        name,
    })
}

fn endpoint(endpoint: &Endpoint, family: Family) -> Option<SliceEndpoint> {
    let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    let hints = endpoint.hints.as_ref();
    let zones = hints.and_then(|hints| hints.for_zones.as_ref()).into_iter().flatten();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).into_iter().flatten();
    (Family::of(address) == family).then(|| SliceEndpoint {
        address,
        conditions: conditions(endpoint.conditions.as_ref()),
        node: endpoint.node_name.clone().filter(|name| !name.is_empty()),
        zone_hints: zones.map(|zone| zone.name.clone()).collect(),
        node_hints: nodes.map(|node| node.name.clone()).collect(),
    })
}

/// Kubernetes' defaults: a condition that isn't there is true, `terminating` false.
fn conditions(conditions: Option<&EndpointConditions>) -> Conditions {
    Conditions {
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        serving: conditions.and_then(|c| c.serving).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
    }
}

/// A Node.
pub fn node(object: &NodeObject) -> Node {
    let status = object.status.as_ref().and_then(|status| status.addresses.as_ref());
    let of_type = |kind: &'static str| {
        let matching = status
            .into_iter()
            .flatten()
            .filter(move |address| address.type_ == kind);
        matching.filter_map(|address| address.address.parse().ok())
    };
    let taints = object.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let doomed = taints.into_iter().flatten().any(|taint| taint.key == DELETION_TAINT);
    Node {
        name: object.metadata.name.clone().unwrap_or_default(),
        zone: object
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(ZONE_LABEL).cloned()),
        addresses: of_type("InternalIP").chain(of_type("ExternalIP")).collect(),
        terminating: doomed || object.metadata.deletion_timestamp.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proxy_ebpf::abi::Algorithm;

    fn parsed(yaml: &str) -> Option<Service> {
        service(&serde_saphyr::from_str(yaml).unwrap())
    }

    #[test]
    fn a_service_without_virtual_address_is_not_ours() {
        for spec in [
            "{clusterIP: None}",
            "{clusterIP: ''}",
            "{}",
            "{type: ExternalName, externalName: x}",
        ] {
            let yaml = format!("{{metadata: {{name: a, namespace: b}}, spec: {spec}}}");
            assert_eq!(parsed(&yaml), None, "{spec}");
        }
    }

    #[test]
    fn an_unknown_algorithm_is_a_warning_and_the_default_stays() {
        let yaml = "{metadata: {name: a, namespace: b, annotations: {waggle.dev/algorithm: wlc}}, spec: {clusterIP: 10.0.0.1}}";
        let service = parsed(yaml).unwrap();
        assert_eq!(service.algorithm, None);
        assert!(service.warnings[0].contains("wlc") && service.warnings[0].contains(ALGORITHM_ANNOTATION));
        assert_eq!(
            parsed(&yaml.replace("wlc", "lc")).unwrap().algorithm,
            Some(Algorithm::LEAST_CONN)
        );
    }

    #[test]
    fn affinity_has_kubernetes_default_timeout() {
        let yaml = |config: &str| {
            format!("{{metadata: {{name: a}}, spec: {{clusterIP: 10.0.0.1, sessionAffinity: ClientIP{config}}}}}")
        };
        assert_eq!(parsed(&yaml("")).unwrap().affinity_secs, 10_800);
        let short = yaml(", sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}");
        assert_eq!(parsed(&short).unwrap().affinity_secs, 5);
        assert_eq!(
            parsed("{metadata: {name: a}, spec: {clusterIP: 10.0.0.1}}")
                .unwrap()
                .affinity_secs,
            0
        );
    }

    #[test]
    fn conditions_default_to_ready() {
        let yaml = "{addressType: IPv4, metadata: {name: s, namespace: b, labels: {kubernetes.io/service-name: a}}, \
                    endpoints: [{addresses: [10.0.0.1]}, {addresses: [not-an-address]}, {addresses: ['fd00::1']}]}";
        let slice = slice(&serde_saphyr::from_str(yaml).unwrap()).unwrap();
        assert_eq!(slice.endpoints.len(), 1);
        assert_eq!(
            slice.endpoints[0].conditions,
            Conditions {
                ready: true,
                serving: true,
                terminating: false
            }
        );
    }

    #[test]
    fn internal_addresses_of_a_node_come_first() {
        let yaml = "{metadata: {name: n}, spec: {taints: [{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]}, \
                    status: {addresses: [{type: Hostname, address: n}, {type: ExternalIP, address: 192.0.2.1}, \
                    {type: InternalIP, address: 10.0.0.1}]}}";
        let node = node(&serde_saphyr::from_str(yaml).unwrap());
        assert_eq!(node.primary_v4(), Some([10, 0, 0, 1].into()));
        assert!(node.terminating);
    }
}
