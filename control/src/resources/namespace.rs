//! Namespace: the finalizer that lets its contents be deleted first, and its phase.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::field_error::FieldError;
use super::strategy::Strategy;
use super::table::{AGE, NAME, text};
use super::{Column, duration, metadata, names, object};

/// What `kubectl get namespaces` shows.
pub(super) const COLUMNS: &[Column] = &[NAME, text("Status", "The phase of the namespace."), AGE];

/// The label every namespace carries, so that selectors can name one.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The finalizer of the namespace controller.
const FINALIZER: &str = "kubernetes";

/// Defaulting, validation and printing of Namespaces.
pub(super) struct NamespaceStrategy;

impl Strategy for NamespaceStrategy {
    fn default(&self, object: &mut Value) {
        let name = object::text_at(object, "metadata.name");
        if !name.is_empty()
            && let Some(labels) = object::map_mut(object, "metadata.labels")
        {
            labels.insert(NAME_LABEL.to_owned(), json!(name));
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object::set(object, "status", json!({"phase": "Active"}));
        let mut finalizers = object::array_at(object, "spec.finalizers").to_vec();
        if !finalizers.contains(&json!(FINALIZER)) {
            finalizers.push(json!(FINALIZER));
        }
        object::set(object, "spec.finalizers", finalizers);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep(new, old, "status");
        object::keep(new, old, "spec");
    }

    fn prepare_finalize_update(&self, new: &mut Value, old: &Value) {
        object::keep(new, old, "status");
    }

    fn validate_name(&self, name: &str, is_prefix: bool) -> Vec<String> {
        names::dns_label(name, is_prefix)
    }

    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        object::strings_at(new, "spec.finalizers")
            .into_iter()
            .flat_map(|finalizer| metadata::invalid("spec.finalizers", finalizer, names::qualified_name(finalizer)))
            .chain(unqualified_finalizers(new))
            .collect()
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let deleting = !object::is_empty_at(new, "metadata.deletionTimestamp");
        let phase = object::str_at(new, "status.phase");
        match (deleting, phase) {
            (false, "Active" | "") | (true, "Terminating") => Vec::new(),
            (false, _) => vec![FieldError::invalid(
                "status.phase",
                phase,
                "may only be 'Active' if `deletionTimestamp` is empty",
            )],
            (true, _) => vec![FieldError::invalid(
                "status.phase",
                phase,
                "may only be 'Terminating' if `deletionTimestamp` is not empty",
            )],
        }
    }

    fn may_be_removed(&self, object: &Value) -> bool {
        object::array_at(object, "metadata.finalizers").is_empty()
            && object::array_at(object, "spec.finalizers").is_empty()
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = object::text_at(object, "metadata.name");
        let phase = object::text_at(object, "status.phase");
        vec![json!(name), json!(phase), json!(duration::age(object, now))]
    }
}

/// A finalizer without a domain must be one that Kubernetes knows.
fn unqualified_finalizers(object: &Value) -> Vec<FieldError> {
    const KNOWN: [&str; 3] = [FINALIZER, "orphan", "foregroundDeletion"];
    object::strings_at(object, "spec.finalizers")
        .into_iter()
        .filter(|finalizer| !finalizer.contains('/') && !KNOWN.contains(finalizer))
        .map(|finalizer| {
            FieldError::invalid(
                "spec.finalizers",
                finalizer,
                "name is neither a standard finalizer name nor is it fully qualified",
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_namespace_is_active_labelled_and_finalized_by_the_controller() {
        let mut object = json!({"metadata": {"name": "web"}});
        NamespaceStrategy.default(&mut object);
        NamespaceStrategy.prepare_create(&mut object);
        assert_eq!(
            object,
            json!({"metadata": {"name": "web", "labels": {"kubernetes.io/metadata.name": "web"}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
        );
        assert!(!NamespaceStrategy.may_be_removed(&object));
        assert!(NamespaceStrategy.validate(&object, None).is_empty());
    }

    #[test]
    fn finalizers_change_only_through_their_subresource() {
        let old = json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let mut new = json!({"metadata": {}, "spec": {}});
        NamespaceStrategy.prepare_update(&mut new, &old);
        assert_eq!(new, old);
        let mut finalized = json!({"metadata": {}, "spec": {}});
        NamespaceStrategy.prepare_finalize_update(&mut finalized, &old);
        assert!(NamespaceStrategy.may_be_removed(&finalized));
    }

    #[test]
    fn a_finalizer_without_a_domain_is_refused() {
        let object = json!({"spec": {"finalizers": ["mine"]}});
        assert_eq!(
            NamespaceStrategy.validate(&object, None)[0].to_string(),
            "spec.finalizers: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"
        );
    }
}
