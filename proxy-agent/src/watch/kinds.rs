//! One task per kind of object: list, watch, list again, with the state machine drawn in [`super`].

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::{
    core::v1::{Node as NodeObject, Service as ServiceObject},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinSet};

use super::{Event, backoff::Doubling, parse};
use crate::model::{Node, Service, Slice};

const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
const KINDS: usize = 3;

/// What to watch.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this node.
    pub node_name: String,
    /// Which `service.kubernetes.io/service-proxy-name` to serve; `None`: objects without it.
    pub proxy_name: Option<String>,
}

impl Options {
    /// The selector kube-proxy uses, for Services and EndpointSlices alike.
    fn labels(&self) -> String {
        match &self.proxy_name {
            None => format!("!{PROXY_NAME_LABEL},!{HEADLESS_LABEL}"),
            Some(name) => format!("{PROXY_NAME_LABEL}={name},!{HEADLESS_LABEL}"),
        }
    }
}

/// Starts the tasks; they end when the receiver of `events` is gone or the set is dropped.
pub fn start(client: &Client, options: &Options, events: &mpsc::Sender<Event>) -> JoinSet<()> {
    let labels = watcher::Config::default().labels(&options.labels());
    let this_node = watcher::Config::default().fields(&format!("metadata.name={}", options.node_name));
    let listed = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    let follower = || Follower {
        events: events.clone(),
        listed: listed.clone(),
    };
    tasks.spawn(follower().follow::<Services>(Api::all(client.clone()), labels.clone()));
    tasks.spawn(follower().follow::<Slices>(Api::all(client.clone()), labels));
    tasks.spawn(follower().follow::<ThisNode>(Api::all(client.clone()), this_node));
    tasks
}

/// How one kind of object becomes events.
trait Kind: Send + 'static {
    const NAME: &'static str;
    type Object: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static;
    type Parsed: Send;

    fn parse(object: &Self::Object) -> Option<Self::Parsed>;
    fn applied(parsed: Self::Parsed) -> Event;
    fn deleted(object: &Self::Object) -> Event;
    fn replaced(all: Vec<Self::Parsed>) -> Event;
}

struct Services;

impl Kind for Services {
    const NAME: &'static str = "Services";
    type Object = ServiceObject;
    type Parsed = Service;

    fn parse(object: &ServiceObject) -> Option<Service> {
        parse::service(object)
    }

    fn applied(parsed: Service) -> Event {
        Event::ServiceApplied(parsed)
    }

    fn deleted(object: &ServiceObject) -> Event {
        Event::ServiceDeleted(parse::service_name(&object.metadata))
    }

    fn replaced(all: Vec<Service>) -> Event {
        Event::ServicesReplaced(all)
    }
}

struct Slices;

impl Kind for Slices {
    const NAME: &'static str = "EndpointSlices";
    type Object = EndpointSlice;
    type Parsed = Slice;

    fn parse(object: &EndpointSlice) -> Option<Slice> {
        parse::slice(object)
    }

    fn applied(parsed: Slice) -> Event {
        Event::SliceApplied(parsed)
    }

    fn deleted(object: &EndpointSlice) -> Event {
        Event::SliceDeleted(parse::slice_name(&object.metadata))
    }

    fn replaced(all: Vec<Slice>) -> Event {
        Event::SlicesReplaced(all)
    }
}

struct ThisNode;

impl Kind for ThisNode {
    const NAME: &'static str = "Node";
    type Object = NodeObject;
    type Parsed = Node;

    fn parse(object: &NodeObject) -> Option<Node> {
        Some(parse::node(object))
    }

    fn applied(parsed: Node) -> Event {
        Event::NodeApplied(parsed)
    }

    fn deleted(_: &NodeObject) -> Event {
        Event::NodeDeleted
    }

    fn replaced(all: Vec<Node>) -> Event {
        all.into_iter().next().map_or(Event::NodeDeleted, Event::NodeApplied)
    }
}

/// The state of one kind: what the listing under way has brought so far.
struct Listing<K: Kind>(Vec<K::Parsed>);

