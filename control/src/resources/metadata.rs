//! Validation of `metadata`, the same for every kind.
//!
//! Called by `api` on every write, before the kind's own [`super::Strategy::validate`].

use serde_json::Value;

use super::field_error::FieldError;
use super::strategy::Strategy;
use super::{names, object};

/// All keys and values of the annotations together may have this many bytes.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// Validates the metadata of a new object. A name must have been generated already where `generateName` asks for one.
#[must_use]
pub fn validate(object: &Value, namespaced: bool, strategy: &dyn Strategy) -> Vec<FieldError> {
    let mut errors = validate_name(object, strategy);
    let namespace = object::str_at(object, "metadata.namespace");
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required("metadata.namespace", "")),
        (true, false) => errors.extend(invalid(
            "metadata.namespace",
            namespace,
            names::dns_label(namespace, false),
        )),
        (false, false) => errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type")),
        (false, true) => {}
    }
    errors.extend(validate_content(object));
    errors
}

/// Validates the metadata of an object that replaces `old`. Both must carry their `resourceVersion`.
#[must_use]
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !object::is_empty_at(old, "metadata.deletionTimestamp") {
        errors.extend(no_new_finalizers(new, old));
    }
    if object::int_at(new, "metadata.generation") < object::int_at(old, "metadata.generation") {
        let generation = object::int_at(new, "metadata.generation");
        errors.push(FieldError::invalid(
            "metadata.generation",
            generation,
            "must not be decremented",
        ));
    }
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        errors.extend(immutable(new, old, &format!("metadata.{field}")));
    }
    errors.extend(validate_content(new));
    errors
}

/// Validates a map of labels at `field`: of the metadata, or a selector.
#[must_use]
pub fn validate_labels(labels: Option<&Value>, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        errors.extend(invalid(field, key, names::qualified_name(key)));
        let value = value.as_str().unwrap_or_default();
        errors.extend(invalid(field, value, names::label_value(value)));
    }
    errors
}

/// One `Invalid value` for each complaint about `value`.
pub fn invalid(field: &str, value: &str, complaints: Vec<String>) -> impl Iterator<Item = FieldError> {
    complaints
        .into_iter()
        .map(move |detail| FieldError::invalid(field, value, detail))
}

/// An error if the field at `path` differs between the two. Absent and empty are the same.
#[must_use]
pub fn immutable(new: &Value, old: &Value, path: &str) -> Option<FieldError> {
    let both_empty = object::is_empty_at(new, path) && object::is_empty_at(old, path);
    let value = object::at(new, path);
    (!both_empty && value != object::at(old, path))
        .then(|| FieldError::invalid(path, value.cloned().unwrap_or_default(), "field is immutable"))
}

fn validate_name(object: &Value, strategy: &dyn Strategy) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let prefix = object::str_at(object, "metadata.generateName");
    if !prefix.is_empty() {
        errors.extend(invalid(
            "metadata.generateName",
            prefix,
            strategy.validate_name(prefix, true),
        ));
    }
    let name = object::str_at(object, "metadata.name");
    if name.is_empty() {
        errors.push(FieldError::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else {
        errors.extend(invalid("metadata.name", name, strategy.validate_name(name, false)));
    }
    errors
}

fn validate_content(object: &Value) -> Vec<FieldError> {
    let mut errors = validate_labels(object::at(object, "metadata.labels"), "metadata.labels");
    errors.extend(validate_annotations(object));
    errors.extend(validate_owners(object));
    errors.extend(validate_finalizers(object));
    errors
}

fn validate_annotations(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut bytes = 0;
    for (key, value) in object::map_at(object, "metadata.annotations").into_iter().flatten() {
        let complaints = names::qualified_name(&key.to_lowercase());
        errors.extend(invalid("metadata.annotations", key, complaints));
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > MAX_ANNOTATION_BYTES {
        errors.push(FieldError::too_long("metadata.annotations", MAX_ANNOTATION_BYTES));
    }
    errors
}

fn validate_owners(object: &Value) -> Vec<FieldError> {
    const FIELD: &str = "metadata.ownerReferences";
    let mut errors = Vec::new();
    let mut controller: Option<String> = None;
    for owner in object::array_at(object, FIELD) {
        for (key, detail) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if object::str_at(owner, key).is_empty() {
                errors.push(FieldError::invalid(format!("{FIELD}.{key}"), "", detail));
            }
        }
        if object::bool_at(owner, "controller") {
            let this = format!("{}/{}", object::str_at(owner, "kind"), object::str_at(owner, "name"));
            if let Some(first) = &controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                let owners = object::at(object, FIELD).cloned().unwrap_or_default();
                errors.push(FieldError::invalid(FIELD, owners, detail));
            } else {
                controller = Some(this);
            }
        }
    }
    errors
}

