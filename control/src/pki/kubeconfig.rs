//! The kubeconfig file: server, authority and client certificate in the form every Kubernetes client reads.
//!
//! Called by [`super::Pki::kubeconfig`]. Format: client-go's `Config` of group `""`, version `v1`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::{Credentials, PkiError};

/// The file's text.
pub(super) fn render(server: &str, ca: &str, user: &str, credentials: &Credentials) -> Result<String, PkiError> {
    let context = format!("{user}@waggle");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "waggle",
            "cluster": { "server": server, "certificate-authority-data": STANDARD.encode(ca) },
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(&credentials.certificate),
                "client-key-data": STANDARD.encode(&credentials.key),
            },
        }],
        "contexts": [{ "name": context, "context": { "cluster": "waggle", "user": user } }],
        "current-context": context,
        "preferences": {},
    });
    serde_saphyr::to_string(&config).map_err(|error| PkiError::Kubeconfig(error.to_string()))
}
