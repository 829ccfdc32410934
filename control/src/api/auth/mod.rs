//! Who is asking: a client certificate of our own authority, or a bearer token from a file.
//!
//! [`super::server`] reads the certificate once per connection, [`super::handlers`] the token once per request. The
//! certificate's signature has been checked by TLS by then.

mod certificate;
mod tokens;

use http::HeaderMap;
use http::header::AUTHORIZATION;

pub(super) use certificate::identity_of;
pub use tokens::{TokenError, Tokens};

use super::status::{Reason, Status};

/// The group every authenticated user is in.
const AUTHENTICATED: &str = "system:authenticated";

/// A user and the groups it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User name: the certificate's common name, or the token's user.
    pub user: String,
    /// Group names: the certificate's organisations, or the token's groups.
    pub groups: Vec<String>,
}

impl Identity {
    fn new(user: String, mut groups: Vec<String>) -> Self {
        groups.push(AUTHENTICATED.to_owned());
        Self { user, groups }
    }
}

/// Who sent the request: the owner of the connection's certificate, else of the token in the headers.
pub(super) fn authenticate(
    certificate: Option<&Identity>,
    headers: &HeaderMap,
    tokens: &Tokens,
) -> Result<Identity, Status> {
    if let Some(identity) = certificate {
        return Ok(identity.clone());
    }
    let header = headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let token = header
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let identity = token.and_then(|(_, token)| tokens.find(token.trim()));
    identity
        .cloned()
        .ok_or_else(|| Status::new(Reason::Unauthorized, "Unauthorized"))
}

/// 403 for requests in somebody else's name, which nobody can be allowed before there is authorization.
pub(super) fn refuse_impersonation(headers: &HeaderMap) -> Result<(), Status> {
    let impersonates = headers.keys().any(|name| name.as_str().starts_with("impersonate-"));
    if !impersonates {
        return Ok(());
    }
    let user = headers
        .get("impersonate-user")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let message = format!("users \"{user}\" is forbidden: this server does not support impersonation");
    Err(Status::new(Reason::Forbidden, message))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_is_as_good_as_a_certificate_and_nothing_is_not() {
        let tokens = Tokens::parse("secret,ann,7,\"dev,ops\"").unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(authenticate(None, &headers, &tokens).unwrap_err().code, 401);
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer wrong"));
        assert_eq!(authenticate(None, &headers, &tokens).unwrap_err().code, 401);
        headers.insert(AUTHORIZATION, HeaderValue::from_static("bearer secret"));
        let ann = authenticate(None, &headers, &tokens).unwrap();
        assert_eq!(
            (ann.user.as_str(), ann.groups.join(" ")),
            ("ann", "dev ops system:authenticated".to_owned())
        );
        let bob = Identity::new("bob".to_owned(), Vec::new());
        assert_eq!(authenticate(Some(&bob), &headers, &tokens).unwrap(), bob);
    }

    #[test]
    fn impersonation_is_refused() {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("impersonate-user"),
            HeaderValue::from_static("bob"),
        )]);
        assert_eq!(refuse_impersonation(&headers).unwrap_err().code, 403);
        assert!(refuse_impersonation(&HeaderMap::new()).is_ok());
    }
}
