//! What an update of a Service carries over from the Service it replaces.
//!
//! Called before validation. A client that does not know the allocated values may leave them out and keeps them; one
//! that changes the type need not clear the fields that the new type has no use for.

use serde_json::{Value, json};

use super::{externally_accessible, needs_cluster_ip, needs_health_check, needs_node_ports, service_type};
use crate::resources::object;

/// Fills in allocated values from `old`, then drops those of them that the new type does not need.
pub(super) fn carry_over(new: &mut Value, old: &Value) {
    keep_cluster_ips(new, old);
    keep_node_ports(new, old);
    if needs_health_check(old) && needs_health_check(new) && object::is_empty_at(new, "spec.healthCheckNodePort") {
        copy(new, old, "spec.healthCheckNodePort");
    }
    if needs_cluster_ip(new) && object::is_empty_at(new, "spec.ipFamilyPolicy") {
        copy(new, old, "spec.ipFamilyPolicy");
    }
    sync_cluster_ips(new, Some(old));
    drop_unneeded(new, old);
}

/// Keeps `clusterIP` and `clusterIPs` the same thing when a client sets only one of them.
pub(super) fn sync_cluster_ips(new: &mut Value, old: Option<&Value>) {
    let address = object::text_at(new, "spec.clusterIP");
    let unchanged = old.is_some_and(|old| same(new, old, "spec.clusterIPs"));
    let changed = old.is_some_and(|old| object::text_at(old, "spec.clusterIP") != address);
    if address.is_empty() {
        if changed && unchanged {
            object::remove(new, "spec.clusterIPs");
        }
        object::remove(new, "spec.clusterIP");
    } else if object::is_empty_at(new, "spec.clusterIPs") || (changed && unchanged) {
        object::set(new, "spec.clusterIPs", json!([address]));
    }
}

fn keep_cluster_ips(new: &mut Value, old: &Value) {
    if !needs_cluster_ip(old) || !needs_cluster_ip(new) {
        return;
    }
    if object::is_empty_at(new, "spec.clusterIP") {
        copy(new, old, "spec.clusterIP");
    }
    if object::is_empty_at(new, "spec.clusterIPs") && same(new, old, "spec.clusterIP") {
        copy(new, old, "spec.clusterIPs");
    }
}

/// Node ports follow their port's name, unless another port has taken the number.
fn keep_node_ports(new: &mut Value, old: &Value) {
    if !needs_node_ports(old) || !needs_node_ports(new) {
        return;
    }
    let before: Vec<(String, i64)> = object::array_at(old, "spec.ports")
        .iter()
        .map(|port| (object::text_at(port, "name"), object::int_at(port, "nodePort")))
        .collect();
    let mut used: Vec<i64> = object::array_at(new, "spec.ports")
        .iter()
        .map(|port| object::int_at(port, "nodePort"))
        .collect();
    for port in object::array_mut(new, "spec.ports") {
        let name = object::str_at(port, "name");
        let known = before
            .iter()
            .find(|(known, _)| known == name)
            .map_or(0, |(_, number)| *number);
        if object::int_at(port, "nodePort") == 0 && known != 0 && !used.contains(&known) {
            object::set(port, "nodePort", known);
            used.push(known);
        }
    }
}

/// A field of the old type that the client sent back unchanged goes away with the type.
fn drop_unneeded(new: &mut Value, old: &Value) {
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        for field in [
            "spec.clusterIP",
            "spec.clusterIPs",
            "spec.ipFamilies",
            "spec.ipFamilyPolicy",
        ] {
            drop_if_same(new, old, field);
        }
    }
    if needs_node_ports(old) && !needs_node_ports(new) && node_ports(new) == node_ports(old) {
        object::array_mut(new, "spec.ports")
            .iter_mut()
            .for_each(|port| object::remove(port, "nodePort"));
    }
    if needs_health_check(old) && !needs_health_check(new) {
        drop_if_same(new, old, "spec.healthCheckNodePort");
    }
    if service_type(old) == "LoadBalancer" && service_type(new) != "LoadBalancer" {
        object::remove(new, "spec.allocateLoadBalancerNodePorts");
        drop_if_same(new, old, "spec.loadBalancerClass");
    }
    if externally_accessible(old) && !externally_accessible(new) {
        drop_if_same(new, old, "spec.externalTrafficPolicy");
    }
}

fn node_ports(service: &Value) -> Vec<i64> {
    let mut ports: Vec<i64> = object::array_at(service, "spec.ports")
        .iter()
        .map(|port| object::int_at(port, "nodePort"))
        .filter(|port| *port != 0)
        .collect();
    ports.sort_unstable();
    ports
}

fn copy(new: &mut Value, old: &Value, path: &str) {
    if let Some(value) = object::at(old, path) {
        object::set(new, path, value.clone());
    }
}

fn drop_if_same(new: &mut Value, old: &Value, path: &str) {
    if same(new, old, path) {
        object::remove(new, path);
    }
}

fn same(new: &Value, old: &Value, path: &str) -> bool {
    object::at(new, path) == object::at(old, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node_port_service() -> Value {
        json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "externalTrafficPolicy": "Cluster", "internalTrafficPolicy": "Cluster",
            "ports": [{"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 81, "nodePort": 30002}]}})
    }

    #[test]
    fn values_a_replacement_leaves_out_are_kept() {
        let old = node_port_service();
        let mut new =
            json!({"spec": {"type": "NodePort", "ports": [{"name": "b", "port": 90}, {"name": "c", "port": 80}]}});
        carry_over(&mut new, &old);
        assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.9"]));
        assert_eq!(
            new["spec"]["ports"],
            json!([{"name": "b", "port": 90, "nodePort": 30002}, {"name": "c", "port": 80}])
        );
    }

    #[test]
    fn a_node_port_another_port_asks_for_is_not_kept() {
        let old = node_port_service();
        let mut new = json!({"spec": {"type": "NodePort",
            "ports": [{"name": "a", "port": 80}, {"name": "z", "port": 81, "nodePort": 30001}]}});
        carry_over(&mut new, &old);
        assert_eq!(new["spec"]["ports"][0].get("nodePort"), None);
    }

    #[test]
    fn becoming_a_cluster_ip_service_drops_node_ports_and_external_policy() {
        let old = node_port_service();
        let mut new = old.clone();
        new["spec"]["type"] = json!("ClusterIP");
        carry_over(&mut new, &old);
        assert_eq!(new["spec"]["clusterIP"], "10.96.0.9");
        assert_eq!(
            new["spec"]["ports"],
            json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}])
        );
        assert_eq!(new["spec"].get("externalTrafficPolicy"), None);
    }

    #[test]
    fn becoming_an_external_name_drops_the_addresses() {
        let old = node_port_service();
        let mut new = old.clone();
        new["spec"]["type"] = json!("ExternalName");
        new["spec"]["externalName"] = json!("example.com");
        carry_over(&mut new, &old);
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            assert_eq!(new["spec"].get(field), None, "{field}");
        }
    }

    #[test]
    fn a_node_port_the_user_changed_is_left_for_validation_to_refuse() {
        let old = node_port_service();
        let mut new = old.clone();
        new["spec"]["type"] = json!("ClusterIP");
        new["spec"]["ports"][0]["nodePort"] = json!(30009);
        carry_over(&mut new, &old);
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30009);
    }
}
