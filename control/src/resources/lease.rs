//! Lease: who leads, and node heartbeats.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::field_error::FieldError;
use super::strategy::Strategy;
use super::table::{AGE, NAME, text};
use super::{Column, duration, object};

/// What `kubectl get leases` shows.
pub(super) const COLUMNS: &[Column] = &[NAME, text("Holder", "Who holds the lease."), AGE];

/// Validation and printing of Leases.
pub(super) struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        let number = |field| object::at(new, field).and_then(Value::as_i64);
        let mut errors = Vec::new();
        if let Some(seconds) = number("spec.leaseDurationSeconds").filter(|seconds| *seconds <= 0) {
            errors.push(FieldError::invalid(
                "spec.leaseDurationSeconds",
                seconds,
                "must be greater than 0",
            ));
        }
        if let Some(count) = number("spec.leaseTransitions").filter(|count| *count < 0) {
            errors.push(FieldError::invalid(
                "spec.leaseTransitions",
                count,
                "must be greater than or equal to 0",
            ));
        }
        errors
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (name, holder) = (
            object::str_at(object, "metadata.name"),
            object::str_at(object, "spec.holderIdentity"),
        );
        vec![json!(name), json!(holder), json!(duration::age(object, now))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_positive_and_transitions_do_not_go_below_zero() {
        let lease = json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}});
        let errors: Vec<String> = LeaseStrategy
            .validate(&lease, None)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            errors,
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
        assert!(
            LeaseStrategy
                .validate(&json!({"spec": {"leaseDurationSeconds": 15}}), None)
                .is_empty()
        );
    }
}
