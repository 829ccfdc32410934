//! The API without HTTP: what create, get, list, update, patch, delete and watch mean for any resource.
//!
//! Called by [`super::handlers`] for requests and by [`crate::controllers`] in process, so that defaulting, validation
//! and allocation apply to both. A write goes through
//!
//! 1. [`admit`]: identity, types, unknown fields, system metadata;
//! 2. the resource's [`crate::resources::Strategy`]: defaults, validation, allocation;
//! 3. one call of [`Store::write`] with the object and the claims it takes or gives up, tried again on conflicts. Changes
//!    of one object wait for each other in [`lanes`], so that conflicts are rare.
//!
//! Field ownership (`managedFields`) is not tracked: it is dropped from what clients send.

mod admit;
mod change;
mod create;
mod delete;
mod lanes;
mod options;
mod read;

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::status::Status;
use crate::resources::{Claim, Ranges, Resource, Taken};
use crate::store::{Store, Write};

pub use admit::new_uid;
pub use delete::Deleted;
pub use options::{DeleteOptions, FieldValidation, ListOptions, Part, Preconditions, ReadAt, WriteOptions};
pub use read::Page;
pub(crate) use read::place_of;

/// How often a write is tried again when somebody else was faster.
const ATTEMPTS: usize = 10;

/// A cheap handle on the API of one store.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    ranges: Ranges,
    lanes: lanes::Lanes,
}

/// The outcome of a write.
#[derive(Clone, Debug)]
pub struct Written {
    /// As stored, with its `resourceVersion`.
    pub object: Value,
    /// It did not exist before.
    pub created: bool,
    /// For the client's user.
    pub warnings: Vec<String>,
}

impl Registry {
    /// The API over `store`, allocating from `ranges`.
    pub fn new(store: Store, ranges: Ranges) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                ranges,
                lanes: lanes::Lanes::default(),
            }),
        }
    }

    /// The store below.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Fills in addresses and ports; `old` is what the object holds already.
    fn allocate(&self, resource: &Resource, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        let held = old.map(|old| resource.strategy.claims(old)).unwrap_or_default();
        let taken = StoreClaims {
            store: self.store(),
            held,
        };
        resource
            .strategy
            .allocate(object, old, &taken, &self.inner.ranges)
            .map_err(|errors| Status::invalid(resource, name_of(object), &errors))
    }
}

/// Which claims exist, as far as the object at hand is concerned.
struct StoreClaims<'a> {
    store: &'a Store,
    held: Vec<Claim>,
}

impl Taken for StoreClaims<'_> {
    fn is_taken(&self, claim: &Claim) -> bool {
        // When the store cannot be read, "taken" is the safe answer: the write would fail anyway.
        !self.held.contains(claim) && !matches!(self.store.get(&claim.key), Ok(None))
    }
}

/// The writes that move the claims from those of `old` to those of `new`; a claim's value is the key of its holder.
fn claim_writes(resource: &Resource, key: &str, old: Option<&Value>, new: Option<&Value>) -> Vec<Write> {
    let claims = |object: Option<&Value>| {
        object
            .map(|object| resource.strategy.claims(object))
            .unwrap_or_default()
    };
    let (held, wanted) = (claims(old), claims(new));
    let mut writes: Vec<Write> = Vec::new();
    for claim in wanted.iter().filter(|claim| !held.contains(claim)) {
        if writes.iter().all(|write| write.key() != claim.key) {
            let holder = Bytes::from(Value::from(key).to_string());
            writes.push(Write::Create {
                key: claim.key.clone(),
                value: holder,
            });
        }
    }
    for claim in held.iter().filter(|claim| !wanted.contains(claim)) {
        if writes.iter().all(|write| write.key() != claim.key) {
            writes.push(Write::Delete {
                key: claim.key.clone(),
                expect: None,
            });
        }
    }
    writes
}

fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
