//! The types of all fields, compiled once from the published schemas of the API types.
//!
//! Called through [`super::Resource`] on every write: wrong types are a 400, unknown fields are dropped (and reported
//! under strict field validation). The same definitions go to [`super::openapi`], so what is published is what is
//! checked.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::api::{coordination, core, discovery, events};
use k8s_openapi::apimachinery::pkg::apis::meta;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// Where schemas refer to each other.
const REFERENCE: &str = "#/components/schemas/";

/// Schema name -> JSON schema, as the API types publish it.
pub(super) static DEFINITIONS: LazyLock<Map<String, Value>> = LazyLock::new(definitions);

/// Schema name -> compiled type.
static TYPES: LazyLock<BTreeMap<String, Type>> = LazyLock::new(|| {
    DEFINITIONS
        .iter()
        .map(|(name, schema)| (name.clone(), compile(name, schema)))
        .collect()
});

/// What a field may hold.
#[derive(Debug, PartialEq)]
enum Type {
    /// Named fields.
    Struct {
        name: String,
        fields: BTreeMap<String, Type>,
    },
    /// A struct defined elsewhere.
    Reference(String),
    /// Any keys, values of one type.
    Map(Box<Type>),
    /// Items of one type.
    List(Box<Type>),
    /// Text.
    Text,
    /// An RFC 3339 time, kept to the second.
    Time,
    /// An RFC 3339 time, kept to the microsecond.
    MicroTime,
    /// Base64 text.
    Bytes,
    /// A whole number of 32 or 64 bits.
    Integer(u32),
    /// Any number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A whole number or text.
    IntOrString,
    /// A number or text such as `100Mi`.
    Quantity,
    /// Any JSON.
    Any,
}

/// Checks every field that the schema knows.
pub(super) fn check_types(schema: &str, object: &Value) -> Result<(), String> {
    match TYPES.get(schema) {
        Some(Type::Struct { name, fields }) => check_struct(name, fields, object, &mut Vec::new(), None),
        _ => Ok(()),
    }
}

/// Paths of the fields the schema does not know.
pub(super) fn unknown_fields(schema: &str, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(root) = TYPES.get(schema) {
        find_unknown(root, object, "", &mut found);
    }
    found
}

/// Removes the fields the schema does not know, and nulls in structs; writes times as Kubernetes does.
pub(super) fn prune(schema: &str, object: &mut Value) {
    if let Some(root) = TYPES.get(schema) {
        prune_type(root, object);
    }
}

/// The short name of the struct that the fields `path` lead to; lists and maps on the way are looked through.
pub(super) fn type_name_at(schema: &str, path: &[&str]) -> Option<&'static str> {
    let end = path.iter().try_fold(TYPES.get(schema)?, |kind, field| match kind {
        Type::Struct { fields, .. } => fields.get(*field).map(element),
        _ => None,
    })?;
    match end {
        Type::Struct { name, .. } => Some(name),
        _ => None,
    }
}

/// What is inside lists and maps, and behind references.
fn element(kind: &'static Type) -> &'static Type {
    match kind {
        Type::List(inner) | Type::Map(inner) => element(inner),
        Type::Reference(_) => resolve(kind),
        other => other,
    }
}

fn definitions() -> Map<String, Value> {
    let mut generator = SchemaSettings::openapi3().into_generator();
    generator.subschema_for::<core::v1::Namespace>();
    generator.subschema_for::<core::v1::Node>();
    generator.subschema_for::<core::v1::Service>();
    generator.subschema_for::<core::v1::Pod>();
    generator.subschema_for::<core::v1::ConfigMap>();
    generator.subschema_for::<core::v1::Event>();
    generator.subschema_for::<core::v1::Endpoints>();
    generator.subschema_for::<core::v1::Secret>();
    generator.subschema_for::<core::v1::ServiceAccount>();
    generator.subschema_for::<discovery::v1::EndpointSlice>();
    generator.subschema_for::<coordination::v1::Lease>();
    generator.subschema_for::<events::v1::Event>();
    generator.subschema_for::<meta::v1::ListMeta>();
    generator.subschema_for::<meta::v1::DeleteOptions>();
    generator.subschema_for::<meta::v1::Status>();
    generator.subschema_for::<meta::v1::Patch>();
    generator.take_definitions(false)
}

fn compile(name: &str, schema: &Value) -> Type {
    let short = name.rsplit('.').next().unwrap_or(name);
    match short {
        "Quantity" => return Type::Quantity,
        "IntOrString" => return Type::IntOrString,
        "MicroTime" => return Type::MicroTime,
        _ => {}
    }
    match schema.get("properties").and_then(Value::as_object) {
        Some(properties) => Type::Struct {
            name: short.to_owned(),
            fields: properties
                .iter()
                .map(|(key, property)| (key.clone(), compile_field(property)))
                .collect(),
        },
        None => compile_field(schema),
    }
}

fn compile_field(schema: &Value) -> Type {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return Type::Reference(reference.trim_start_matches(REFERENCE).to_owned());
    }
    let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    match (text("type"), text("format")) {
        ("string", "date-time") => Type::Time,
        ("string", "byte") => Type::Bytes,
        ("string", _) => Type::Text,
        ("integer", "int64") => Type::Integer(64),
        ("integer", _) => Type::Integer(32),
        ("number", _) => Type::Number,
        ("boolean", _) => Type::Boolean,
        ("array", _) => Type::List(Box::new(schema.get("items").map_or(Type::Any, compile_field))),
        ("object", _) => match schema.get("additionalProperties") {
            Some(values) => Type::Map(Box::new(compile_field(values))),
            None => Type::Any,
        },
        _ => Type::Any,
    }
}

