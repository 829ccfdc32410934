//! Defaults of a Service.
//!
//! The first step of a write. Addresses, node ports and IP families are not defaulted but allocated.

use serde_json::{Value, json};

use super::{externally_accessible, needs_cluster_ip, service_type};
use crate::resources::object;

/// How long a client stays with its backend when the Service does not say.
const AFFINITY_SECONDS: i64 = 10_800;

/// Fills in what the client left out.
pub(super) fn default(service: &mut Value) {
    object::set_default(service, "spec.type", "ClusterIP");
    default_affinity(service);
    default_ports(service);
    if externally_accessible(service) {
        object::set_default(service, "spec.externalTrafficPolicy", "Cluster");
    }
    if needs_cluster_ip(service) {
        object::set_default(service, "spec.internalTrafficPolicy", "Cluster");
    }
    if service_type(service) == "LoadBalancer" {
        object::set_default(service, "spec.allocateLoadBalancerNodePorts", true);
    }
    for ingress in object::array_mut(service, "status.loadBalancer.ingress") {
        if !object::str_at(ingress, "ip").is_empty() {
            object::set_default(ingress, "ipMode", "VIP");
        }
    }
}

fn default_affinity(service: &mut Value) {
    object::set_default(service, "spec.sessionAffinity", "None");
    match object::str_at(service, "spec.sessionAffinity") {
        "None" => object::remove(service, "spec.sessionAffinityConfig"),
        "ClientIP" => {
            object::set_default(
                service,
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                AFFINITY_SECONDS,
            );
        }
        _ => {}
    }
}

fn default_ports(service: &mut Value) {
    for port in object::array_mut(service, "spec.ports") {
        object::set_default(port, "protocol", "TCP");
        if object::is_empty_at(port, "targetPort") {
            let number = object::int_at(port, "port");
            object::set(port, "targetPort", json!(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_service_gets_upstreams_defaults() {
        let mut service =
            json!({"spec": {"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}});
        default(&mut service);
        assert_eq!(
            service["spec"],
            json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster", "ports": [
                {"port": 80, "protocol": "TCP", "targetPort": 80},
                {"port": 53, "protocol": "UDP", "targetPort": "dns"}]})
        );
        let once = service.clone();
        default(&mut service);
        assert_eq!(service, once);
    }

    #[test]
    fn types_differ_in_their_defaults() {
        let of = |spec: Value| {
            let mut service = json!({ "spec": spec });
            default(&mut service);
            service["spec"].clone()
        };
        let balancer = of(json!({"type": "LoadBalancer", "sessionAffinity": "ClientIP"}));
        assert_eq!(balancer["externalTrafficPolicy"], "Cluster");
        assert_eq!(balancer["allocateLoadBalancerNodePorts"], true);
        assert_eq!(balancer["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10800);
        let external = of(json!({"type": "ExternalName", "externalName": "example.com"}));
        assert_eq!(
            external,
            json!({"type": "ExternalName", "externalName": "example.com", "sessionAffinity": "None"})
        );
        assert_eq!(
            of(json!({"externalIPs": ["192.0.2.1"]}))["externalTrafficPolicy"],
            "Cluster"
        );
    }
}
