//! The namespace controller: a namespace that is being deleted is emptied, then let go.
//!
//! Run by [`super::runtime`]. Deleting a namespace marks it and sets its phase to Terminating; from then on the API
//! creates nothing in it, and this controller deletes what is there, kind after kind. When nothing is left it takes the
//! finalizer `kubernetes` away, with which the API keeps the namespace until then.

use std::collections::BTreeSet;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;

use super::informer::{Change, Informer, ObjectKey};
use super::runtime::{Controller, Outcome, Work};
use crate::api::{DeleteOptions, ListOptions, Part, Reason, Registry, Status, WriteOptions};
use crate::resources::{RESOURCES, Resource};

const FINALIZER: &str = "kubernetes";

/// The controller.
pub(super) struct Namespaces {
    registry: Registry,
    resource: &'static Resource,
    /// Whether each namespace waits for this controller.
    namespaces: Informer<Namespace, bool>,
}

impl Namespaces {
    /// The controller over everything in `registry`; none if namespaces are not served.
    pub(super) fn new(registry: Registry) -> Option<Self> {
        let resource = crate::resources::find("", "v1", "namespaces")?;
        let namespaces = Informer::new(registry.store().clone(), resource, is_waiting);
        Some(Self {
            registry,
            resource,
            namespaces,
        })
    }
}

impl Controller for Namespaces {
    type Key = ObjectKey;

    async fn changed(&mut self) -> Option<Vec<ObjectKey>> {
        self.namespaces
            .next()
            .await
            .map(|change| waiting(change).into_iter().collect())
    }

    fn decide(&mut self, key: &ObjectKey) -> Option<Work> {
        let waits = self.namespaces.get(key).is_some_and(|waits| **waits);
        waits.then(|| delete(self.registry.clone(), self.resource, key.name.clone()).boxed())
    }

    async fn catch_up(&mut self, revision: u64) -> Vec<ObjectKey> {
        self.namespaces
            .catch_up(revision)
            .await
            .into_iter()
            .filter_map(waiting)
            .collect()
    }
}

fn is_waiting(namespace: Namespace, _revision: u64) -> bool {
    let finalizers = namespace.spec.and_then(|spec| spec.finalizers).unwrap_or_default();
    namespace.metadata.deletion_timestamp.is_some() && finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

fn waiting(change: Change<bool>) -> Option<ObjectKey> {
    change.new.is_some_and(|waits| *waits).then_some(change.key)
}

async fn delete(registry: Registry, resource: &'static Resource, name: String) -> Outcome {
    let failed = match empty(&registry, &name).await {
        Ok(()) => finalize(&registry, resource, &name).await.err(),
        Err(status) => Some(status),
    };
    // Whether the namespace is still there shows when it changes next.
    Outcome {
        written: 0,
        failed: failed.filter(|status| !status.is_not_found()),
    }
}

/// Deletes everything in a namespace. Fails while something is left, which has finalizers of its own.
async fn empty(registry: &Registry, name: &str) -> Result<(), Status> {
    let mut seen = BTreeSet::new();
    // Events are served by two groups but kept once.
    let kinds = RESOURCES
        .iter()
        .filter(|resource| resource.namespaced && seen.insert(resource.prefix(None)));
    let mut left = Vec::new();
    for resource in kinds {
        let (everything, options) = (ListOptions::default(), DeleteOptions::default());
        let deleted = registry
            .delete_collection(resource, Some(name), &everything, &options)
            .await?;
        left.extend(deleted.iter().filter(|one| !one.gone).map(|_| resource.plural));
    }
    left.dedup();
    if left.is_empty() {
        return Ok(());
    }
    Err(Status::new(
        Reason::Conflict,
        format!("finalizers keep some of its {}", left.join(", ")),
    ))
}

async fn finalize(registry: &Registry, resource: &'static Resource, name: &str) -> Result<(), Status> {
    let mut namespace = registry.get(resource, None, name)?;
    if let Some(finalizers) = namespace["spec"]["finalizers"].as_array_mut() {
        finalizers.retain(|finalizer| finalizer != FINALIZER);
    }
    registry
        .update(
            resource,
            (None, name),
            Part::Finalize,
            namespace,
            &WriteOptions::default(),
        )
        .await
        .map(drop)
}
