//! Content negotiation: which representation an `Accept` header asks for, and what a `Content-Type` says a body is.
//!
//! Used by [`super::handlers`] before any work is done. JSON is spoken in four shapes (the object itself, `Table`,
//! `PartialObjectMetadata`, aggregated discovery); YAML is read and written; protobuf is neither, so clients that can
//! speak JSON too get that, and the others a clear refusal.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use super::status::{Reason, Status};

/// How an object or list is rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As it is.
    Plain,
    /// `meta.k8s.io/v1` Table (the flag: under its old name `v1beta1`).
    Table {
        /// The client asked for `v1beta1`.
        beta: bool,
    },
    /// `meta.k8s.io/v1` PartialObjectMetadata, or a list of them.
    Metadata {
        /// The client asked for `v1beta1`.
        beta: bool,
    },
}

/// How a body is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
}

impl Format {
    /// The media type of an answer.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Yaml => "application/yaml",
        }
    }
}

/// What discovery documents are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Discovery {
    /// `APIVersions`, `APIGroupList`: one request per group follows.
    Plain,
    /// Everything in one document, `apidiscovery.k8s.io/v2`.
    Aggregated,
    /// The same under its old version, `v2beta1`.
    AggregatedBeta,
}

/// The kind of patch a body holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own.
    Strategic,
    /// Server-side apply.
    Apply,
}

/// One entry of an Accept header, or a content type.
struct MediaType<'a> {
    name: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> MediaType<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let parameters = parts
            .filter_map(|part| part.split_once('='))
            .map(|(k, v)| (k.trim(), v.trim()))
            .collect();
        Self { name, parameters }
    }

    fn parameter(&self, key: &str) -> Option<&'a str> {
        self.parameters
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| *value)
    }

    /// Thousandths.
    fn quality(&self) -> u32 {
        let quality = self
            .parameter("q")
            .and_then(|text| text.parse::<f32>().ok())
            .unwrap_or(1.0);
        (quality.clamp(0.0, 1.0) * 1000.0) as u32
    }

    fn format(&self) -> Option<Format> {
        match self.name {
            "application/json" | "*/*" | "application/*" => Some(Format::Json),
            "application/yaml" | "application/vnd.kubernetes.yaml" => Some(Format::Yaml),
            _ => None,
        }
    }
}

/// The entries of all Accept headers, best first; entries of equal quality stay in order.
fn accepted(headers: &HeaderMap) -> Vec<MediaType<'_>> {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut found: Vec<MediaType<'_>> = texts
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .map(MediaType::parse)
        .collect();
    found.retain(|media| media.quality() > 0);
    found.sort_by_key(|media| std::cmp::Reverse(media.quality()));
    if found.is_empty() && !headers.contains_key(ACCEPT) {
        found.push(MediaType::parse("*/*"));
    }
    found
}

/// The first shape and format of an object the client accepts and we have.
pub(super) fn representation(headers: &HeaderMap) -> Result<(Shape, Format), Status> {
    for media in accepted(headers) {
        let Some(format) = media.format() else { continue };
        if let Some(shape) = shape(&media) {
            return Ok((shape, format));
        }
    }
    Err(not_acceptable("application/json, application/yaml"))
}

fn shape(media: &MediaType<'_>) -> Option<Shape> {
    let Some(wanted) = media.parameter("as") else {
        return Some(Shape::Plain);
    };
    let beta = match (media.parameter("g")?, media.parameter("v")?) {
        ("meta.k8s.io", "v1") => false,
        ("meta.k8s.io", "v1beta1") => true,
        _ => return None,
    };
    match wanted {
        "Table" => Some(Shape::Table { beta }),
        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Shape::Metadata { beta }),
        _ => None,
    }
}

/// The first form of discovery the client accepts.
pub(super) fn discovery(headers: &HeaderMap) -> Result<(Discovery, Format), Status> {
    for media in accepted(headers) {
        let Some(format) = media.format() else { continue };
        let parameters = (media.parameter("as"), media.parameter("g"), media.parameter("v"));
        match parameters {
            (None, _, _) => return Ok((Discovery::Plain, format)),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                return Ok((Discovery::Aggregated, format));
            }
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2beta1")) => {
                return Ok((Discovery::AggregatedBeta, format));
            }
            _ => {}
        }
    }
    Err(not_acceptable("application/json, application/yaml"))
}

fn not_acceptable(have: &str) -> Status {
    Status::new(
        Reason::NotAcceptable,
        format!("only the following media types are accepted: {have}"),
    )
}

