//! Event: what happened to an object, for people to read.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::field_error::FieldError;
use super::strategy::Strategy;
use super::table::{NAME, text, wide};
use super::{Column, duration, object};

/// What `kubectl get events` shows.
pub(super) const COLUMNS: &[Column] = &[
    text("Last Seen", "Time since the event was last seen."),
    text("Type", "Normal or Warning."),
    text("Reason", "Why the event was sent, in one word."),
    text("Object", "The object the event is about."),
    wide("Subobject", "The part of the object the event is about."),
    wide("Source", "Who sent the event."),
    text("Message", "What happened."),
    wide("First Seen", "Time since the event was first seen."),
    wide("Count", "How often the event was seen."),
    Column { priority: 1, ..NAME },
];

/// Fields of an Event that selectors may name.
pub(super) const SELECTABLE_FIELDS: &[&str] = &[
    "involvedObject.apiVersion",
    "involvedObject.fieldPath",
    "involvedObject.kind",
    "involvedObject.name",
    "involvedObject.namespace",
    "involvedObject.resourceVersion",
    "involvedObject.uid",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

/// Validation, selection and printing of Events.
pub(super) struct EventStrategy;

impl Strategy for EventStrategy {
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = namespace_mismatch(new);
        if !object::is_empty_at(new, "eventTime") {
            for field in ["reportingComponent", "reportingInstance", "action", "reason"] {
                if object::is_empty_at(new, field) {
                    let field = if field == "reportingComponent" {
                        "reportingController"
                    } else {
                        field
                    };
                    errors.push(FieldError::required(field, ""));
                }
            }
        }
        errors
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (first, last, count) = seen(object, now);
        vec![
            json!(last),
            json!(object::str_at(object, "type")),
            json!(object::str_at(object, "reason")),
            json!(target(object)),
            json!(object::str_at(object, "involvedObject.fieldPath")),
            json!(source(object)),
            json!(object::str_at(object, "message").trim()),
            json!(first),
            json!(count),
            json!(object::str_at(object, "metadata.name")),
        ]
    }

    fn selectable_value(&self, object: &Value, field: &str) -> String {
        if field == "source" {
            let component = object::text_at(object, "source.component");
            return if component.is_empty() {
                object::text_at(object, "reportingComponent")
            } else {
                component
            };
        }
        object::text_at(object, field)
    }
}

/// Events about an object live in its namespace; those about cluster-scoped objects in `default`.
fn namespace_mismatch(event: &Value) -> Vec<FieldError> {
    let namespace = object::str_at(event, "metadata.namespace");
    let involved = object::str_at(event, "involvedObject.namespace");
    let fits = if involved.is_empty() {
        matches!(namespace, "" | "default" | "kube-system")
    } else {
        involved == namespace
    };
    if fits {
        Vec::new()
    } else {
        vec![FieldError::invalid(
            "involvedObject.namespace",
            involved,
            "does not match event.namespace",
        )]
    }
}

/// When the event was first and last seen, and how often.
fn seen(event: &Value, now: Timestamp) -> (String, String, i64) {
    let since = |path| duration::since(object::str_at(event, path), now);
    let time = |path| !object::is_empty_at(event, path);
    let first = if time("firstTimestamp") {
        since("firstTimestamp")
    } else {
        since("eventTime")
    };
    if time("series.lastObservedTime") {
        return (
            first,
            since("series.lastObservedTime"),
            object::int_at(event, "series.count"),
        );
    }
    let last = if time("lastTimestamp") {
        since("lastTimestamp")
    } else {
        first.clone()
    };
    (first, last, object::int_at(event, "count").max(1))
}

fn target(event: &Value) -> String {
    let kind = object::str_at(event, "involvedObject.kind").to_lowercase();
    match object::str_at(event, "involvedObject.name") {
        "" => kind,
        name => format!("{kind}/{name}"),
    }
}

fn source(event: &Value) -> String {
    let or = |first: &str, second: &str| {
        let text = object::text_at(event, first);
        if text.is_empty() {
            object::text_at(event, second)
        } else {
            text
        }
    };
    let (component, host) = (
        or("source.component", "reportingComponent"),
        or("source.host", "reportingInstance"),
    );
    if host.is_empty() {
        component
    } else {
        format!("{component}, {host}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_lives_where_its_object_lives() {
        let event = json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}});
        assert_eq!(
            EventStrategy.validate(&event, None)[0].to_string(),
            "involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"
        );
        let of_node = json!({"metadata": {"namespace": "default"}, "involvedObject": {"kind": "Node", "name": "n"}});
        assert!(EventStrategy.validate(&of_node, None).is_empty());
    }

    #[test]
    fn rows_show_when_and_about_what() {
        let event = json!({"metadata": {"name": "web.1"}, "type": "Normal", "reason": "Created", "message": " made \n",
            "involvedObject": {"kind": "Pod", "name": "web"}, "source": {"component": "kubelet", "host": "n1"},
            "firstTimestamp": "1970-01-01T00:00:00Z", "lastTimestamp": "1970-01-01T00:01:00Z", "count": 3});
        let cells = EventStrategy.row(&event, "1970-01-01T00:02:00Z".parse().unwrap());
        let expected = ["60s", "Normal", "Created", "pod/web", "", "kubelet, n1", "made", "2m"].map(|cell| json!(cell));
        assert_eq!(cells[..8], expected);
        assert_eq!(cells[8..], [json!(3), json!("web.1")]);
        assert_eq!(EventStrategy.selectable_value(&event, "source"), "kubelet");
    }
}
