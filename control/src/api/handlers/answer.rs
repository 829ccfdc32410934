//! HTTP answers: JSON, text, failures, and the headers that go with them.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WARNING};
use http::{HeaderValue, Response, StatusCode};
use serde_json::Value;

use crate::api::body::{self, Body};
use crate::api::negotiate::Format;
use crate::api::status::Status;

/// 200 with a JSON document.
pub(super) fn json(value: &Value) -> Response<Body> {
    bytes(StatusCode::OK, Format::Json.media_type(), value.to_string())
}

/// Plain text.
pub(super) fn text(code: StatusCode, text: String) -> Response<Body> {
    let mut response = bytes(code, "text/plain; charset=utf-8", text);
    response
        .headers_mut()
        .insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    response
}

/// Any bytes.
pub(super) fn bytes(code: StatusCode, media_type: &'static str, content: impl Into<Bytes>) -> Response<Body> {
    with_body(code, media_type, body::full(content))
}

/// Any body.
pub(super) fn with_body(code: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A failure.
pub(super) fn failure(status: &Status) -> Response<Body> {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = bytes(code, Format::Json.media_type(), status.to_value().to_string());
    if status.retry_after() > 0 {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(status.retry_after()));
    }
    response
}

/// Adds one `Warning` header per warning.
pub(super) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
