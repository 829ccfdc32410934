//! The controllers over a real store and registry: objects are written as a client would, and what follows is read back.

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::{DeleteOptions, ListOptions, Part, Registry, WriteOptions};
use crate::resources::{self, Ranges, Resource};
use crate::store::{Options, Store};

struct Cluster {
    registry: Registry,
    shutdown: CancellationToken,
    loops: JoinSet<()>,
    dir: TempDir,
}

fn kind(plural: &str) -> &'static Resource {
    let group = if plural == "endpointslices" {
        "discovery.k8s.io"
    } else {
        ""
    };
    resources::find(group, "v1", plural).unwrap()
}

impl Cluster {
    async fn new() -> Self {
        let cluster = Self::open(TempDir::new().unwrap());
        cluster
            .create("namespaces", json!({ "metadata": { "name": "ns" } }))
            .await;
        cluster.create("nodes", json!({ "metadata": { "name": "n1" } })).await;
        cluster
    }

    fn open(dir: TempDir) -> Self {
        let store = Store::open(dir.path(), Options::default()).unwrap();
        let ranges = Ranges::parse("10.96.0.0/16,fd00:10:96::/112", "30000-32767").unwrap();
        let (registry, shutdown) = (Registry::new(store, ranges), CancellationToken::new());
        let loops = super::spawn(&registry, &shutdown);
        Self {
            registry,
            shutdown,
            loops,
            dir,
        }
    }

    /// Stops the controllers and closes the store.
    async fn stop(mut self) -> TempDir {
        self.shutdown.cancel();
        while let Some(ended) = self.loops.join_next().await {
            ended.unwrap();
        }
        self.dir
    }

    async fn create(&self, plural: &str, mut object: Value) -> Value {
        let resource = kind(plural);
        object["apiVersion"] = resource.api_version().into();
        object["kind"] = resource.kind.into();
        let namespace = resource.namespaced.then_some("ns");
        self.registry
            .create(resource, namespace, object, &WriteOptions::default())
            .await
            .unwrap()
            .object
    }

    async fn service(&self, name: &str) {
        let spec = json!({ "selector": { "app": name }, "ports": [{ "port": 80, "targetPort": "http" }] });
        self.create("services", json!({ "metadata": { "name": name }, "spec": spec }))
            .await;
    }

