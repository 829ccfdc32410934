//! Validation of a Pod's spec: what users get wrong in manifests.

use serde_json::Value;

use super::default::CONTAINER_LISTS;
use crate::resources::field_error::FieldError;
use crate::resources::metadata::{invalid, validate_labels};
use crate::resources::{names, object};

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const MESSAGE_POLICIES: [&str; 2] = ["FallbackToLogsOnError", "File"];

/// Validates a Pod that is to be stored.
pub(super) fn validate(pod: &Value) -> Vec<FieldError> {
    let mut errors = volumes(pod);
    if object::is_empty_at(pod, "spec.containers") {
        errors.push(FieldError::required("spec.containers", ""));
    }
    errors.extend(containers(pod));
    errors.extend(one_of(pod, "", "spec.restartPolicy", &RESTART_POLICIES));
    errors.extend(one_of(pod, "", "spec.dnsPolicy", &DNS_POLICIES));
    errors.extend(validate_labels(
        object::at(pod, "spec.nodeSelector"),
        "spec.nodeSelector",
    ));
    for field in ["spec.nodeName", "spec.serviceAccountName", "spec.schedulerName"] {
        let name = object::str_at(pod, field);
        if !name.is_empty() {
            errors.extend(invalid(field, name, names::dns_subdomain(name, false)));
        }
    }
    for field in ["spec.hostname", "spec.subdomain"] {
        let name = object::str_at(pod, field);
        if !name.is_empty() {
            errors.extend(invalid(field, name, names::dns_label(name, false)));
        }
    }
    errors.extend(seconds(pod));
    errors
}

fn volumes(pod: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let volumes = object::array_at(pod, "spec.volumes");
    for (index, volume) in volumes.iter().enumerate() {
        let field = format!("spec.volumes[{index}].name");
        let name = object::str_at(volume, "name");
        if name.is_empty() {
            errors.push(FieldError::required(&field, ""));
            continue;
        }
        errors.extend(invalid(&field, name, names::dns_label(name, false)));
        if volumes[..index]
            .iter()
            .any(|before| object::str_at(before, "name") == name)
        {
            errors.push(FieldError::duplicate(&field, name));
        }
    }
    errors
}

fn containers(pod: &Value) -> Vec<FieldError> {
    let volumes: Vec<&str> = object::array_at(pod, "spec.volumes")
        .iter()
        .map(|volume| object::str_at(volume, "name"))
        .collect();
    let mut seen: Vec<&str> = Vec::new();
    let mut errors = Vec::new();
    for list in CONTAINER_LISTS {
        for (index, container) in object::array_at(pod, list).iter().enumerate() {
            let field = format!("{list}[{index}]");
            let name = object::str_at(container, "name");
            if name.is_empty() {
                errors.push(FieldError::required(format!("{field}.name"), ""));
            } else {
                errors.extend(invalid(&format!("{field}.name"), name, names::dns_label(name, false)));
                if seen.contains(&name) {
                    errors.push(FieldError::duplicate(format!("{field}.name"), name));
                }
                seen.push(name);
            }
            errors.extend(validate_container(container, &field, &volumes));
        }
    }
    errors
}

fn validate_container(container: &Value, field: &str, volumes: &[&str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let image = object::str_at(container, "image");
    if image.is_empty() {
        errors.push(FieldError::required(format!("{field}.image"), ""));
    } else if image.trim() != image {
        let detail = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(format!("{field}.image"), image, detail));
    }
    errors.extend(one_of(container, field, "terminationMessagePolicy", &MESSAGE_POLICIES));
    errors.extend(ports(container, field));
    errors.extend(environment(container, field));
    errors.extend(mounts(container, field, volumes));
    errors.extend(one_of(container, field, "imagePullPolicy", &PULL_POLICIES));
    errors
}

fn ports(container: &Value, field: &str) -> Vec<FieldError> {
    let mut seen: Vec<&str> = Vec::new();
    let mut errors = Vec::new();
    for (index, port) in object::array_at(container, "ports").iter().enumerate() {
        let field = |name: &str| format!("{field}.ports[{index}].{name}");
        let name = object::str_at(port, "name");
        if !name.is_empty() {
            errors.extend(invalid(&field("name"), name, names::port_name(name)));
            if seen.contains(&name) {
                errors.push(FieldError::duplicate(field("name"), name));
            }
            seen.push(name);
        }
        let number = object::int_at(port, "containerPort");
        if number == 0 {
            errors.push(FieldError::required(field("containerPort"), ""));
        } else {
            errors.extend(in_range(&field("containerPort"), number, 1, 65535));
        }
        let host = object::int_at(port, "hostPort");
        if host != 0 {
            errors.extend(in_range(&field("hostPort"), host, 1, 65535));
        }
        let protocol = object::str_at(port, "protocol");
        if !PROTOCOLS.contains(&protocol) {
            errors.push(FieldError::not_supported(field("protocol"), protocol, &PROTOCOLS));
        }
    }
    errors
}

