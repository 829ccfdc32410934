//! Rendering: objects, lists and watch items as they are, as a `Table`, or as bare metadata.
//!
//! Last step of [`super::handlers`]. Where a client takes objects as they are, stored bytes are spliced into the
//! answer; the other shapes need the decoded object.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::negotiate::{Format, Shape};
use super::query::IncludeObject;
use super::registry::Page;
use super::status::Status;
use super::wire::Object;
use super::{body, watch};
use crate::resources::Resource;

/// How objects of one resource are shown to one client.
#[derive(Clone, Copy)]
pub(super) struct Rendering {
    pub(super) resource: &'static Resource,
    pub(super) shape: Shape,
    pub(super) format: Format,
    pub(super) include: IncludeObject,
}

impl Rendering {
    /// One object, not yet decoded.
    pub(super) fn object(&self, object: &Object) -> Result<Vec<u8>, Status> {
        if self.is_raw() {
            let mut out = Vec::new();
            object.write_json(&mut out);
            return Ok(out);
        }
        Ok(self.value(object.to_value()?))
    }

    /// One decoded object.
    pub(super) fn value(&self, value: Value) -> Vec<u8> {
        let shown = match self.shape {
            Shape::Plain => value,
            Shape::Metadata { beta } => metadata_of(&value, beta),
            Shape::Table { beta } => {
                let list = json!({ "resourceVersion": value["metadata"]["resourceVersion"] });
                self.table(std::slice::from_ref(&value), list, beta, true)
            }
        };
        body::encode(self.format, &shown).into()
    }

    /// A list.
    pub(super) fn page(&self, page: &Page) -> Result<Vec<u8>, Status> {
        let metadata = list_metadata(page);
        let shown = match self.shape {
            Shape::Plain if self.is_raw() => return Ok(self.raw_page(page, &metadata)),
            Shape::Plain => self.list(page.values()?, &metadata),
            Shape::Table { beta } => self.table(&page.values()?, metadata, beta, true),
            Shape::Metadata { beta } => {
                let items: Vec<Value> = page.values()?.iter().map(|value| metadata_of(value, beta)).collect();
                json!({ "kind": "PartialObjectMetadataList", "apiVersion": meta_version(beta),
                        "metadata": metadata, "items": items })
            }
        };
        Ok(body::encode(self.format, &shown).into())
    }

    /// A list of decoded objects as they are.
    pub(super) fn list(&self, items: Vec<Value>, metadata: &Value) -> Value {
        json!({ "kind": self.resource.list_kind, "apiVersion": self.resource.api_version(),
                "metadata": metadata, "items": items })
    }

    fn raw_page(&self, page: &Page, metadata: &Value) -> Vec<u8> {
        let (kind, version) = (self.resource.list_kind, self.resource.api_version());
        let head = format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"items":["#);
        let mut out = head.into_bytes();
        for (index, object) in page.objects.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            object.write_json(&mut out);
        }
        out.extend_from_slice(b"]}");
        out
    }

    /// A line of a watch. Only the `first` Table of a watch carries the columns.
    pub(super) fn watch_item(&self, item: &watch::Item, first: bool, out: &mut Vec<u8>) -> Result<(), Status> {
        let (kind, object) = match item {
            watch::Item::Added(object) => ("ADDED", object),
            watch::Item::Modified(object) => ("MODIFIED", object),
            watch::Item::Deleted(object) => ("DELETED", object),
            watch::Item::Bookmark { revision, initial_end } => {
                write_line(
                    out,
                    "BOOKMARK",
                    self.bookmark(*revision, *initial_end, first).to_string().as_bytes(),
                );
                return Ok(());
            }
            watch::Item::Failed(status) => {
                write_line(out, "ERROR", status.to_value().to_string().as_bytes());
                return Ok(());
            }
        };
        let mut json = Vec::new();
        match self.shape {
            Shape::Plain => object.write_json(&mut json),
            Shape::Metadata { beta } => json = metadata_of(&object.to_value()?, beta).to_string().into(),
            Shape::Table { beta } => {
                let list = json!({ "resourceVersion": object.revision().to_string() });
                json = self.table(&[object.to_value()?], list, beta, first).to_string().into();
            }
        }
        write_line(out, kind, &json);
        Ok(())
    }

