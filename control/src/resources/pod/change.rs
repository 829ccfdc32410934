//! What of a Pod's spec may change after it was created: images, deadlines, and tolerations that are added.

use serde_json::{Value, json};

use crate::resources::field_error::FieldError;
use crate::resources::object;

const DETAIL: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Validates an update of a Pod's spec.
pub(super) fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = container_counts(new, old);
    if !errors.is_empty() {
        return errors;
    }
    errors.extend(deadline(new, old));
    errors.extend(tolerations(new, old));
    let mut allowed = new.clone();
    for list in ["spec.containers", "spec.initContainers"] {
        let images: Vec<Value> = object::array_at(old, list)
            .iter()
            .map(|container| json!(object::str_at(container, "image")))
            .collect();
        for (container, image) in object::array_mut(&mut allowed, list).iter_mut().zip(images) {
            object::set(container, "image", image);
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations"] {
        match object::at(old, &format!("spec.{field}")) {
            Some(value) => object::set(&mut allowed, &format!("spec.{field}"), value.clone()),
            None => object::remove(&mut allowed, &format!("spec.{field}")),
        }
    }
    let changed = changed_fields(&allowed, old);
    if !changed.is_empty() {
        errors.push(FieldError::forbidden(
            "spec",
            format!("{DETAIL}\nchanged here: {}", changed.join(", ")),
        ));
    }
    errors
}

fn container_counts(new: &Value, old: &Value) -> Vec<FieldError> {
    ["spec.containers", "spec.initContainers"]
        .into_iter()
        .filter(|list| object::array_at(new, list).len() != object::array_at(old, list).len())
        .map(|list| FieldError::forbidden(list, "pod updates may not add or remove containers"))
        .collect()
}

/// A deadline may come, and come closer; it never goes away.
fn deadline(new: &Value, old: &Value) -> Option<FieldError> {
    let field = "spec.activeDeadlineSeconds";
    let (before, now) = (
        object::at(old, field)?.as_i64()?,
        object::at(new, field).and_then(Value::as_i64),
    );
    match now {
        Some(now) if now <= before => None,
        Some(now) => Some(FieldError::invalid(
            field,
            now,
            "must be less than or equal to previous value",
        )),
        None => Some(FieldError::invalid(
            field,
            Value::Null,
            "must not update from a positive integer to nil value",
        )),
    }
}

fn tolerations(new: &Value, old: &Value) -> Option<FieldError> {
    let field = "spec.tolerations";
    let now = object::array_at(new, field);
    let lost = object::array_at(old, field).iter().any(|before| !now.contains(before));
    let detail = "existing toleration can not be modified except its tolerationSeconds";
    lost.then(|| FieldError::forbidden(field, detail))
}

/// The fields directly under `spec` that differ.
fn changed_fields(new: &Value, old: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let of = |pod: &Value| pod.get("spec").and_then(Value::as_object).unwrap_or(&empty).clone();
    let (new, old) = (of(new), of(old));
    let mut fields: Vec<String> = new
        .keys()
        .chain(old.keys())
        .filter(|key| new.get(*key) != old.get(*key))
        .map(|key| format!("spec.{key}"))
        .collect();
    fields.sort_unstable();
    fields.dedup();
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "web:1"}], "tolerations": [{"key": "a"}]}})
    }

    fn errors(change: impl Fn(&mut Value)) -> Vec<String> {
        let mut new = pod();
        change(&mut new["spec"]);
        validate(&new, &pod()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn images_deadlines_and_new_tolerations_may_change() {
        assert!(errors(|_| {}).is_empty());
        assert!(errors(|spec| spec["containers"][0]["image"] = json!("web:2")).is_empty());
        assert!(errors(|spec| spec["activeDeadlineSeconds"] = json!(5)).is_empty());
        assert!(errors(|spec| spec["tolerations"] = json!([{"key": "a"}, {"key": "b"}])).is_empty());
    }

    #[test]
    fn nothing_else_may() {
        let found = errors(|spec| spec["nodeName"] = json!("n2"));
        assert!(
            found[0].starts_with(
                "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"
            )
        );
        assert!(found[0].ends_with("changed here: spec.nodeName"), "{found:?}");
        assert_eq!(
            errors(|spec| spec["containers"] = json!([])),
            ["spec.containers: Forbidden: pod updates may not add or remove containers"]
        );
        assert_eq!(errors(|spec| spec["tolerations"] = json!([])).len(), 1);
    }
}
