//! Validation of a Service's cluster addresses and IP families, and of changes to them.
//!
//! The rules are those of dual-stack Services (KEP-563): the first address and family never change while the Service
//! has one; the second comes and goes with `ipFamilyPolicy`.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{is_headless, service_type};
use crate::resources::field_error::FieldError;
use crate::resources::object;

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];

/// Validates `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` against each other.
pub(super) fn validate(service: &Value) -> Vec<FieldError> {
    if service_type(service) == "ExternalName" {
        return Vec::new();
    }
    let mut errors: Vec<FieldError> = agreement(service).into_iter().collect();
    errors.extend(families(service));
    let malformed = malformed_addresses(service);
    let stop = !malformed.is_empty();
    errors.extend(malformed);
    if object::strings_at(service, "spec.clusterIPs").len() > 2 {
        errors.push(invalid_addresses(service, "may only hold up to 2 values"));
    }
    if !stop {
        errors.extend(stacks(service));
    }
    errors
}

/// Validates what an update does to the addresses and families.
pub(super) fn validate_change(new: &Value, old: &Value) -> Vec<FieldError> {
    if service_type(new) == "ExternalName" || service_type(old) == "ExternalName" {
        return Vec::new();
    }
    let mut errors = Vec::new();
    if !(is_headless(old) && is_headless(new)) {
        errors.extend(address_changes(new, old));
    }
    if !is_headless(old) && !is_headless(new) {
        errors.extend(family_changes(new, old));
    }
    errors
}

fn agreement(service: &Value) -> Option<FieldError> {
    let first = object::str_at(service, "spec.clusterIP");
    let all = object::strings_at(service, "spec.clusterIPs");
    match (first.is_empty(), all.first()) {
        (false, None) => Some(FieldError::required("spec.clusterIPs", "")),
        (false, Some(address)) if *address != first => {
            Some(invalid_addresses(service, "first value must match `clusterIP`"))
        }
        (true, Some(_)) => Some(invalid_addresses(
            service,
            "must be empty when `clusterIP` is not specified",
        )),
        _ => None,
    }
}

fn families(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let families = object::strings_at(service, "spec.ipFamilies");
    for (index, family) in families.iter().enumerate() {
        let field = format!("spec.ipFamilies[{index}]");
        if !FAMILIES.contains(family) {
            errors.push(FieldError::not_supported(&field, *family, &FAMILIES));
        }
        if families[..index].contains(family) {
            errors.push(FieldError::duplicate(&field, *family));
        }
    }
    let policy = object::str_at(service, "spec.ipFamilyPolicy");
    if !policy.is_empty() && !POLICIES.contains(&policy) {
        errors.push(FieldError::not_supported("spec.ipFamilyPolicy", policy, &POLICIES));
    }
    errors
}

fn malformed_addresses(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let addresses = object::strings_at(service, "spec.clusterIPs");
    for (index, address) in addresses.iter().enumerate() {
        if index == 0 && *address == "None" {
            if addresses.len() > 1 {
                errors.push(invalid_addresses(service, "'None' must be the first and only value"));
            }
        } else if address.parse::<IpAddr>().is_err() {
            let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.push(FieldError::invalid(
                format!("spec.clusterIPs[{index}]"),
                *address,
                detail,
            ));
        }
    }
    errors
}

