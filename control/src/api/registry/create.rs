//! Create.

use serde_json::Value;

use super::{ATTEMPTS, Registry, WriteOptions, Written, admit, claim_writes, name_of};
use crate::api::status::Status;
use crate::api::wire;
use crate::resources::{Resource, metadata, object};
use crate::store::{StoreError, Write};

impl Registry {
    /// Makes a new object. A name is made up where `generateName` asks for one.
    pub async fn create(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Written, Status> {
        admit::identify(resource, namespace, &mut object)?;
        if !object::is_empty_at(&object, "metadata.resourceVersion") {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let mut warnings = admit::decode(resource, &mut object, options)?;
        if let Some(namespace) = namespace {
            self.check_namespace(resource, namespace, name_of(&object))?;
        }
        resource.strategy.default(&mut object);
        resource.strategy.prepare_create(&mut object);
        admit::stamp(resource, &mut object);
        warnings.extend(resource.strategy.warnings(&object));
        let base = if name_of(&object).is_empty() {
            object::str_at(&object, "metadata.generateName")
        } else {
            ""
        };
        let base = base.to_owned();
        let mut last = Status::already_exists(resource, name_of(&object));
        for _ in 0..ATTEMPTS {
            let mut candidate = object.clone();
            if !base.is_empty() {
                candidate["metadata"]["name"] = admit::generated_name(&base).into();
                // Some defaults are made from the name.
                resource.strategy.default(&mut candidate);
            }
            match self.try_create(resource, namespace, candidate, options).await? {
                Attempt::Done(object) => {
                    return Ok(Written {
                        object,
                        created: true,
                        warnings,
                    });
                }
                Attempt::NameTaken(status) if base.is_empty() => return Err(status),
                Attempt::NameTaken(status) | Attempt::ClaimTaken(status) => last = status,
            }
        }
        Err(last)
    }

    async fn try_create(
        &self,
        resource: &'static Resource,
        namespace: Option<&str>,
        mut object: Value,
        options: &WriteOptions,
    ) -> Result<Attempt, Status> {
        let name = name_of(&object).to_owned();
        let mut errors = metadata::validate(&object, resource.namespaced, resource.strategy);
        errors.extend(resource.strategy.validate(&object, None));
        if !errors.is_empty() {
            return Err(Status::invalid(resource, &name, &errors));
        }
        let key = resource.key(namespace, &name);
        if self.store().get(&key)?.is_some() {
            return Ok(Attempt::NameTaken(Status::already_exists(resource, &name)));
        }
        self.allocate(resource, &mut object, None)?;
        if options.dry_run {
            return Ok(Attempt::Done(object));
        }
        let mut writes = vec![Write::Create {
            key: key.clone(),
            value: wire::encode(&object),
        }];
        writes.extend(claim_writes(resource, &key, None, Some(&object)));
        match self.store().write(writes, resource.durability).await {
            Ok(revision) => {
                object["metadata"]["resourceVersion"] = revision.to_string().into();
                Ok(Attempt::Done(object))
            }
            Err(StoreError::AlreadyExists { key: taken }) if taken == key => {
                Ok(Attempt::NameTaken(Status::already_exists(resource, &name)))
            }
            Err(StoreError::AlreadyExists { key: taken }) => {
                let why = format!("{taken} was allocated to another object at the same moment");
                Ok(Attempt::ClaimTaken(Status::conflict(resource, &name, &why)))
            }
            Err(error) => Err(error.into()),
        }
    }
}

enum Attempt {
    Done(Value),
    NameTaken(Status),
    ClaimTaken(Status),
}
