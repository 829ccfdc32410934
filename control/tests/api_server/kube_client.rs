//! The `kube` crate as a client: typed objects, its watcher in both modes, discovery, patches.

use std::time::Duration;

use control::store::Options;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::PartialObjectMeta;
use kube::discovery::Discovery;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use serde_json::json;

use crate::harness::{PATIENCE, Server, service};

async fn client(server: &Server) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a good one");
    Client::try_from(config).expect("a client")
}

#[tokio::test]
async fn typed_objects_go_there_and_back() {
    let server = Server::start().await;
    let services: Api<Service> = Api::namespaced(client(&server).await, "default");
    let wanted: Service = serde_json::from_value(service("web")).unwrap();
    let made = services.create(&PostParams::default(), &wanted).await.unwrap();
    assert!(made.metadata.uid.is_some() && made.spec.as_ref().unwrap().cluster_ip.is_some());
    let patch = Patch::Strategic(json!({ "spec": { "ports": [{ "port": 80, "targetPort": 8080 }] } }));
    services.patch("web", &PatchParams::default(), &patch).await.unwrap();
    let mut stale = made.clone();
    stale.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    let error = services
        .replace("web", &PostParams::default(), &stale)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, kube::Error::Api(status) if status.reason == "Conflict"),
        "{error}"
    );
    let list = services.list(&ListParams::default()).await.unwrap();
    assert_eq!((list.items.len(), list.metadata.resource_version.is_some()), (1, true));
    services.delete("web", &DeleteParams::background()).await.unwrap();
    assert!(services.get_opt("web").await.unwrap().is_none());
}

#[tokio::test]
async fn its_watcher_follows_in_both_modes() {
    let server = Server::start().await;
    server.config_map("a", json!({})).await;
    let api: Api<ConfigMap> = Api::namespaced(client(&server).await, "default");
    for (round, config) in [watcher::Config::default(), watcher::Config::default().streaming_lists()]
        .into_iter()
        .enumerate()
    {
        let mut events = watcher(api.clone(), config).boxed();
        let mut initial = 0;
        loop {
            match tokio::time::timeout(PATIENCE, events.try_next())
                .await
                .expect("in time")
                .unwrap()
                .unwrap()
            {
                Event::InitApply(_) => initial += 1,
                Event::InitDone => break,
                _ => {}
            }
        }
        assert_eq!(initial, 1 + round);
        server.config_map(&format!("new-{round}"), json!({})).await;
        let event = tokio::time::timeout(PATIENCE, events.try_next())
            .await
            .expect("in time")
            .unwrap()
            .unwrap();
        assert!(matches!(&event, Event::Apply(map) if map.metadata.name.as_deref() == Some(&format!("new-{round}"))));
    }
}

#[tokio::test]
async fn its_metadata_watcher_sees_metadata() {
    let server = Server::start().await;
    server.config_map("a", json!({ "x": "y" })).await;
    let api: Api<PartialObjectMeta<ConfigMap>> = Api::namespaced(client(&server).await, "default");
    let mut objects = watcher(api, watcher::Config::default()).applied_objects().boxed();
    let object = tokio::time::timeout(PATIENCE, objects.try_next())
        .await
        .expect("in time")
        .unwrap()
        .unwrap();
    assert_eq!(object.metadata.labels.unwrap()["x"], "y");
}

#[tokio::test]
async fn its_watcher_starts_over_when_history_is_gone() {
    let short = Options {
        history: Duration::ZERO,
        history_min_events: 1,
        compact_every: Duration::from_millis(10),
        ..Options::default()
    };
    let server = Server::start_with(short).await;
    server.config_map("a", json!({})).await;
    let api: Api<ConfigMap> = Api::namespaced(client(&server).await, "default");
    // The watch ends each second without a bookmark, and by then its revision is compacted.
    let config = watcher::Config::default().timeout(1).fields("metadata.name=a");
    let mut events = watcher(
        api,
        watcher::Config {
            bookmarks: false,
            ..config
        },
    )
    .boxed();
    let relisted = tokio::time::timeout(PATIENCE, async {
        let (mut lists, mut number) = (0, 0);
        while lists < 2 {
            tokio::select! {
                event = events.next() => lists += usize::from(matches!(event, Some(Ok(Event::InitDone)))),
                () = tokio::time::sleep(Duration::from_millis(50)) => {
                    number += 1;
                    server.config_map(&format!("x{number}"), json!({})).await;
                }
            }
        }
    });
    relisted.await.expect("the watcher lists again after 410");
}

#[tokio::test]
async fn its_discovery_finds_every_group() {
    let server = Server::start().await;
    let client = client(&server).await;
    for discovery in [
        Discovery::new(client.clone()).run().await.unwrap(),
        Discovery::new(client).run_aggregated().await.unwrap(),
    ] {
        let slices = discovery
            .get("discovery.k8s.io")
            .unwrap()
            .recommended_kind("EndpointSlice")
            .unwrap();
        assert_eq!(slices.0.plural, "endpointslices");
        assert!(discovery.get("").unwrap().recommended_kind("Service").is_some());
    }
}
