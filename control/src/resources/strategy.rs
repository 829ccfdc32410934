//! What differs from kind to kind, as one trait.
//!
//! The generic write path in `api` calls these in the order of the trait; a kind implements only what it needs.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::allocation::{Claim, Ranges, Taken};
use super::field_error::FieldError;
use super::{duration, names, object};

/// Behaviour of one kind. Objects are plain JSON that has passed [`super::Resource::decode`], so fields that are
/// present have the right type.
pub trait Strategy: Send + Sync {
    /// Fills in defaults. Idempotent; called on every object a client sends, patches included.
    fn default(&self, _object: &mut Value) {}

    /// Resets what a client may not set on creation, such as status.
    fn prepare_create(&self, _object: &mut Value) {}

    /// Carries over from `old` what an update of the main resource may not change, such as status.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep(new, old, "status");
    }

    /// Carries over from `old` everything an update of the status subresource may not change. Labels, annotations,
    /// finalizers and owner references may be changed by it, as upstream.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        object::keep_all_but(new, old, &["status", "metadata"]);
    }

    /// The same for the `finalize` subresource: only `spec.finalizers` may change.
    fn prepare_finalize_update(&self, _new: &mut Value, _old: &Value) {}

    /// What is wrong with a name (or with a `generateName` prefix). Empty when nothing is.
    fn validate_name(&self, name: &str, is_prefix: bool) -> Vec<String> {
        names::dns_subdomain(name, is_prefix)
    }

    /// Validates everything but the metadata. `old` is `None` on creation.
    fn validate(&self, _new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        Vec::new()
    }

    /// Validates an update of the status subresource, metadata excepted.
    fn validate_status(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// Fills in addresses and ports from the cluster's ranges. `taken` answers for claims of other objects: what `old`
    /// holds counts as free. Called after validation.
    ///
    /// # Errors
    /// What the client asked for and cannot have, or that a range is exhausted.
    fn allocate(
        &self,
        _object: &mut Value,
        _old: Option<&Value>,
        _taken: &dyn Taken,
        _ranges: &Ranges,
    ) -> Result<(), Vec<FieldError>> {
        Ok(())
    }

    /// The claims an object holds. The difference between those of the old and of the new object is created and deleted
    /// in the same store write as the object itself.
    fn claims(&self, _object: &Value) -> Vec<Claim> {
        Vec::new()
    }

    /// Whether an update left the object with nothing that keeps it: finalizers gone after deletion was asked for.
    fn may_be_removed(&self, object: &Value) -> bool {
        object::array_at(object, "metadata.finalizers").is_empty()
    }

    /// The cells of the Table row, one per column.
    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            json!(object::text_at(object, "metadata.name")),
            json!(duration::age(object, now)),
        ]
    }

    /// The value of one of the row's `selectable_fields`.
    fn selectable_value(&self, object: &Value, field: &str) -> String {
        object::text_at(object, field)
    }

    /// Warnings to return in `Warning` headers for an accepted object.
    fn warnings(&self, _new: &Value) -> Vec<String> {
        Vec::new()
    }
}
