//! Pod: containers that run together under one address.
//!
//! [`default`] fills in a spec, [`validate`] checks it, [`change`] says what of it may change later, [`status`] keeps
//! the status consistent, [`columns`] prints.

mod change;
mod columns;
mod default;
mod status;
mod validate;

use jiff::Timestamp;
use serde_json::Value;

use super::field_error::FieldError;
use super::object;
use super::strategy::Strategy;

pub(super) use columns::COLUMNS;

/// Fields of a Pod that selectors may name.
pub(super) const SELECTABLE_FIELDS: &[&str] = &[
    "spec.hostNetwork",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.nominatedNodeName",
    "status.phase",
    "status.podIP",
];

/// Defaulting, validation and printing of Pods.
pub(super) struct PodStrategy;

impl Strategy for PodStrategy {
    fn default(&self, object: &mut Value) {
        default::default(object);
        status::sync_addresses(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        status::reset(object);
    }

    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        object::keep_all_but(new, old, &["status", "metadata"]);
        if let Some(owners) = object::at(old, "metadata.ownerReferences") {
            object::set(new, "metadata.ownerReferences", owners.clone());
        } else {
            object::remove(new, "metadata.ownerReferences");
        }
        let class = object::text_at(old, "status.qosClass");
        object::set_default(new, "status.qosClass", class);
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate::validate(new);
        errors.extend(old.map(|old| change::validate(new, old)).unwrap_or_default());
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        status::validate(new)
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        columns::row(object, now)
    }

    fn selectable_value(&self, object: &Value, field: &str) -> String {
        if field == "spec.hostNetwork" {
            return object::bool_at(object, field).to_string();
        }
        object::text_at(object, field)
    }
}
