//! The part of a write that is the same for every kind: is this the right object for the path, are its fields known
//! and of the right type, and the metadata that only the server sets.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{FieldValidation, Registry, WriteOptions, name_of};
use crate::api::status::Status;
use crate::resources::{self, Resource, object};

/// Fields of the metadata that a client cannot set on creation.
const SYSTEM_FIELDS: [&str; 9] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "selfLink",
    "managedFields",
    "clusterName",
];

/// Fields of the metadata that an update keeps as they are, unless it names another value, which validation refuses.
const KEPT_FIELDS: [&str; 4] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// Checks that `object` is of the kind and in the namespace the path says, and completes it where it says nothing.
pub(super) fn identify(resource: &Resource, namespace: Option<&str>, object: &mut Value) -> Result<(), Status> {
    let api_version = resource.api_version();
    let Some(map) = object.as_object_mut() else {
        return Err(Status::bad_request(format!(
            "the object provided is not a JSON object (must be a {})",
            resource.kind
        )));
    };
    for (field, expected) in [("apiVersion", api_version.as_str()), ("kind", resource.kind)] {
        let given = map.get(field).and_then(Value::as_str).unwrap_or_default();
        if !given.is_empty() && given != expected {
            let what = if field == "kind" { "kind" } else { "API version" };
            let message = format!("the {what} in the data ({given}) does not match the expected {what} ({expected})");
            return Err(Status::bad_request(message));
        }
        map.insert(field.to_owned(), expected.into());
    }
    let metadata = map.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if metadata.is_null() {
        *metadata = Value::Object(Map::new());
    }
    let Some(metadata) = metadata.as_object_mut() else {
        return Err(Status::bad_request("metadata is not a JSON object"));
    };
    let Some(namespace) = namespace else { return Ok(()) };
    let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !given.is_empty() && given != namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({given} and \
             {namespace})"
        )));
    }
    metadata.insert("namespace".to_owned(), namespace.into());
    Ok(())
}

/// Checks the types of all fields and drops those the kind does not have. Returns warnings about them, or refuses the
/// object because of them.
pub(super) fn decode(resource: &Resource, object: &mut Value, options: &WriteOptions) -> Result<Vec<String>, Status> {
    let cannot = |why: String| {
        let (kind, version) = (resource.kind, resource.version);
        Status::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
        ))
    };
    resource.decode(object).map_err(cannot)?;
    let mut warnings = Vec::new();
    if options.field_validation != FieldValidation::Ignore {
        let unknown = resource.unknown_fields(object);
        warnings.extend(
            options
                .repeated_fields
                .iter()
                .map(|path| format!("duplicate field \"{path}\"")),
        );
        warnings.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    }
    if options.field_validation == FieldValidation::Strict && !warnings.is_empty() {
        return Err(cannot(format!("strict decoding error: {}", warnings.join(", "))));
    }
    resource.prune(object);
    Ok(warnings)
}

/// Gives a new object what only the server sets.
pub(super) fn stamp(resource: &Resource, object: &mut Value) {
    let Some(metadata) = object["metadata"].as_object_mut() else {
        return;
    };
    for field in SYSTEM_FIELDS {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), new_uid().into());
    metadata.insert("creationTimestamp".to_owned(), now().into());
    if counts_generations(resource) {
        metadata.insert("generation".to_owned(), 1.into());
    }
}

/// Carries the system metadata of `old` over to `new`, and counts a generation when more than metadata and status
/// differ.
pub(super) fn carry_over(resource: &Resource, new: &mut Value, old: &Value) {
    let differs = counts_generations(resource) && without_bookkeeping(new) != without_bookkeeping(old);
    let generation = object::int_at(old, "metadata.generation") + i64::from(differs);
    let Some(metadata) = new["metadata"].as_object_mut() else {
        return;
    };
    for field in KEPT_FIELDS {
        let Some(kept) = old["metadata"].get(field).filter(|kept| !kept.is_null()) else {
            metadata.remove(field);
            continue;
        };
        if metadata.get(field).is_none_or(Value::is_null) {
            metadata.insert(field.to_owned(), kept.clone());
        }
    }
    for field in ["managedFields", "selfLink", "clusterName"] {
        metadata.remove(field);
    }
    if generation > 0 {
        metadata.insert("generation".to_owned(), generation.into());
    } else {
        metadata.remove("generation");
    }
}

