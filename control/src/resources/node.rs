//! Node: a machine, its addresses and conditions.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::address::validate_cidr;
use super::field_error::FieldError;
use super::metadata::invalid;
use super::strategy::Strategy;
use super::table::{AGE, NAME, text, wide};
use super::{Column, duration, names, object};

/// What `kubectl get nodes` shows.
pub(super) const COLUMNS: &[Column] = &[
    NAME,
    text(
        "Status",
        "Whether the node is ready, and whether Pods may be scheduled onto it.",
    ),
    text("Roles", "The node's roles, from its labels."),
    AGE,
    text("Version", "Version of the node agent."),
    wide("Internal-IP", "Address inside the cluster."),
    wide("External-IP", "Address outside the cluster."),
    wide("OS-Image", "Operating system."),
    wide("Kernel-Version", "Version of the kernel."),
    wide("Container-Runtime", "What runs the containers."),
];

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";
const TAINT_EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "PreferNoSchedule"];

/// Defaulting, validation and printing of Nodes. A Node may be created with a status: node agents register so.
pub(super) struct NodeStrategy;

impl Strategy for NodeStrategy {
    fn default(&self, object: &mut Value) {
        if let (None, Some(capacity)) = (
            object::at(object, "status.allocatable"),
            object::at(object, "status.capacity"),
        ) {
            let capacity = capacity.clone();
            object::set(object, "status.allocatable", capacity);
        }
        if let Some(first) = object::strings_at(object, "spec.podCIDRs")
            .first()
            .map(ToString::to_string)
        {
            object::set_default(object, "spec.podCIDR", first);
        } else if let Some(only) = object::at(object, "spec.podCIDR").cloned().filter(|only| only != "") {
            object::set(object, "spec.podCIDRs", json!([only]));
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = taints(new);
        errors.extend(pod_ranges(new));
        errors.extend(addresses(new));
        if let Some(old) = old {
            errors.extend(spec_changes(new, old));
        }
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        addresses(new)
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let info = |field: &str| or(object::str_at(object, &format!("status.nodeInfo.{field}")), "<unknown>");
        vec![
            json!(object::str_at(object, "metadata.name")),
            json!(status(object)),
            json!(roles(object)),
            json!(duration::age(object, now)),
            json!(object::str_at(object, "status.nodeInfo.kubeletVersion")),
            json!(address(object, "InternalIP")),
            json!(address(object, "ExternalIP")),
            json!(info("osImage")),
            json!(info("kernelVersion")),
            json!(info("containerRuntimeVersion")),
        ]
    }

    fn selectable_value(&self, object: &Value, field: &str) -> String {
        if field == "spec.unschedulable" {
            return object::bool_at(object, field).to_string();
        }
        object::text_at(object, field)
    }
}

fn taints(node: &Value) -> Vec<FieldError> {
    let taints = object::array_at(node, "spec.taints");
    let mut errors = Vec::new();
    for (index, taint) in taints.iter().enumerate() {
        let field = |name: &str| format!("spec.taints[{index}].{name}");
        let (key, effect) = (object::str_at(taint, "key"), object::str_at(taint, "effect"));
        errors.extend(invalid(&field("key"), key, names::qualified_name(key)));
        let value = object::str_at(taint, "value");
        errors.extend(invalid(&field("value"), value, names::label_value(value)));
        if effect.is_empty() {
            errors.push(FieldError::required(field("effect"), ""));
        } else if !TAINT_EFFECTS.contains(&effect) {
            errors.push(FieldError::not_supported(field("effect"), effect, &TAINT_EFFECTS));
        }
        let same = |before: &Value| object::str_at(before, "key") == key && object::str_at(before, "effect") == effect;
        if taints[..index].iter().any(same) {
            errors.push(FieldError::duplicate(format!("spec.taints[{index}]"), taint.clone()));
        }
    }
    errors
}

fn pod_ranges(node: &Value) -> Vec<FieldError> {
    let ranges = object::strings_at(node, "spec.podCIDRs").into_iter().enumerate();
    ranges
        .filter_map(|(index, range)| validate_cidr(range, &format!("spec.podCIDRs[{index}]")))
        .collect()
}

fn addresses(node: &Value) -> Vec<FieldError> {
    let addresses = object::array_at(node, "status.addresses");
    let repeated = addresses
        .iter()
        .enumerate()
        .filter(|(index, address)| addresses[..*index].contains(address));
    repeated
        .map(|(index, address)| FieldError::duplicate(format!("status.addresses[{index}]"), address.clone()))
        .collect()
}

/// Labels, taints and whether the node takes Pods may change; what it was given once may not.
fn spec_changes(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (field, detail) in [
        (
            "spec.podCIDRs",
            "node updates may not change podCIDR except from \"\" to valid",
        ),
        (
            "spec.providerID",
            "node updates may not change providerID except from \"\" to valid",
        ),
    ] {
        if !object::is_empty_at(old, field) && object::at(new, field) != object::at(old, field) {
            errors.push(FieldError::forbidden(field, detail));
        }
    }
    errors
}

fn status(node: &Value) -> String {
    let ready = object::array_at(node, "status.conditions")
        .iter()
        .find(|condition| object::str_at(condition, "type") == "Ready")
        .map(|condition| object::str_at(condition, "status") == "True");
    let text = match ready {
        Some(true) => "Ready",
        Some(false) => "NotReady",
        None => "Unknown",
    };
    if object::bool_at(node, "spec.unschedulable") {
        format!("{text},SchedulingDisabled")
    } else {
        text.to_owned()
    }
}

fn roles(node: &Value) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in object::map_at(node, "metadata.labels").into_iter().flatten() {
        match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => roles.push(role),
            _ if key == ROLE_LABEL => roles.extend(value.as_str().filter(|role| !role.is_empty())),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    or(&roles.join(","), "<none>").to_owned()
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    object::array_at(node, "status.addresses")
        .iter()
        .find(|address| object::str_at(address, "type") == kind)
        .map_or("<none>", |address| object::str_at(address, "address"))
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_show_readiness_roles_and_addresses() {
        let node = json!({"metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/worker": "", "kubernetes.io/role": "edge"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.33.0", "osImage": "Debian"},
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}});
        let cells = NodeStrategy.row(&node, Timestamp::UNIX_EPOCH);
        let expected = [
            "n1",
            "Ready,SchedulingDisabled",
            "edge,worker",
            "<unknown>",
            "v1.33.0",
            "10.0.0.1",
            "<none>",
            "Debian",
            "<unknown>",
            "<unknown>",
        ];
        assert_eq!(cells, expected.map(|cell| json!(cell)));
        assert_eq!(NodeStrategy.selectable_value(&json!({}), "spec.unschedulable"), "false");
        assert_eq!(
            NodeStrategy.row(&json!({}), Timestamp::UNIX_EPOCH)[1..3],
            ["Unknown", "<none>"].map(|cell| json!(cell))
        );
    }

    #[test]
    fn pod_ranges_are_given_once() {
        let mut old = json!({"spec": {"podCIDR": "10.244.0.0/24"}});
        NodeStrategy.default(&mut old);
        assert_eq!(old["spec"]["podCIDRs"], json!(["10.244.0.0/24"]));
        let new = json!({"spec": {"podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24"]}});
        assert_eq!(
            NodeStrategy.validate(&new, Some(&old))[0].to_string(),
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to valid"
        );
    }

    #[test]
    fn taints_need_a_known_effect_and_are_unique() {
        let node = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "X"}]}});
        let errors: Vec<String> = NodeStrategy
            .validate(&node, None)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert!(errors[0].starts_with("spec.taints[1]: Duplicate value: "), "{errors:?}");
        assert_eq!(
            errors[1],
            "spec.taints[2].effect: Unsupported value: \"X\": supported values: \"NoExecute\", \"NoSchedule\", \"PreferNoSchedule\""
        );
    }
}