/// The format of a request body; without a Content-Type it is JSON.
pub(super) fn body_format(headers: &HeaderMap) -> Result<Format, Status> {
    let name = content_type(headers);
    match name.as_str() {
        "" | "application/json" | "*/*" => Ok(Format::Json),
        "application/yaml" | "application/vnd.kubernetes.yaml" | "text/yaml" | "application/x-yaml" => Ok(Format::Yaml),
        _ => Err(unsupported(&name, "application/json, application/yaml")),
    }
}

/// The kind of a patch body.
pub(super) fn patch_type(headers: &HeaderMap) -> Result<PatchType, Status> {
    let name = content_type(headers);
    match name.as_str() {
        "application/json-patch+json" => Ok(PatchType::Json),
        "application/merge-patch+json" => Ok(PatchType::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchType::Strategic),
        "application/apply-patch+yaml" => Ok(PatchType::Apply),
        _ => Err(unsupported(&name, PATCH_TYPES)),
    }
}

const PATCH_TYPES: &str = "application/json-patch+json, application/merge-patch+json, \
                           application/strategic-merge-patch+json, application/apply-patch+yaml";

fn content_type(headers: &HeaderMap) -> String {
    let text = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    MediaType::parse(text).name.to_ascii_lowercase()
}

/// 415 for server-side apply: field ownership is not tracked, and pretending would lose other people's fields.
pub(super) fn no_apply() -> Status {
    let message = "server-side apply (application/apply-patch+yaml) is not supported by this server - accepted media \
                   types include: application/json-patch+json, application/merge-patch+json, \
                   application/strategic-merge-patch+json; use kubectl apply without --server-side";
    Status::new(Reason::UnsupportedMediaType, message)
}

/// 415: says what was sent and what is read here.
pub(super) fn unsupported(sent: &str, accepted: &str) -> Status {
    let sent = if sent.is_empty() {
        "unknown".to_owned()
    } else {
        format!("unsupported ({sent})")
    };
    let message = format!("the body of the request was in an {sent} format - accepted media types include: {accepted}");
    Status::new(Reason::UnsupportedMediaType, message)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    fn shape_of(accept: &'static str) -> Result<(Shape, Format), u16> {
        representation(&headers(ACCEPT, accept)).map_err(|status| status.code)
    }

    #[test]
    fn kubectl_gets_a_table() {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,\
                      application/json";
        assert_eq!(shape_of(accept), Ok((Shape::Table { beta: false }, Format::Json)));
    }

    #[test]
    fn protobuf_first_and_json_second_gets_json() {
        let both = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(shape_of(both), Ok((Shape::Plain, Format::Json)));
        assert_eq!(
            shape_of("application/vnd.kubernetes.protobuf, */*"),
            Ok((Shape::Plain, Format::Json))
        );
    }

    #[test]
    fn only_protobuf_is_not_acceptable() {
        assert_eq!(shape_of("application/vnd.kubernetes.protobuf"), Err(406));
        assert_eq!(shape_of("application/json;as=Table;v=v9;g=meta.k8s.io"), Err(406));
    }

    #[test]
    fn quality_decides_the_order_and_zero_excludes() {
        assert_eq!(
            shape_of("application/json;q=0.5, application/yaml"),
            Ok((Shape::Plain, Format::Yaml))
        );
        assert_eq!(
            shape_of("application/json;q=0, application/yaml;q=0.1"),
            Ok((Shape::Plain, Format::Yaml))
        );
    }

    #[test]
    fn nothing_said_is_json() {
        assert_eq!(representation(&HeaderMap::new()).unwrap(), (Shape::Plain, Format::Json));
    }

    #[test]
    fn metadata_only() {
        let accept = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(shape_of(accept), Ok((Shape::Metadata { beta: false }, Format::Json)));
    }

    #[test]
    fn discovery_prefers_what_comes_first() {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(discovery(&headers(ACCEPT, accept)).unwrap().0, Discovery::Aggregated);
        assert_eq!(
            discovery(&headers(ACCEPT, "application/json")).unwrap().0,
            Discovery::Plain
        );
    }

    #[test]
    fn bodies_and_patches_have_types() {
        assert_eq!(body_format(&HeaderMap::new()).unwrap(), Format::Json);
        assert_eq!(
            body_format(&headers(CONTENT_TYPE, "application/yaml; charset=utf-8")).unwrap(),
            Format::Yaml
        );
        let refused = body_format(&headers(CONTENT_TYPE, "application/vnd.kubernetes.protobuf")).unwrap_err();
        assert_eq!(refused.code, 415);
        assert!(
            refused.message.contains("application/vnd.kubernetes.protobuf"),
            "{}",
            refused.message
        );
        let patch = headers(CONTENT_TYPE, "application/merge-patch+json");
        assert_eq!(patch_type(&patch).unwrap(), PatchType::Merge);
        assert_eq!(
            patch_type(&headers(CONTENT_TYPE, "application/json")).unwrap_err().code,
            415
        );
    }
}
