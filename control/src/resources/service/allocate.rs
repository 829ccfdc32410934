//! Allocation of a Service's cluster addresses and node ports, after [`super::families`] has chosen the families.
//!
//! Called after validation, inside the write: what is chosen here becomes claims that are created in the same store
//! transaction. What the old Service holds is kept and never counts as taken.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{allocates_node_ports, families, is_headless, needs_cluster_ip, needs_health_check, needs_node_ports};
use crate::resources::allocation::{Claim, Ranges, Taken};
use crate::resources::field_error::FieldError;
use crate::resources::object;

/// What allocation ends with; the errors go to the client.
pub(super) type Result<T = ()> = std::result::Result<T, Vec<FieldError>>;

/// Fills in families, addresses and ports.
pub(super) fn allocate(service: &mut Value, old: Option<&Value>, taken: &dyn Taken, ranges: &Ranges) -> Result {
    let held = old.map(claims).unwrap_or_default();
    let allocation = Allocation {
        held: &held,
        taken,
        ranges,
    };
    if needs_cluster_ip(service) && !families::is_settled(service, old) {
        families::choose(service, old, ranges)?;
        if !is_headless(service) {
            allocation.cluster_ips(service)?;
        }
    }
    if needs_node_ports(service) {
        allocation.node_ports(service)?;
    }
    if needs_health_check(service) {
        allocation.health_check_node_port(service)?;
    }
    Ok(())
}

/// The claims a Service holds: its addresses and its node ports, each once.
pub(super) fn claims(service: &Value) -> Vec<Claim> {
    let mut claims = Vec::new();
    if needs_cluster_ip(service) {
        let addresses = object::strings_at(service, "spec.clusterIPs")
            .into_iter()
            .filter_map(|text| text.parse().ok());
        claims.extend(addresses.map(Claim::cluster_ip));
    }
    if needs_node_ports(service) {
        let ports = object::array_at(service, "spec.ports")
            .iter()
            .filter_map(|port| port_at(port, "nodePort"));
        claims.extend(ports.map(Claim::node_port));
    }
    if needs_health_check(service) {
        claims.extend(port_at(service, "spec.healthCheckNodePort").map(Claim::node_port));
    }
    claims.sort();
    claims.dedup();
    claims
}

/// One allocation: what the Service holds already, what others hold, and where to choose from.
struct Allocation<'a> {
    held: &'a [Claim],
    taken: &'a dyn Taken,
    ranges: &'a Ranges,
}

