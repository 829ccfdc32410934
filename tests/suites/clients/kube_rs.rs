//! The `kube` crate: typed CRUD, watchers in both modes, metadata, errors, a restart under a watch.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde_json::json;

use super::Server;

const PATIENCE: Duration = Duration::from_secs(20);

async fn client(server: &Server) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(server.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn config_map(name: &str, value: &str) -> Result<ConfigMap> {
    Ok(serde_json::from_value(
        json!({"metadata": {"name": name, "labels": {"of": "test"}}, "data": {"key": value}}),
    )?)
}

/// The error the server answered with.
fn refusal<T>(result: kube::Result<T>) -> Result<(u16, String, String)> {
    match result {
        Err(kube::Error::Api(status)) => Ok((status.code, status.reason.clone(), status.message.clone())),
        Err(other) => bail!("not an answer of the server: {other}"),
        Ok(_) => bail!("it should have been refused"),
    }
}

/// The next event, within reason.
async fn next<T, E: std::error::Error + Send + Sync + 'static>(
    stream: &mut (impl Stream<Item = Result<T, E>> + Unpin),
) -> Result<T> {
    let event = tokio::time::timeout(PATIENCE, stream.next())
        .await
        .context("no event in time")?;
    Ok(event.context("the stream ended")??)
}

/// Reads the initial list of a watcher and returns the names in it.
async fn initial_names<K: Resource>(
    stream: &mut (impl Stream<Item = watcher::Result<Event<K>>> + Unpin),
) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    ensure!(matches!(next(stream).await?, Event::Init), "a watcher begins with Init");
    loop {
        match next(stream).await? {
            Event::InitApply(object) => ensure!(names.insert(object.name_any()), "{} twice", object.name_any()),
            Event::InitDone => return Ok(names),
            _ => bail!("an event amid the initial list"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_created_read_replaced_patched_and_deleted() -> Result<()> {
    let server = Server::start()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server).await?);
    let created = maps.create(&PostParams::default(), &config_map("a", "1")?).await?;
    assert!(created.uid().is_some() && created.creation_timestamp().is_some());
    let (code, reason, message) = refusal(maps.create(&PostParams::default(), &config_map("a", "1")?).await)?;
    assert_eq!(
        (code, reason.as_str(), message.as_str()),
        (409, "AlreadyExists", "configmaps \"a\" already exists")
    );

    let mut changed = created.clone();
    changed.data = config_map("a", "2")?.data;
    let replaced = maps.replace("a", &PostParams::default(), &changed).await?;
    assert_ne!(replaced.resource_version(), created.resource_version());
    let (code, reason, _) = refusal(maps.replace("a", &PostParams::default(), &changed).await)?;
    assert_eq!((code, reason.as_str()), (409, "Conflict"));

    let merged = maps
        .patch(
            "a",
            &PatchParams::default(),
            &Patch::Merge(json!({"data": {"other": "3"}})),
        )
        .await?;
    assert_eq!(merged.data.map(|data| data.len()), Some(2));
    let list = maps.list(&ListParams::default().labels("of=test")).await?;
    assert_eq!(list.items.len(), 1);
    assert!(list.metadata.resource_version.is_some());
    maps.delete("a", &DeleteParams::default()).await?;
    let (code, reason, message) = refusal(maps.get("a").await)?;
    assert_eq!(
        (code, reason.as_str(), message.as_str()),
        (404, "NotFound", "configmaps \"a\" not found")
    );
    assert!(maps.get_opt("a").await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_name_and_a_dry_run() -> Result<()> {
    let server = Server::start()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server).await?);
    let mut nameless = config_map("", "1")?;
    nameless.metadata.name = None;
    nameless.metadata.generate_name = Some("made-".into());
    let first = maps.create(&PostParams::default(), &nameless).await?.name_any();
    let second = maps.create(&PostParams::default(), &nameless).await?.name_any();
    assert!(
        first.starts_with("made-") && first.len() == "made-".len() + 5 && first != second,
        "{first} {second}"
    );
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    maps.create(&dry, &config_map("dry", "1")?).await?;
    assert!(maps.get_opt("dry").await?.is_none());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_lists_in_pages_and_then_follows() -> Result<()> {
    let server = Server::start()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server).await?);
    for index in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("c{index}"), "1")?)
            .await?;
    }
    let settings = watcher::Config::default().labels("of=test").page_size(2);
    follow(&maps, settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_streams_its_list_sees_the_same() -> Result<()> {
    let server = Server::start()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server).await?);
    for index in 0..5 {
        maps.create(&PostParams::default(), &config_map(&format!("c{index}"), "1")?)
            .await?;
    }
    follow(&maps, watcher::Config::default().labels("of=test").streaming_lists()).await
}

