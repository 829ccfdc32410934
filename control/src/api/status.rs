//! The one error type of the API: a `Status` object in exactly the form Kubernetes clients parse.
//!
//! Everything in [`crate::api`] fails with [`Status`]; [`super::handlers`] turns it into an HTTP answer and
//! [`super::watch`] into an `ERROR` event. Clients decide by `reason` and `code`, people read `message`, and tools show
//! the `causes`.

use serde_json::{Map, Value, json};

use crate::resources::{FieldError, Resource, field_error};
use crate::store::StoreError;

/// The machine-readable reason of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// 401: no or bad credentials.
    Unauthorized,
    /// 403: known, but not allowed.
    Forbidden,
    /// 404: no such object or resource.
    NotFound,
    /// 409: create found the name taken.
    AlreadyExists,
    /// 409: the object changed since it was read, or a precondition failed.
    Conflict,
    /// 410: the revision asked for is no longer kept.
    Expired,
    /// 422: the object is well-formed but not valid.
    Invalid,
    /// 400: the request makes no sense.
    BadRequest,
    /// 405: the resource has no such verb.
    MethodNotAllowed,
    /// 406: no representation the client accepts.
    NotAcceptable,
    /// 413: the body is too long.
    RequestEntityTooLarge,
    /// 415: the body is in a format nobody here reads.
    UnsupportedMediaType,
    /// 429: come back later.
    TooManyRequests,
    /// 500: our fault.
    InternalError,
    /// 503: shutting down.
    ServiceUnavailable,
    /// 504: took too long.
    Timeout,
}

impl Reason {
    /// The HTTP status code that goes with the reason.
    pub fn code(self) -> u16 {
        match self {
            Reason::BadRequest => 400,
            Reason::Unauthorized => 401,
            Reason::Forbidden => 403,
            Reason::NotFound => 404,
            Reason::MethodNotAllowed => 405,
            Reason::NotAcceptable => 406,
            Reason::AlreadyExists | Reason::Conflict => 409,
            Reason::Expired => 410,
            Reason::RequestEntityTooLarge => 413,
            Reason::UnsupportedMediaType => 415,
            Reason::Invalid => 422,
            Reason::TooManyRequests => 429,
            Reason::InternalError => 500,
            Reason::ServiceUnavailable => 503,
            Reason::Timeout => 504,
        }
    }
}

/// What a failure is about; empty members are left out of the JSON.
#[derive(Clone, Debug, Default, PartialEq)]
struct Details {
    name: String,
    group: String,
    kind: String,
    uid: String,
    causes: Vec<Value>,
    retry_after_seconds: u32,
}

/// A failure, as `kind: Status` of `v1`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The machine-readable reason.
    pub reason: Reason,
    /// The HTTP status code.
    pub code: u16,
    /// For people, in the words of Kubernetes.
    pub message: String,
    details: Option<Box<Details>>,
    continue_token: Option<String>,
}

impl Status {
    /// A failure without details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            code: reason.code(),
            message: message.into(),
            details: None,
            continue_token: None,
        }
    }

    /// 400 with `message`.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Reason::BadRequest, message)
    }

    /// 500 with `message`.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(Reason::InternalError, format!("Internal error occurred: {message}"))
    }

    /// 404 for one object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified_plural());
        Self::about(Reason::NotFound, message, resource, name)
    }

    /// 404 for a path that leads to no resource.
    pub fn unknown_resource() -> Self {
        let mut status = Self::new(Reason::NotFound, "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    /// 409 for a create.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified_plural());
        Self::about(Reason::AlreadyExists, message, resource, name)
    }

    /// 409 for an update of a version that is no longer the newest.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        Self::conflict(
            resource,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409 with the particulars in `why`.
    pub fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            resource.qualified_plural()
        );
        Self::about(Reason::Conflict, message, resource, name)
    }

    /// 403 with the particulars in `why`.
    pub fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("{} \"{name}\" is forbidden: {why}", resource.qualified_plural());
        Self::about(Reason::Forbidden, message, resource, name)
    }

    /// 422 for an object with `errors`.
    pub fn invalid(resource: &Resource, name: &str, errors: &[FieldError]) -> Self {
        Self::invalid_kind(resource.group, resource.kind, name, errors)
    }

    /// 422 for anything that has a kind; list options are such a thing.
    pub fn invalid_kind(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let qualified = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let list = field_error::aggregate(errors);
        let mut status = Self::new(Reason::Invalid, format!("{qualified} \"{name}\" is invalid: {list}"));
        let causes = errors.iter().map(cause_of).collect();
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes,
            ..Details::default()
        }));
        status
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        let mut status = Self::new(
            Reason::MethodNotAllowed,
            "the server does not allow this method on the requested resource",
        );
        status.details = Some(Box::default());
        status
    }

    /// 410 for a list or a watch that starts too far back.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(Reason::Expired, message)
    }

    /// 410 for a watch at `requested`, in the words clients look for.
    pub fn too_old(requested: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {requested} ({oldest})"))
    }

    /// 504 for a revision that does not exist yet; clients know the cause by its name and start over.
    pub fn too_large(requested: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {requested}, current: {current}");
        Self::new(Reason::Timeout, format!("Timeout: {message}"))
            .with_cause("ResourceVersionTooLarge", "Too large resource version", "")
            .with_retry_after(1)
    }

    fn about(reason: Reason, message: String, resource: &Resource, name: &str) -> Self {
        let mut status = Self::new(reason, message);
        status.details = Some(Box::new(Details {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.plural.to_owned(),
            ..Details::default()
        }));
        status
    }

    /// Adds one cause; an empty `field` is left out.
    pub fn with_cause(mut self, reason: &str, message: &str, field: &str) -> Self {
        let mut cause = json!({ "reason": reason, "message": message });
        if !field.is_empty() {
            cause["field"] = field.into();
        }
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// Tells the client when to come back; also sent as the `Retry-After` header.
    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Adds a token with which a list can go on although its revision is gone.
    pub fn with_continue(mut self, token: String) -> Self {
        self.continue_token = Some(token);
        self
    }

    /// Seconds after which the client should come back; 0 when nothing was said.
    pub fn retry_after(&self) -> u32 {
        self.details.as_ref().map_or(0, |details| details.retry_after_seconds)
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.reason == Reason::NotFound
    }

    /// A create found the name taken.
    pub fn is_already_exists(&self) -> bool {
        self.reason == Reason::AlreadyExists
    }

    /// The object changed since it was read.
    pub fn is_conflict(&self) -> bool {
        self.reason == Reason::Conflict
    }

    /// The object as it goes over the wire.
    pub fn to_value(&self) -> Value {
        let mut metadata = Map::new();
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".to_owned(), token.as_str().into());
        }
        let mut value = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": metadata, "status": "Failure",
            "message": self.message, "reason": format!("{:?}", self.reason), "code": self.code,
        });
        if let Some(details) = &self.details {
            value["details"] = details.to_value();
        }
        value
    }

    /// The `Success` answer to a deletion that left nothing behind.
    pub fn success(resource: &Resource, name: &str, uid: &str) -> Value {
        let details = Details {
            name: name.to_owned(),
            group: resource.group.to_owned(),
            kind: resource.plural.to_owned(),
            uid: uid.to_owned(),
            ..Details::default()
        };
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details.to_value() })
    }
}