/// Kinds whose `metadata.generation` Kubernetes maintains: most, but none of those that are as old as the core group.
fn counts_generations(resource: &Resource) -> bool {
    !matches!(
        resource.kind,
        "ConfigMap" | "Endpoints" | "Event" | "Lease" | "Namespace" | "Node" | "Secret" | "Service" | "ServiceAccount"
    )
}

fn without_bookkeeping(value: &Value) -> Map<String, Value> {
    let mut map = value.as_object().cloned().unwrap_or_default();
    map.remove("metadata");
    map.remove("status");
    map
}

impl Registry {
    /// Fails unless objects can be made in `namespace`: it exists and is not on its way out.
    pub(super) fn check_namespace(&self, resource: &Resource, namespace: &str, name: &str) -> Result<(), Status> {
        let namespaces = resources::find("", "v1", "namespaces").expect("the resource table has namespaces");
        let object = self.get(namespaces, None, namespace)?;
        if object::is_empty_at(&object, "metadata.deletionTimestamp") {
            return Ok(());
        }
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let cause = format!("namespace {namespace} is being terminated");
        let refused = Status::forbidden(resource, name, &why);
        Err(refused.with_cause("NamespaceTerminating", &cause, "metadata.namespace"))
    }
}

/// The time as objects show it: whole seconds.
pub(super) fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A random (version 4) UUID.
pub fn new_uid() -> String {
    let mut bytes: [u8; 16] = random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

/// A name that begins with `base`, as `generateName` asks for.
pub(super) fn generated_name(base: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    const LONGEST_BASE: usize = 63 - 5;
    let base: String = base.chars().take(LONGEST_BASE).collect();
    let suffix = random::<5>().map(|byte| char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
    suffix.iter().fold(base, |name, letter| format!("{name}{letter}"))
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .expect("the operating system gives random bytes");
    bytes
}

/// 400 when an update names another object than the path.
pub(super) fn check_name(object: &Value, name: &str) -> Result<(), Status> {
    let given = name_of(object);
    if given.is_empty() || given == name {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "the name of the object ({given}) does not match the name on the URL ({name})"
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config_maps() -> &'static Resource {
        resources::find("", "v1", "configmaps").unwrap()
    }

    #[test]
    fn kind_and_namespace_are_completed_or_compared() {
        let mut object = json!({ "metadata": { "name": "a" } });
        identify(config_maps(), Some("ns"), &mut object).unwrap();
        let expected =
            json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": "a", "namespace": "ns" } });
        assert_eq!(object, expected);
        for wrong in [
            json!({ "kind": "Pod" }),
            json!({ "apiVersion": "v2" }),
            json!({ "metadata": { "namespace": "x" } }),
            json!([]),
        ] {
            assert_eq!(
                identify(config_maps(), Some("ns"), &mut wrong.clone())
                    .unwrap_err()
                    .code,
                400,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_new_object_gets_an_identity_of_its_own() {
        let mut object = json!({ "metadata": { "uid": "mine", "resourceVersion": "7", "managedFields": [] } });
        stamp(config_maps(), &mut object);
        let metadata = object["metadata"].as_object().unwrap();
        assert_eq!(metadata.keys().collect::<Vec<_>>(), ["creationTimestamp", "uid"]);
        assert_eq!(metadata["uid"].as_str().map(str::len), Some(36));
        assert_ne!(new_uid(), new_uid());
    }

    #[test]
    fn generations_count_changes_of_the_content_only() {
        let slices = resources::find("discovery.k8s.io", "v1", "endpointslices").unwrap();
        let old = json!({ "metadata": { "name": "a", "uid": "1", "generation": 4 }, "endpoints": [] });
        let mut relabelled = json!({ "metadata": { "name": "a", "labels": { "x": "y" } }, "endpoints": [] });
        carry_over(slices, &mut relabelled, &old);
        assert_eq!(relabelled["metadata"]["generation"], 4);
        assert_eq!(relabelled["metadata"]["uid"], "1");
        let mut changed = json!({ "metadata": { "name": "a" }, "endpoints": [{}] });
        carry_over(slices, &mut changed, &old);
        assert_eq!(changed["metadata"]["generation"], 5);
    }

    #[test]
    fn generated_names_fit_a_label() {
        let name = generated_name("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generated_name(&"x".repeat(100)).len(), 63);
    }
}