    async fn pod(&self, name: &str, app: &str, address: &str) {
        let containers = json!([{ "name": "c", "image": "i", "ports": [{ "name": "http", "containerPort": 8080 }] }]);
        let metadata = json!({ "name": name, "labels": { "app": app } });
        let pod = json!({ "metadata": metadata, "spec": { "nodeName": "n1", "containers": containers } });
        let mut pod = self.create("pods", pod).await;
        pod["status"] = json!({
            "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        });
        self.update("pods", name, Part::Status, pod).await;
    }

    async fn update(&self, plural: &str, name: &str, part: Part, object: Value) {
        let place = (Some("ns"), name);
        self.registry
            .update(kind(plural), place, part, object, &WriteOptions::default())
            .await
            .unwrap();
    }

    async fn delete(&self, plural: &str, name: &str) {
        let resource = kind(plural);
        let place = (resource.namespaced.then_some("ns"), name);
        self.registry
            .delete(resource, place, &DeleteOptions::default())
            .await
            .unwrap();
    }

    fn list(&self, plural: &str) -> Vec<Value> {
        self.registry
            .list(kind(plural), None, &ListOptions::default())
            .unwrap()
            .values()
            .unwrap()
    }

    /// Waits until the addresses in all slices are these.
    async fn expect(&self, wanted: &[&str]) {
        let addresses = || {
            let slices = self.list("endpointslices");
            let endpoints = slices
                .iter()
                .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
            let mut addresses: Vec<_> = endpoints
                .filter_map(|endpoint| endpoint["addresses"][0].as_str().map(String::from))
                .collect();
            addresses.sort();
            addresses
        };
        eventually(
            || (addresses() == wanted).then_some(()),
            || format!("{:?}", addresses()),
        )
        .await;
    }
}

async fn eventually<T>(mut ready: impl FnMut() -> Option<T>, state: impl Fn() -> String) -> T {
    for _ in 0..500 {
        if let Some(value) = ready() {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not come to be: {}", state());
}

#[tokio::test]
async fn endpoints_follow_pods() {
    let cluster = Cluster::new().await;
    cluster.service("web").await;
    cluster.pod("p1", "web", "10.0.0.1").await;
    cluster.pod("p2", "web", "10.0.0.2").await;
    cluster.pod("p3", "other", "10.0.0.3").await;
    cluster.expect(&["10.0.0.1", "10.0.0.2"]).await;
    let mut pod = cluster.registry.get(kind("pods"), Some("ns"), "p3").unwrap();
    pod["metadata"]["labels"]["app"] = "web".into();
    cluster.update("pods", "p3", Part::Main, pod).await;
    cluster.delete("pods", "p1").await;
    cluster.expect(&["10.0.0.2", "10.0.0.3"]).await;
    let mut pod = cluster.registry.get(kind("pods"), Some("ns"), "p2").unwrap();
    pod["status"]["phase"] = "Failed".into();
    cluster.update("pods", "p2", Part::Status, pod).await;
    cluster.expect(&["10.0.0.3"]).await;
    assert_eq!(cluster.list("endpointslices").len(), 1);
    cluster.stop().await;
}

#[tokio::test]
async fn slices_go_with_the_selector_or_the_service() {
    let cluster = Cluster::new().await;
    cluster.service("one").await;
    cluster.service("two").await;
    let manual = json!({
        "metadata": { "name": "manual", "labels": { "kubernetes.io/service-name": "one" } },
        "addressType": "IPv4", "endpoints": [{ "addresses": ["10.9.9.9"] }], "ports": [],
    });
    cluster.create("endpointslices", manual).await;
    cluster.pod("p1", "one", "10.0.0.1").await;
    cluster.pod("p2", "two", "10.0.0.2").await;
    cluster.expect(&["10.0.0.1", "10.0.0.2", "10.9.9.9"]).await;
    let mut service = cluster.registry.get(kind("services"), Some("ns"), "one").unwrap();
    service["spec"].as_object_mut().unwrap().remove("selector");
    cluster.update("services", "one", Part::Main, service).await;
    cluster.expect(&["10.0.0.2", "10.9.9.9"]).await;
    cluster.delete("services", "two").await;
    cluster.expect(&["10.9.9.9"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_slice_that_somebody_deletes_or_changes_is_put_right() {
    let cluster = Cluster::new().await;
    cluster.service("web").await;
    cluster.pod("p1", "web", "10.0.0.1").await;
    cluster.expect(&["10.0.0.1"]).await;
    let mut slice = cluster.list("endpointslices").remove(0);
    let name = String::from(slice["metadata"]["name"].as_str().unwrap());
    slice["endpoints"][0]["addresses"] = json!(["10.0.0.66"]);
    slice["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    cluster.update("endpointslices", &name, Part::Main, slice).await;
    cluster.expect(&["10.0.0.1"]).await;
    cluster.delete("endpointslices", &name).await;
    cluster.expect(&["10.0.0.1"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn what_happens_while_the_controllers_are_away_is_made_up_for_and_nothing_else_written() {
    let cluster = Cluster::new().await;
    cluster.service("stays").await;
    cluster.service("goes").await;
    cluster.pod("p1", "stays", "10.0.0.1").await;
    cluster.pod("p2", "goes", "10.0.0.2").await;
    cluster.expect(&["10.0.0.1", "10.0.0.2"]).await;
    let before = cluster.list("endpointslices");
    cluster.shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    cluster.delete("services", "goes").await;
    let cluster = Cluster::open(cluster.stop().await);
    cluster.expect(&["10.0.0.1"]).await;
    let after = cluster.list("endpointslices");
    assert_eq!(after.len(), 1);
    assert!(
        before.contains(&after[0]),
        "a slice that was right is not written again"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_that_appears_later_brings_its_pods_in() {
    let cluster = Cluster::new().await;
    cluster.delete("nodes", "n1").await;
    cluster.service("web").await;
    cluster.pod("p1", "web", "10.0.0.1").await;
    eventually(
        || (cluster.list("endpointslices").len() == 1).then_some(()),
        || "no slice".into(),
    )
    .await;
    cluster.expect(&[]).await;
    let labels = json!({ "topology.kubernetes.io/zone": "za" });
    cluster
        .create("nodes", json!({ "metadata": { "name": "n1", "labels": labels } }))
        .await;
    cluster.expect(&["10.0.0.1"]).await;
    assert_eq!(cluster.list("endpointslices")[0]["endpoints"][0]["zone"], "za");
    cluster.stop().await;
}

#[tokio::test]
async fn a_deleted_namespace_takes_its_contents_along_and_waits_for_finalizers() {
    let cluster = Cluster::new().await;
    cluster.service("web").await;
    cluster.pod("p1", "web", "10.0.0.1").await;
    let held = json!({ "metadata": { "name": "held", "finalizers": ["example.com/hold"] } });
    cluster.create("configmaps", held).await;
    cluster.delete("namespaces", "ns").await;
    eventually(
        || cluster.list("pods").is_empty().then_some(()),
        || "pods are left".into(),
    )
    .await;
    let namespace = cluster.registry.get(kind("namespaces"), None, "ns").unwrap();
    assert_eq!(namespace["status"]["phase"], "Terminating");
    let mut held = cluster.registry.get(kind("configmaps"), Some("ns"), "held").unwrap();
    held["metadata"]["finalizers"] = json!([]);
    cluster.update("configmaps", "held", Part::Main, held).await;
    let gone = || cluster.registry.get(kind("namespaces"), None, "ns").is_err();
    eventually(|| gone().then_some(()), || "the namespace is left".into()).await;
    for plural in ["configmaps", "services", "endpointslices", "pods"] {
        assert_eq!(cluster.list(plural), Vec::<Value>::new());
    }
    cluster.stop().await;
}
