//! Stored bytes and wire bytes of an object.
//!
//! The store keeps an object as JSON without its `resourceVersion`, which is only known once it is written. What is
//! stored begins with `kind`, `apiVersion` and `metadata`, in this order, so that lists and watches can be answered by
//! splicing the revision (and the group version asked for) into the bytes, without decoding them.
//!
//! ```text
//! stored  {"kind":"Service","apiVersion":"v1","metadata":{"name":"a",...},"spec":...}
//! wire    {"kind":"Service","apiVersion":"v1","metadata":{"resourceVersion":"7","name":"a",...},"spec":...}
//! ```

use std::io::Write as _;

use bytes::Bytes;
use serde_json::Value;

use super::status::Status;
use crate::resources::Resource;
use crate::store::Record;

const METADATA: &[u8] = b"\"metadata\":{";

/// An object as the store has it, decoded only when somebody asks.
#[derive(Clone)]
pub struct Object {
    resource: &'static Resource,
    stored: Bytes,
    revision: u64,
}

impl Object {
    /// The object of a record.
    pub fn new(resource: &'static Resource, record: &Record) -> Self {
        Self::at(resource, record.value.clone(), record.modified)
    }

    /// An object from its stored bytes and the revision to show.
    pub fn at(resource: &'static Resource, stored: Bytes, revision: u64) -> Self {
        Self {
            resource,
            stored,
            revision,
        }
    }

    /// The revision clients see as `resourceVersion`.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Appends the object's JSON with its `resourceVersion` to `out`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let head = self
            .stored
            .windows(METADATA.len())
            .position(|window| window == METADATA);
        let rest = &self.stored[head.map_or(self.stored.len(), |at| at + METADATA.len())..];
        let (group, slash) = if self.resource.group.is_empty() {
            ("", "")
        } else {
            (self.resource.group, "/")
        };
        let (kind, version, revision) = (self.resource.kind, self.resource.version, self.revision);
        write!(
            out,
            r#"{{"kind":"{kind}","apiVersion":"{group}{slash}{version}","metadata":{{"resourceVersion":"{revision}""#
        )
        .expect("writing to memory does not fail");
        if rest.first() != Some(&b'}') {
            out.push(b',');
        }
        out.extend_from_slice(rest);
    }

    /// The decoded object with its `resourceVersion`.
    pub fn to_value(&self) -> Result<Value, Status> {
        let mut value: Value = serde_json::from_slice(&self.stored)
            .map_err(|error| Status::internal(format!("a stored {} cannot be read: {error}", self.resource.kind)))?;
        value["kind"] = self.resource.kind.into();
        value["apiVersion"] = self.resource.api_version().into();
        value["metadata"]["resourceVersion"] = self.revision.to_string().into();
        Ok(value)
    }
}

/// The bytes to store for `object`; its `resourceVersion` is left out.
pub(super) fn encode(object: &Value) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    let mut metadata = object["metadata"].clone();
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.remove("resourceVersion");
    }
    write!(
        out,
        r#"{{"kind":{},"apiVersion":{},"metadata":{metadata}"#,
        object["kind"], object["apiVersion"]
    )
    .expect("writing to memory does not fail");
    let rest = object.as_object().into_iter().flatten();
    for (key, value) in rest.filter(|(key, _)| !matches!(key.as_str(), "kind" | "apiVersion" | "metadata")) {
        write!(out, ",{}:{value}", Value::from(key.as_str())).expect("writing to memory does not fail");
    }
    out.push(b'}');
    out.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources;

    #[test]
    fn splicing_and_decoding_give_the_same_object() {
        let resource = resources::find("", "v1", "configmaps").unwrap();
        let object = json!({
            "kind": "ConfigMap", "apiVersion": "v1", "data": { "a\"b": "\"metadata\":{" },
            "metadata": { "name": "x", "labels": { "a": "ü\n" }, "resourceVersion": "3" },
        });
        let stored = Object::at(resource, encode(&object), 42);
        let mut wire = Vec::new();
        stored.write_json(&mut wire);
        let mut expected = object;
        expected["metadata"]["resourceVersion"] = "42".into();
        assert_eq!(serde_json::from_slice::<Value>(&wire).unwrap(), expected);
        assert_eq!(stored.to_value().unwrap(), expected);
    }
}
