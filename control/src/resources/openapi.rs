//! OpenAPI v3 documents, one per group and version.
//!
//! Served by `api` under `/openapi/v3`. kubectl reads them to validate manifests (`fieldValidation` and the kinds'
//! `x-kubernetes-group-version-kind`) and for `kubectl explain`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::schema::DEFINITIONS;
use super::strategic_merge::{self, Merge};
use super::{RESOURCES, Resource};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const REFERENCE: &str = "#/components/schemas/";

/// Document name such as `api/v1` or `apis/discovery.k8s.io/v1` -> document.
static DOCUMENTS: LazyLock<BTreeMap<String, Bytes>> = LazyLock::new(|| {
    let names: BTreeSet<String> = RESOURCES.iter().map(document_name).collect();
    names
        .into_iter()
        .map(|name| (name.clone(), Bytes::from(document(&name).to_string())))
        .collect()
});

/// The index at `/openapi/v3`: where each document is, with a hash of its content so that clients may cache it.
#[must_use]
pub fn openapi_v3_index() -> Value {
    let paths: Map<String, Value> = DOCUMENTS
        .iter()
        .map(|(name, bytes)| {
            let url = format!("/openapi/v3/{name}?hash={}", openapi_v3_hash(bytes));
            (name.clone(), json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// The document named `api/v1` or `apis/<group>/<version>`, as JSON.
#[must_use]
pub fn openapi_v3(name: &str) -> Option<Bytes> {
    DOCUMENTS.get(name).cloned()
}

/// The hash of a document, as it stands in the index: 32 hexadecimal digits in capitals. For `ETag`.
#[must_use]
pub fn openapi_v3_hash(document: &[u8]) -> String {
    let fnv = |basis: u64| {
        document.iter().fold(basis, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        })
    };
    format!("{:016X}{:016X}", fnv(0xcbf2_9ce4_8422_2325), fnv(0x8422_2325_cbf2_9ce4))
}

fn document_name(resource: &Resource) -> String {
    root(resource).trim_start_matches('/').to_owned()
}

fn root(resource: &Resource) -> String {
    if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    }
}

fn document(name: &str) -> Value {
    let mut paths = Map::new();
    let mut wanted: BTreeSet<String> = ["DeleteOptions", "Status", "Patch", "ListMeta"]
        .map(|kind| format!("{META}.{kind}"))
        .into();
    let mut schemas = Map::new();
    for resource in RESOURCES.iter().filter(|resource| document_name(resource) == name) {
        add_paths(&mut paths, resource);
        wanted.insert(resource.schema.to_owned());
        schemas.insert(format!("{}List", resource.schema), list_schema(resource));
    }
    add_schemas(&mut schemas, wanted);
    for resource in RESOURCES.iter().filter(|resource| document_name(resource) == name) {
        let (group, version, kind) = resource.gvk();
        if let Some(schema) = schemas.get_mut(resource.schema).and_then(Value::as_object_mut) {
            schema.insert(
                "x-kubernetes-group-version-kind".into(),
                json!([gvk(group, version, kind)]),
            );
            schema.remove("required");
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": API_VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// The version of the Kubernetes API that the types are of.
pub const API_VERSION: &str = "v1.33.0";

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

/// Copies the wanted schemas and all they refer to.
fn add_schemas(schemas: &mut Map<String, Value>, mut wanted: BTreeSet<String>) {
    while let Some(name) = wanted.pop_first() {
        if schemas.contains_key(&name) {
            continue;
        }
        if let Some(schema) = DEFINITIONS.get(&name) {
            let schema = published(&name, schema, &mut wanted);
            schemas.insert(name, schema);
        }
    }
}

/// A schema in the form kube-apiserver publishes: references that carry a description are wrapped in `allOf`.
fn published(name: &str, schema: &Value, references: &mut BTreeSet<String>) -> Value {
    if name.ends_with(".Quantity") {
        return json!({"description": schema["description"], "oneOf": [{"type": "string"}, {"type": "number"}]});
    }
    if name.ends_with(".IntOrString") {
        let forms = json!([{"type": "integer"}, {"type": "string"}]);
        return json!({"description": schema["description"], "format": "int-or-string", "oneOf": forms});
    }
    let mut schema = wrap_references(schema, references);
    publish_merge(name.rsplit('.').next().unwrap_or(name), &mut schema);
    schema
}

/// Tells kubectl how the lists of a type are merged: it computes its patches by these.
fn publish_merge(type_name: &str, schema: &mut Value) {
    for (field, property) in schema
        .get_mut("properties")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flatten()
    {
        let merge = strategic_merge::of_field(type_name, field);
        if merge != Merge::Replace {
            property["x-kubernetes-patch-strategy"] = json!(strategic_merge::published_strategy(type_name, field));
        }
        if let Merge::ByKey(key) = merge {
            property["x-kubernetes-patch-merge-key"] = json!(key);
        }
    }
}

fn wrap_references(schema: &Value, references: &mut BTreeSet<String>) -> Value {
    match schema {
        Value::Object(entries) => {
            let mut result: Map<String, Value> = entries
                .iter()
                .map(|(key, value)| (key.clone(), wrap_references(value, references)))
                .collect();
            if let Some(target) = entries.get("$ref").and_then(Value::as_str) {
                references.insert(target.trim_start_matches(REFERENCE).to_owned());
                if entries.len() > 1 {
                    result.remove("$ref");
                    result.insert("allOf".into(), json!([{"$ref": target}]));
                }
            }
            Value::Object(result)
        }
        Value::Array(items) => items.iter().map(|item| wrap_references(item, references)).collect(),
        scalar => scalar.clone(),
    }
}

fn list_schema(resource: &Resource) -> Value {
    let (group, version, _) = resource.gvk();
    let reference = |name: &str| json!({"$ref": format!("{REFERENCE}{name}")});
    json!({
        "description": format!("{} is a list of {} objects.", resource.list_kind, resource.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": "The version of the schema of this list.", "type": "string"},
            "kind": {"description": "The kind of this list.", "type": "string"},
            "metadata": {"description": "Standard list metadata.", "allOf": [reference(&format!("{META}.ListMeta"))]},
            "items": {"description": "The objects.", "type": "array", "items": reference(resource.schema)},
        },
        "x-kubernetes-group-version-kind": [gvk(group, version, resource.list_kind)],
    })
}

fn add_paths(paths: &mut Map<String, Value>, resource: &Resource) {
    let root = root(resource);
    let collection = if resource.namespaced {
        paths.insert(
            format!("{root}/{}", resource.plural),
            json!({"get": operation(resource, "list", &[])}),
        );
        format!("{root}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{root}/{}", resource.plural)
    };
    let mut of_collection = json!({
        "get": operation(resource, "list", &[]),
        "post": operation(resource, "post", &["dryRun", "fieldManager", "fieldValidation"]),
        "delete": operation(resource, "deletecollection", &["dryRun"]),
    });
    let mut of_item = item_operations(resource);
    of_item["delete"] = operation(
        resource,
        "delete",
        &["dryRun", "gracePeriodSeconds", "propagationPolicy"],
    );
    if resource.namespaced {
        of_collection["parameters"] = json!([path_parameter("namespace")]);
        of_item["parameters"] = json!([path_parameter("name"), path_parameter("namespace")]);
    } else {
        of_item["parameters"] = json!([path_parameter("name")]);
    }
    for subresource in resource.subresources {
        let mut operations = item_operations(resource);
        operations["parameters"] = of_item["parameters"].clone();
        paths.insert(format!("{collection}/{{name}}/{subresource}"), operations);
    }
    paths.insert(collection.clone(), of_collection);
    paths.insert(format!("{collection}/{{name}}"), of_item);
}

fn item_operations(resource: &Resource) -> Value {
    json!({
        "get": operation(resource, "get", &[]),
        "put": operation(resource, "put", &["dryRun", "fieldManager", "fieldValidation"]),
        "patch": operation(resource, "patch", &["dryRun", "fieldManager", "fieldValidation", "force"]),
    })
}

/// One operation: what kubectl looks for is the group, version and kind, and the names of the query parameters.
fn operation(resource: &Resource, action: &str, parameters: &[&str]) -> Value {
    let (group, version, kind) = resource.gvk();
    let answer = match action {
        "list" => format!("{}List", resource.schema),
        "delete" | "deletecollection" => format!("{META}.Status"),
        _ => resource.schema.to_owned(),
    };
    let content = |name: &str| json!({"schema": {"$ref": format!("{REFERENCE}{name}")}});
    let mut operation = json!({
        "tags": [if group.is_empty() { "core_v1".to_owned() } else { group.replace('.', "_") }],
        "parameters": parameters.iter().map(|name| query_parameter(name)).collect::<Vec<_>>(),
        "responses": {"200": {"description": "OK", "content": {"application/json": content(&answer)}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(group, version, kind),
    });
    let bodies: &[&str] = match action {
        "post" | "put" => &["*/*"],
        "patch" => &[
            "application/json-patch+json",
            "application/merge-patch+json",
            "application/strategic-merge-patch+json",
        ],
        _ => &[],
    };
    let body = if action == "patch" {
        format!("{META}.Patch")
    } else {
        resource.schema.to_owned()
    };
    if !bodies.is_empty() {
        let content: Map<String, Value> = bodies.iter().map(|kind| ((*kind).to_owned(), content(&body))).collect();
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    operation
}

fn query_parameter(name: &str) -> Value {
    let (kind, description) = match name {
        "dryRun" => ("string", "`All` goes through all stages but writes nothing."),
        "fieldManager" => ("string", "Name of the actor that makes the change."),
        "fieldValidation" => (
            "string",
            "What to do about unknown fields: `Ignore`, `Warn` or `Strict`.",
        ),
        "force" => (
            "boolean",
            "Take over fields that other managers own; for apply patches only.",
        ),
        "gracePeriodSeconds" => ("integer", "Seconds before the object is deleted."),
        _ => ("string", "Whether and how dependants are deleted."),
    };
    json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
}

fn path_parameter(name: &str) -> Value {
    let description = format!("The object's {name}.");
    let schema = json!({"type": "string", "uniqueItems": true});
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": schema})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core() -> Value {
        serde_json::from_slice(&openapi_v3("api/v1").unwrap()).unwrap()
    }

    #[test]
    fn the_index_leads_to_every_document() {
        let index = openapi_v3_index();
        let paths = index["paths"].as_object().unwrap();
        assert_eq!(
            paths.keys().collect::<Vec<_>>(),
            ["api/v1", "apis/coordination.k8s.io/v1", "apis/discovery.k8s.io/v1"]
        );
        for (name, entry) in paths {
            let url = entry["serverRelativeURL"].as_str().unwrap();
            assert!(
                url.starts_with(&format!("/openapi/v3/{name}?hash=")) && openapi_v3(name).is_some(),
                "{url}"
            );
        }
    }

    #[test]
    fn kubectl_finds_field_validation_on_the_patch_of_a_kind() {
        let document = core();
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/services/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "", "version": "v1", "kind": "Service"})
        );
        let names: Vec<&str> = patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|p| p["name"].as_str())
            .collect();
        assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    }

    #[test]
    fn explain_finds_the_kind_and_the_fields_behind_references() {
        let document = core();
        let schemas = &document["components"]["schemas"];
        let service = &schemas["io.k8s.api.core.v1.Service"];
        assert_eq!(service["x-kubernetes-group-version-kind"][0]["kind"], "Service");
        let spec = service["properties"]["spec"]["allOf"][0]["$ref"].as_str().unwrap();
        let spec = &schemas[spec.trim_start_matches(REFERENCE)];
        assert_eq!(spec["properties"]["ports"]["type"], "array");
        assert_eq!(spec["properties"]["ports"]["x-kubernetes-patch-merge-key"], "port");
        assert_eq!(
            schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"],
            "int-or-string"
        );
    }

    #[test]
    fn no_document_refers_to_a_schema_it_lacks() {
        for name in DOCUMENTS.keys() {
            let document: Value = serde_json::from_slice(&openapi_v3(name).unwrap()).unwrap();
            let mut references = BTreeSet::new();
            wrap_references(&document, &mut references);
            for reference in references {
                assert!(
                    document["components"]["schemas"].get(&reference).is_some(),
                    "{reference} in {name}"
                );
            }
        }
    }
}
