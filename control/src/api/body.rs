//! Bodies: reading a request's, with a limit, and decoding it; the types of an answer's.

use std::convert::Infallible;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;

use super::duplicates;
use super::negotiate::{self, Format};
use super::status::{Reason, Status};

/// A longer request body is refused.
pub(super) const MAX_BYTES: usize = 3 * 1024 * 1024;

/// The body of an answer: bytes at once, or the stream of a watch.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body that is complete.
pub(super) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// All bytes of a request's body.
pub(super) async fn read(body: Incoming) -> Result<Bytes, Status> {
    let limited = Limited::new(body, MAX_BYTES).collect().await;
    limited.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            let message = format!("Request entity too large: limit is {MAX_BYTES}");
            Status::new(Reason::RequestEntityTooLarge, message)
        } else {
            Status::bad_request(format!("unable to read the request body: {error}"))
        }
    })
}

/// The object in a request's body.
///
/// The second part is the paths of fields that are there more than once.
pub(super) fn decode(headers: &HeaderMap, bytes: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let format = negotiate::body_format(headers)?;
    if bytes.is_empty() {
        return Err(Status::bad_request("the request body is empty: an object is expected"));
    }
    parse(format, bytes)
}

/// Reads JSON, or YAML, where a repeated field is an error anyway.
fn parse(format: Format, bytes: &[u8]) -> Result<(Value, Vec<String>), Status> {
    let refuse = |error: &dyn std::fmt::Display| {
        Status::bad_request(format!(
            "the object provided is unrecognized: couldn't get version/kind; parse error: {error}"
        ))
    };
    match format {
        Format::Json => duplicates::parse(bytes).map_err(|error| refuse(&error)),
        Format::Yaml => {
            let text = std::str::from_utf8(bytes).map_err(|error| refuse(&error))?;
            let value = serde_saphyr::from_str(text).map_err(|error| refuse(&error))?;
            Ok((value, Vec::new()))
        }
    }
}

/// An answer's bytes in the format the client asked for.
pub(super) fn encode(format: Format, value: &Value) -> Bytes {
    match format {
        Format::Json => Bytes::from(value.to_string()),
        // Plain data always has a YAML form; should it not, JSON is YAML too.
        Format::Yaml => serde_saphyr::to_string(value)
            .unwrap_or_else(|_| value.to_string())
            .into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_and_json_mean_the_same() {
        let object =
            json!({ "metadata": { "name": "a", "labels": { "n": "1", "on": "yes" } }, "spec": { "port": 80 } });
        assert_eq!(parse(Format::Yaml, &encode(Format::Yaml, &object)).unwrap().0, object);
        let text = b"metadata:\n  name: a\n  labels: {n: '1', 'on': 'yes'}\nspec: {port: 80}\n";
        assert_eq!(parse(Format::Yaml, text).unwrap().0, object);
    }

    #[test]
    fn nonsense_is_a_bad_request() {
        assert_eq!(parse(Format::Json, b"{").unwrap_err().code, 400);
        assert_eq!(parse(Format::Yaml, b"a: 1\na: 2\n").unwrap_err().code, 400);
        assert_eq!(decode(&HeaderMap::new(), b"").unwrap_err().code, 400);
    }
}
