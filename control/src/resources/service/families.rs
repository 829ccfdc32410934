//! The IP families of a Service: what it asks for, what its addresses imply, what the cluster offers.
//!
//! Called by [`super::allocate`] before addresses are chosen. The rules are those of dual-stack Services (KEP-563).

use std::net::IpAddr;

use serde_json::{Value, json};

use super::allocate::Result;
use super::is_headless;
use crate::resources::allocation::{Cidr, Ranges};
use crate::resources::field_error::FieldError;
use crate::resources::object;

/// A Service that prefers dual stack is not upgraded or downgraded by an update that leaves its addresses alone, even
/// when the cluster has gained or lost a family since.
pub(super) fn is_settled(service: &Value, old: Option<&Value>) -> bool {
    let fields = [
        "spec.clusterIP",
        "spec.clusterIPs",
        "spec.ipFamilies",
        "spec.ipFamilyPolicy",
    ];
    old.is_some_and(|old| {
        object::str_at(service, "spec.ipFamilyPolicy") == "PreferDualStack"
            && !object::is_empty_at(service, "spec.clusterIPs")
            && fields
                .iter()
                .all(|field| object::at(service, field) == object::at(old, field))
    })
}

/// Fills in `ipFamilyPolicy` and `ipFamilies`.
///
/// # Errors
/// Families or a policy that the cluster, or the addresses asked for, do not allow.
pub(super) fn choose(service: &mut Value, old: Option<&Value>, ranges: &Ranges) -> Result {
    let selectorless = is_headless(service) && object::is_empty_at(service, "spec.selector");
    let policy = if selectorless {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    object::set_default(service, "spec.ipFamilyPolicy", policy);
    let policy = object::text_at(service, "spec.ipFamilyPolicy");
    if let Some(old) = old {
        release_second_family(service, old, &policy)?;
    }
    check_policy(service, &policy)?;
    infer_families(service, ranges)?;
    let mut families: Vec<String> = object::strings_at(service, "spec.ipFamilies")
        .into_iter()
        .map(ToOwned::to_owned)
        .collect();
    if !selectorless {
        check_configured(&families, &policy, ranges)?;
    }
    if families.is_empty() {
        let ipv6 = ranges.cluster_ips.first().is_some_and(Cidr::is_ipv6);
        families.push(family_name(ipv6).to_owned());
    }
    if policy != "SingleStack" && families.len() == 1 && (selectorless || ranges.cluster_ips.len() == 2) {
        families.push(family_name(families[0] == "IPv4").to_owned());
    }
    object::set(service, "spec.ipFamilies", json!(families));
    Ok(())
}

/// An update to single stack gives up the second address and family without having to clear them.
fn release_second_family(service: &mut Value, old: &Value, policy: &str) -> Result {
    let mut errors = Vec::new();
    for (field, what) in [
        ("spec.clusterIPs", "secondary cluster IP"),
        ("spec.ipFamilies", "secondary IP family"),
    ] {
        let now = object::array_at(service, field);
        let before = object::array_at(old, field);
        if policy == "SingleStack" {
            if now == before && now.len() > 1 {
                let first = now[..1].to_vec();
                object::set(service, field, first);
            }
        } else if before.len() == 2 && now.len() == 1 && now[0] == before[0] {
            let detail = format!("must be 'SingleStack' to release the {what}");
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy, detail));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn check_policy(service: &Value, policy: &str) -> Result {
    let mut errors = Vec::new();
    for (field, what) in [("spec.clusterIPs", "cluster IPs"), ("spec.ipFamilies", "IP families")] {
        if policy == "SingleStack" && object::array_at(service, field).len() == 2 {
            let detail = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy, detail));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Addresses that the client chose say which families it wants.
fn infer_families(service: &mut Value, ranges: &Ranges) -> Result {
    let addresses: Vec<IpAddr> = object::strings_at(service, "spec.clusterIPs")
        .into_iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    let mut families = object::array_at(service, "spec.ipFamilies").to_vec();
    for (index, address) in addresses.iter().enumerate().skip(families.len()) {
        let family = family_name(address.is_ipv6());
        if ranges.of_family(address.is_ipv6()).is_none() {
            let field = format!("spec.clusterIPs[{index}]");
            let all = object::at(service, "spec.clusterIPs").cloned().unwrap_or_default();
            return Err(vec![FieldError::invalid(
                field,
                all,
                format!("{family} is not configured on this cluster"),
            )]);
        }
        families.push(json!(family));
    }
    if !families.is_empty() {
        object::set(service, "spec.ipFamilies", families);
    }
    Ok(())
}

fn check_configured(families: &[String], policy: &str, ranges: &Ranges) -> Result {
    let mut errors = Vec::new();
    if policy == "RequireDualStack" && ranges.cluster_ips.len() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(FieldError::invalid("spec.ipFamilyPolicy", policy, detail));
    }
    for (index, family) in families.iter().enumerate() {
        if ranges.of_family(family == "IPv6").is_none() {
            let field = format!("spec.ipFamilies[{index}]");
            errors.push(FieldError::invalid(
                field,
                family.as_str(),
                "not configured on this cluster",
            ));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

const fn family_name(ipv6: bool) -> &'static str {
    if ipv6 { "IPv6" } else { "IPv4" }
}
