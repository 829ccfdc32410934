//! Validation of a Service, addresses excepted (see [`super::addresses`]).
//!
//! Fields are taken in the order upstream takes them, so that messages with several errors read the same.

use serde_json::{Value, json};

use super::{addresses, externally_accessible, is_headless, needs_cluster_ip, needs_health_check, service_type};
use crate::resources::address::{validate_cidr, validate_ip, validate_non_special_ip};
use crate::resources::field_error::FieldError;
use crate::resources::metadata::{invalid, validate_labels};
use crate::resources::{names, object};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];
const AFFINITIES: [&str; 2] = ["ClientIP", "None"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameNode", "PreferSameZone"];
const MAX_AFFINITY_SECONDS: i64 = 86_400;
const KUBELET_PORT: i64 = 10_250;

/// Validates a Service that is to be stored.
pub(super) fn validate(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if object::is_empty_at(service, "spec.ports") && !is_headless(service) && service_type(service) != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    errors.extend(per_type(service));
    errors.extend(ports(service));
    errors.extend(validate_labels(object::at(service, "spec.selector"), "spec.selector"));
    errors.extend(affinity(service));
    errors.extend(addresses::validate(service));
    errors.extend(external_ips(service));
    errors.extend(one_of(service, "spec.type", &TYPES));
    errors.extend(no_node_ports_on_cluster_ip(service));
    errors.extend(duplicate_ports(service));
    errors.extend(source_ranges(service));
    errors.extend(load_balancer_fields(service));
    errors.extend(external_traffic(service));
    errors.extend(internal_traffic(service));
    errors.extend(one_of(service, "spec.trafficDistribution", &DISTRIBUTIONS));
    errors
}

/// A load balancer's class never changes.
pub(super) fn load_balancer_class_change(new: &Value, old: &Value) -> Option<FieldError> {
    let both = service_type(new) == "LoadBalancer" && service_type(old) == "LoadBalancer";
    let path = "spec.loadBalancerClass";
    let value = object::at(new, path);
    (both && value != object::at(old, path))
        .then(|| FieldError::invalid(path, value.cloned().unwrap_or_default(), "may not change once set"))
}

/// Validates the addresses a load balancer reports.
pub(super) fn load_balancer_status(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, ingress) in object::array_at(service, "status.loadBalancer.ingress")
        .iter()
        .enumerate()
    {
        let field = |name: &str| format!("status.loadBalancer.ingress[{index}].{name}");
        let address = object::str_at(ingress, "ip");
        if !address.is_empty() {
            errors.extend(validate_ip(address, &field("ip")));
            errors.extend(ip_mode(ingress, &field("ipMode")));
        }
        let hostname = object::str_at(ingress, "hostname");
        if !hostname.is_empty() {
            errors.extend(invalid(
                &field("hostname"),
                hostname,
                names::dns_subdomain(hostname, false),
            ));
            if hostname.parse::<std::net::IpAddr>().is_ok() {
                let detail = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(field("hostname"), hostname, detail));
            }
        }
    }
    errors
}

fn ip_mode(ingress: &Value, field: &str) -> Option<FieldError> {
    let mode = object::str_at(ingress, "ipMode");
    (!mode.is_empty() && !["Proxy", "VIP"].contains(&mode))
        .then(|| FieldError::not_supported(field, mode, &["Proxy", "VIP"]))
}

fn per_type(service: &Value) -> Vec<FieldError> {
    let kind = service_type(service);
    let mut errors = Vec::new();
    if kind == "LoadBalancer" {
        for (index, port) in object::array_at(service, "spec.ports").iter().enumerate() {
            if object::int_at(port, "port") == KUBELET_PORT {
                let detail = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
                errors.push(FieldError::invalid(
                    format!("spec.ports[{index}]"),
                    KUBELET_PORT,
                    detail,
                ));
            }
        }
    }
    if matches!(kind, "LoadBalancer" | "NodePort") && is_headless(service) {
        let detail = format!("may not be set to 'None' for {kind} services");
        errors.push(FieldError::invalid("spec.clusterIPs[0]", "None", detail));
    }
    if kind == "ExternalName" {
        errors.extend(external_name(service));
    }
    errors
}

