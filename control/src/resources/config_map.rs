//! ConfigMap: data under file names, at most 1 MiB of it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::field_error::FieldError;
use super::metadata::invalid;
use super::strategy::Strategy;
use super::table::{AGE, NAME, text};
use super::{Column, duration, names, object};

/// What `kubectl get configmaps` shows.
pub(super) const COLUMNS: &[Column] = &[NAME, text("Data", "How many entries there are."), AGE];

/// All values together may have this many bytes; for Secrets too.
pub(super) const MAX_DATA_BYTES: usize = 1024 * 1024;

/// Validation and printing of ConfigMaps.
pub(super) struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = old
            .map(|old| immutable_data(new, old, &["data", "binaryData"]))
            .unwrap_or_default();
        let mut bytes = 0;
        for field in ["data", "binaryData"] {
            for (key, value) in object::map_at(new, field).into_iter().flatten() {
                let path = format!("{field}[{key}]");
                errors.extend(invalid(&path, key, names::config_key(key)));
                if field == "data" && new.get("binaryData").and_then(|data| data.get(key)).is_some() {
                    errors.push(FieldError::invalid(
                        &path,
                        key.as_str(),
                        "duplicate of key present in binaryData",
                    ));
                }
                bytes += data_bytes(value, field == "binaryData");
            }
        }
        if bytes > MAX_DATA_BYTES {
            errors.push(FieldError::too_long("[]", MAX_DATA_BYTES));
        }
        errors
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let entries = |field| object::map_at(object, field).map_or(0, serde_json::Map::len);
        let count = entries("data") + entries("binaryData");
        vec![
            json!(object::str_at(object, "metadata.name")),
            json!(count),
            json!(duration::age(object, now)),
        ]
    }
}

/// Once `immutable` is set, it and the data stay as they are.
pub(super) fn immutable_data(new: &Value, old: &Value, fields: &[&str]) -> Vec<FieldError> {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if !object::bool_at(old, "immutable") {
        return Vec::new();
    }
    let mut errors = Vec::new();
    if !object::bool_at(new, "immutable") {
        errors.push(FieldError::forbidden("immutable", DETAIL));
    }
    let changed = fields
        .iter()
        .filter(|field| object::map_at(new, field) != object::map_at(old, field));
    errors.extend(changed.map(|field| FieldError::forbidden(*field, DETAIL)));
    errors
}

/// The size of a value: of base64 text, that of what it stands for.
pub(super) fn data_bytes(value: &Value, base64: bool) -> usize {
    let text = value.as_str().unwrap_or_default();
    if base64 {
        text.trim_end_matches('=').len() * 3 / 4
    } else {
        text.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(new: &Value, old: Option<&Value>) -> Vec<String> {
        ConfigMapStrategy
            .validate(new, old)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn keys_are_file_names_and_unique() {
        assert!(errors(&json!({"data": {"a.conf": "x"}, "binaryData": {"b": "eA=="}}), None).is_empty());
        let found = errors(&json!({"data": {"a/b": "x", "c": ""}, "binaryData": {"c": ""}}), None);
        assert!(
            found[0].starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key must consist of"),
            "{found:?}"
        );
        assert_eq!(
            found[1],
            "data[c]: Invalid value: \"c\": duplicate of key present in binaryData"
        );
    }

    #[test]
    fn more_than_a_mebibyte_is_too_long() {
        assert!(errors(&json!({"data": {"a": "x".repeat(1024 * 1024)}}), None).is_empty());
        assert_eq!(
            errors(&json!({"data": {"a": "x".repeat(1024 * 1024), "b": "y"}}), None),
            ["[]: Too long: may not be more than 1048576 bytes"]
        );
    }

    #[test]
    fn immutable_data_stays() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        assert!(errors(&old, Some(&old)).is_empty());
        assert_eq!(
            errors(&json!({"data": {"a": "2"}}), Some(&old)),
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set",
            ]
        );
    }

    #[test]
    fn rows_count_entries() {
        let cells = ConfigMapStrategy.row(
            &json!({"data": {"a": "", "b": ""}, "binaryData": {"c": ""}}),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(cells[1], 3);
    }
}
