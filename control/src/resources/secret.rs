//! Secret: base64 data with a type that says which keys it must have.

use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::config_map::{MAX_DATA_BYTES, data_bytes, immutable_data};
use super::field_error::FieldError;
use super::metadata::{immutable, invalid};
use super::strategy::Strategy;
use super::table::{AGE, NAME, text};
use super::{Column, duration, names, object};

/// What `kubectl get secrets` shows.
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    text("Type", "What the Secret is for."),
    text("Data", "How many entries there are."),
    AGE,
];

/// Types that are of no use without certain keys.
const NEEDED: [(&str, &[&str]); 4] = [
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
];

/// Defaulting, validation and printing of Secrets.
pub(super) struct SecretStrategy;

impl Strategy for SecretStrategy {
    fn default(&self, object: &mut Value) {
        object::set_default(object, "type", "Opaque");
        let plain = object::map_at(object, "stringData").cloned().unwrap_or_default();
        object::remove(object, "stringData");
        for (key, value) in plain {
            let encoded = json!(ByteString(value.as_str().unwrap_or_default().as_bytes().to_vec()));
            if let Some(data) = object::map_mut(object, "data") {
                data.insert(key, encoded);
            }
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = old.and_then(|old| immutable(new, old, "type")).into_iter().collect();
        errors.extend(old.map(|old| immutable_data(new, old, &["data"])).unwrap_or_default());
        let data = object::map_at(new, "data");
        for key in data.into_iter().flat_map(|data| data.keys()) {
            errors.extend(invalid(&format!("data[{key}]"), key, names::config_key(key)));
        }
        let bytes: usize = data
            .into_iter()
            .flatten()
            .map(|(_, value)| data_bytes(value, true))
            .sum();
        if bytes > MAX_DATA_BYTES {
            errors.push(FieldError::too_long("data", MAX_DATA_BYTES));
        }
        errors.extend(missing_keys(new));
        errors
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let count = object::map_at(object, "data").map_or(0, serde_json::Map::len);
        let (name, kind) = (object::str_at(object, "metadata.name"), object::str_at(object, "type"));
        vec![
            json!(name),
            json!(kind),
            json!(count),
            json!(duration::age(object, now)),
        ]
    }
}

fn missing_keys(secret: &Value) -> Vec<FieldError> {
    let kind = object::str_at(secret, "type");
    let needed = NEEDED
        .iter()
        .find(|(known, _)| *known == kind)
        .map(|(_, keys)| *keys)
        .unwrap_or_default();
    needed
        .iter()
        .filter(|key| secret.get("data").and_then(|data| data.get(**key)).is_none())
        .map(|key| FieldError::required(format!("data[{key}]"), ""))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_becomes_data() {
        let mut object = json!({"stringData": {"user": "ann"}, "data": {"old": "eA=="}});
        SecretStrategy.default(&mut object);
        assert_eq!(
            object,
            json!({"type": "Opaque", "data": {"old": "eA==", "user": "YW5u"}})
        );
    }

    #[test]
    fn a_tls_secret_needs_both_halves_and_keeps_its_type() {
        let new = json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}});
        let errors: Vec<String> = SecretStrategy
            .validate(&new, Some(&json!({"type": "Opaque"})))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            errors,
            [
                "type: Invalid value: \"kubernetes.io/tls\": field is immutable",
                "data[tls.key]: Required value"
            ]
        );
    }
}
