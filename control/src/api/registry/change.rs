//! Update and patch: one read, one new version, one conditional write; again when somebody else was faster.

use serde_json::Value;

use super::{ATTEMPTS, Part, Registry, WriteOptions, Written, admit, claim_writes, name_of};
use crate::api::patch::Patch;
use crate::api::status::Status;
use crate::api::wire::{self, Object};
use crate::resources::{FieldError, Resource, metadata, object};
use crate::store::{Record, StoreError, Write};

impl Registry {
    /// Replaces an object, or a part of it. An object that names a `resourceVersion` must be the newest; one that
    /// names none replaces whatever is there, where Kubernetes allows that. Kinds that may be created by an update are.
    pub async fn update(
        &self,
        resource: &'static Resource,
        place: (Option<&str>, &str),
        part: Part,
        new: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let (namespace, name) = place;
        let missing = self.store().get(&resource.key(namespace, name))?.is_none();
        if missing && part == Part::Main && allows_create_on_update(resource) {
            return self.create_by_update(resource, place, new, options).await;
        }
        let make = |_: &Value| {
            let mut new = new.clone();
            admit::identify(resource, namespace, &mut new)?;
            if object::is_empty_at(&new, "metadata.resourceVersion") && !allows_unconditional_update(resource) {
                let error = FieldError::invalid("metadata.resourceVersion", 0, "must be specified for an update");
                return Err(Status::invalid(resource, name, &[error]));
            }
            Ok(new)
        };
        self.change(resource, place, part, options, make).await
    }

    async fn create_by_update(
        &self,
        resource: &'static Resource,
        (namespace, name): (Option<&str>, &str),
        mut new: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        admit::identify(resource, namespace, &mut new)?;
        admit::check_name(&new, name)?;
        let wants_old = ["metadata.resourceVersion", "metadata.uid"]
            .iter()
            .any(|path| !object::is_empty_at(&new, path));
        if wants_old {
            return Err(Status::not_found(resource, name));
        }
        new["metadata"]["name"] = name.into();
        self.create(resource, namespace, new, options).await
    }

    /// Changes an object, or a part of it, as `patch` says. The patch is applied again to a newer version when the
    /// write conflicts, unless it names a `resourceVersion` itself.
    pub async fn patch(
        &self,
        resource: &'static Resource,
        place: (Option<&str>, &str),
        part: Part,
        patch: &Patch,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        let make = |old: &Value| {
            let mut new = patch.apply(resource, old)?;
            admit::identify(resource, place.0, &mut new)?;
            Ok(new)
        };
        self.change(resource, place, part, options, make).await
    }

    async fn change(
        &self,
        resource: &'static Resource,
        (namespace, name): (Option<&str>, &str),
        part: Part,
        options: &WriteOptions,
        make: impl Fn(&Value) -> Result<Value, Status>,
    ) -> Result<Written, Status> {
        let key = resource.key(namespace, name);
        let _lane = self.inner.lanes.enter(&key).await;
        for _ in 0..ATTEMPTS {
            let record = self
                .store()
                .get(&key)?
                .ok_or_else(|| Status::not_found(resource, name))?;
            let old = Object::new(resource, &record).to_value()?;
            let mut new = make(&old)?;
            let warnings = check_and_prepare(resource, name, part, options, &mut new, &old)?;
            self.allocate(resource, &mut new, Some(&old))?;
            let outcome = self.write_version(resource, &record, &old, new, options).await?;
            if let Some(object) = outcome {
                return Ok(Written {
                    object,
                    created: false,
                    warnings,
                });
            }
        }
        Err(Status::modified(resource, name))
    }

    /// Writes the new version, or removes the object when this version lets go of it. None when the write has to be
    /// tried again from a newer version.
    async fn write_version(
        &self,
        resource: &'static Resource,
        record: &Record,
        old: &Value,
        mut new: Value,
        options: &WriteOptions,
    ) -> Result<Option<Value>, Status> {
        let dying = !object::is_empty_at(&new, "metadata.deletionTimestamp");
        let gone = dying && resource.strategy.may_be_removed(&new);
        let value = wire::encode(&new);
        new["metadata"]["resourceVersion"] = record.modified.to_string().into();
        if options.dry_run || (!gone && value == record.value) {
            return Ok(Some(new));
        }
        let (key, expect) = (record.key.clone(), record.modified);
        let mut writes = claim_writes(resource, &key, Some(old), (!gone).then_some(&new));
        writes.push(if gone {
            Write::Delete {
                key,
                expect: Some(expect),
            }
        } else {
            Write::Update { key, value, expect }
        });
        match self.store().write(writes, resource.durability).await {
            Ok(revision) => {
                new["metadata"]["resourceVersion"] = revision.to_string().into();
                Ok(Some(new))
            }
            Err(StoreError::Conflict { .. } | StoreError::NotFound { .. } | StoreError::AlreadyExists { .. }) => {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Everything between a client's new version and one that may be written. Returns warnings.
fn check_and_prepare(
    resource: &Resource,
    name: &str,
    part: Part,
    options: &WriteOptions,
    new: &mut Value,
    old: &Value,
) -> Result<Vec<String>, Status> {
    let mut warnings = admit::decode(resource, new, options)?;
    check_identity(resource, name, new, old)?;
    resource.strategy.default(new);
    match part {
        Part::Main => resource.strategy.prepare_update(new, old),
        Part::Status => resource.strategy.prepare_status_update(new, old),
        Part::Finalize => resource.strategy.prepare_finalize_update(new, old),
    }
    admit::carry_over(resource, new, old);
    let mut errors = metadata::validate_update(new, old);
    errors.extend(match part {
        Part::Status => resource.strategy.validate_status(new, old),
        Part::Main | Part::Finalize => resource.strategy.validate(new, Some(old)),
    });
    if !errors.is_empty() {
        return Err(Status::invalid(resource, name, &errors));
    }
    warnings.extend(resource.strategy.warnings(new));
    Ok(warnings)
}

/// The new version must be one of this object, and made from the newest if it says from which.
fn check_identity(resource: &Resource, name: &str, new: &mut Value, old: &Value) -> Result<(), Status> {
    admit::check_name(new, name)?;
    new["metadata"]["name"] = name.into();
    let (given, newest) = (
        object::str_at(new, "metadata.resourceVersion"),
        object::str_at(old, "metadata.resourceVersion"),
    );
    if !matches!(given, "" | "0") && given != newest {
        if given.parse::<u64>().is_err() {
            let error = FieldError::invalid("metadata.resourceVersion", given, "must be a number");
            return Err(Status::invalid(resource, name, &[error]));
        }
        return Err(Status::modified(resource, name));
    }
    let (given, actual) = (object::str_at(new, "metadata.uid"), object::str_at(old, "metadata.uid"));
    if !given.is_empty() && given != actual {
        return Err(Status::conflict(resource, name, &uid_differs(given, actual)));
    }
    new["metadata"]["resourceVersion"] = newest.into();
    debug_assert_eq!(name_of(new), name);
    Ok(())
}

/// Why a precondition on the uid fails.
pub(super) fn uid_differs(wanted: &str, actual: &str) -> String {
    format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {actual}")
}

/// Leases are for leader election: whoever updates one must have seen the newest.
fn allows_unconditional_update(resource: &Resource) -> bool {
    resource.kind != "Lease"
}

/// Kinds for which a PUT of an object that does not exist creates it.
fn allows_create_on_update(resource: &Resource) -> bool {
    matches!(resource.kind, "Service" | "Lease" | "Event" | "Endpoints")
}
