//! EndpointSlice: addresses behind a Service, up to 1000 to an object.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::address::validate_non_special_ip;
use super::field_error::FieldError;
use super::metadata::{immutable, invalid};
use super::strategy::Strategy;
use super::table::{AGE, NAME, text};
use super::{Column, duration, names, object};

/// What `kubectl get endpointslices` shows.
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    text("AddressType", "The type of the addresses: IPv4, IPv6 or FQDN."),
    text("Ports", "The ports that each endpoint answers on."),
    text("Endpoints", "The addresses of the endpoints."),
    AGE,
];

const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_ZONE_HINTS: usize = 8;

/// Defaulting, validation and printing of EndpointSlices.
pub(super) struct EndpointSliceStrategy;

impl Strategy for EndpointSliceStrategy {
    fn default(&self, object: &mut Value) {
        for port in object::array_mut(object, "ports") {
            if port.get("name").is_none_or(Value::is_null) {
                object::set(port, "name", "");
            }
            object::set_default(port, "protocol", "TCP");
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object::set(object, "metadata.generation", 1);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let generation = object::int_at(old, "metadata.generation");
        let changed = ["addressType", "endpoints", "ports", "metadata.labels"]
            .iter()
            .any(|field| object::at(new, field) != object::at(old, field));
        object::set(new, "metadata.generation", generation + i64::from(changed));
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = address_type(new);
        errors.extend(endpoints(new));
        errors.extend(ports(new));
        errors.extend(old.and_then(|old| immutable(new, old, "addressType")));
        errors
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            json!(object::str_at(object, "metadata.name")),
            json!(object::str_at(object, "addressType")),
            json!(first_three(
                object::array_at(object, "ports").iter().map(port_text).collect()
            )),
            json!(first_three(all_addresses(object))),
            json!(duration::age(object, now)),
        ]
    }
}

fn address_type(slice: &Value) -> Vec<FieldError> {
    let kind = object::str_at(slice, "addressType");
    if kind.is_empty() {
        vec![FieldError::required("addressType", "")]
    } else if ADDRESS_TYPES.contains(&kind) {
        Vec::new()
    } else {
        vec![FieldError::not_supported("addressType", kind, &ADDRESS_TYPES)]
    }
}

fn endpoints(slice: &Value) -> Vec<FieldError> {
    let endpoints = object::array_at(slice, "endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        return vec![FieldError::too_many("endpoints", endpoints.len(), MAX_ENDPOINTS)];
    }
    let kind = object::str_at(slice, "addressType");
    endpoints
        .iter()
        .enumerate()
        .flat_map(|(index, endpoint)| validate_endpoint(endpoint, kind, &format!("endpoints[{index}]")))
        .collect()
}

fn validate_endpoint(endpoint: &Value, kind: &str, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let addresses = object::strings_at(endpoint, "addresses");
    let of_addresses = format!("{field}.addresses");
    if addresses.is_empty() {
        errors.push(FieldError::required(&of_addresses, "must contain at least 1 address"));
    } else if addresses.len() > MAX_ADDRESSES {
        errors.push(FieldError::too_many(&of_addresses, addresses.len(), MAX_ADDRESSES));
    }
    for (index, address) in addresses.into_iter().enumerate() {
        errors.extend(validate_address(address, kind, &format!("{of_addresses}[{index}]")));
    }
    let node = object::str_at(endpoint, "nodeName");
    if !node.is_empty() {
        errors.extend(invalid(
            &format!("{field}.nodeName"),
            node,
            names::dns_subdomain(node, false),
        ));
    }
    let hostname = object::str_at(endpoint, "hostname");
    if !hostname.is_empty() {
        errors.extend(invalid(
            &format!("{field}.hostname"),
            hostname,
            names::dns_label(hostname, false),
        ));
    }
    errors.extend(validate_hints(endpoint, &format!("{field}.hints")));
    errors
}

fn validate_address(address: &str, kind: &str, field: &str) -> Vec<FieldError> {
    let is_family = |ipv6| address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() == ipv6);
    match kind {
        "IPv4" if !is_family(false) => vec![FieldError::invalid(field, address, "must be a valid IPv4 address")],
        "IPv6" if !is_family(true) => vec![FieldError::invalid(field, address, "must be a valid IPv6 address")],
        "IPv4" | "IPv6" => validate_non_special_ip(address, field),
        "FQDN" => {
            let name = address.strip_suffix('.').unwrap_or(address);
            let mut errors: Vec<FieldError> = invalid(field, address, names::dns_subdomain(name, false)).collect();
            if errors.is_empty() && !name.contains('.') {
                let detail = "should be a domain with at least two segments separated by dots";
                errors.push(FieldError::invalid(field, address, detail));
            }
            errors
        }
        _ => Vec::new(),
    }
}

fn validate_hints(endpoint: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["forZones", "forNodes"] {
        let hints = object::array_at(endpoint, &format!("hints.{list}"));
        if hints.len() > MAX_ZONE_HINTS {
            errors.push(FieldError::too_many(
                format!("{field}.{list}"),
                hints.len(),
                MAX_ZONE_HINTS,
            ));
            continue;
        }
        for (index, hint) in hints.iter().enumerate() {
            let (name, field) = (object::str_at(hint, "name"), format!("{field}.{list}[{index}].name"));
            if hints[..index]
                .iter()
                .any(|before| object::str_at(before, "name") == name)
            {
                errors.push(FieldError::duplicate(&field, name));
            }
            errors.extend(invalid(&field, name, names::qualified_name(name)));
        }
    }
    errors
}

