//! The status of a Pod: what it starts as, and what must agree in it.

use serde_json::{Value, json};

use super::default::CONTAINER_LISTS;
use crate::resources::address::validate_ip;
use crate::resources::field_error::FieldError;
use crate::resources::object;

/// The status of a Pod that was just created.
pub(super) fn reset(pod: &mut Value) {
    let class = quality_of_service(pod);
    object::set(pod, "status", json!({"phase": "Pending", "qosClass": class}));
}

/// `podIP` is the first of `podIPs`: a client may set either. The same for the host's.
pub(super) fn sync_addresses(pod: &mut Value) {
    for (one, all) in [("status.podIP", "status.podIPs"), ("status.hostIP", "status.hostIPs")] {
        let first = object::array_at(pod, all)
            .first()
            .map(|entry| object::text_at(entry, "ip"));
        match (object::text_at(pod, one), first) {
            (single, None) if !single.is_empty() => object::set(pod, all, json!([{"ip": single}])),
            (single, Some(first)) if single.is_empty() => object::set(pod, one, first),
            (single, Some(first)) if single != first => object::set(pod, all, json!([{"ip": single}])),
            _ => {}
        }
    }
}

/// Validates an update of the status.
pub(super) fn validate(pod: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let addresses = object::array_at(pod, "status.podIPs");
    for (index, entry) in addresses.iter().enumerate() {
        errors.extend(validate_ip(
            object::str_at(entry, "ip"),
            &format!("status.podIPs[{index}]"),
        ));
    }
    let is_ipv6 = |entry: &Value| object::str_at(entry, "ip").contains(':');
    if addresses.len() > 2 || (addresses.len() == 2 && is_ipv6(&addresses[0]) == is_ipv6(&addresses[1])) {
        let detail = "may specify no more than one IP for each IP family";
        errors.push(FieldError::invalid("status.podIPs", json!(addresses), detail));
    }
    errors
}

/// `Guaranteed` if every container's CPU and memory is limited to what it requests, `BestEffort` if nothing is
/// requested or limited, else `Burstable`.
fn quality_of_service(pod: &Value) -> &'static str {
    let containers: Vec<&Value> = CONTAINER_LISTS[..2]
        .iter()
        .flat_map(|list| object::array_at(pod, list))
        .collect();
    let amount = |container: &Value, kind: &str, resource: &str| {
        object::at(container, &format!("resources.{kind}"))
            .and_then(|amounts| amounts.get(resource))
            .cloned()
    };
    let resources = ["cpu", "memory"];
    let uses = |container: &&Value| {
        ["limits", "requests"].iter().any(|kind| {
            resources
                .iter()
                .any(|resource| amount(container, kind, resource).is_some())
        })
    };
    let guaranteed = |container: &&Value| {
        resources.iter().all(|resource| {
            let limit = amount(container, "limits", resource);
            limit.is_some() && limit == amount(container, "requests", resource)
        })
    };
    if !containers.iter().any(uses) {
        "BestEffort"
    } else if containers.iter().all(guaranteed) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(resources: &Value) -> Value {
        let mut pod = json!({"spec": {"containers": [{"resources": resources}]}, "status": {"phase": "Running"}});
        reset(&mut pod);
        assert_eq!(pod["status"]["phase"], "Pending");
        pod["status"]["qosClass"].clone()
    }

    #[test]
    fn the_class_of_service_follows_from_the_resources() {
        assert_eq!(class(&json!({})), "BestEffort");
        assert_eq!(class(&json!({"requests": {"cpu": "1"}})), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(class(&json!({"requests": both, "limits": both})), "Guaranteed");
    }

    #[test]
    fn either_form_of_the_address_gives_the_other() {
        let mut one = json!({"status": {"podIP": "10.0.0.1"}});
        sync_addresses(&mut one);
        assert_eq!(one["status"]["podIPs"], json!([{"ip": "10.0.0.1"}]));
        let mut all = json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}});
        sync_addresses(&mut all);
        assert_eq!(all["status"]["podIP"], "10.0.0.1");
        let mut changed = json!({"status": {"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.1"}]}});
        sync_addresses(&mut changed);
        assert_eq!(changed["status"]["podIPs"], json!([{"ip": "10.0.0.2"}]));
    }

    #[test]
    fn a_pod_has_one_address_of_a_family() {
        let of = |addresses: Value| validate(&json!({"status": {"podIPs": addresses}})).len();
        assert_eq!(of(json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}])), 0);
        assert_eq!(of(json!([{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}])), 1);
        assert_eq!(of(json!([{"ip": "x"}])), 1);
    }
}
