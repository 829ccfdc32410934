//! Which endpoints of a service port take new flows: kube-proxy's rules (`pkg/proxy/topology.go`).
//!
//! Called by [`plan`](crate::plan) with what [`endpoints`](super::endpoints) merged.
//! - Endpoints that are ready; if there are none, those that are terminating and still serve (KEP-1669).
//! - The endpoints of the Local policies are chosen by the same rule among those on this node, independently.
//! - Hints narrow the first list, all or nothing: every ready endpoint must carry them, and one must match; hints for
//!   nodes are looked at before hints for zones. The Local list ignores them, and so do terminating endpoints.

use super::{endpoints::Endpoint, objects::Node};

/// The endpoints of the two runs of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice<'a> {
    /// For the Cluster policies.
    pub all: Vec<&'a Endpoint>,
    /// For the Local policies: those on this node.
    pub local: Vec<&'a Endpoint>,
}

/// Chooses.
pub fn choose<'a>(endpoints: &'a [Endpoint], node: &Node) -> Choice<'a> {
    let mut all: Vec<_> = endpoints.iter().filter(|e| e.conditions.ready).collect();
    if all.is_empty() {
        all = endpoints.iter().filter(|e| serves_while_terminating(e)).collect();
    } else if let Some(near) = hinted(&all, node) {
        all = near;
    }
    let mut local: Vec<_> = endpoints.iter().filter(|e| e.local && e.conditions.ready).collect();
    if local.is_empty() {
        local = endpoints
            .iter()
            .filter(|e| e.local && serves_while_terminating(e))
            .collect();
    }
    Choice { all, local }
}

fn serves_while_terminating(endpoint: &Endpoint) -> bool {
    endpoint.conditions.serving && endpoint.conditions.terminating
}

/// The ready endpoints meant for this node, or else for its zone; `None` where hints don't apply.
fn hinted<'a>(ready: &[&'a Endpoint], node: &Node) -> Option<Vec<&'a Endpoint>> {
    matching(ready, |e| &e.node_hints, &node.name).or_else(|| {
        matching(
            ready,
            |e| &e.zone_hints,
            node.zone.as_deref().filter(|zone| !zone.is_empty())?,
        )
    })
}

fn matching<'a>(ready: &[&'a Endpoint], hints: fn(&Endpoint) -> &Vec<String>, want: &str) -> Option<Vec<&'a Endpoint>> {
    if ready.iter().any(|e| hints(e).is_empty()) {
        return None;
    }
    let near: Vec<_> = ready
        .iter()
        .copied()
        .filter(|e| hints(e).iter().any(|hint| hint == want))
        .collect();
    (!near.is_empty()).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::objects::Conditions;

    const READY: Conditions = Conditions {
        ready: true,
        serving: true,
        terminating: false,
    };
    const LEAVING: Conditions = Conditions {
        ready: false,
        serving: true,
        terminating: true,
    };
    const UNREADY: Conditions = Conditions {
        ready: false,
        serving: false,
        terminating: false,
    };

    fn endpoint(host: u8, conditions: Conditions, local: bool) -> Endpoint {
        let address = [10, 0, 0, host].into();
        Endpoint {
            address,
            port: 80,
            conditions,
            local,
            zone_hints: Vec::new(),
            node_hints: Vec::new(),
        }
    }

    fn hinted(host: u8, zone: &str, node: &str) -> Endpoint {
        let some = |word: &str| {
            if word.is_empty() {
                Vec::new()
            } else {
                vec![word.to_owned()]
            }
        };
        Endpoint {
            zone_hints: some(zone),
            node_hints: some(node),
            ..endpoint(host, READY, false)
        }
    }

    fn node() -> Node {
        Node {
            name: "n1".into(),
            zone: Some("z1".into()),
            ..Node::default()
        }
    }

    fn hosts(list: &[&Endpoint]) -> Vec<String> {
        list.iter()
            .map(|e| e.address.to_string().rsplit('.').next().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn ready_endpoints_are_preferred_to_terminating_ones_in_each_list_by_itself() {
        let endpoints = [
            endpoint(1, READY, false),
            endpoint(2, LEAVING, true),
            endpoint(3, UNREADY, true),
        ];
        let choice = choose(&endpoints, &node());
        assert_eq!(hosts(&choice.all), ["1"]);
        assert_eq!(hosts(&choice.local), ["2"]);
    }

    #[test]
    fn terminating_endpoints_that_serve_are_the_last_resort() {
        let endpoints = [endpoint(1, LEAVING, false), endpoint(2, UNREADY, false)];
        let choice = choose(&endpoints, &node());
        assert_eq!(hosts(&choice.all), ["1"]);
        assert!(choice.local.is_empty());
    }

    #[test]
    fn hints_apply_only_when_all_carry_them_and_one_matches() {
        let all = [hinted(1, "z1", ""), hinted(2, "z2", "")];
        assert_eq!(hosts(&choose(&all, &node()).all), ["1"]);
        let gap = [hinted(1, "z1", ""), hinted(2, "", "")];
        assert_eq!(hosts(&choose(&gap, &node()).all), ["1", "2"]);
        let elsewhere = [hinted(1, "z2", ""), hinted(2, "z3", "")];
        assert_eq!(hosts(&choose(&elsewhere, &node()).all), ["1", "2"]);
        let homeless = Node { zone: None, ..node() };
        assert_eq!(hosts(&choose(&all, &homeless).all), ["1", "2"]);
    }

    #[test]
    fn hints_for_nodes_come_before_hints_for_zones() {
        let both = [hinted(1, "z1", "n2"), hinted(2, "z1", "n1")];
        assert_eq!(hosts(&choose(&both, &node()).all), ["2"]);
        let other_nodes = [hinted(1, "z1", "n2"), hinted(2, "z2", "n3")];
        assert_eq!(hosts(&choose(&other_nodes, &node()).all), ["1"]);
    }

    #[test]
    fn hints_of_endpoints_that_are_not_ready_count_for_nothing() {
        let mut unready = endpoint(3, UNREADY, false);
        unready.zone_hints.clear();
        let endpoints = [hinted(1, "z1", ""), hinted(2, "z2", ""), unready];
        assert_eq!(hosts(&choose(&endpoints, &node()).all), ["1"]);
    }
}
