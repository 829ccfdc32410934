//! What `kubectl get pods` shows.
//!
//! The status column is not a field: it is worked out from phase, container states and deletion, in the steps of
//! kube-apiserver's printer.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resources::table::{AGE, NAME, text, wide};
use crate::resources::{Column, duration, object};

/// Columns of a Pod.
pub(in crate::resources) const COLUMNS: &[Column] = &[
    NAME,
    text("Ready", "How many of the containers are ready."),
    text("Status", "What the Pod is doing, or what keeps it from it."),
    text("Restarts", "How often containers were restarted, and when last."),
    AGE,
    wide("IP", "The Pod's address."),
    wide("Node", "The node the Pod runs on."),
    wide("Nominated Node", "The node on which room is being made for the Pod."),
    wide("Readiness Gates", "How many of the readiness gates are passed."),
];

/// The cells of one Pod.
pub(super) fn row(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let or_none = |text: &str| json!(if text.is_empty() { "<none>" } else { text });
    let address = object::array_at(pod, "status.podIPs")
        .first()
        .map_or("", |entry| object::str_at(entry, "ip"));
    vec![
        json!(object::str_at(pod, "metadata.name")),
        json!(format!("{}/{}", summary.ready, summary.containers)),
        json!(summary.reason),
        json!(summary.restarts_text(now)),
        json!(duration::age(pod, now)),
        or_none(address),
        or_none(object::str_at(pod, "spec.nodeName")),
        or_none(object::str_at(pod, "status.nominatedNodeName")),
        json!(readiness_gates(pod)),
    ]
}

/// What the containers' states add up to.
#[derive(Default)]
struct Summary {
    reason: String,
    ready: usize,
    containers: usize,
    restarts: i64,
    last_restart: String,
}

impl Summary {
    fn restarts_text(&self, now: Timestamp) -> String {
        if self.restarts == 0 || self.last_restart.is_empty() {
            return self.restarts.to_string();
        }
        format!("{} ({} ago)", self.restarts, duration::since(&self.last_restart, now))
    }

    /// Counts a container's restarts. Timestamps in UTC compare as text.
    fn count_restarts(&mut self, container: &Value) {
        self.restarts += object::int_at(container, "restartCount");
        let finished = object::str_at(container, "lastState.terminated.finishedAt");
        if finished > self.last_restart.as_str() {
            finished.clone_into(&mut self.last_restart);
        }
    }
}

fn summarize(pod: &Value) -> Summary {
    let sidecars: Vec<&str> = object::array_at(pod, "spec.initContainers")
        .iter()
        .filter(|container| object::str_at(container, "restartPolicy") == "Always")
        .map(|container| object::str_at(container, "name"))
        .collect();
    let mut summary = Summary {
        reason: phase(pod),
        containers: object::array_at(pod, "spec.containers").len() + sidecars.len(),
        ..Summary::default()
    };
    let initializing = init_containers(pod, &sidecars, &mut summary);
    if !initializing || has_condition(pod, "Initialized") {
        containers(pod, &sidecars, &mut summary);
    }
    if !object::is_empty_at(pod, "metadata.deletionTimestamp") {
        let ended = matches!(object::str_at(pod, "status.phase"), "Succeeded" | "Failed");
        if object::str_at(pod, "status.reason") == "NodeLost" {
            "Unknown".clone_into(&mut summary.reason);
        } else if !ended {
            "Terminating".clone_into(&mut summary.reason);
        }
    }
    summary
}

fn phase(pod: &Value) -> String {
    let gated = object::array_at(pod, "status.conditions").iter().any(|condition| {
        object::str_at(condition, "type") == "PodScheduled" && object::str_at(condition, "reason") == "SchedulingGated"
    });
    match object::str_at(pod, "status.reason") {
        _ if gated => "SchedulingGated".to_owned(),
        "" => object::text_at(pod, "status.phase"),
        reason => reason.to_owned(),
    }
}

