//! Defaults of a Pod.

use serde_json::{Value, json};

use crate::resources::object;

/// `rw-r--r--`, for files projected into a volume.
const FILE_MODE: i64 = 0o644;

/// Lists of containers in a Pod's spec.
pub(super) const CONTAINER_LISTS: [&str; 3] = ["spec.initContainers", "spec.containers", "spec.ephemeralContainers"];

/// Fills in what the client left out.
pub(super) fn default(pod: &mut Value) {
    object::set_default(pod, "spec.restartPolicy", "Always");
    object::set_default(pod, "spec.dnsPolicy", "ClusterFirst");
    object::set_default(pod, "spec.terminationGracePeriodSeconds", 30);
    object::set_default(pod, "spec.schedulerName", "default-scheduler");
    object::set_default(pod, "spec.securityContext", json!({}));
    object::set_default(pod, "spec.enableServiceLinks", true);
    object::set_default(pod, "spec.preemptionPolicy", "PreemptLowerPriority");
    object::set_default(pod, "spec.priority", 0);
    let host_network = object::bool_at(pod, "spec.hostNetwork");
    for list in CONTAINER_LISTS {
        for container in object::array_mut(pod, list) {
            default_container(container, host_network);
        }
    }
    object::array_mut(pod, "spec.volumes")
        .iter_mut()
        .for_each(default_volume);
}

fn default_container(container: &mut Value, host_network: bool) {
    let image = object::text_at(container, "image");
    let pull = if is_latest(&image) { "Always" } else { "IfNotPresent" };
    object::set_default(container, "imagePullPolicy", pull);
    object::set_default(container, "terminationMessagePath", "/dev/termination-log");
    object::set_default(container, "terminationMessagePolicy", "File");
    default_resources(container);
    for port in object::array_mut(container, "ports") {
        object::set_default(port, "protocol", "TCP");
        let number = object::int_at(port, "containerPort");
        if host_network && object::int_at(port, "hostPort") == 0 && number != 0 {
            object::set(port, "hostPort", number);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe).filter(|probe| probe.is_object()) {
            default_probe(probe);
        }
    }
    for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
        default_http_get(container, hook);
    }
    for variable in object::array_mut(container, "env") {
        if object::at(variable, "valueFrom.fieldRef").is_some() {
            object::set_default(variable, "valueFrom.fieldRef.apiVersion", "v1");
        }
    }
}

/// What is limited but not requested is requested as limited.
fn default_resources(container: &mut Value) {
    object::set_default(container, "resources", json!({}));
    let limits = object::map_at(container, "resources.limits")
        .cloned()
        .unwrap_or_default();
    for (resource, limit) in limits {
        if let Some(requests) = object::map_mut(container, "resources.requests") {
            requests.entry(resource).or_insert(limit);
        }
    }
}

fn default_probe(probe: &mut Value) {
    for (field, value) in [
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ] {
        if object::int_at(probe, field) == 0 {
            object::set(probe, field, value);
        }
    }
    default_http_get(probe, "");
    if object::at(probe, "grpc").is_some() && object::at(probe, "grpc.service").is_none() {
        object::set(probe, "grpc.service", "");
    }
}

fn default_http_get(handler: &mut Value, path: &str) {
    let get = if path.is_empty() {
        "httpGet".to_owned()
    } else {
        format!("{path}.httpGet")
    };
    if object::at(handler, &get).is_some() {
        object::set_default(handler, &format!("{get}.path"), "/");
        object::set_default(handler, &format!("{get}.scheme"), "HTTP");
    }
}

fn default_volume(volume: &mut Value) {
    let sources = volume
        .as_object()
        .map_or(0, |fields| fields.keys().filter(|key| *key != "name").count());
    if sources == 0 {
        object::set(volume, "emptyDir", json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if object::at(volume, source).is_some() {
            object::set_default(volume, &format!("{source}.defaultMode"), FILE_MODE);
        }
    }
    if object::at(volume, "hostPath").is_some() && object::at(volume, "hostPath.type").is_none() {
        object::set(volume, "hostPath.type", "");
    }
}

/// An image without a tag and digest is `:latest`.
fn is_latest(image: &str) -> bool {
    let (name, digest) = image
        .split_once('@')
        .map_or((image, None), |(name, digest)| (name, Some(digest)));
    let tag = name
        .rsplit('/')
        .next()
        .and_then(|last| last.split_once(':'))
        .map(|(_, tag)| tag);
    match tag {
        Some(tag) => tag == "latest",
        None => digest.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minimal_pod_gets_upstreams_defaults() {
        let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "registry:5000/web", "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "1"}}, "readinessProbe": {"httpGet": {"port": 80}}}], "volumes": [{"name": "v"}]}});
        default(&mut pod);
        let spec = &pod["spec"];
        assert_eq!(
            (&spec["restartPolicy"], &spec["dnsPolicy"]),
            (&json!("Always"), &json!("ClusterFirst"))
        );
        assert_eq!(spec["terminationGracePeriodSeconds"], 30);
        assert_eq!(spec["volumes"][0], json!({"name": "v", "emptyDir": {}}));
        let container = &spec["containers"][0];
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container["ports"][0], json!({"containerPort": 80, "protocol": "TCP"}));
        assert_eq!(container["resources"]["requests"]["cpu"], "1");
        assert_eq!(
            container["readinessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3})
        );
        let once = pod.clone();
        default(&mut pod);
        assert_eq!(pod, once);
    }

    #[test]
    fn only_latest_is_always_pulled() {
        for (image, latest) in [
            ("a", true),
            ("a:latest", true),
            ("a:1", false),
            ("r:5000/a", true),
            ("a@sha256:x", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }

    #[test]
    fn host_network_opens_the_containers_port_on_the_host() {
        let mut pod = json!({"spec": {"hostNetwork": true, "containers": [{"ports": [{"containerPort": 80}]}]}});
        default(&mut pod);
        assert_eq!(pod["spec"]["containers"][0]["ports"][0]["hostPort"], 80);
    }
}
