//! The EndpointSlice controller: Services with selectors and Pods with addresses become EndpointSlices.
//!
//! Run by [`super::runtime`]. It keeps what it needs of Services, Pods, Nodes and slices, with indexes, so that a change
//! costs as much as the Services it concerns: a Pod finds its Services by one label of their selectors, a Service its
//! Pods by its rarest label.
//!
//! ```text
//! change -> which Services? -> queue -> plan (pure) -> create, update, delete through the API
//! ```

mod desired;
mod plan;
mod view;

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::Value;

use super::index::Index;
use super::informer::{Change, Informer, ObjectKey};
use super::runtime::{Controller, Outcome, Work};
use crate::api::{DeleteOptions, Part, Reason, Registry, Status, WriteOptions};
use crate::resources::Resource;
use plan::{MANAGED_BY, MANAGER, Plan, SERVICE_NAME};
use view::{PodView, ServiceView};

/// When the first change happened that a slice's present content follows from: clients measure latency with it.
const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A namespace, and a label of Pods in it.
type Label = (String, String, String);

/// The controller.
pub(super) struct EndpointSlices {
    registry: Registry,
    slice_resource: &'static Resource,
    services: Informer<Service, ServiceView>,
    pods: Informer<Pod, PodView>,
    /// The zone of each Node.
    nodes: Informer<Node, Option<String>>,
    slices: Informer<EndpointSlice, EndpointSlice>,
    services_by_label: Index<Label>,
    pods_by_label: Index<Label>,
    pods_by_node: Index<String>,
    slices_by_service: Index<ObjectKey>,
    /// When a Service's endpoints changed first since they were last written.
    triggered: HashMap<ObjectKey, Timestamp>,
}

impl EndpointSlices {
    /// The controller over everything in `registry`; none if a resource it needs is not served.
    pub(super) fn new(registry: Registry) -> Option<Self> {
        let find = crate::resources::find;
        let store = registry.store().clone();
        let slice_resource = find("discovery.k8s.io", "v1", "endpointslices")?;
        Some(Self {
            slice_resource,
            services: Informer::new(store.clone(), find("", "v1", "services")?, ServiceView::of),
            pods: Informer::new(store.clone(), find("", "v1", "pods")?, PodView::of),
            nodes: Informer::new(store.clone(), find("", "v1", "nodes")?, view::zone_of),
            slices: Informer::new(store, slice_resource, with_revision),
            registry,
            services_by_label: Index::new(),
            pods_by_label: Index::new(),
            pods_by_node: Index::new(),
            slices_by_service: Index::new(),
            triggered: HashMap::new(),
        })
    }

    fn service_changed(&mut self, change: Change<ServiceView>) -> Vec<ObjectKey> {
        // One label is enough to find candidates; the smallest makes the choice the same each time.
        let label = |service: &Option<Arc<ServiceView>>| {
            let service = service.as_ref()?;
            let (key, value) = service.selector.first_key_value()?;
            Some((service.namespace.clone(), key.clone(), value.clone()))
        };
        self.services_by_label
            .update(&change.key, label(&change.old), label(&change.new));
        if change.old == change.new {
            Vec::new()
        } else {
            vec![change.key]
        }
    }

    fn pod_changed(&mut self, change: Change<PodView>) -> Vec<ObjectKey> {
        let (old, new) = (change.old.as_deref(), change.new.as_deref());
        self.pods_by_label.update(
            &change.key,
            old.into_iter().flat_map(labels),
            new.into_iter().flat_map(labels),
        );
        let node = |pod: Option<&PodView>| pod.and_then(|pod| pod.node.clone());
        self.pods_by_node.update(&change.key, node(old), node(new));
        if old == new {
            return Vec::new();
        }
        old.into_iter()
            .chain(new)
            .flat_map(|pod| self.services_of(pod))
            .collect()
    }

    /// A Node that comes, goes or moves to another zone changes the endpoints of its Pods.
    fn node_changed(&mut self, change: &Change<Option<String>>) -> Vec<ObjectKey> {
        if change.old == change.new {
            return Vec::new();
        }
        let pods = self
            .pods_by_node
            .get(&change.key.name)
            .filter_map(|key| self.pods.get(key));
        pods.flat_map(|pod| self.services_of(pod)).collect()
    }

    fn slice_changed(&mut self, change: Change<EndpointSlice>) -> Vec<ObjectKey> {
        let service = |slice: &Option<Arc<EndpointSlice>>| slice.as_deref().and_then(managed_for);
        let (old, new) = (service(&change.old), service(&change.new));
        self.slices_by_service.update(&change.key, old.clone(), new.clone());
        old.into_iter().chain(new).collect()
    }

    fn services_of(&self, pod: &PodView) -> Vec<ObjectKey> {
        let candidates = labels(pod).flat_map(|label| self.services_by_label.get(&label).cloned().collect::<Vec<_>>());
        let selecting = |key: &ObjectKey| {
            self.services
                .get(key)
                .is_some_and(|service| service.selects(&pod.labels))
        };
        candidates.filter(selecting).collect()
    }

    fn pods_of(&self, service: &ServiceView) -> Vec<Arc<PodView>> {
        let label = |(key, value): (&String, &String)| (service.namespace.clone(), key.clone(), value.clone());
        let rarest = service.selector.iter().map(|pair| self.pods_by_label.get(&label(pair)));
        let candidates = rarest.min_by_key(ExactSizeIterator::len).into_iter().flatten();
        candidates
            .filter_map(|key| self.pods.get(key))
            .filter(|pod| service.selects(&pod.labels))
            .cloned()
            .collect()
    }

