//! Endpoints: the predecessor of EndpointSlice, still read and written by older clients.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::address::{validate_ip, validate_non_special_ip};
use super::field_error::FieldError;
use super::metadata::invalid;
use super::strategy::Strategy;
use super::table::{AGE, NAME, text};
use super::{Column, duration, names, object};

/// What `kubectl get endpoints` shows.
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    text("Endpoints", "The addresses and ports of the endpoints."),
    AGE,
];

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// Defaulting, validation and printing of Endpoints.
pub(super) struct EndpointsStrategy;

impl Strategy for EndpointsStrategy {
    fn default(&self, object: &mut Value) {
        for subset in object::array_mut(object, "subsets") {
            for port in object::array_mut(subset, "ports") {
                object::set_default(port, "protocol", "TCP");
            }
        }
    }

    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        let subsets = object::array_at(new, "subsets").iter().enumerate();
        subsets
            .flat_map(|(index, subset)| validate_subset(subset, &format!("subsets[{index}]")))
            .collect()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object::str_at(object, "metadata.name");
        vec![
            json!(name),
            json!(endpoints_text(object)),
            json!(duration::age(object, now)),
        ]
    }
}

fn validate_subset(subset: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let lists = ["addresses", "notReadyAddresses"];
    if lists.iter().all(|list| object::is_empty_at(subset, list)) {
        errors.push(FieldError::required(
            field,
            "must specify `addresses` or `notReadyAddresses`",
        ));
    }
    for list in lists {
        for (index, address) in object::array_at(subset, list).iter().enumerate() {
            let (text, field) = (object::str_at(address, "ip"), format!("{field}.{list}[{index}].ip"));
            match validate_ip(text, &field) {
                Some(error) => errors.push(error),
                None => errors.extend(validate_non_special_ip(text, &field)),
            }
        }
    }
    let ports = object::array_at(subset, "ports");
    for (index, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("{field}.ports[{index}].{name}");
        let name = object::str_at(port, "name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(field("name"), ""));
        } else if !name.is_empty() {
            errors.extend(invalid(&field("name"), name, names::dns_label(name, false)));
        }
        let number = object::int_at(port, "port");
        errors.extend(
            names::port_number(number)
                .into_iter()
                .map(|why| FieldError::invalid(field("port"), number, why)),
        );
        let protocol = object::str_at(port, "protocol");
        if !PROTOCOLS.contains(&protocol) {
            errors.push(FieldError::not_supported(field("protocol"), protocol, &PROTOCOLS));
        }
    }
    errors
}

/// Three `address:port` pairs and how many more there are, or `<none>`.
fn endpoints_text(endpoints: &Value) -> String {
    let mut pairs = Vec::new();
    for subset in object::array_at(endpoints, "subsets") {
        let ports = object::array_at(subset, "ports");
        for port in ports {
            for address in object::array_at(subset, "addresses") {
                pairs.push(host_port(object::str_at(address, "ip"), object::int_at(port, "port")));
            }
        }
        if ports.is_empty() {
            pairs.extend(
                object::array_at(subset, "addresses")
                    .iter()
                    .map(|address| object::text_at(address, "ip")),
            );
        }
    }
    let shown = pairs.iter().take(3).cloned().collect::<Vec<_>>().join(",");
    match pairs.len() {
        0 => "<none>".to_owned(),
        1..=3 => shown,
        count => format!("{shown} + {} more...", count - 3),
    }
}

fn host_port(address: &str, port: i64) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{address}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_show_address_and_port() {
        let object =
            json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "ports": [{"port": 80}]}]});
        assert_eq!(endpoints_text(&object), "10.0.0.1:80,[fd00::1]:80");
        assert_eq!(endpoints_text(&json!({})), "<none>");
    }

    #[test]
    fn a_subset_needs_addresses_and_named_ports() {
        let mut object = json!({"subsets": [{"ports": [{"port": 80}, {"port": 0, "name": "a"}]}]});
        EndpointsStrategy.default(&mut object);
        let errors: Vec<String> = EndpointsStrategy
            .validate(&object, None)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            errors,
            [
                "subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`",
                "subsets[0].ports[0].name: Required value",
                "subsets[0].ports[1].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ]
        );
    }
}