/// Five objects to begin with; then one comes, changes, loses its label and goes.
async fn follow(maps: &Api<ConfigMap>, settings: watcher::Config) -> Result<()> {
    let mut stream = watcher::watcher(maps.clone(), settings).boxed();
    assert_eq!(
        initial_names(&mut stream).await?,
        ["c0", "c1", "c2", "c3", "c4"].map(ToOwned::to_owned).into()
    );
    maps.create(&PostParams::default(), &config_map("new", "1")?).await?;
    ensure!(
        matches!(next(&mut stream).await?, Event::Apply(object) if object.name_any() == "new"),
        "new did not come"
    );
    maps.patch(
        "new",
        &PatchParams::default(),
        &Patch::Merge(json!({"data": {"key": "2"}})),
    )
    .await?;
    let value = |object: &ConfigMap| object.data.as_ref().and_then(|data| data.get("key").cloned());
    ensure!(
        matches!(next(&mut stream).await?, Event::Apply(object) if value(&object).as_deref() == Some("2")),
        "no change"
    );
    let unlabel = json!({"metadata": {"labels": {"of": null}}});
    maps.patch("new", &PatchParams::default(), &Patch::Merge(unlabel))
        .await?;
    ensure!(
        matches!(next(&mut stream).await?, Event::Delete(object) if object.name_any() == "new"),
        "new did not leave"
    );
    maps.delete("c0", &DeleteParams::default()).await?;
    ensure!(
        matches!(next(&mut stream).await?, Event::Delete(object) if object.name_any() == "c0"),
        "c0 did not go"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_comes_without_the_rest() -> Result<()> {
    let server = Server::start()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server).await?);
    maps.create(&PostParams::default(), &config_map("a", "1")?).await?;
    let metadata: Api<PartialObjectMeta<ConfigMap>> = Api::default_namespaced(maps.clone().into_client());
    let list = metadata.list(&ListParams::default().labels("of=test")).await?;
    assert_eq!(list.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["a"]);
    let types = list.items[0].types.clone().context("no type")?;
    assert_eq!(
        (types.kind.as_str(), types.api_version.as_str()),
        ("PartialObjectMetadata", "meta.k8s.io/v1")
    );
    let mut stream = watcher::watcher(metadata, watcher::Config::default().labels("of=test")).boxed();
    assert_eq!(initial_names(&mut stream).await?.len(), 1);
    maps.create(&PostParams::default(), &config_map("b", "1")?).await?;
    ensure!(
        matches!(next(&mut stream).await?, Event::Apply(object) if object.name_any() == "b"),
        "b did not come"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_a_revision_replays_what_came_after_it() -> Result<()> {
    let server = Server::start()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server).await?);
    let first = maps.create(&PostParams::default(), &config_map("a", "1")?).await?;
    maps.create(&PostParams::default(), &config_map("b", "1")?).await?;
    maps.delete("a", &DeleteParams::default()).await?;
    let from = first.resource_version().context("no revision")?;
    let mut events = maps
        .watch(&WatchParams::default().labels("of=test").timeout(5), &from)
        .await?
        .boxed();
    let mut seen = Vec::new();
    let mut revisions = vec![from.parse::<u64>()?];
    while seen.len() < 2 {
        match next(&mut events).await? {
            WatchEvent::Added(object) => {
                seen.push(format!("added {}", object.name_any()));
                revisions.push(object.resource_version().context("no revision")?.parse()?);
            }
            WatchEvent::Deleted(object) => {
                seen.push(format!("deleted {}", object.name_any()));
                revisions.push(object.resource_version().context("no revision")?.parse()?);
            }
            WatchEvent::Bookmark(_) => {}
            other => bail!("{other:?}"),
        }
    }
    assert_eq!(seen, ["added b", "deleted a"]);
    assert!(revisions.is_sorted_by(|before, after| before < after), "{revisions:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_the_server_does_not_know_is_gone() -> Result<()> {
    let server = Server::start()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server).await?);
    let parameters = WatchParams::default().timeout(5);
    let first = match maps.watch(&parameters, "1000000").await {
        Err(kube::Error::Api(status)) => status.code,
        Err(other) => bail!(other),
        Ok(events) => match events.boxed().try_next().await?.context("nothing at all")? {
            WatchEvent::Error(status) => status.code,
            other => bail!("{other:?}"),
        },
    };
    assert_eq!(first, 410);
    let (code, ..) = refusal(maps.watch(&parameters, "yesterday").await.map(drop))?;
    assert_eq!(code, 400);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_survives_a_crash_of_the_server() -> Result<()> {
    let mut server = Server::start()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server).await?);
    maps.create(&PostParams::default(), &config_map("before", "1")?).await?;
    let mut stream = watcher::watcher(maps.clone(), watcher::Config::default().labels("of=test"))
        .default_backoff()
        .boxed();
    assert_eq!(initial_names(&mut stream).await?.len(), 1);
    server.crash_and_restart()?;
    maps.create(&PostParams::default(), &config_map("after", "1")?).await?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match tokio::time::timeout_at(deadline, stream.next())
            .await
            .context("the watcher did not come back")?
        {
            Some(Ok(Event::Apply(object) | Event::InitApply(object))) if object.name_any() == "after" => return Ok(()),
            Some(_) => {}
            None => bail!("the watcher ended"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_creations_never_share_an_address_or_a_port() -> Result<()> {
    let server = Server::start()?;
    let services: Api<Service> = Api::default_namespaced(client(&server).await?);
    let creations = (0..40).map(|index| {
        let services = services.clone();
        async move {
            let service = serde_json::from_value(json!({"metadata": {"name": format!("s{index}")},
                "spec": {"type": "NodePort", "ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80}]}}))?;
            anyhow::Ok(services.create(&PostParams::default(), &service).await?)
        }
    });
    let created: Vec<Service> = futures::stream::iter(creations)
        .buffer_unordered(16)
        .try_collect()
        .await?;
    let mut held = BTreeSet::new();
    for spec in created.into_iter().filter_map(|service| service.spec) {
        let addresses = spec.cluster_ips.unwrap_or_default();
        assert_eq!(addresses.len(), 2, "{addresses:?}");
        let ports = spec
            .ports
            .unwrap_or_default()
            .into_iter()
            .filter_map(|port| port.node_port)
            .map(|port| port.to_string());
        for claim in addresses.into_iter().chain(ports) {
            assert!(held.insert(claim.clone()), "{claim} was given twice");
        }
    }
    assert_eq!(held.len(), 120);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_many_asks_for_the_same_address_gets_it() -> Result<()> {
    let server = Server::start()?;
    let services: Api<Service> = Api::default_namespaced(client(&server).await?);
    let asks = (0..12).map(|index| {
        let services = services.clone();
        async move {
            let service = serde_json::from_value(json!({"metadata": {"name": format!("s{index}")},
                "spec": {"clusterIP": "10.96.0.99", "ports": [{"port": 80}]}}))?;
            match services.create(&PostParams::default(), &service).await {
                Ok(_) => Ok(true),
                Err(kube::Error::Api(status))
                    if status.code == 422 && status.message.contains("provided IP is already allocated") =>
                {
                    Ok(false)
                }
                Err(other) => Err(anyhow::Error::from(other)),
            }
        }
    });
    let granted: Vec<bool> = futures::stream::iter(asks).buffer_unordered(12).try_collect().await?;
    assert_eq!(granted.iter().filter(|granted| **granted).count(), 1, "{granted:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_changes_hands_once() -> Result<()> {
    let server = Server::start()?;
    let leases: Api<Lease> = Api::default_namespaced(client(&server).await?);
    let lease = serde_json::from_value(
        json!({"metadata": {"name": "leader"}, "spec": {"holderIdentity": "a", "leaseDurationSeconds": 15}}),
    )?;
    let held = leases.create(&PostParams::default(), &lease).await?;
    let take = |who: &str| {
        let mut mine = held.clone();
        if let Some(spec) = mine.spec.as_mut() {
            spec.holder_identity = Some(who.to_owned());
        }
        mine
    };
    leases.replace("leader", &PostParams::default(), &take("b")).await?;
    let (code, ..) = refusal(leases.replace("leader", &PostParams::default(), &take("c")).await)?;
    assert_eq!(code, 409);
    let holder = leases.get("leader").await?.spec.and_then(|spec| spec.holder_identity);
    assert_eq!(holder.as_deref(), Some("b"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_patched_through_its_subresource() -> Result<()> {
    let server = Server::start()?;
    let pods: Api<Pod> = Api::default_namespaced(client(&server).await?);
    let pod = serde_json::from_value(
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )?;
    pods.create(&PostParams::default(), &pod).await?;
    let patch = json!({"status": {"phase": "Running", "podIP": "10.1.2.3"}});
    let patched = pods
        .patch_status("p", &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let status = patched.status.context("no status")?;
    assert_eq!(
        (status.phase.as_deref(), status.pod_ip.as_deref()),
        (Some("Running"), Some("10.1.2.3"))
    );
    assert_eq!(status.pod_ips.map(|addresses| addresses.len()), Some(1));
    let running = pods.list(&ListParams::default().fields("status.phase=Running")).await?;
    assert_eq!(running.items.len(), 1);
    Ok(())
}
