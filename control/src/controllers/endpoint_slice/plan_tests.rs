//! What the planner promises, on hand-made cases and on random ones.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ServicePort;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;

use super::*;

fn service(families: &[&str]) -> ServiceView {
    let port = |name: &str, number, target| ServicePort {
        name: Some(name.into()),
        port: number,
        protocol: Some("TCP".into()),
        target_port: Some(target),
        ..ServicePort::default()
    };
    ServiceView {
        namespace: "ns".into(),
        name: "web".into(),
        uid: "u1".into(),
        labels: [("team".into(), "a".into())].into(),
        selector: [("app".into(), "web".into())].into(),
        families: families.iter().map(|family| String::from(*family)).collect(),
        ports: vec![
            port("http", 80, IntOrString::String("http".into())),
            port("admin", 81, IntOrString::Int(8081)),
        ],
        ..ServiceView::default()
    }
}

fn pod(number: u16) -> PodView {
    PodView {
        namespace: "ns".into(),
        name: format!("p{number}"),
        uid: format!("uid{number}"),
        addresses: vec![
            format!("10.0.{}.{}", number / 256, number % 256).parse().unwrap(),
            format!("fd00::{number:x}").parse().unwrap(),
        ],
        node: Some("n1".into()),
        ready: true,
        ports: vec![("http".into(), "UDP".into(), 1), ("http".into(), "TCP".into(), 8080)],
        ..PodView::default()
    }
}

fn zone(node: &str) -> Option<Option<String>> {
    (node == "n1").then(|| Some("za".into()))
}

/// Slices as an API server would keep them.
#[derive(Default)]
struct Cluster {
    slices: Vec<Arc<EndpointSlice>>,
    named: u32,
}

impl Cluster {
    /// Plans, makes the plan true, and returns how many slices were created, updated and deleted.
    fn settle(&mut self, service: &ServiceView, pods: &[PodView]) -> (usize, usize, usize) {
        let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
        let plan = plan(service, &pods, &zone, self.slices.clone());
        let counts = (plan.create.len(), plan.update.len(), plan.delete.len());
        let replaced: Vec<_> = plan
            .update
            .iter()
            .chain(plan.delete.iter().map(|slice| &**slice))
            .collect();
        let names: BTreeSet<_> = replaced.iter().map(|slice| slice.metadata.name.clone()).collect();
        assert_eq!(names.len(), replaced.len(), "a slice is touched once");
        self.slices.retain(|slice| !names.contains(&slice.metadata.name));
        self.slices.extend(plan.update.into_iter().map(Arc::new));
        for mut slice in plan.create {
            self.named += 1;
            slice.metadata.name = Some(format!("web-{}", self.named));
            self.slices.push(Arc::new(slice));
        }
        counts
    }

    fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<_> = self.slices.iter().map(|slice| slice.endpoints.len()).collect();
        sizes.sort_unstable();
        sizes
    }
}

fn only(slices: &[Arc<EndpointSlice>]) -> &EndpointSlice {
    assert_eq!(slices.len(), 1);
    &slices[0]
}

#[test]
fn a_slice_has_the_shape_of_kube_controller_managers() {
    let mut cluster = Cluster::default();
    cluster.settle(&service(&["IPv4"]), &[pod(1)]);
    let mut slice = serde_json::to_value(only(&cluster.slices)).unwrap();
    slice["metadata"].as_object_mut().unwrap().remove("name");
    assert_eq!(
        slice,
        serde_json::json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": "web-",
                "namespace": "ns",
                "labels": {
                    "team": "a",
                    "kubernetes.io/service-name": "web",
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                },
                "ownerReferences": [{
                    "apiVersion": "v1", "kind": "Service", "name": "web", "uid": "u1",
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": ["10.0.0.1"],
                "conditions": { "ready": true, "serving": true, "terminating": false },
                "nodeName": "n1",
                "targetRef": { "kind": "Pod", "namespace": "ns", "name": "p1", "uid": "uid1" },
                "zone": "za",
            }],
            "ports": [
                { "name": "http", "port": 8080, "protocol": "TCP" },
                { "name": "admin", "port": 8081, "protocol": "TCP" },
            ],
        })
    );
}