    fn zone_of(&self, node: &str) -> Option<Option<String>> {
        self.nodes
            .get(&ObjectKey::new("", node))
            .map(|zone| Option::clone(zone))
    }

    fn plan(&self, key: &ObjectKey) -> Plan {
        let existing = self
            .slices_by_service
            .get(key)
            .filter_map(|key| self.slices.get(key))
            .cloned()
            .collect();
        match self.services.get(key).filter(|service| !service.selector.is_empty()) {
            Some(service) => plan::plan(service, &self.pods_of(service), &|node| self.zone_of(node), existing),
            None => Plan {
                delete: existing,
                ..Plan::default()
            },
        }
    }

    /// Notes when the work on these Services became due.
    fn trigger(&mut self, keys: &[ObjectKey]) {
        for key in keys {
            self.triggered.entry(key.clone()).or_insert_with(Timestamp::now);
        }
    }
}

impl Controller for EndpointSlices {
    type Key = ObjectKey;

    async fn changed(&mut self) -> Option<Vec<ObjectKey>> {
        let keys = tokio::select! {
            change = self.services.next() => self.service_changed(change?),
            change = self.pods.next() => self.pod_changed(change?),
            change = self.nodes.next() => self.node_changed(&change?),
            change = self.slices.next() => self.slice_changed(change?),
        };
        self.trigger(&keys);
        Some(keys)
    }

    fn decide(&mut self, key: &ObjectKey) -> Option<Work> {
        let mut plan = self.plan(key);
        let trigger = self.triggered.remove(key);
        if plan.is_empty() {
            return None;
        }
        if let Some(time) = trigger {
            for slice in plan.create.iter_mut().chain(&mut plan.update) {
                let annotations = slice.metadata.annotations.get_or_insert_default();
                annotations.insert(TRIGGER_TIME.into(), time.to_string());
            }
        }
        Some(apply(self.registry.clone(), self.slice_resource, plan).boxed())
    }

    async fn catch_up(&mut self, revision: u64) -> Vec<ObjectKey> {
        let mut keys = Vec::new();
        // Services and Nodes first: what a Pod or a slice concerns is looked up in them.
        for change in self.services.catch_up(revision).await {
            keys.extend(self.service_changed(change));
        }
        for change in self.nodes.catch_up(revision).await {
            keys.extend(self.node_changed(&change));
        }
        for change in self.pods.catch_up(revision).await {
            keys.extend(self.pod_changed(change));
        }
        for change in self.slices.catch_up(revision).await {
            keys.extend(self.slice_changed(change));
        }
        self.trigger(&keys);
        keys
    }
}

fn labels(pod: &PodView) -> impl Iterator<Item = Label> {
    pod.labels
        .iter()
        .map(|(key, value)| (pod.namespace.clone(), key.clone(), value.clone()))
}

/// The Service that a slice of this controller is of.
fn managed_for(slice: &EndpointSlice) -> Option<ObjectKey> {
    let labels = slice.metadata.labels.as_ref()?;
    let service = labels.get(SERVICE_NAME)?;
    (labels.get(MANAGED_BY)? == MANAGER)
        .then(|| ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), service))
}

/// The store keeps an object without its revision; updates need it.
fn with_revision(mut slice: EndpointSlice, revision: u64) -> EndpointSlice {
    slice.metadata.resource_version = Some(revision.to_string());
    slice
}

/// Makes the writes of a plan. The first that fails ends it: what is left is planned anew.
async fn apply(registry: Registry, resource: &'static Resource, plan: Plan) -> Outcome {
    let mut outcome = Outcome::default();
    let result = write(&registry, resource, plan, &mut outcome.written).await;
    // In a namespace that is being deleted nothing can be created, and soon the Service will be gone.
    outcome.failed = result.err().filter(|status| status.reason != Reason::Forbidden);
    outcome
}

async fn write(registry: &Registry, resource: &'static Resource, plan: Plan, written: &mut u64) -> Result<(), Status> {
    let options = WriteOptions::default();
    for slice in plan.create {
        let made = registry
            .create(resource, slice.metadata.namespace.as_deref(), encode(&slice)?, &options)
            .await?;
        *written = revision_of(&made.object);
    }
    for slice in plan.update {
        let place = (
            slice.metadata.namespace.as_deref(),
            slice.metadata.name.as_deref().unwrap_or_default(),
        );
        let made = registry
            .update(resource, place, Part::Main, encode(&slice)?, &options)
            .await?;
        *written = revision_of(&made.object);
    }
    for slice in plan.delete {
        let place = (
            slice.metadata.namespace.as_deref(),
            slice.metadata.name.as_deref().unwrap_or_default(),
        );
        match registry.delete(resource, place, &DeleteOptions::default()).await {
            Ok(deleted) => *written = revision_of(&deleted.object),
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status),
        }
    }
    Ok(())
}

fn encode(slice: &EndpointSlice) -> Result<Value, Status> {
    serde_json::to_value(slice).map_err(Status::internal)
}

fn revision_of(object: &Value) -> u64 {
    let revision = object["metadata"]["resourceVersion"]
        .as_str()
        .and_then(|revision| revision.parse().ok());
    revision.unwrap_or_default()
}