fn external_name(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["spec.clusterIPs", "spec.ipFamilies", "spec.ipFamilyPolicy"] {
        if !object::is_empty_at(service, field) {
            errors.push(FieldError::forbidden(field, "may not be set for ExternalName services"));
        }
    }
    let name = object::str_at(service, "spec.externalName");
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        errors.push(FieldError::required("spec.externalName", ""));
    } else {
        errors.extend(invalid("spec.externalName", name, names::dns_subdomain(name, false)));
    }
    errors
}

fn ports(service: &Value) -> Vec<FieldError> {
    let ports = object::array_at(service, "spec.ports");
    let mut seen: Vec<&str> = Vec::new();
    let mut errors = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{index}].{name}");
        let name = object::str_at(port, "name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(field("name"), ""));
        } else if !name.is_empty() {
            errors.extend(invalid(&field("name"), name, names::dns_label(name, false)));
            if seen.contains(&name) {
                errors.push(FieldError::duplicate(field("name"), name));
            }
            seen.push(name);
        }
        errors.extend(number(&field("port"), object::int_at(port, "port")));
        errors.extend(protocol(&field("protocol"), object::str_at(port, "protocol")));
        errors.extend(target_port(&field("targetPort"), object::at(port, "targetPort")));
        let application = object::str_at(port, "appProtocol");
        if !application.is_empty() {
            errors.extend(invalid(
                &field("appProtocol"),
                application,
                names::qualified_name(application),
            ));
        }
    }
    errors
}

fn number(field: &str, port: i64) -> Vec<FieldError> {
    names::port_number(port)
        .into_iter()
        .map(|detail| FieldError::invalid(field, port, detail))
        .collect()
}

fn protocol(field: &str, protocol: &str) -> Option<FieldError> {
    if protocol.is_empty() {
        return Some(FieldError::required(field, ""));
    }
    (!PROTOCOLS.contains(&protocol)).then(|| FieldError::not_supported(field, protocol, &PROTOCOLS))
}

fn target_port(field: &str, target: Option<&Value>) -> Vec<FieldError> {
    match target {
        Some(Value::String(name)) => invalid(field, name, names::port_name(name)).collect(),
        Some(target) => number(field, target.as_i64().unwrap_or_default()),
        None => Vec::new(),
    }
}

fn affinity(service: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = one_of(service, "spec.sessionAffinity", &AFFINITIES)
        .into_iter()
        .collect();
    if object::str_at(service, "spec.sessionAffinity") == "ClientIP" {
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        let seconds = object::int_at(service, field);
        if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) {
            let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
            errors.push(FieldError::invalid(field, seconds, detail));
        }
    }
    errors
}

fn external_ips(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, address) in object::strings_at(service, "spec.externalIPs").into_iter().enumerate() {
        let field = format!("spec.externalIPs[{index}]");
        match validate_ip(address, &field) {
            Some(error) => errors.push(error),
            None => errors.extend(validate_non_special_ip(address, &field)),
        }
    }
    errors
}

fn no_node_ports_on_cluster_ip(service: &Value) -> Vec<FieldError> {
    if service_type(service) != "ClusterIP" {
        return Vec::new();
    }
    let ports = object::array_at(service, "spec.ports").iter().enumerate();
    ports
        .filter(|(_, port)| object::int_at(port, "nodePort") != 0)
        .map(|(index, _)| {
            let field = format!("spec.ports[{index}].nodePort");
            FieldError::forbidden(field, "may not be used when `type` is 'ClusterIP'")
        })
        .collect()
}