fn validate_finalizers(object: &Value) -> Vec<FieldError> {
    object::strings_at(object, "metadata.finalizers")
        .into_iter()
        .flat_map(|finalizer| invalid("metadata.finalizers", finalizer, names::qualified_name(finalizer)))
        .collect()
}

fn no_new_finalizers(new: &Value, old: &Value) -> Option<FieldError> {
    let before = object::strings_at(old, "metadata.finalizers");
    let mut added = object::strings_at(new, "metadata.finalizers");
    added.retain(|finalizer| !before.contains(finalizer));
    added.sort_unstable();
    let list: Vec<String> = added.iter().map(|finalizer| format!("{finalizer:?}")).collect();
    (!added.is_empty()).then(|| {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            list.join(", ")
        );
        FieldError::forbidden("metadata.finalizers", detail)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Plain;

    impl Strategy for Plain {}

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_object_has_no_errors() {
        let object = json!({"metadata": {"name": "a", "namespace": "b", "labels": {"app.kubernetes.io/name": "x"},
            "annotations": {"Example.com/Upper": "any text"}, "finalizers": ["example.com/x"]}});
        assert!(validate(&object, true, &Plain).is_empty());
    }

    #[test]
    fn names_and_namespaces_are_required_where_they_belong() {
        assert_eq!(
            texts(&validate(&json!({"metadata": {}}), true, &Plain)),
            [
                "metadata.name: Required value: name or generateName is required",
                "metadata.namespace: Required value"
            ]
        );
        assert_eq!(
            texts(&validate(
                &json!({"metadata": {"name": "a", "namespace": "b"}}),
                false,
                &Plain
            )),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
    }

    #[test]
    fn annotations_are_limited_in_size() {
        let object = json!({"metadata": {"name": "a", "annotations": {"k": "x".repeat(256 * 1024)}}});
        assert_eq!(
            texts(&validate(&object, false, &Plain)),
            ["metadata.annotations: Too long: may not be more than 262144 bytes"]
        );
    }

    #[test]
    fn identity_may_not_change_and_deletion_takes_no_new_finalizers() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "2024-01-01T00:00:00Z"}});
        let new = json!({"metadata": {"name": "a", "uid": "2", "deletionTimestamp": "2024-01-01T00:00:00Z",
            "finalizers": ["example.com/x"]}});
        assert_eq!(
            texts(&validate_update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"example.com/x\"}",
                "metadata.uid: Invalid value: \"2\": field is immutable",
            ]
        );
    }

    #[test]
    fn bad_labels_name_the_offender() {
        let errors = validate_labels(Some(&json!({"-a": "b c"})), "spec.selector");
        assert_eq!(errors.len(), 2);
        assert!(
            errors[0]
                .to_string()
                .starts_with("spec.selector: Invalid value: \"-a\": name part must consist of")
        );
        assert!(
            errors[1]
                .to_string()
                .starts_with("spec.selector: Invalid value: \"b c\": a valid label must be")
        );
    }
}