impl Allocation<'_> {
    /// Gives every family its address.
    fn cluster_ips(&self, service: &mut Value) -> Result {
        let asked: Vec<String> = object::strings_at(service, "spec.clusterIPs")
            .into_iter()
            .map(ToOwned::to_owned)
            .collect();
        let families = object::strings_at(service, "spec.ipFamilies");
        let mut addresses = Vec::with_capacity(families.len());
        for (index, family) in families.iter().enumerate() {
            let Some(range) = self.ranges.of_family(*family == "IPv6") else {
                continue;
            };
            addresses.push(match asked.get(index).filter(|address| !address.is_empty()) {
                Some(address) => self.asked_cluster_ip(address, &asked)?,
                None => range
                    .allocate(self.taken)
                    .map(|address| address.to_string())
                    .ok_or_else(|| {
                        vec![FieldError::internal(
                            "spec.clusterIPs",
                            "failed to allocate a serviceIP: range is full",
                        )]
                    })?,
            });
        }
        if let Some(first) = addresses.first() {
            object::set(service, "spec.clusterIP", first.as_str());
            object::set(service, "spec.clusterIPs", json!(addresses));
        }
        Ok(())
    }

    fn asked_cluster_ip(&self, text: &str, all: &[String]) -> Result<String> {
        let fail = |reason: String| {
            let detail = format!("failed to allocate IP {text}: {reason}");
            vec![FieldError::invalid("spec.clusterIPs", json!(all), detail)]
        };
        let address: IpAddr = text.parse().map_err(|_| fail("not an IP address".to_owned()))?;
        let claim = Claim::cluster_ip(address);
        if self.held.contains(&claim) {
            return Ok(text.to_owned());
        }
        let range = self.ranges.of_family(address.is_ipv6());
        match range {
            Some(range) if range.is_usable(address) && !self.taken.is_taken(&claim) => Ok(text.to_owned()),
            Some(range) if range.is_usable(address) => Err(fail("provided IP is already allocated".to_owned())),
            _ => {
                let valid = range.map_or_else(String::new, ToString::to_string);
                Err(fail(format!(
                    "the provided IP ({address}) is not in the valid range. The range of valid IPs is {valid}"
                )))
            }
        }
    }

    /// Gives every port its node port. Two ports of one Service with the same number and different protocols share one.
    fn node_ports(&self, service: &mut Value) -> Result {
        let dynamic = allocates_node_ports(service);
        let mut reserved: Vec<u16> = port_at(service, "spec.healthCheckNodePort").into_iter().collect();
        let asked: Vec<(i64, u16)> = object::array_at(service, "spec.ports")
            .iter()
            .filter_map(|port| Some((object::int_at(port, "port"), port_at(port, "nodePort")?)))
            .collect();
        for (index, port) in object::array_at(service, "spec.ports").iter().enumerate() {
            let field = format!("spec.ports[{index}].nodePort");
            if let Some(number) = asked_number(port, &field)? {
                self.asked_port(number, &field)?;
                reserved.push(number);
            }
        }
        let mut given = asked;
        for port in object::array_mut(service, "spec.ports") {
            if !dynamic || port_at(port, "nodePort").is_some() {
                continue;
            }
            let number = object::int_at(port, "port");
            let shared = given
                .iter()
                .find(|(known, _)| *known == number)
                .map(|(_, node_port)| *node_port);
            let node_port = match shared {
                Some(node_port) => node_port,
                None => self.any_port(&reserved, "spec.ports", "failed to allocate a nodePort")?,
            };
            object::set(port, "nodePort", node_port);
            reserved.push(node_port);
            given.push((number, node_port));
        }
        Ok(())
    }

    fn health_check_node_port(&self, service: &mut Value) -> Result {
        let field = "spec.healthCheckNodePort";
        let of_ports: Vec<u16> = object::array_at(service, "spec.ports")
            .iter()
            .filter_map(|port| port_at(port, "nodePort"))
            .collect();
        match port_at(service, field) {
            Some(number) if of_ports.contains(&number) => Err(vec![FieldError::invalid(
                field,
                number,
                "provided port is already allocated",
            )]),
            Some(number) => self.asked_port(number, field),
            None => {
                let number = self.any_port(&of_ports, field, "failed to allocate a HealthCheck NodePort 0")?;
                object::set(service, field, number);
                Ok(())
            }
        }
    }

    fn asked_port(&self, number: u16, field: &str) -> Result {
        let claim = Claim::node_port(number);
        if self.held.contains(&claim) {
            return Ok(());
        }
        let valid = self.ranges.node_ports;
        let detail = if !valid.contains(number) {
            format!("provided port is not in the valid range. The range of valid ports is {valid}")
        } else if self.taken.is_taken(&claim) {
            "provided port is already allocated".to_owned()
        } else {
            return Ok(());
        };
        Err(vec![FieldError::invalid(field, number, detail)])
    }

    fn any_port(&self, reserved: &[u16], field: &str, failure: &str) -> Result<u16> {
        let port = self.ranges.node_ports.allocate(self.taken, reserved);
        port.ok_or_else(|| vec![FieldError::internal(field, format!("{failure}: range is full"))])
    }
}

/// The node port a client asked for, which may be any integer.
fn asked_number(port: &Value, field: &str) -> Result<Option<u16>> {
    let number = object::int_at(port, "nodePort");
    match u16::try_from(number) {
        Ok(0) => Ok(None),
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(vec![FieldError::invalid(
            field,
            number,
            "must be between 1 and 65535, inclusive",
        )]),
    }
}

