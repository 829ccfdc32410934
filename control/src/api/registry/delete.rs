//! Delete and delete collection.
//!
//! An object that something still has to clean up after (finalizers) is only marked; [`super::change`] removes it when
//! the last finalizer goes. Everything else goes at once, Pods too: no grace period is waited for.

use serde_json::Value;

use super::change::uid_differs;
use super::{ATTEMPTS, DeleteOptions, ListOptions, Registry, admit, claim_writes};
use crate::api::status::Status;
use crate::api::wire::{self, Object};
use crate::resources::{Resource, object};
use crate::store::{Record, StoreError, Write};

/// The outcome of a deletion.
#[derive(Clone, Debug)]
pub struct Deleted {
    /// The object as it was last, with the revision of its deletion; or as it is now, if it is only marked.
    pub object: Value,
    /// It is gone, not only marked.
    pub gone: bool,
}

impl Registry {
    /// Deletes an object, or marks it as being deleted while it has finalizers.
    pub async fn delete(
        &self,
        resource: &'static Resource,
        (namespace, name): (Option<&str>, &str),
        options: &DeleteOptions,
    ) -> Result<Deleted, Status> {
        refuse_immortal(resource, name)?;
        let key = resource.key(namespace, name);
        let _lane = self.inner.lanes.enter(&key).await;
        for _ in 0..ATTEMPTS {
            let record = self
                .store()
                .get(&key)?
                .ok_or_else(|| Status::not_found(resource, name))?;
            let object = Object::new(resource, &record).to_value()?;
            check_preconditions(resource, name, &object, options)?;
            if let Some(deleted) = self.try_delete(resource, &record, object, options).await? {
                return Ok(deleted);
            }
        }
        Err(Status::modified(resource, name))
    }

    /// Deletes every object of a namespace (or of all, with `None`) that is selected, and returns them.
    pub async fn delete_collection(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<Vec<Deleted>, Status> {
        let page = self.list(resource, namespace, list)?;
        let mut deleted = Vec::with_capacity(page.objects.len());
        for object in page.values()? {
            let name = object::str_at(&object, "metadata.name");
            let namespace = resource
                .namespaced
                .then(|| object::str_at(&object, "metadata.namespace"));
            match self.delete(resource, (namespace, name), options).await {
                Ok(one) => deleted.push(one),
                Err(status) if status.is_not_found() => {}
                Err(status) => return Err(status),
            }
        }
        Ok(deleted)
    }

    /// None when the object changed meanwhile.
    async fn try_delete(
        &self,
        resource: &'static Resource,
        record: &Record,
        object: Value,
        options: &DeleteOptions,
    ) -> Result<Option<Deleted>, Status> {
        let mut marked = object.clone();
        let first_time = object::is_empty_at(&object, "metadata.deletionTimestamp");
        if first_time {
            mark(resource, &mut marked);
        }
        let gone = resource.strategy.may_be_removed(&marked);
        if options.dry_run || (!gone && !first_time) {
            return Ok(Some(Deleted { object: marked, gone }));
        }
        let (key, expect) = (record.key.clone(), record.modified);
        let writes = if gone {
            let mut writes = claim_writes(resource, &key, Some(&object), None);
            writes.push(Write::Delete {
                key,
                expect: Some(expect),
            });
            writes
        } else {
            vec![Write::Update {
                key,
                value: wire::encode(&marked),
                expect,
            }]
        };
        match self.store().write(writes, resource.durability).await {
            Ok(revision) => {
                let mut object = if gone { object } else { marked };
                object["metadata"]["resourceVersion"] = revision.to_string().into();
                Ok(Some(Deleted { object, gone }))
            }
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Namespaces that everything else relies on stay.
fn refuse_immortal(resource: &Resource, name: &str) -> Result<(), Status> {
    if resource.kind == "Namespace" && matches!(name, "default" | "kube-system" | "kube-public") {
        return Err(Status::forbidden(resource, name, "this namespace may not be deleted"));
    }
    Ok(())
}

fn mark(resource: &Resource, object: &mut Value) {
    object["metadata"]["deletionTimestamp"] = admit::now().into();
    object["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    if let Some(generation) = object["metadata"]["generation"].as_i64() {
        object["metadata"]["generation"] = (generation + 1).into();
    }
    if resource.kind == "Namespace" {
        // A Namespace's deletion is announced by its phase; its strategy keeps it while spec.finalizers are left.
        object["status"]["phase"] = "Terminating".into();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("deletionGracePeriodSeconds");
        }
    }
}

fn check_preconditions(resource: &Resource, name: &str, object: &Value, options: &DeleteOptions) -> Result<(), Status> {
    let actual = object::str_at(object, "metadata.uid");
    if let Some(wanted) = options.preconditions.uid.as_deref().filter(|wanted| *wanted != actual) {
        return Err(Status::conflict(resource, name, &uid_differs(wanted, actual)));
    }
    let actual = object::str_at(object, "metadata.resourceVersion");
    if let Some(wanted) = options
        .preconditions
        .resource_version
        .as_deref()
        .filter(|wanted| *wanted != actual)
    {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {actual}"
        );
        return Err(Status::conflict(resource, name, &why));
    }
    Ok(())
}