fn resolve(kind: &Type) -> &Type {
    match kind {
        Type::Reference(name) => TYPES.get(name).unwrap_or(&Type::Any),
        other => other,
    }
}

/// Checks a struct's fields; `owner` is the struct that holds it and thereby what the error names.
fn check_struct<'a>(
    name: &'a str,
    fields: &'a BTreeMap<String, Type>,
    value: &'a Value,
    path: &mut Vec<&'a str>,
    owner: Option<&str>,
) -> Result<(), String> {
    let Some(entries) = value.as_object() else {
        return Err(mismatch(value, &format!("v1.{name}"), path, owner));
    };
    for (key, value) in entries {
        if let Some(kind) = fields.get(key).filter(|_| !value.is_null()) {
            path.push(key);
            check(kind, value, path, name)?;
            path.pop();
        }
    }
    Ok(())
}

fn check<'a>(kind: &'a Type, value: &'a Value, path: &mut Vec<&'a str>, owner: &str) -> Result<(), String> {
    match (resolve(kind), value) {
        (_, Value::Null) => Ok(()),
        (Type::Struct { name, fields }, _) => check_struct(name, fields, value, path, Some(owner)),
        (Type::Map(values), Value::Object(entries)) => {
            entries.values().try_for_each(|value| check(values, value, path, owner))
        }
        (Type::List(items), Value::Array(values)) => {
            values.iter().try_for_each(|value| check(items, value, path, owner))
        }
        (Type::Time | Type::MicroTime, Value::String(text)) => check_time(text),
        (kind, value) if is_scalar_of(kind, value) => Ok(()),
        (kind, value) => Err(mismatch(value, &go_name(kind), path, Some(owner))),
    }
}

fn is_scalar_of(kind: &Type, value: &Value) -> bool {
    match kind {
        Type::Text | Type::Bytes => value.is_string(),
        Type::Integer(32) => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        Type::Integer(_) => value.as_i64().is_some(),
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
        Type::IntOrString => value.is_string() || value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        Type::Quantity => value.is_string() || value.is_number(),
        Type::Any => true,
        Type::Struct { .. } | Type::Reference(_) | Type::Map(_) | Type::List(_) | Type::Time | Type::MicroTime => false,
    }
}

fn check_time(text: &str) -> Result<(), String> {
    match text.parse::<jiff::Timestamp>() {
        Ok(_) => Ok(()),
        Err(_) => Err(format!(
            "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
        )),
    }
}

/// The message of the Go decoder, which is what users know.
fn mismatch(value: &Value, wanted: &str, path: &[&str], owner: Option<&str>) -> String {
    let given = match value {
        Value::String(_) => "string".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
        Value::Null => "null".to_owned(),
        Value::Number(_) if wanted == "string" || wanted == "bool" || wanted.contains('.') => "number".to_owned(),
        Value::Number(number) => format!("number {number}"),
    };
    match owner {
        Some(owner) => {
            format!(
                "json: cannot unmarshal {given} into Go struct field {owner}.{} of type {wanted}",
                path.join(".")
            )
        }
        None => format!("json: cannot unmarshal {given} into Go value of type {wanted}"),
    }
}

fn go_name(kind: &Type) -> String {
    match kind {
        Type::Struct { name, .. } => format!("v1.{name}"),
        Type::Reference(_) => go_name(resolve(kind)),
        Type::Map(values) => format!("map[string]{}", go_name(values)),
        Type::List(items) => format!("[]{}", go_name(items)),
        Type::Text => "string".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Integer(bits) => format!("int{bits}"),
        Type::Number => "float64".to_owned(),
        Type::Boolean => "bool".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::Any => "interface {}".to_owned(),
    }
}