fn port_at(value: &Value, path: &str) -> Option<u16> {
    u16::try_from(object::int_at(value, path))
        .ok()
        .filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::service::{default, service_type};

    struct Held(Vec<Claim>);

    impl Taken for Held {
        fn is_taken(&self, claim: &Claim) -> bool {
            self.0.contains(claim)
        }
    }

    fn dual() -> Ranges {
        Ranges::parse("10.96.0.0/16,fd00:96::/112", "30000-32767").unwrap()
    }

    fn single() -> Ranges {
        Ranges::parse("10.96.0.0/16", "30000-32767").unwrap()
    }

    fn service(spec: Value) -> Value {
        let mut service = json!({ "spec": spec });
        default::default(&mut service);
        super::super::change::sync_cluster_ips(&mut service, None);
        service
    }

    fn created(spec: Value, ranges: &Ranges, taken: &[Claim]) -> Result<Value> {
        let mut service = service(spec);
        allocate(&mut service, None, &Held(taken.to_vec()), ranges)?;
        Ok(service)
    }

    fn error(spec: Value, ranges: &Ranges, taken: &[Claim]) -> String {
        created(spec, ranges, taken).unwrap_err()[0].to_string()
    }

    #[test]
    fn a_plain_service_gets_one_address_of_the_first_family() {
        let service = created(json!({"ports": [{"port": 80}]}), &dual(), &[]).unwrap();
        let spec = &service["spec"];
        assert_eq!(
            (&spec["ipFamilies"], &spec["ipFamilyPolicy"]),
            (&json!(["IPv4"]), &json!("SingleStack"))
        );
        assert_eq!(spec["clusterIPs"], json!([spec["clusterIP"]]));
        assert_eq!(
            claims(&service),
            [Claim::cluster_ip(spec["clusterIP"].as_str().unwrap().parse().unwrap())]
        );
    }

    #[test]
    fn dual_stack_gets_an_address_of_each_family() {
        for policy in ["PreferDualStack", "RequireDualStack"] {
            let service = created(json!({"ports": [{"port": 80}], "ipFamilyPolicy": policy}), &dual(), &[]).unwrap();
            assert_eq!(service["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
            assert_eq!(claims(&service).len(), 2);
        }
        let reverse = json!({"ports": [{"port": 80}], "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]});
        assert_eq!(
            created(reverse, &dual(), &[]).unwrap()["spec"]["ipFamilies"],
            json!(["IPv6", "IPv4"])
        );
        let alone = json!({"ports": [{"port": 80}], "ipFamilyPolicy": "PreferDualStack"});
        assert_eq!(
            created(alone, &single(), &[]).unwrap()["spec"]["ipFamilies"],
            json!(["IPv4"])
        );
        let required = json!({"ports": [{"port": 80}], "ipFamilyPolicy": "RequireDualStack"});
        assert_eq!(
            error(required, &single(), &[]),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
        );
    }

    #[test]
    fn an_address_that_is_taken_or_outside_is_refused() {
        let spec = |address: &str| json!({"ports": [{"port": 80}], "clusterIP": address});
        let taken = [Claim::cluster_ip("10.96.0.10".parse().unwrap())];
        assert_eq!(
            error(spec("10.96.0.10"), &single(), &taken),
            "spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to allocate IP 10.96.0.10: provided IP is already allocated"
        );
        assert_eq!(
            error(spec("192.0.2.1"), &single(), &[]),
            "spec.clusterIPs: Invalid value: [\"192.0.2.1\"]: failed to allocate IP 192.0.2.1: the provided IP (192.0.2.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16"
        );
        assert_eq!(
            error(spec("fd00::1"), &single(), &[]),
            "spec.clusterIPs[0]: Invalid value: [\"fd00::1\"]: IPv6 is not configured on this cluster"
        );
        assert_eq!(
            created(spec("10.96.0.10"), &single(), &[]).unwrap()["spec"]["clusterIP"],
            "10.96.0.10"
        );
    }

    #[test]
    fn headless_services_have_families_but_no_address() {
        let service = created(json!({"clusterIP": "None", "selector": {"a": "b"}}), &dual(), &[]).unwrap();
        assert_eq!(service["spec"]["ipFamilies"], json!(["IPv4"]));
        assert!(claims(&service).is_empty());
        let selectorless = created(json!({"clusterIP": "None"}), &single(), &[]).unwrap();
        assert_eq!(selectorless["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(selectorless["spec"]["ipFamilyPolicy"], "RequireDualStack");
    }

    #[test]
    fn external_names_get_nothing() {
        let service = created(json!({"type": "ExternalName", "externalName": "a.b"}), &dual(), &[]).unwrap();
        assert_eq!(
            (service["spec"].get("clusterIP"), service["spec"].get("ipFamilies")),
            (None, None)
        );
    }

    #[test]
    fn ports_of_one_service_share_a_node_port_across_protocols() {
        let ports =
            json!([{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}, {"name": "h", "port": 80}]);
        let service = created(json!({"type": "NodePort", "ports": ports}), &single(), &[]).unwrap();
        let number = |index: usize| service["spec"]["ports"][index]["nodePort"].as_i64().unwrap();
        assert_eq!(number(0), number(1));
        assert_ne!(number(0), number(2));
        assert_eq!(claims(&service).len(), 3);
    }

    #[test]
    fn a_node_port_that_is_taken_or_outside_is_refused() {
        let spec = |number: i64| json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": number}]});
        assert_eq!(
            error(spec(30080), &single(), &[Claim::node_port(30080)]),
            "spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"
        );
        assert_eq!(
            error(spec(80), &single(), &[]),
            "spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"
        );
    }

    #[test]
    fn a_load_balancer_gets_node_ports_unless_told_not_to() {
        let ports = json!([{"port": 80}]);
        let with = created(json!({"type": "LoadBalancer", "ports": ports}), &single(), &[]).unwrap();
        assert!(with["spec"]["ports"][0]["nodePort"].is_number());
        let without = json!({"type": "LoadBalancer", "ports": ports, "allocateLoadBalancerNodePorts": false});
        assert_eq!(
            created(without, &single(), &[]).unwrap()["spec"]["ports"][0].get("nodePort"),
            None
        );
        let local = json!({"type": "LoadBalancer", "ports": ports, "externalTrafficPolicy": "Local"});
        let local = created(local, &single(), &[]).unwrap();
        assert!(local["spec"]["healthCheckNodePort"].is_number());
        assert_eq!(claims(&local).len(), 3);
    }

    #[test]
    fn an_update_keeps_what_is_held_even_outside_the_range() {
        let old = created(json!({"type": "NodePort", "ports": [{"port": 80}]}), &single(), &[]).unwrap();
        let mut new = old.clone();
        new["spec"]["ports"][0]["port"] = json!(81);
        let other = Ranges::parse("10.97.0.0/16", "20000-20100").unwrap();
        allocate(&mut new, Some(&old), &Held(Vec::new()), &other).unwrap();
        assert_eq!(claims(&new), claims(&old));
    }

    #[test]
    fn going_to_dual_stack_and_back_adds_and_releases_the_second_address() {
        let old = created(json!({"ports": [{"port": 80}]}), &dual(), &[]).unwrap();
        let mut two = old.clone();
        two["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
        allocate(&mut two, Some(&old), &Held(Vec::new()), &dual()).unwrap();
        assert_eq!(two["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
        assert_eq!(two["spec"]["clusterIP"], old["spec"]["clusterIP"]);
        let mut one = two.clone();
        one["spec"]["ipFamilyPolicy"] = json!("SingleStack");
        allocate(&mut one, Some(&two), &Held(Vec::new()), &dual()).unwrap();
        assert_eq!(claims(&one), claims(&old));
    }

    #[test]
    fn a_change_of_type_claims_and_releases() {
        let old = created(json!({"type": "NodePort", "ports": [{"port": 80}]}), &single(), &[]).unwrap();
        let mut new = old.clone();
        new["spec"]["type"] = json!("ClusterIP");
        super::super::change::carry_over(&mut new, &old);
        allocate(&mut new, Some(&old), &Held(Vec::new()), &single()).unwrap();
        assert_eq!(claims(&new).len(), 1);
        assert_eq!(service_type(&new), "ClusterIP");
    }
}