impl<K: Kind> Listing<K> {
    /// The event an event of the watcher amounts to, if any.
    fn step(&mut self, event: watcher::Event<K::Object>) -> Option<Event> {
        match event {
            watcher::Event::Init => self.0.clear(),
            watcher::Event::InitApply(object) => self.0.extend(K::parse(&object)),
            watcher::Event::InitDone => return Some(K::replaced(std::mem::take(&mut self.0))),
            watcher::Event::Apply(object) => {
                return Some(K::parse(&object).map_or_else(|| K::deleted(&object), K::applied));
            }
            watcher::Event::Delete(object) => return Some(K::deleted(&object)),
        }
        None
    }
}

struct Follower {
    events: mpsc::Sender<Event>,
    /// How many kinds have left their first listing.
    listed: Arc<AtomicUsize>,
}

impl Follower {
    async fn follow<K: Kind>(self, api: Api<K::Object>, config: watcher::Config)
    where
        <K::Object as Resource>::DynamicType: Default,
    {
        let stream = watcher::watcher(api, config).backoff(Doubling::new());
        pin_mut!(stream);
        let mut listing = Listing::<K>(Vec::new());
        let mut first = true;
        while let Some(item) = stream.next().await {
            let done = matches!(item, Ok(watcher::Event::InitDone));
            let event = match item {
                Ok(event) => listing.step(event),
                Err(error) => {
                    tracing::warn!(kind = K::NAME, error = %chain(&error), "watch failed, trying again");
                    None
                }
            };
            if let Some(event) = event
                && self.events.send(event).await.is_err()
            {
                return;
            }
            if done && std::mem::take(&mut first) && !self.note_listed().await {
                return;
            }
        }
    }

    /// The last kind to leave its first listing says [`Event::Synced`]: the channel holds all three lists by then.
    async fn note_listed(&self) -> bool {
        let listed = self.listed.fetch_add(1, Ordering::AcqRel) + 1;
        listed < KINDS || self.events.send(Event::Synced).await.is_ok()
    }
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors repeat their cause in their own message.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, cluster_ip: &str) -> ServiceObject {
        let yaml = format!("{{metadata: {{name: {name}, namespace: a}}, spec: {{clusterIP: {cluster_ip}}}}}");
        serde_saphyr::from_str(&yaml).unwrap()
    }

    #[test]
    fn a_listing_is_one_event_with_everything_that_is_ours() {
        let mut listing = Listing::<Services>(Vec::new());
        assert_eq!(listing.step(watcher::Event::Init), None);
        assert_eq!(
            listing.step(watcher::Event::InitApply(service("web", "10.96.0.1"))),
            None
        );
        assert_eq!(
            listing.step(watcher::Event::InitApply(service("headless", "None"))),
            None
        );
        let Some(Event::ServicesReplaced(all)) = listing.step(watcher::Event::InitDone) else {
            panic!("no list")
        };
        assert_eq!(all.iter().map(|s| s.name.name.as_str()).collect::<Vec<_>>(), ["web"]);
    }

    #[test]
    fn a_listing_that_starts_again_forgets_its_first_half() {
        let mut listing = Listing::<Services>(Vec::new());
        listing.step(watcher::Event::Init);
        listing.step(watcher::Event::InitApply(service("old", "10.96.0.1")));
        listing.step(watcher::Event::Init);
        assert_eq!(
            listing.step(watcher::Event::InitDone),
            Some(Event::ServicesReplaced(Vec::new()))
        );
    }

    #[test]
    fn a_service_that_loses_its_address_is_deleted() {
        let mut listing = Listing::<Services>(Vec::new());
        let event = listing.step(watcher::Event::Apply(service("web", "None")));
        assert!(matches!(event, Some(Event::ServiceDeleted(name)) if name.name == "web"));
    }

    #[test]
    fn labels_choose_the_same_objects_as_kube_proxy() {
        let options = |proxy_name| Options {
            node_name: "n".into(),
            proxy_name,
        };
        assert_eq!(
            options(None).labels(),
            "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"
        );
        assert!(
            options(Some("mine".into()))
                .labels()
                .starts_with("service.kubernetes.io/service-proxy-name=mine,")
        );
    }
}