/// A port number, and a node port, may be there once for each protocol.
fn duplicate_ports(service: &Value) -> Vec<FieldError> {
    let ports = object::array_at(service, "spec.ports");
    let mut of_nodes = Vec::new();
    let mut of_service = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let key = |port: &Value, field: &str| (object::text_at(port, "protocol"), object::int_at(port, field));
        let twice = |field: &str| {
            ports[..index]
                .iter()
                .any(|before| key(before, field) == key(port, field))
        };
        let node_port = object::int_at(port, "nodePort");
        if node_port != 0 && twice("nodePort") {
            of_nodes.push(FieldError::duplicate(
                format!("spec.ports[{index}].nodePort"),
                node_port,
            ));
        }
        if twice("port") {
            let (protocol, number) = key(port, "port");
            let value = json!({"protocol": protocol, "port": number, "targetPort": 0});
            of_service.push(FieldError::duplicate(format!("spec.ports[{index}]"), value));
        }
    }
    of_nodes.append(&mut of_service);
    of_nodes
}

fn source_ranges(service: &Value) -> Vec<FieldError> {
    let ranges = object::strings_at(service, "spec.loadBalancerSourceRanges");
    let field = "spec.LoadBalancerSourceRanges";
    let mut errors = Vec::new();
    if !ranges.is_empty() && service_type(service) != "LoadBalancer" {
        errors.push(FieldError::forbidden(
            field,
            "may only be used when `type` is 'LoadBalancer'",
        ));
    }
    for (index, range) in ranges.into_iter().enumerate() {
        errors.extend(validate_cidr(range.trim(), &format!("{field}[{index}]")));
    }
    errors
}

fn load_balancer_fields(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let class = object::str_at(service, "spec.loadBalancerClass");
    if service_type(service) == "LoadBalancer" {
        if !class.is_empty() {
            errors.extend(invalid("spec.loadBalancerClass", class, names::qualified_name(class)));
        }
        return errors;
    }
    for field in ["spec.allocateLoadBalancerNodePorts", "spec.loadBalancerClass"] {
        if object::at(service, field).is_some() {
            errors.push(FieldError::forbidden(
                field,
                "may only be used when `type` is 'LoadBalancer'",
            ));
        }
    }
    errors
}

fn external_traffic(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let field = "spec.externalTrafficPolicy";
    let policy = object::str_at(service, field);
    if externally_accessible(service) {
        errors.extend(one_of(service, field, &POLICIES));
    } else if !policy.is_empty() {
        errors.push(FieldError::invalid(
            field,
            policy,
            "may only be set for externally-accessible services",
        ));
    }
    let health_check = object::int_at(service, "spec.healthCheckNodePort");
    if needs_health_check(service) && health_check != 0 {
        errors.extend(number("spec.healthCheckNodePort", health_check));
    } else if health_check != 0 {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid("spec.healthCheckNodePort", health_check, detail));
    }
    errors
}

fn internal_traffic(service: &Value) -> Option<FieldError> {
    let field = "spec.internalTrafficPolicy";
    if object::is_empty_at(service, field) && needs_cluster_ip(service) {
        return Some(FieldError::required(field, ""));
    }
    one_of(service, field, &POLICIES)
}

