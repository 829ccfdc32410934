//! `/healthz` and `/livez`: whether this node should get traffic, and whether the agent works. Called by
//! [`serve`](super).
//!
//! | | 200 when |
//! | --- | --- |
//! | `/healthz` | the first full lists were programmed, no change has waited for long, the Node is not going away (KEP-3836) |
//! | `/livez` | the same without the Node: a restart would not bring it back |

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use k8s_openapi::jiff::Timestamp;

use crate::run::status::Status;

/// A change that waits for longer than this is not being worked on. kube-proxy's limit at its default settings.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    ok: bool,
    body: String,
}

/// The answer to `/healthz`.
pub fn healthz(status: &Status) -> Health {
    let now = SystemTime::now();
    let eligible = !status.node_terminating;
    let body = format!(
        r#"{{"lastUpdated": "{}","currentTime": "{}","nodeEligible": {eligible}}}"#,
        time(status.last_synced),
        time(Some(now))
    );
    Health {
        ok: works(status, now) && eligible,
        body,
    }
}

/// The answer to `/livez`.
pub fn livez(status: &Status) -> Health {
    let now = SystemTime::now();
    let body = format!(
        r#"{{"lastUpdated": "{}","currentTime": "{}"}}"#,
        time(status.last_synced),
        time(Some(now))
    );
    Health {
        ok: works(status, now),
        body,
    }
}

fn works(status: &Status, now: SystemTime) -> bool {
    let waiting = status.service_changes.pending + status.endpoint_changes.pending > 0;
    let waited = status
        .last_queued
        .and_then(|queued| now.duration_since(queued).ok())
        .unwrap_or_default();
    status.synced && !(waiting && waited > PATIENCE)
}

/// RFC 3339; empty if it never happened.
fn time(at: Option<SystemTime>) -> String {
    at.and_then(|at| Timestamp::try_from(at).ok())
        .map_or_else(String::new, |at| at.to_string())
}

impl Health {
    /// The response, counted by its code: 200 in the first counter, 503 in the second.
    pub(super) fn counted(self, counters: &[AtomicU64; 2]) -> Self {
        counters[usize::from(!self.ok)].fetch_add(1, Ordering::Relaxed);
        self
    }
}

impl IntoResponse for Health {
    fn into_response(self) -> Response {
        let code = if self.ok {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let headers = [
            (header::CONTENT_TYPE, "application/json"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        (code, headers, self.body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::status::Changes;

    fn synced() -> Status {
        Status {
            synced: true,
            last_synced: Some(SystemTime::UNIX_EPOCH),
            ..Status::default()
        }
    }

    #[test]
    fn an_agent_that_has_no_lists_yet_is_not_healthy() {
        assert!(!healthz(&Status::default()).ok && !livez(&Status::default()).ok);
        assert!(healthz(&synced()).ok && livez(&synced()).ok);
    }

    #[test]
    fn a_node_that_goes_away_is_not_healthy_but_alive() {
        let leaving = Status {
            node_terminating: true,
            ..synced()
        };
        assert!(!healthz(&leaving).ok && livez(&leaving).ok);
        assert!(healthz(&leaving).body.contains(r#""nodeEligible": false"#));
    }

    #[test]
    fn a_change_that_waits_for_long_is_not_healthy() {
        let waiting = |secs| Status {
            last_queued: Some(SystemTime::now() - Duration::from_secs(secs)),
            service_changes: Changes { total: 1, pending: 1 },
            ..synced()
        };
        assert!(healthz(&waiting(5)).ok);
        assert!(!healthz(&waiting(300)).ok);
    }

    #[test]
    fn the_body_is_json_with_kube_proxys_fields() {
        let body: serde_json::Value = serde_json::from_str(&healthz(&synced()).body).unwrap();
        assert_eq!(body["lastUpdated"], "1970-01-01T00:00:00Z");
        assert!(body["currentTime"].is_string());
    }
}