#[test]
fn conditions_follow_readiness_deletion_and_publish_not_ready() {
    let conditions = |ready, terminating, publish| {
        let service = ServiceView {
            publish_not_ready: publish,
            ..service(&["IPv4"])
        };
        let mut cluster = Cluster::default();
        cluster.settle(
            &service,
            &[PodView {
                ready,
                terminating,
                ..pod(1)
            }],
        );
        let conditions = only(&cluster.slices).endpoints[0].conditions.clone().unwrap();
        (
            conditions.ready.unwrap(),
            conditions.serving.unwrap(),
            conditions.terminating.unwrap(),
        )
    };
    assert_eq!(conditions(true, false, false), (true, true, false));
    assert_eq!(conditions(false, false, false), (false, false, false));
    assert_eq!(conditions(true, true, false), (false, true, true));
    assert_eq!(conditions(false, false, true), (true, false, false));
    assert_eq!(conditions(false, true, true), (true, false, true));
}

#[test]
fn pods_that_ended_or_have_no_address_or_no_node_are_left_out() {
    let mut cluster = Cluster::default();
    let ended = PodView { ended: true, ..pod(1) };
    let unborn = PodView {
        addresses: Vec::new(),
        ..pod(2)
    };
    let homeless = PodView {
        node: Some("gone".into()),
        ..pod(3)
    };
    cluster.settle(&service(&["IPv4"]), &[ended, unborn, homeless.clone(), pod(4)]);
    assert_eq!(only(&cluster.slices).endpoints[0].addresses, ["10.0.0.4"]);
    assert_eq!(cluster.sizes(), [1]);
    let publishing = ServiceView {
        publish_not_ready: true,
        ..service(&["IPv4"])
    };
    cluster.settle(&publishing, &[homeless]);
    assert_eq!(only(&cluster.slices).endpoints[0].addresses, ["10.0.0.3"]);
}

#[test]
fn each_family_has_slices_of_its_own_and_a_family_given_up_loses_them() {
    let mut cluster = Cluster::default();
    cluster.settle(&service(&["IPv4", "IPv6"]), &[pod(1)]);
    let families: BTreeSet<_> = cluster.slices.iter().map(|slice| slice.address_type.clone()).collect();
    assert_eq!(families, ["IPv4".into(), "IPv6".into()].into());
    assert_eq!(cluster.settle(&service(&["IPv6"]), &[pod(1)]), (0, 0, 1));
    assert_eq!(only(&cluster.slices).address_type, "IPv6");
}

#[test]
fn pods_with_other_port_numbers_have_slices_of_their_own() {
    let mut cluster = Cluster::default();
    let other = PodView {
        ports: vec![("http".into(), "TCP".into(), 9090)],
        ..pod(2)
    };
    let without = PodView {
        ports: Vec::new(),
        ..pod(3)
    };
    cluster.settle(&service(&["IPv4"]), &[pod(1), other, without]);
    let port_counts = |slice: &Arc<EndpointSlice>| slice.ports.as_ref().map(Vec::len);
    assert_eq!(cluster.slices.iter().filter_map(port_counts).sum::<usize>(), 2 + 2 + 1);
}

#[test]
fn without_endpoints_there_is_a_placeholder_which_is_then_used() {
    let mut cluster = Cluster::default();
    assert_eq!(cluster.settle(&service(&["IPv4"]), &[]), (1, 0, 0));
    assert_eq!(cluster.settle(&service(&["IPv4"]), &[]), (0, 0, 0));
    let name = only(&cluster.slices).metadata.name.clone();
    assert_eq!(cluster.settle(&service(&["IPv4"]), &[pod(1)]), (0, 1, 0));
    assert_eq!(cluster.settle(&service(&["IPv4"]), &[]), (0, 1, 0));
    assert_eq!(only(&cluster.slices).metadata.name, name);
}