/// Nothing, or a value of an enumeration.
fn one_of(service: &Value, field: &str, supported: &[&str]) -> Option<FieldError> {
    let value = object::str_at(service, field);
    (!value.is_empty() && !supported.contains(&value)).then(|| FieldError::not_supported(field, value, supported))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::service::default;

    fn errors(spec: Value) -> Vec<String> {
        let mut service = json!({ "spec": spec });
        default::default(&mut service);
        validate(&service).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_service_of_each_type_has_no_errors() {
        let ports =
            json!([{"name": "a", "port": 80}, {"name": "b", "port": 80, "protocol": "UDP", "targetPort": "dns"}]);
        for kind in ["ClusterIP", "NodePort", "LoadBalancer"] {
            assert!(
                errors(json!({"type": kind, "ports": ports, "selector": {"app": "x"}})).is_empty(),
                "{kind}"
            );
        }
        assert!(errors(json!({"type": "ExternalName", "externalName": "example.com."})).is_empty());
        assert!(errors(json!({"clusterIP": "None", "clusterIPs": ["None"]})).is_empty());
    }

    #[test]
    fn ports_are_told_what_is_wrong_with_them() {
        let cases = [
            (json!([]), "spec.ports: Required value"),
            (
                json!([{"port": 0, "targetPort": 80}]),
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                json!([{"port": 80, "protocol": "XYZ"}]),
                "spec.ports[0].protocol: Unsupported value: \"XYZ\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ),
            (
                json!([{"port": 80, "targetPort": 70000}]),
                "spec.ports[0].targetPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                json!([{"port": 80, "name": "a"}, {"port": 81}]),
                "spec.ports[1].name: Required value",
            ),
            (
                json!([{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]),
                "spec.ports[1].name: Duplicate value: \"a\"",
            ),
            (
                json!([{"port": 80, "nodePort": 30000}]),
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ),
        ];
        for (ports, message) in cases {
            assert_eq!(errors(json!({ "ports": ports })), [message]);
        }
        let twice = errors(json!({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}));
        assert!(
            twice[0].starts_with("spec.ports[1]: Duplicate value: {\"port\":80"),
            "{twice:?}"
        );
    }

    #[test]
    fn fields_of_other_types_are_refused() {
        let ports = json!([{"port": 80}]);
        let cases = [
            (
                json!({"type": "Cluster", "ports": ports}),
                "spec.type: Unsupported value: \"Cluster\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ),
            (json!({"type": "ExternalName"}), "spec.externalName: Required value"),
            (
                json!({"type": "NodePort", "ports": ports, "clusterIP": "None", "clusterIPs": ["None"]}),
                "spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services",
            ),
            (
                json!({"ports": ports, "loadBalancerSourceRanges": ["10.0.0.0/8"]}),
                "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ),
            (
                json!({"type": "LoadBalancer", "ports": ports, "loadBalancerSourceRanges": ["10.0.0.0"]}),
                "spec.LoadBalancerSourceRanges[0]: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
            (
                json!({"ports": ports, "externalTrafficPolicy": "Local"}),
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ),
            (
                json!({"type": "NodePort", "ports": ports, "healthCheckNodePort": 30000}),
                "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
            ),
            (
                json!({"ports": ports, "allocateLoadBalancerNodePorts": false}),
                "spec.allocateLoadBalancerNodePorts: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ),
            (
                json!({"ports": ports, "internalTrafficPolicy": "Node"}),
                "spec.internalTrafficPolicy: Unsupported value: \"Node\": supported values: \"Cluster\", \"Local\"",
            ),
            (
                json!({"ports": ports, "externalIPs": ["127.0.0.1"]}),
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
        ];
        for (spec, message) in cases {
            assert_eq!(errors(spec), [message]);
        }
    }

    #[test]
    fn affinity_lasts_between_one_second_and_a_day() {
        let of = |seconds: i64| {
            errors(json!({"ports": [{"port": 80}], "sessionAffinity": "ClientIP",
                "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}))
        };
        assert!(of(1).is_empty() && of(86_400).is_empty());
        for seconds in [0, 86_401] {
            assert_eq!(
                of(seconds),
                [format!(
                    "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: {seconds}: must be greater than 0 and less than 86400"
                )]
            );
        }
    }

    #[test]
    fn load_balancer_addresses_are_addresses() {
        let service = json!({"status": {"loadBalancer": {"ingress": [{"ip": "x"}, {"hostname": "10.0.0.1"}]}}});
        let errors: Vec<String> = load_balancer_status(&service).iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 2);
        assert!(
            errors[1].ends_with("must be a DNS name, not an IP address"),
            "{errors:?}"
        );
    }
}