    fn bookmark(&self, revision: u64, initial_end: bool, first: bool) -> Value {
        let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
        if initial_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        match self.shape {
            Shape::Plain => {
                json!({ "kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata })
            }
            Shape::Metadata { beta } => {
                json!({ "kind": "PartialObjectMetadata", "apiVersion": meta_version(beta), "metadata": metadata })
            }
            Shape::Table { beta } => {
                let list = json!({ "resourceVersion": revision.to_string() });
                let mut table = self.table(&[], list, beta, first);
                if initial_end {
                    // The mark sits on the object of a row, as a list's metadata has no annotations.
                    let object = json!({ "kind": "PartialObjectMetadata", "apiVersion": meta_version(beta), "metadata": metadata });
                    table["rows"] =
                        json!([{ "cells": vec![Value::Null; self.resource.columns.len()], "object": object }]);
                }
                table
            }
        }
    }

    fn is_raw(&self) -> bool {
        self.shape == Shape::Plain && self.format == Format::Json
    }

    fn table(&self, objects: &[Value], metadata: Value, beta: bool, columns: bool) -> Value {
        let now = Timestamp::now();
        let rows: Vec<Value> = objects.iter().map(|object| self.row(object, now, beta)).collect();
        let columns = if columns { self.columns() } else { Value::Null };
        json!({ "kind": "Table", "apiVersion": meta_version(beta), "metadata": metadata,
                "columnDefinitions": columns, "rows": rows })
    }

    fn row(&self, object: &Value, now: Timestamp, beta: bool) -> Value {
        let mut row = json!({ "cells": self.resource.strategy.row(object, now) });
        match self.include {
            IncludeObject::Nothing => {}
            IncludeObject::Metadata => row["object"] = metadata_of(object, beta),
            IncludeObject::Object => row["object"] = object.clone(),
        }
        row
    }

    fn columns(&self) -> Value {
        let columns = self.resource.columns.iter().map(|column| {
            json!({ "name": column.name, "type": column.kind, "format": column.format,
                    "description": column.description, "priority": column.priority })
        });
        columns.collect()
    }
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = Map::new();
    metadata.insert("resourceVersion".to_owned(), page.revision.to_string().into());
    if let Some(token) = &page.continue_token {
        metadata.insert("continue".to_owned(), token.as_str().into());
    }
    if let Some(remaining) = page.remaining {
        metadata.insert("remainingItemCount".to_owned(), remaining.into());
    }
    Value::Object(metadata)
}

fn metadata_of(object: &Value, beta: bool) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": meta_version(beta), "metadata": object["metadata"] })
}

fn meta_version(beta: bool) -> &'static str {
    if beta { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
}

fn write_line(out: &mut Vec<u8>, kind: &str, object: &[u8]) {
    out.extend_from_slice(format!(r#"{{"type":"{kind}","object":"#).as_bytes());
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire;
    use crate::resources;

    fn rendering(shape: Shape, include: IncludeObject) -> Rendering {
        let resource = resources::find("", "v1", "configmaps").unwrap();
        Rendering {
            resource,
            shape,
            format: Format::Json,
            include,
        }
    }

    fn page() -> Page {
        let resource = resources::find("", "v1", "configmaps").unwrap();
        let object =
            json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": "a" }, "data": { "k": "v" } });
        let object = Object::at(resource, wire::encode(&object), 5);
        Page {
            objects: vec![object.clone(), object],
            revision: 9,
            continue_token: Some("t".to_owned()),
            remaining: Some(3),
        }
    }

    fn rendered(shape: Shape, include: IncludeObject) -> Value {
        serde_json::from_slice(&rendering(shape, include).page(&page()).unwrap()).unwrap()
    }

    #[test]
    fn plain_lists_are_typed_and_say_where_to_go_on() {
        let list = rendered(Shape::Plain, IncludeObject::Metadata);
        assert_eq!(list["kind"], "ConfigMapList");
        assert_eq!(
            list["metadata"],
            json!({ "resourceVersion": "9", "continue": "t", "remainingItemCount": 3 })
        );
        assert_eq!(list["items"][1]["metadata"]["resourceVersion"], "5");
    }

    #[test]
    fn tables_have_a_cell_per_column_and_the_object_asked_for() {
        let table = rendered(Shape::Table { beta: false }, IncludeObject::Metadata);
        assert_eq!(
            (&table["kind"], &table["apiVersion"]),
            (&json!("Table"), &json!("meta.k8s.io/v1"))
        );
        assert_eq!(
            table["columnDefinitions"].as_array().unwrap().len(),
            table["rows"][0]["cells"].as_array().unwrap().len()
        );
        assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(
            rendered(Shape::Table { beta: false }, IncludeObject::Object)["rows"][0]["object"]["data"]["k"],
            "v"
        );
        assert!(
            rendered(Shape::Table { beta: false }, IncludeObject::Nothing)["rows"][0]
                .get("object")
                .is_none()
        );
    }

    #[test]
    fn metadata_lists_leave_the_rest_out() {
        let list = rendered(Shape::Metadata { beta: false }, IncludeObject::Metadata);
        assert_eq!(list["kind"], "PartialObjectMetadataList");
        assert!(list["items"][0].get("data").is_none());
    }

    #[test]
    fn only_the_first_table_of_a_watch_has_columns() {
        let rendering = rendering(Shape::Table { beta: false }, IncludeObject::Metadata);
        let item = watch::Item::Added(page().objects.remove(0));
        for first in [true, false] {
            let mut line = Vec::new();
            rendering.watch_item(&item, first, &mut line).unwrap();
            let event: Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(event["object"]["columnDefinitions"].is_array(), first);
            assert_eq!(event["object"]["rows"].as_array().unwrap().len(), 1);
        }
    }

    #[test]
    fn the_end_of_the_initial_events_is_marked() {
        let mut line = Vec::new();
        let item = watch::Item::Bookmark {
            revision: 7,
            initial_end: true,
        };
        rendering(Shape::Plain, IncludeObject::Metadata)
            .watch_item(&item, true, &mut line)
            .unwrap();
        let event: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(event["type"], "BOOKMARK");
        assert_eq!(event["object"]["kind"], "ConfigMap");
        assert_eq!(
            event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
            "true"
        );
    }
}