fn environment(container: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, variable) in object::array_at(container, "env").iter().enumerate() {
        let field = format!("{field}.env[{index}]");
        let name = object::str_at(variable, "name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        } else {
            errors.extend(invalid(&format!("{field}.name"), name, names::env_name(name)));
        }
        if !object::str_at(variable, "value").is_empty() && object::at(variable, "valueFrom").is_some() {
            let detail = "may not be specified when `value` is not empty";
            errors.push(FieldError::invalid(format!("{field}.valueFrom"), "", detail));
        }
    }
    errors
}

fn mounts(container: &Value, field: &str, volumes: &[&str]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mounts = object::array_at(container, "volumeMounts");
    for (index, mount) in mounts.iter().enumerate() {
        let field = |name: &str| format!("{field}.volumeMounts[{index}].{name}");
        let (name, path) = (object::str_at(mount, "name"), object::str_at(mount, "mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(field("name"), ""));
        } else if !volumes.contains(&name) {
            errors.push(FieldError::not_found(field("name"), name));
        }
        if path.is_empty() {
            errors.push(FieldError::required(field("mountPath"), ""));
        } else if mounts[..index]
            .iter()
            .any(|before| object::str_at(before, "mountPath") == path)
        {
            errors.push(FieldError::invalid(field("mountPath"), path, "must be unique"));
        }
    }
    errors
}

fn seconds(pod: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(deadline) = object::at(pod, "spec.activeDeadlineSeconds").and_then(Value::as_i64) {
        errors.extend(in_range("spec.activeDeadlineSeconds", deadline, 1, i64::from(i32::MAX)));
    }
    let grace = object::int_at(pod, "spec.terminationGracePeriodSeconds");
    if grace < 0 {
        let detail = "must be greater than or equal to 0";
        errors.push(FieldError::invalid("spec.terminationGracePeriodSeconds", grace, detail));
    }
    errors
}

fn in_range(field: &str, value: i64, min: i64, max: i64) -> Vec<FieldError> {
    names::in_range(value, min, max)
        .into_iter()
        .map(|detail| FieldError::invalid(field, value, detail))
        .collect()
}

/// An enumeration's value, at `path` in the object, which itself is at `field`.
fn one_of(object: &Value, field: &str, path: &str, supported: &[&str]) -> Option<FieldError> {
    let value = object::str_at(object, path);
    let at = if field.is_empty() {
        path.to_owned()
    } else {
        format!("{field}.{path}")
    };
    (!supported.contains(&value)).then(|| FieldError::not_supported(at, value, supported))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::default;
    use super::*;

    fn errors(spec: Value) -> Vec<String> {
        let mut pod = json!({ "spec": spec });
        default::default(&mut pod);
        validate(&pod).iter().map(ToString::to_string).collect()
    }

    fn container(fields: Value) -> Vec<String> {
        let mut container = json!({"name": "c", "image": "web"});
        for (key, value) in fields.as_object().unwrap() {
            container[key] = value.clone();
        }
        errors(json!({"containers": [container], "volumes": [{"name": "v"}]}))
    }

    #[test]
    fn a_pod_has_containers_with_names_and_images() {
        assert_eq!(errors(json!({})), ["spec.containers: Required value"]);
        assert_eq!(
            errors(json!({"containers": [{}]})),
            [
                "spec.containers[0].name: Required value",
                "spec.containers[0].image: Required value"
            ]
        );
        assert_eq!(
            errors(
                json!({"containers": [{"name": "a", "image": "x"}], "initContainers": [{"name": "a", "image": "x"}]})
            ),
            ["spec.containers[0].name: Duplicate value: \"a\""]
        );
        assert!(container(json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]})).is_empty());
    }

    #[test]
    fn details_of_a_container_are_told_by_path() {
        let cases = [
            (
                json!({"ports": [{}]}),
                "spec.containers[0].ports[0].containerPort: Required value",
            ),
            (
                json!({"ports": [{"containerPort": 70000}]}),
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"imagePullPolicy": "Sometimes"}),
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
            ),
            (
                json!({"volumeMounts": [{"name": "w", "mountPath": "/w"}]}),
                "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
            ),
            (
                json!({"env": [{"value": "x"}]}),
                "spec.containers[0].env[0].name: Required value",
            ),
            (
                json!({"image": " x"}),
                "spec.containers[0].image: Invalid value: \" x\": must not have leading or trailing whitespace",
            ),
        ];
        for (fields, message) in cases {
            assert_eq!(container(fields), [message]);
        }
    }

    #[test]
    fn policies_are_of_their_enumeration() {
        assert_eq!(
            errors(json!({"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Maybe"})),
            [
                "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"Never\", \"OnFailure\""
            ]
        );
    }
}