/// Walks the init containers up to the first that is not done. Returns whether there is one.
fn init_containers(pod: &Value, sidecars: &[&str], summary: &mut Summary) -> bool {
    let total = object::array_at(pod, "spec.initContainers").len();
    for (index, container) in object::array_at(pod, "status.initContainerStatuses").iter().enumerate() {
        summary.count_restarts(container);
        let terminated = object::at(container, "state.terminated");
        let waiting = object::str_at(container, "state.waiting.reason");
        let is_sidecar = sidecars.contains(&object::str_at(container, "name"));
        if terminated.is_some_and(|state| object::int_at(state, "exitCode") == 0) {
            continue;
        }
        if is_sidecar && object::bool_at(container, "started") {
            summary.ready += usize::from(object::bool_at(container, "ready"));
            continue;
        }
        summary.reason = match terminated {
            Some(state) => format!("Init:{}", ending(state)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{total}"),
        };
        return true;
    }
    false
}

fn containers(pod: &Value, sidecars: &[&str], summary: &mut Summary) {
    summary.restarts = 0;
    summary.last_restart.clear();
    for container in object::array_at(pod, "status.initContainerStatuses") {
        if sidecars.contains(&object::str_at(container, "name")) {
            summary.count_restarts(container);
        }
    }
    let mut running = false;
    for container in object::array_at(pod, "status.containerStatuses").iter().rev() {
        summary.count_restarts(container);
        let waiting = object::str_at(container, "state.waiting.reason");
        if !waiting.is_empty() {
            waiting.clone_into(&mut summary.reason);
        } else if let Some(state) = object::at(container, "state.terminated") {
            summary.reason = ending(state);
        } else if object::bool_at(container, "ready") && object::at(container, "state.running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        let reason = if has_condition(pod, "Ready") {
            "Running"
        } else {
            "NotReady"
        };
        reason.clone_into(&mut summary.reason);
    }
}

/// How a container ended: its reason, else the signal or exit code.
fn ending(terminated: &Value) -> String {
    match (
        object::str_at(terminated, "reason"),
        object::int_at(terminated, "signal"),
    ) {
        ("", 0) => format!("ExitCode:{}", object::int_at(terminated, "exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn has_condition(pod: &Value, kind: &str) -> bool {
    object::array_at(pod, "status.conditions")
        .iter()
        .any(|condition| object::str_at(condition, "type") == kind && object::str_at(condition, "status") == "True")
}

fn readiness_gates(pod: &Value) -> String {
    let gates = object::array_at(pod, "spec.readinessGates");
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let passed = gates
        .iter()
        .filter(|gate| has_condition(pod, object::str_at(gate, "conditionType")))
        .count();
    format!("{passed}/{}", gates.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(spec: Value, status: Value) -> (String, String, String) {
        let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": status});
        let cells = row(&pod, "2024-01-01T01:00:00Z".parse().unwrap());
        let text = |index: usize| cells[index].as_str().unwrap().to_owned();
        (text(1), text(2), text(3))
    }

    fn expect(ready: &str, status: &str, restarts: &str) -> (String, String, String) {
        (ready.to_owned(), status.to_owned(), restarts.to_owned())
    }

    #[test]
    fn running_and_crashing_containers_are_told_apart() {
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}]});
        assert_eq!(
            shown(spec.clone(), json!({"phase": "Pending"})),
            expect("0/2", "Pending", "0")
        );
        let status = json!({"phase": "Running", "containerStatuses": [
            {"name": "a", "ready": true, "state": {"running": {}}},
            {"name": "b", "ready": false, "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"finishedAt": "2024-01-01T00:55:00Z"}}}]});
        assert_eq!(shown(spec, status), expect("1/2", "CrashLoopBackOff", "3 (5m ago)"));
    }

    #[test]
    fn init_containers_show_their_progress() {
        let spec = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
        let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
        let status =
            json!({"phase": "Pending", "initContainerStatuses": [done, {"name": "j", "state": {"running": {}}}]});
        assert_eq!(shown(spec.clone(), status), expect("0/1", "Init:1/2", "0"));
        let failed = json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 2}}}]});
        assert_eq!(shown(spec, failed), expect("0/1", "Init:ExitCode:2", "0"));
    }

    #[test]
    fn deletion_shows_as_terminating() {
        let pod = json!({"metadata": {"name": "p", "deletionTimestamp": "2024-01-01T00:00:00Z"}, "status": {"phase": "Running"}});
        assert_eq!(row(&pod, Timestamp::UNIX_EPOCH)[2], "Terminating");
    }

    #[test]
    fn wide_cells_show_where_the_pod_is() {
        let pod = json!({"spec": {"nodeName": "n1", "readinessGates": [{"conditionType": "x"}]},
            "status": {"podIPs": [{"ip": "10.0.0.1"}], "conditions": [{"type": "x", "status": "True"}]}});
        assert_eq!(
            row(&pod, Timestamp::UNIX_EPOCH)[5..],
            ["10.0.0.1", "n1", "<none>", "1/1"].map(|cell| json!(cell))
        );
    }
}
