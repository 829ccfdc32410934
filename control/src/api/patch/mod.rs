//! The three patch kinds that need nothing but the object: JSON patch (RFC 6902), merge patch (RFC 7386) and
//! Kubernetes' strategic merge patch.
//!
//! [`super::registry`] applies a [`Patch`] to the newest version of an object, again after each conflict.

mod strategic;

use serde_json::Value;

use super::status::{Reason, Status};
use crate::resources::Resource;

/// A JSON patch of more operations than this is refused.
const MAX_OPERATIONS: usize = 10_000;

/// A change to an object, as a client wrote it.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902: operations in order.
    Json(json_patch::Patch),
    /// RFC 7386: maps are merged, everything else is replaced, null removes.
    Merge(Value),
    /// Like a merge patch, but lists with keys are merged by key, with directives for the rest.
    Strategic(Value),
}

impl Patch {
    /// Reads a JSON patch.
    pub fn json(body: &[u8]) -> Result<Self, Status> {
        let patch: Vec<Value> = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
        if patch.len() > MAX_OPERATIONS {
            let message = format!(
                "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                patch.len()
            );
            return Err(Status::new(Reason::RequestEntityTooLarge, message));
        }
        serde_json::from_value(Value::Array(patch))
            .map(Self::Json)
            .map_err(|error| unreadable(&error))
    }

    /// Reads a merge patch.
    pub fn merge(body: &[u8]) -> Result<Self, Status> {
        object(body).map(Self::Merge)
    }

    /// Reads a strategic merge patch.
    pub fn strategic(body: &[u8]) -> Result<Self, Status> {
        object(body).map(Self::Strategic)
    }

    /// `current` with the change made.
    pub fn apply(&self, resource: &Resource, current: &Value) -> Result<Value, Status> {
        let mut result = current.clone();
        match self {
            Patch::Json(patch) => json_patch::patch(&mut result, patch).map_err(|error| inapplicable(&error))?,
            Patch::Merge(patch) => json_patch::merge(&mut result, patch),
            Patch::Strategic(patch) => {
                result = strategic::merge(resource, current, patch).map_err(|error| inapplicable(&error))?;
            }
        }
        if result.is_object() {
            Ok(result)
        } else {
            Err(inapplicable(&"the result is not an object"))
        }
    }

    /// The maps a client wrote, to look for unknown fields in; a JSON patch has none.
    pub fn body(&self) -> Option<&Value> {
        match self {
            Patch::Json(_) => None,
            Patch::Merge(body) | Patch::Strategic(body) => Some(body),
        }
    }
}

fn object(body: &[u8]) -> Result<Value, Status> {
    let value: Value = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Status::bad_request("error decoding patch: it is not a JSON object"))
    }
}

fn unreadable(error: &serde_json::Error) -> Status {
    Status::bad_request(format!("error decoding patch: {error}"))
}

/// 422 as upstream, but saying which operation failed.
fn inapplicable(error: &dyn std::fmt::Display) -> Status {
    let message = format!("the server rejected our request due to an error in our request: {error}");
    Status::new(Reason::Invalid, message).with_cause("UnexpectedServerResponse", &error.to_string(), "")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources;

    fn service() -> &'static Resource {
        resources::find("", "v1", "services").unwrap()
    }

    #[test]
    fn json_patches_are_all_or_nothing() {
        let current = json!({ "a": 1, "list": [1, 2] });
        let patch = Patch::json(br#"[{"op":"add","path":"/list/-","value":3},{"op":"remove","path":"/a"}]"#).unwrap();
        assert_eq!(patch.apply(service(), &current).unwrap(), json!({ "list": [1, 2, 3] }));
        let failing =
            Patch::json(br#"[{"op":"remove","path":"/a"},{"op":"test","path":"/list/0","value":9}]"#).unwrap();
        assert_eq!(failing.apply(service(), &current).unwrap_err().code, 422);
    }

    #[test]
    fn json_patches_have_a_limit() {
        let operations = vec![json!({ "op": "add", "path": "/a", "value": 1 }); MAX_OPERATIONS + 1];
        let body = serde_json::to_vec(&operations).unwrap();
        assert_eq!(Patch::json(&body).unwrap_err().code, 413);
        assert!(Patch::json(&serde_json::to_vec(&operations[1..]).unwrap()).is_ok());
    }

    #[test]
    fn merge_patches_replace_lists_and_remove_nulls() {
        let current = json!({ "a": { "b": 1, "c": 2 }, "list": [1, 2] });
        let patch = Patch::merge(br#"{"a":{"b":null,"d":3},"list":[9]}"#).unwrap();
        assert_eq!(
            patch.apply(service(), &current).unwrap(),
            json!({ "a": { "c": 2, "d": 3 }, "list": [9] })
        );
    }

    #[test]
    fn patches_that_are_no_patches_are_bad_requests() {
        for result in [
            Patch::json(b"{}"),
            Patch::json(b"[{}]"),
            Patch::merge(b"[]"),
            Patch::strategic(b"x"),
        ] {
            assert_eq!(result.unwrap_err().code, 400);
        }
    }
}
