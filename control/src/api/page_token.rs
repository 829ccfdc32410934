//! Continue tokens: where the next page of a list starts, and at which revision.
//!
//! Opaque to clients: hexadecimal digits over a small JSON document. A list that goes on at the revision of its first
//! page is consistent; when that revision is gone the client may go on at the newest state instead, with the token
//! that the 410 answer carries.

use serde::{Deserialize, Serialize};

use super::status::Status;

/// The meaning of a continue token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PageToken {
    /// The revision all pages are read at; none for "whatever is newest".
    #[serde(rename = "rv")]
    pub(super) revision: Option<u64>,
    /// The last key of the page before, without the prefix of the list.
    pub(super) after: String,
}

impl PageToken {
    /// The text a client gets.
    pub(super) fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("a token is plain data");
        json.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads what a client sent back.
    pub(super) fn decode(text: &str) -> Result<Self, Status> {
        let refuse = || Status::bad_request("continue key is not valid: it was not made by this server");
        let pairs = text.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> = pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        serde_json::from_slice(&bytes.ok_or_else(refuse)?).map_err(|_| refuse())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_survive_the_round_trip() {
        for revision in [Some(42), None] {
            let token = PageToken {
                revision,
                after: "kube-system/dns".to_owned(),
            };
            assert_eq!(PageToken::decode(&token.encode()).unwrap(), token);
        }
    }

    #[test]
    fn foreign_tokens_are_bad_requests() {
        for text in ["zz", "abc", "7b7d", "é", "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ"] {
            assert_eq!(PageToken::decode(text).unwrap_err().code, 400, "{text}");
        }
    }
}
