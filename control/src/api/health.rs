//! Paths that need no credentials: health checks and the version.
//!
//! `/livez` says the process answers at all; `/readyz` and `/healthz` that it can serve, which is over once it is
//! shutting down. `?verbose` lists the single checks.

use http::StatusCode;
use serde_json::{Value, json};

use super::registry::Registry;

/// The Kubernetes version whose API is spoken.
const MINOR: &str = "33";

/// Code and text of a health path; none for any other path.
pub(super) fn check(path: &str, verbose: bool, registry: &Registry, stopping: bool) -> Option<(StatusCode, String)> {
    let name = path.trim_matches('/');
    let store = ("store", registry.store().get("/registry/").is_ok());
    let checks = match name {
        "livez" => vec![("ping", true), store],
        "healthz" | "readyz" => vec![("ping", true), store, ("shutdown", !stopping)],
        _ => return None,
    };
    let healthy = checks.iter().all(|(_, good)| *good);
    let code = if healthy {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    if healthy && !verbose {
        return Some((code, "ok".to_owned()));
    }
    let mut text: String = checks
        .iter()
        .map(|(check, good)| format!("[{}]{check} {}\n", sign(*good), word(*good)))
        .collect();
    text.push_str(&format!("{name} check {}\n", if healthy { "passed" } else { "failed" }));
    Some((code, text))
}

fn sign(good: bool) -> char {
    if good { '+' } else { '-' }
}

fn word(good: bool) -> &'static str {
    if good { "ok" } else { "failed" }
}

/// The document at `/version`.
pub(super) fn version() -> Value {
    json!({
        "major": "1", "minor": MINOR, "gitVersion": format!("v1.{MINOR}.0+waggle-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
        "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, architecture()),
    })
}

/// As Go calls it, which is what clients compare with.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