fn ports(slice: &Value) -> Vec<FieldError> {
    let ports = object::array_at(slice, "ports");
    if ports.len() > MAX_PORTS {
        return vec![FieldError::too_many("ports", ports.len(), MAX_PORTS)];
    }
    let mut errors = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("ports[{index}].{name}");
        let name = object::str_at(port, "name");
        if !name.is_empty() {
            errors.extend(invalid(&field("name"), name, names::dns_label(name, false)));
        }
        if ports[..index]
            .iter()
            .any(|before| object::str_at(before, "name") == name)
        {
            errors.push(FieldError::duplicate(field("name"), name));
        }
        let protocol = object::str_at(port, "protocol");
        if !PROTOCOLS.contains(&protocol) {
            errors.push(FieldError::not_supported(field("protocol"), protocol, &PROTOCOLS));
        }
        if let Some(number) = object::at(port, "port").and_then(Value::as_i64) {
            errors.extend(
                names::port_number(number)
                    .into_iter()
                    .map(|why| FieldError::invalid(field("port"), number, why)),
            );
        }
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

fn port_text(port: &Value) -> String {
    match object::at(port, "port") {
        Some(number) => number.to_string(),
        None => match port.get("name") {
            Some(Value::String(name)) => name.clone(),
            _ => "*".to_owned(),
        },
    }
}

fn all_addresses(slice: &Value) -> Vec<String> {
    object::array_at(slice, "endpoints")
        .iter()
        .flat_map(|endpoint| object::strings_at(endpoint, "addresses"))
        .map(ToOwned::to_owned)
        .collect()
}

/// Three items and how many more there are, or `<unset>`.
fn first_three(items: Vec<String>) -> String {
    let count = items.len();
    let shown = items.into_iter().take(3).collect::<Vec<_>>().join(",");
    match count {
        4.. => format!("{shown} + {} more...", count - 3),
        _ if shown.is_empty() => "<unset>".to_owned(),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(mut slice: Value) -> Vec<String> {
        EndpointSliceStrategy.default(&mut slice);
        EndpointSliceStrategy
            .validate(&slice, None)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn ipv4(endpoints: &Value) -> Vec<String> {
        errors(json!({"addressType": "IPv4", "endpoints": endpoints}))
    }

    #[test]
    fn ports_are_defaulted_and_a_good_slice_has_no_errors() {
        let mut slice = json!({"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::1"], "nodeName": "n1",
            "hostname": "a", "hints": {"forZones": [{"name": "z"}]}}], "ports": [{"port": 80}]});
        EndpointSliceStrategy.default(&mut slice);
        assert_eq!(slice["ports"], json!([{"port": 80, "name": "", "protocol": "TCP"}]));
        assert!(errors(slice).is_empty());
    }

    #[test]
    fn addresses_must_be_of_the_slices_type() {
        assert_eq!(errors(json!({})), ["addressType: Required value"]);
        assert_eq!(
            ipv4(&json!([{"addresses": []}])),
            ["endpoints[0].addresses: Required value: must contain at least 1 address"]
        );
        assert_eq!(
            ipv4(&json!([{"addresses": ["fd00::1"]}])),
            ["endpoints[0].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address"]
        );
        assert_eq!(
            ipv4(&json!([{"addresses": ["127.0.0.1"]}])),
            [
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"
            ]
        );
        assert_eq!(
            errors(json!({"addressType": "FQDN", "endpoints": [{"addresses": ["host"]}]})).len(),
            1
        );
    }

    #[test]
    fn a_slice_has_at_most_a_thousand_endpoints() {
        let endpoints = vec![json!({"addresses": ["10.0.0.1"]}); 1001];
        assert_eq!(
            ipv4(&json!(endpoints)),
            ["endpoints: Too many: 1001: must have at most 1000 items"]
        );
    }

    #[test]
    fn port_names_are_unique_and_the_type_never_changes() {
        let twice = json!({"addressType": "IPv4", "ports": [{"port": 80}, {"port": 81}]});
        assert_eq!(errors(twice), ["ports[1].name: Duplicate value: \"\""]);
        let (new, old) = (json!({"addressType": "IPv6"}), json!({"addressType": "IPv4"}));
        let errors = EndpointSliceStrategy.validate(&new, Some(&old));
        assert_eq!(
            errors[0].to_string(),
            "addressType: Invalid value: \"IPv6\": field is immutable"
        );
    }

    #[test]
    fn the_generation_counts_changes_of_content() {
        let mut old = json!({"metadata": {}, "addressType": "IPv4", "ports": []});
        EndpointSliceStrategy.prepare_create(&mut old);
        let mut same = old.clone();
        EndpointSliceStrategy.prepare_update(&mut same, &old);
        assert_eq!(same["metadata"]["generation"], 1);
        let mut changed = json!({"metadata": {}, "addressType": "IPv4", "ports": [{"port": 1}]});
        EndpointSliceStrategy.prepare_update(&mut changed, &old);
        assert_eq!(changed["metadata"]["generation"], 2);
    }

    #[test]
    fn rows_show_three_addresses_and_count_the_rest() {
        let slice = json!({"metadata": {"name": "web-1"}, "addressType": "IPv4", "ports": [{"port": 80}, {"name": "any"}],
            "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"]}, {"addresses": ["10.0.0.4"]}]});
        let cells = EndpointSliceStrategy.row(&slice, Timestamp::UNIX_EPOCH);
        assert_eq!(
            cells[1..4],
            ["IPv4", "80,any", "10.0.0.1,10.0.0.2,10.0.0.3 + 1 more..."].map(|cell| json!(cell))
        );
        assert_eq!(
            EndpointSliceStrategy.row(&json!({}), Timestamp::UNIX_EPOCH)[2..4],
            ["<unset>", "<unset>"].map(|cell| json!(cell))
        );
    }
}