impl From<StoreError> for Status {
    /// What is left when the caller had no better answer: the store's state is our fault, not the client's.
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted { requested, oldest } => Status::too_old(requested, oldest),
            StoreError::Future { requested, current } => Status::too_large(requested, current),
            StoreError::Lagged => Status::expired("too old resource version: the watch fell too far behind"),
            StoreError::Closed => Status::new(Reason::ServiceUnavailable, "the server is shutting down"),
            other => {
                tracing::error!(error = &other as &dyn std::error::Error, "the store failed");
                Status::internal(other)
            }
        }
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        let texts = [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ];
        for (key, text) in texts {
            if !text.is_empty() {
                map.insert(key.to_owned(), text.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            map.insert("causes".to_owned(), self.causes.clone().into());
        }
        if self.retry_after_seconds > 0 {
            map.insert("retryAfterSeconds".to_owned(), self.retry_after_seconds.into());
        }
        Value::Object(map)
    }
}

fn cause_of(error: &FieldError) -> Value {
    json!({ "reason": error.kind.reason(), "message": error.body(), "field": error.field })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources;

    #[test]
    fn a_status_names_the_resource_and_leaves_out_what_is_empty() {
        let slices = resources::find("discovery.k8s.io", "v1", "endpointslices").unwrap();
        let expected = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404,
            "message": "endpointslices.discovery.k8s.io \"a\" not found",
            "details": { "name": "a", "group": "discovery.k8s.io", "kind": "endpointslices" },
        });
        assert_eq!(Status::not_found(slices, "a").to_value(), expected);
    }

    #[test]
    fn several_field_errors_are_one_message_and_several_causes() {
        let services = resources::find("", "v1", "services").unwrap();
        let errors = [
            FieldError::required("spec.ports", ""),
            FieldError::invalid("spec.type", "x", "no"),
        ];
        let status = Status::invalid(services, "a", &errors);
        assert_eq!(
            status.message,
            "Service \"a\" is invalid: [spec.ports: Required value, spec.type: Invalid value: \"x\": no]"
        );
        let causes = json!([
            { "reason": "FieldValueRequired", "message": "Required value", "field": "spec.ports" },
            { "reason": "FieldValueInvalid", "message": "Invalid value: \"x\": no", "field": "spec.type" },
        ]);
        assert_eq!(status.to_value()["details"]["causes"], causes);
    }

    #[test]
    fn a_store_that_lost_the_past_sends_clients_back_to_the_list() {
        for error in [
            StoreError::Compacted {
                requested: 1,
                oldest: 5,
            },
            StoreError::Lagged,
        ] {
            let status = Status::from(error);
            assert_eq!((status.code, status.reason), (410, Reason::Expired));
            assert!(
                status.message.starts_with("too old resource version"),
                "{}",
                status.message
            );
        }
        let early = Status::from(StoreError::Future {
            requested: 9,
            current: 5,
        });
        assert_eq!((early.code, early.retry_after()), (504, 1));
        assert_eq!(Status::from(StoreError::Closed).code, 503);
    }
}