fn find_unknown(kind: &Type, value: &Value, path: &str, found: &mut Vec<String>) {
    match (resolve(kind), value) {
        (Type::Struct { fields, .. }, Value::Object(entries)) => {
            for (key, value) in entries {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                match fields.get(key) {
                    Some(kind) => find_unknown(kind, value, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Type::Map(kind), Value::Object(entries)) => {
            for (key, value) in entries {
                find_unknown(kind, value, &format!("{path}.{key}"), found);
            }
        }
        (Type::List(kind), Value::Array(items)) => {
            for (index, value) in items.iter().enumerate() {
                find_unknown(kind, value, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

fn prune_type(kind: &Type, value: &mut Value) {
    match (resolve(kind), value) {
        (Type::Struct { fields, .. }, Value::Object(entries)) => {
            entries.retain(|key, value| !value.is_null() && fields.contains_key(key));
            for (key, value) in entries {
                prune_type(&fields[key], value);
            }
        }
        (Type::Map(kind), Value::Object(entries)) => entries.values_mut().for_each(|value| prune_type(kind, value)),
        (Type::List(kind), Value::Array(items)) => items.iter_mut().for_each(|value| prune_type(kind, value)),
        (Type::Time, Value::String(text)) => rewrite_time(text, "%Y-%m-%dT%H:%M:%SZ"),
        (Type::MicroTime, Value::String(text)) => rewrite_time(text, "%Y-%m-%dT%H:%M:%S.%6fZ"),
        _ => {}
    }
}

/// Whether a type of this short name has a list under `field`.
#[cfg(test)]
pub(super) fn has_list(type_name: &str, field: &str) -> bool {
    TYPES.values().any(|kind| match kind {
        Type::Struct { name, fields } => name == type_name && matches!(fields.get(field), Some(Type::List(_))),
        _ => false,
    })
}

/// One time has many spellings; clients may send back another than they got.
fn rewrite_time(text: &mut String, format: &str) {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        *text = time.strftime(format).to_string();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SERVICE: &str = "io.k8s.api.core.v1.Service";

    #[test]
    fn every_reference_leads_to_a_definition() {
        fn walk(value: &Value) {
            if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
                let name = reference.strip_prefix(REFERENCE).unwrap();
                assert!(DEFINITIONS.contains_key(name), "{name}");
            }
            match value {
                Value::Object(entries) => entries.values().for_each(walk),
                Value::Array(items) => items.iter().for_each(walk),
                _ => {}
            }
        }
        assert!(DEFINITIONS.contains_key(SERVICE));
        DEFINITIONS.values().for_each(walk);
    }

    #[test]
    fn wrong_types_are_told_as_the_go_decoder_does() {
        let cases = [
            (
                json!({"spec": {"ports": [{"port": "x"}]}}),
                "json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32",
            ),
            (
                json!({"spec": {"ports": {}}}),
                "json: cannot unmarshal object into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
            ),
            (
                json!({"spec": []}),
                "json: cannot unmarshal array into Go struct field Service.spec of type v1.ServiceSpec",
            ),
            (
                json!({"spec": {"ports": [{"port": 1.5}]}}),
                "json: cannot unmarshal number 1.5 into Go struct field ServicePort.spec.ports.port of type int32",
            ),
        ];
        for (object, message) in cases {
            assert_eq!(check_types(SERVICE, &object).unwrap_err(), message);
        }
        let good =
            json!({"metadata": {"creationTimestamp": null}, "spec": {"ports": [{"port": 1, "targetPort": "http"}]}});
        assert_eq!(check_types(SERVICE, &good), Ok(()));
    }

    #[test]
    fn unknown_fields_are_found_with_their_path_and_pruned() {
        let mut object = json!({"metadata": {"creationTimestamp": null, "labels": {"any": "thing"}},
            "spec": {"ports": [{"port": 1}, {"port": 2, "prot": "UDP"}], "selektor": {}}});
        assert_eq!(
            unknown_fields(SERVICE, &object),
            ["spec.ports[1].prot", "spec.selektor"]
        );
        prune(SERVICE, &mut object);
        assert_eq!(
            object,
            json!({"metadata": {"labels": {"any": "thing"}}, "spec": {"ports": [{"port": 1}, {"port": 2}]}})
        );
    }

    #[test]
    fn quantities_and_opaque_objects_are_not_looked_into() {
        let pod = "io.k8s.api.core.v1.Pod";
        let object = json!({"metadata": {"managedFields": [{"fieldsV1": {"f:spec": {}}}]},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}});
        assert_eq!(check_types(pod, &object), Ok(()));
        assert!(unknown_fields(pod, &object).is_empty());
    }

    #[test]
    fn times_are_written_in_one_way() {
        let mut object = json!({"metadata": {"creationTimestamp": "2026-11-21T02:48:18.7+02:00"},
            "spec": {"renewTime": "2026-11-21T00:48:18.123456789Z", "acquireTime": "2026-11-21T00:48:18Z"}});
        prune("io.k8s.api.coordination.v1.Lease", &mut object);
        assert_eq!(
            object,
            json!({"metadata": {"creationTimestamp": "2026-11-21T00:48:18Z"},
                "spec": {"renewTime": "2026-11-21T00:48:18.123456Z", "acquireTime": "2026-11-21T00:48:18.000000Z"}})
        );
    }
}