fn stacks(service: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let addresses: Vec<IpAddr> = object::strings_at(service, "spec.clusterIPs")
        .iter()
        .filter_map(|address| address.parse().ok())
        .collect();
    if let [first, second] = addresses.as_slice()
        && first.is_ipv6() == second.is_ipv6()
    {
        errors.push(invalid_addresses(
            service,
            "may specify no more than one IP for each IP family",
        ));
    }
    let families = object::strings_at(service, "spec.ipFamilies");
    for (index, (address, family)) in addresses.iter().zip(families).enumerate() {
        let expected = if address.is_ipv6() { "IPv6" } else { "IPv4" };
        if FAMILIES.contains(&family) && family != expected {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{index}]`");
            errors.push(FieldError::invalid(
                format!("spec.clusterIPs[{index}]"),
                address.to_string(),
                detail,
            ));
        }
    }
    errors
}

fn address_changes(new: &Value, old: &Value) -> Vec<FieldError> {
    let before = object::strings_at(old, "spec.clusterIPs");
    let after = object::strings_at(new, "spec.clusterIPs");
    let mut errors = Vec::new();
    if after.is_empty() && !before.is_empty() {
        errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            json!(after),
            "primary clusterIP can not be unset",
        ));
        return errors;
    }
    let compared = if before.len() == after.len() { before.len() } else { 1 };
    for (index, (before, now)) in before.iter().zip(&after).take(compared).enumerate() {
        if before != now {
            let field = format!("spec.clusterIPs[{index}]");
            errors.push(FieldError::invalid(field, json!(after), "may not change once set"));
        }
    }
    if after.len() == 1 && before.len() > 1 {
        errors.extend(must_be_single_stack(new, "secondary clusterIP"));
    }
    errors
}

fn family_changes(new: &Value, old: &Value) -> Vec<FieldError> {
    let before = object::strings_at(old, "spec.ipFamilies");
    let after = object::strings_at(new, "spec.ipFamilies");
    let mut errors = Vec::new();
    if before.len() == after.len() {
        errors.extend(
            before
                .iter()
                .zip(&after)
                .filter(|(before, now)| before != now)
                .map(|_| may_not_change(&after)),
        );
    } else if let (Some(before), Some(now)) = (before.first(), after.first())
        && before != now
    {
        errors.push(may_not_change(&after));
    }
    if after.len() == 1 && before.len() > 1 {
        errors.extend(must_be_single_stack(new, "secondary ipFamily"));
    }
    errors
}

fn may_not_change(families: &[&str]) -> FieldError {
    FieldError::invalid("spec.ipFamilies[0]", json!(families), "may not change once set")
}

fn must_be_single_stack(service: &Value, what: &str) -> Option<FieldError> {
    let policy = object::str_at(service, "spec.ipFamilyPolicy");
    let detail = format!("must be set to 'SingleStack' when releasing the {what}");
    (policy != "SingleStack").then(|| FieldError::invalid("spec.ipFamilyPolicy", policy, detail))
}

fn invalid_addresses(service: &Value, detail: &str) -> FieldError {
    FieldError::invalid(
        "spec.clusterIPs",
        json!(object::strings_at(service, "spec.clusterIPs")),
        detail,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Value {
        let mut service = json!({ "spec": spec });
        object::set_default(&mut service, "spec.type", "ClusterIP");
        service
    }

    fn texts(errors: Vec<FieldError>) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_and_families_must_agree() {
        let cases = [
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}),
                "spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`",
            ),
            (
                json!({"clusterIP": "x", "clusterIPs": ["x"]}),
                "spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
                "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family",
            ),
            (
                json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv6"]}),
                "spec.clusterIPs[0]: Invalid value: \"10.0.0.1\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            ),
            (
                json!({"ipFamilies": ["IPv5"]}),
                "spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"",
            ),
            (
                json!({"clusterIP": "None", "clusterIPs": ["None", "10.0.0.1"]}),
                "spec.clusterIPs: Invalid value: [\"None\",\"10.0.0.1\"]: 'None' must be the first and only value",
            ),
        ];
        for (spec, message) in cases {
            assert_eq!(texts(validate(&service(spec))), [message]);
        }
    }

    #[test]
    fn the_first_address_never_changes() {
        let old = service(json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"]}));
        let new = service(json!({"clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"]}));
        assert_eq!(
            texts(validate_change(&new, &old)),
            ["spec.clusterIPs[0]: Invalid value: [\"10.0.0.2\"]: may not change once set"]
        );
        assert!(validate_change(&new, &service(json!({"type": "ExternalName"}))).is_empty());
    }

    #[test]
    fn the_second_address_goes_only_with_single_stack() {
        let old = service(json!({"clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]}));
        let new = |policy: &str| {
            service(json!({"clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": policy}))
        };
        assert!(validate_change(&new("SingleStack"), &old).is_empty());
        assert_eq!(validate_change(&new("PreferDualStack"), &old).len(), 2);
    }
}
