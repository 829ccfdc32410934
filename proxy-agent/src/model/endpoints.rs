//! The endpoints of one service port, merged from all slices of the Service.
//!
//! Called by [`plan`](crate::plan) for a touched Service; [`topology`](super::topology) chooses among the result.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    names::{Family, Protocol},
    objects::{Conditions, Slice, SliceEndpoint},
};

/// One endpoint of a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// How it is.
    pub conditions: Conditions,
    /// Whether it is on this node.
    pub local: bool,
    /// Zones it is meant for.
    pub zone_hints: Vec<String>,
    /// Nodes it is meant for.
    pub node_hints: Vec<String>,
}

/// The endpoints of a port, by rising address and port, each once.
pub fn merge<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    port: (&str, Protocol),
    family: Family,
    node_name: &str,
) -> Vec<Endpoint> {
    let mut merged: BTreeMap<(IpAddr, u16), Endpoint> = BTreeMap::new();
    for slice in slices.filter(|slice| slice.family == family) {
        let numbers = slice
            .ports
            .iter()
            .filter(|p| (p.name.as_str(), p.protocol) == port)
            .map(|p| p.port);
        for number in numbers {
            for endpoint in &slice.endpoints {
                let new = on_port(endpoint, number, node_name);
                merged
                    .entry((endpoint.address, number))
                    .and_modify(|held| *held = better_of(held, &new))
                    .or_insert(new);
            }
        }
    }
    merged.into_values().collect()
}

fn on_port(endpoint: &SliceEndpoint, port: u16, node_name: &str) -> Endpoint {
    Endpoint {
        address: endpoint.address,
        port,
        conditions: endpoint.conditions,
        local: endpoint.node.as_deref() == Some(node_name),
        zone_hints: endpoint.zone_hints.clone(),
        node_hints: endpoint.node_hints.clone(),
    }
}

/// While an endpoint moves from one slice to another both hold it, and one is stale. The rule prefers what serves, and
/// doesn't depend on the order of the slices.
fn better_of(a: &Endpoint, b: &Endpoint) -> Endpoint {
    let rank = |e: &Endpoint| {
        let c = e.conditions;
        (
            c.ready,
            c.serving,
            !c.terminating,
            e.local,
            e.zone_hints.clone(),
            e.node_hints.clone(),
        )
    };
    if rank(a) >= rank(b) { a.clone() } else { b.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        names::{ServiceName, SliceName},
        objects::SlicePort,
    };

    fn slice(name: &str, ports: &[(&str, Protocol, u16)], endpoints: &[(&str, bool, &str)]) -> Slice {
        Slice {
            name: SliceName {
                namespace: "a".into(),
                name: name.into(),
            },
            service: ServiceName {
                namespace: "a".into(),
                name: "web".into(),
            },
            family: Family::V4,
            ports: ports
                .iter()
                .map(|&(name, protocol, port)| SlicePort {
                    name: name.into(),
                    protocol,
                    port,
                })
                .collect(),
            endpoints: endpoints
                .iter()
                .map(|&(address, ready, node)| SliceEndpoint {
                    address: address.parse().unwrap(),
                    conditions: Conditions {
                        ready,
                        serving: ready,
                        terminating: false,
                    },
                    node: Some(node.into()),
                    zone_hints: Vec::new(),
                    node_hints: Vec::new(),
                })
                .collect(),
        }
    }

    #[test]
    fn slices_are_merged_by_port_name_and_protocol() {
        let tcp = slice("1", &[("http", Protocol::Tcp, 8080)], &[("10.0.0.2", true, "n1")]);
        let both = slice(
            "2",
            &[
                ("http", Protocol::Udp, 8081),
                ("http", Protocol::Tcp, 9090),
                ("admin", Protocol::Tcp, 1),
            ],
            &[("10.0.0.1", true, "n2")],
        );
        let merged = merge([&tcp, &both].into_iter(), ("http", Protocol::Tcp), Family::V4, "n1");
        let seen: Vec<_> = merged
            .iter()
            .map(|e| (e.address.to_string(), e.port, e.local))
            .collect();
        assert_eq!(
            seen,
            [("10.0.0.1".into(), 9090, false), ("10.0.0.2".into(), 8080, true)]
        );
        assert_eq!(merge([&tcp].into_iter(), ("http", Protocol::Tcp), Family::V6, "n1"), []);
    }

    #[test]
    fn a_duplicate_counts_once_and_as_its_better_copy_in_either_order() {
        let ports = [("", Protocol::Tcp, 80)];
        let stale = slice("1", &ports, &[("10.0.0.1", false, "n1")]);
        let fresh = slice("2", &ports, &[("10.0.0.1", true, "n1")]);
        for order in [[&stale, &fresh], [&fresh, &stale]] {
            let merged = merge(order.into_iter(), ("", Protocol::Tcp), Family::V4, "n1");
            assert_eq!(merged.len(), 1);
            assert!(merged[0].conditions.ready);
        }
    }
}
