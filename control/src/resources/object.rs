//! Reading and editing objects as plain JSON, by dotted path.
//!
//! Used by every strategy. A field that is absent, null or empty reads as its zero value, as in Kubernetes' Go types.

use serde_json::{Map, Value};

/// The value at a dotted path such as `spec.type`; map keys that contain dots cannot be reached.
#[must_use]
pub fn at<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(object, |value, key| value.get(key))
        .filter(|value| !value.is_null())
}

/// The string at a path, or `""`.
#[must_use]
pub fn str_at<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The scalar at a path as text: strings as they are, numbers and booleans printed, absent as `""`.
#[must_use]
pub fn text_at(object: &Value, path: &str) -> String {
    match at(object, path) {
        Some(Value::String(text)) => text.clone(),
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        _ => String::new(),
    }
}

/// The integer at a path, or 0.
#[must_use]
pub fn int_at(object: &Value, path: &str) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or_default()
}

/// The boolean at a path, or `false`.
#[must_use]
pub fn bool_at(object: &Value, path: &str) -> bool {
    at(object, path).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at a path, or an empty one.
#[must_use]
pub fn array_at<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The strings of the list at a path.
#[must_use]
pub fn strings_at<'a>(object: &'a Value, path: &str) -> Vec<&'a str> {
    array_at(object, path).iter().filter_map(Value::as_str).collect()
}

/// The map at a path, if there is one with entries.
#[must_use]
pub fn map_at<'a>(object: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
    at(object, path)
        .and_then(Value::as_object)
        .filter(|map| !map.is_empty())
}

/// Whether the field is absent or has its zero value (`""`, 0, `false`, no entries).
#[must_use]
pub fn is_empty_at(object: &Value, path: &str) -> bool {
    match at(object, path) {
        None => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(entries)) => entries.is_empty(),
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(Value::Bool(set)) => !set,
        Some(Value::Null) => true,
    }
}

/// The map at a path, made where missing. `None` if something that is not a map stands in the way.
pub fn map_mut<'a>(object: &'a mut Value, path: &str) -> Option<&'a mut Map<String, Value>> {
    let mut value = object;
    for key in path.split('.').filter(|key| !key.is_empty()) {
        let entry = value
            .as_object_mut()?
            .entry(key)
            .or_insert_with(|| Value::Object(Map::new()));
        if entry.is_null() {
            *entry = Value::Object(Map::new());
        }
        value = entry;
    }
    value.as_object_mut()
}

/// Sets the field at a path, making the maps on the way.
pub fn set(object: &mut Value, path: &str, value: impl Into<Value>) {
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    if let Some(map) = map_mut(object, parent) {
        map.insert(key.to_owned(), value.into());
    }
}

/// Sets the field at a path unless it is there. An empty string counts as absent, as Go leaves it out.
pub fn set_default(object: &mut Value, path: &str, value: impl Into<Value>) {
    if at(object, path).is_none_or(|present| present.as_str() == Some("")) {
        set(object, path, value);
    }
}

/// Removes the field at a path.
pub fn remove(object: &mut Value, path: &str) {
    let (parent, key) = path.rsplit_once('.').unwrap_or(("", path));
    let parent = if parent.is_empty() {
        Some(object)
    } else {
        parent.split('.').try_fold(object, |value, key| value.get_mut(key))
    };
    if let Some(map) = parent.and_then(Value::as_object_mut) {
        map.remove(key);
    }
}

/// The elements of the list at a path, for editing.
pub fn array_mut<'a>(object: &'a mut Value, path: &str) -> &'a mut [Value] {
    path.split('.')
        .try_fold(object, |value, key| value.get_mut(key))
        .and_then(Value::as_array_mut)
        .map(Vec::as_mut_slice)
        .unwrap_or_default()
}

/// Gives `new` the top-level field as it is in `old`, or takes it away.
pub fn keep(new: &mut Value, old: &Value, field: &str) {
    let Some(map) = new.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => {
            map.insert(field.to_owned(), value.clone());
        }
        None => {
            map.remove(field);
        }
    }
}

/// Gives `new` every top-level field of `old` except the named ones.
pub fn keep_all_but(new: &mut Value, old: &Value, except: &[&str]) {
    let Some(from_new) = new.as_object_mut() else { return };
    let mut result = old.as_object().cloned().unwrap_or_default();
    for field in except {
        match from_new.remove(*field) {
            Some(value) => result.insert((*field).to_owned(), value),
            None => result.remove(*field),
        };
    }
    *from_new = result;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_fields_read_as_zero_values() {
        let object = json!({"spec": {"type": null, "n": 3}});
        assert_eq!(str_at(&object, "spec.type"), "");
        assert_eq!(int_at(&object, "spec.n"), 3);
        assert!(array_at(&object, "spec.ports").is_empty());
        assert!(is_empty_at(&object, "spec.type") && !is_empty_at(&object, "spec.n"));
    }

    #[test]
    fn setting_makes_the_maps_on_the_way_and_removing_leaves_the_rest() {
        let mut object = json!({});
        set(&mut object, "status.load.ip", "10.0.0.1");
        set_default(&mut object, "status.load.ip", "10.0.0.2");
        assert_eq!(object, json!({"status": {"load": {"ip": "10.0.0.1"}}}));
        remove(&mut object, "status.load.ip");
        assert_eq!(object, json!({"status": {"load": {}}}));
    }

    #[test]
    fn a_status_update_keeps_all_but_status_and_metadata() {
        let old = json!({"metadata": {"name": "a"}, "spec": {"x": 1}, "status": {"y": 1}});
        let mut new = json!({"metadata": {"name": "a", "labels": {}}, "spec": {"x": 2}, "status": {"y": 2}});
        keep_all_but(&mut new, &old, &["status", "metadata"]);
        assert_eq!(
            new,
            json!({"metadata": {"name": "a", "labels": {}}, "spec": {"x": 1}, "status": {"y": 2}})
        );
    }
}
