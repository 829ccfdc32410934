//! What `kubectl get services` shows.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::service_type;
use crate::resources::table::{AGE, NAME, text, wide};
use crate::resources::{Column, duration, object};

/// Columns of a Service.
pub(in crate::resources) const COLUMNS: &[Column] = &[
    NAME,
    text("Type", "How the Service is exposed."),
    text("Cluster-IP", "The Service's address inside the cluster."),
    text("External-IP", "Addresses outside the cluster that lead to the Service."),
    text("Port(s)", "Ports, node ports and protocols."),
    AGE,
    wide("Selector", "Labels of the Pods that the Service leads to."),
];

/// The cells of one Service.
pub(super) fn row(service: &Value, now: Timestamp) -> Vec<Value> {
    let address = object::strings_at(service, "spec.clusterIPs")
        .first()
        .copied()
        .unwrap_or("<none>");
    vec![
        json!(object::str_at(service, "metadata.name")),
        json!(service_type(service)),
        json!(address),
        json!(external_addresses(service)),
        json!(ports(service)),
        json!(duration::age(service, now)),
        json!(labels(service, "spec.selector")),
    ]
}

/// Labels as `key=value` pairs in order of their keys, or `<none>`.
pub(in crate::resources) fn labels(object: &Value, path: &str) -> String {
    let Some(labels) = object::map_at(object, path) else {
        return "<none>".to_owned();
    };
    let mut pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    pairs.sort_unstable();
    pairs.join(",")
}

fn external_addresses(service: &Value) -> String {
    let external = object::strings_at(service, "spec.externalIPs");
    match service_type(service) {
        "ClusterIP" | "NodePort" => joined(&external, "<none>"),
        "LoadBalancer" => {
            let mut all = load_balancer_addresses(service);
            all.extend(external);
            joined(&all, "<pending>")
        }
        "ExternalName" => object::text_at(service, "spec.externalName"),
        _ => "<unknown>".to_owned(),
    }
}

fn load_balancer_addresses(service: &Value) -> Vec<&str> {
    let ingress = object::array_at(service, "status.loadBalancer.ingress").iter();
    let mut addresses: Vec<&str> = ingress
        .map(|ingress| match object::str_at(ingress, "ip") {
            "" => object::str_at(ingress, "hostname"),
            address => address,
        })
        .filter(|address| !address.is_empty())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn ports(service: &Value) -> String {
    let pieces: Vec<String> = object::array_at(service, "spec.ports")
        .iter()
        .map(|port| {
            let (number, protocol) = (object::int_at(port, "port"), object::str_at(port, "protocol"));
            match object::int_at(port, "nodePort") {
                0 => format!("{number}/{protocol}"),
                node_port => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    if pieces.is_empty() {
        "<none>".to_owned()
    } else {
        pieces.join(",")
    }
}

fn joined(addresses: &[&str], none: &str) -> String {
    if addresses.is_empty() {
        none.to_owned()
    } else {
        addresses.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(object: &Value) -> Vec<Value> {
        row(object, "2024-01-01T00:05:00Z".parse().unwrap())
    }

    #[test]
    fn each_type_shows_its_addresses_and_ports() {
        let service = json!({"metadata": {"name": "web", "creationTimestamp": "2024-01-01T00:00:00Z"}, "spec": {
            "type": "NodePort", "clusterIPs": ["10.96.0.9"], "selector": {"b": "2", "a": "1"},
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}});
        assert_eq!(
            cells(&service),
            [
                "web",
                "NodePort",
                "10.96.0.9",
                "<none>",
                "80:30080/TCP,53/UDP",
                "5m",
                "a=1,b=2"
            ]
            .map(|cell| json!(cell))
        );
        let external = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
        assert_eq!(
            cells(&external)[2..5],
            ["<none>", "example.com", "<none>"].map(|cell| json!(cell))
        );
    }

    #[test]
    fn a_load_balancer_is_pending_until_it_has_an_address() {
        let mut service = json!({"spec": {"type": "LoadBalancer"}});
        assert_eq!(cells(&service)[3], "<pending>");
        service["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "a.example"}]}});
        assert_eq!(cells(&service)[3], "192.0.2.2,a.example");
    }
}