#[test]
fn one_changed_endpoint_touches_one_slice() {
    let mut cluster = Cluster::default();
    let mut pods: Vec<_> = (1..=250).map(pod).collect();
    assert_eq!(cluster.settle(&service(&["IPv4"]), &pods), (3, 0, 0));
    assert_eq!(cluster.sizes(), [50, 100, 100]);
    pods[7].ready = false;
    assert_eq!(cluster.settle(&service(&["IPv4"]), &pods), (0, 1, 0));
    pods.push(pod(300));
    assert_eq!(
        cluster.settle(&service(&["IPv4"]), &pods),
        (0, 1, 0),
        "it goes where there is room"
    );
    assert_eq!(cluster.sizes(), [51, 100, 100]);
    pods.swap_remove(7);
    pods.push(pod(301));
    assert_eq!(cluster.settle(&service(&["IPv4"]), &pods), (0, 1, 0), "one out, one in");
}

#[test]
fn labels_hostname_headless_and_hints_are_kept_up_to_date() {
    let mut cluster = Cluster::default();
    let mut service = service(&["IPv4"]);
    let pods = [PodView {
        hostname: Some("h".into()),
        subdomain: Some("web".into()),
        ..pod(1)
    }];
    cluster.settle(&service, &pods);
    assert_eq!(only(&cluster.slices).endpoints[0].hostname.as_deref(), Some("h"));
    assert_eq!(only(&cluster.slices).endpoints[0].hints, None);
    service.headless = true;
    service.traffic_distribution = Some("PreferSameNode".into());
    service.labels = [("team".into(), "b".into())].into();
    assert_eq!(cluster.settle(&service, &pods), (0, 1, 0));
    let slice = only(&cluster.slices);
    assert_eq!(slice.metadata.labels.as_ref().unwrap()["team"], "b");
    assert_eq!(
        slice.metadata.labels.as_ref().unwrap()["service.kubernetes.io/headless"],
        ""
    );
    let hints = serde_json::to_value(&slice.endpoints[0].hints).unwrap();
    assert_eq!(
        hints,
        serde_json::json!({ "forNodes": [{ "name": "n1" }], "forZones": [{ "name": "za" }] })
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_in_exactly_the_wanted_endpoints(
        history in prop::collection::vec(prop::collection::btree_map(0..400u16, 0..6u8, 0..300), 1..6),
        dual in any::<bool>(),
    ) {
        let families: &[&str] = if dual { &["IPv4", "IPv6"] } else { &["IPv4"] };
        let (service, mut cluster) = (service(families), Cluster::default());
        for step in history {
            let port = |shape: u8| i32::from(8080 + u16::from(shape % 2));
            let pods: Vec<_> = step.iter().map(|(number, shape)| PodView {
                ready: shape % 3 > 0,
                ports: vec![("http".into(), "TCP".into(), port(*shape))],
                ..pod(*number)
            }).collect();
            cluster.settle(&service, &pods);
            prop_assert_eq!(cluster.settle(&service, &pods), (0, 0, 0), "settled is settled");
            let mut wanted: Vec<_> = Vec::new();
            for pod in &pods {
                for address in &pod.addresses[..families.len()] {
                    wanted.push((address.to_string(), pod.ready, pod.ports[0].2));
                }
            }
            let mut found = Vec::new();
            for slice in &cluster.slices {
                prop_assert!(slice.endpoints.len() <= MAX_ENDPOINTS);
                for endpoint in &slice.endpoints {
                    let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap();
                    let port = slice.ports.as_ref().and_then(|ports| ports[0].port).unwrap();
                    found.push((endpoint.addresses[0].clone(), ready, port));
                }
            }
            wanted.sort();
            found.sort();
            prop_assert_eq!(found, wanted);
        }
    }
}
