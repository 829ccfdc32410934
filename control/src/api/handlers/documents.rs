//! Requests that are not for objects: discovery and OpenAPI.

use std::net::SocketAddr;

use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::{Api, answer, discovery, negotiate};
use crate::api::body::{self, Body};
use crate::api::negotiate::{Discovery, Format};
use crate::api::request::Target;
use crate::api::status::{Reason, Status};
use crate::resources;

impl Api {
    /// Answers for everything below `/api` and `/apis` that names no resource, and for the rest.
    pub(super) fn document(
        &self,
        target: &Target,
        head: &Parts,
        local: Option<SocketAddr>,
    ) -> Result<Response<Body>, Status> {
        if head.method != Method::GET && head.method != Method::HEAD {
            return Err(if matches!(target, Target::Other(_)) {
                no_page()
            } else {
                Status::method_not_allowed()
            });
        }
        if let Target::Other(path) = target {
            return other(path);
        }
        let (form, format) = negotiate::discovery(&head.headers)?;
        let found = match target {
            Target::CoreVersions => return Ok(rendered(&discovery::core(form, local), form, format)),
            Target::Groups => return Ok(rendered(&discovery::groups(form), form, format)),
            Target::Group(name) => discovery::group(name),
            Target::GroupVersion { group, version } => discovery::resource_list(group, version),
            Target::Other(_) | Target::Resource(_) => None,
        };
        let found = found.ok_or_else(Status::unknown_resource)?;
        Ok(rendered(&found, Discovery::Plain, format))
    }
}

fn rendered(document: &Value, form: Discovery, format: Format) -> Response<Body> {
    let mut response = answer::bytes(StatusCode::OK, format.media_type(), body::encode(format, document));
    if let (Some(media_type), Format::Json) = (discovery::media_type(form), format) {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    response
        .headers_mut()
        .insert("vary", HeaderValue::from_static("Accept"));
    response
}

fn other(path: &str) -> Result<Response<Body>, Status> {
    let path = path.trim_end_matches('/');
    if path == "/openapi/v3" {
        return Ok(answer::json(&resources::openapi_v3_index()));
    }
    if let Some(name) = path.strip_prefix("/openapi/v3/") {
        let document = resources::openapi_v3(name).ok_or_else(no_page)?;
        return Ok(answer::bytes(StatusCode::OK, "application/json", document));
    }
    if path.is_empty() {
        return Ok(answer::json(&json!({ "paths": paths() })));
    }
    Err(no_page())
}

/// What there is, for people who look at `/` first.
fn paths() -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/apis".to_owned()];
    for resource in resources::RESOURCES {
        let version = resource.api_version();
        paths.push(if resource.group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{version}")
        });
    }
    paths.extend(["/healthz", "/livez", "/openapi/v3", "/readyz", "/version"].map(str::to_owned));
    paths.sort_unstable();
    paths.dedup();
    paths
}

fn no_page() -> Status {
    Status::new(Reason::NotFound, "the server could not find the requested resource")
}
