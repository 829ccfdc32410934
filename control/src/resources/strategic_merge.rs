//! How lists are merged by a strategic merge patch.
//!
//! One table, used twice: `api` applies `application/strategic-merge-patch+json` by it, and [`super::openapi`]
//! publishes it, because kubectl computes its patches from what is published. The keys are the `patchMergeKey` tags of
//! the Go types; a list that is not in the table is replaced as a whole.

use super::{Resource, schema};

/// How two versions of a list become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The patch's list replaces the old one.
    Replace,
    /// Items are maps, matched by the value under this key.
    ByKey(&'static str),
    /// Items are scalars and form a set.
    Set,
}

/// Type, field, how it is merged.
const TABLE: &[(&str, &str, Merge)] = &[
    ("ObjectMeta", "ownerReferences", Merge::ByKey("uid")),
    ("ObjectMeta", "finalizers", Merge::Set),
    ("ServiceSpec", "ports", Merge::ByKey("port")),
    ("ServiceStatus", "conditions", Merge::ByKey("type")),
    ("NamespaceStatus", "conditions", Merge::ByKey("type")),
    ("NodeSpec", "podCIDRs", Merge::Set),
    ("NodeStatus", "conditions", Merge::ByKey("type")),
    ("NodeStatus", "addresses", Merge::ByKey("type")),
    ("PodSpec", "containers", Merge::ByKey("name")),
    ("PodSpec", "initContainers", Merge::ByKey("name")),
    ("PodSpec", "ephemeralContainers", Merge::ByKey("name")),
    ("PodSpec", "volumes", Merge::ByKey("name")),
    ("PodSpec", "imagePullSecrets", Merge::ByKey("name")),
    ("PodSpec", "schedulingGates", Merge::ByKey("name")),
    ("PodSpec", "resourceClaims", Merge::ByKey("name")),
    ("PodSpec", "hostAliases", Merge::ByKey("ip")),
    ("PodSpec", "topologySpreadConstraints", Merge::ByKey("topologyKey")),
    ("PodStatus", "conditions", Merge::ByKey("type")),
    ("PodStatus", "podIPs", Merge::ByKey("ip")),
    ("PodStatus", "hostIPs", Merge::ByKey("ip")),
    ("PodStatus", "resourceClaimStatuses", Merge::ByKey("name")),
    ("Container", "env", Merge::ByKey("name")),
    ("Container", "ports", Merge::ByKey("containerPort")),
    ("Container", "volumeMounts", Merge::ByKey("mountPath")),
    ("Container", "volumeDevices", Merge::ByKey("devicePath")),
    ("EphemeralContainer", "env", Merge::ByKey("name")),
    ("EphemeralContainer", "ports", Merge::ByKey("containerPort")),
    ("EphemeralContainer", "volumeMounts", Merge::ByKey("mountPath")),
    ("EphemeralContainer", "volumeDevices", Merge::ByKey("devicePath")),
    ("ServiceAccount", "secrets", Merge::ByKey("name")),
];

/// Fields of which the patch lists all that may stay, so that one volume source replaces another.
const RETAIN_KEYS: &[(&str, &str)] = &[("PodSpec", "volumes"), ("PodSpec", "resourceClaims")];

/// The key that identifies the items of the list of maps at `path` (field names without indices).
#[must_use]
pub fn merge_key(resource: &Resource, path: &[&str]) -> Option<&'static str> {
    match merge_strategy(resource, path) {
        Merge::ByKey(key) => Some(key),
        Merge::Replace | Merge::Set => None,
    }
}

/// How the list at `path` (field names without indices, from the object's root) is merged.
#[must_use]
pub fn merge_strategy(resource: &Resource, path: &[&str]) -> Merge {
    let Some((field, parents)) = path.split_last() else {
        return Merge::Replace;
    };
    schema::type_name_at(resource.schema, parents).map_or(Merge::Replace, |name| of_field(name, field))
}

/// How a field of a type (by its short name, such as `ServiceSpec`) is merged.
pub(super) fn of_field(type_name: &str, field: &str) -> Merge {
    TABLE
        .iter()
        .find(|(of, name, _)| *of == type_name && *name == field)
        .map_or(Merge::Replace, |(_, _, merge)| *merge)
}

/// The `x-kubernetes-patch-strategy` of a field that is not replaced.
pub(super) fn published_strategy(type_name: &str, field: &str) -> &'static str {
    if RETAIN_KEYS.contains(&(type_name, field)) {
        "merge,retainKeys"
    } else {
        "merge"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::find;

    #[test]
    fn lists_merge_by_the_keys_users_know() {
        let service = find("", "v1", "services").unwrap();
        let pod = find("", "v1", "pods").unwrap();
        let slice = find("discovery.k8s.io", "v1", "endpointslices").unwrap();
        assert_eq!(merge_key(service, &["spec", "ports"]), Some("port"));
        assert_eq!(merge_key(service, &["spec", "clusterIPs"]), None);
        assert_eq!(merge_key(pod, &["spec", "containers", "env"]), Some("name"));
        assert_eq!(merge_key(pod, &["spec", "containers", "ports"]), Some("containerPort"));
        assert_eq!(merge_strategy(pod, &["spec", "tolerations"]), Merge::Replace);
        assert_eq!(merge_strategy(slice, &["metadata", "finalizers"]), Merge::Set);
        assert_eq!(merge_strategy(slice, &["endpoints"]), Merge::Replace);
        assert_eq!(merge_strategy(slice, &[]), Merge::Replace);
    }

    #[test]
    fn every_row_names_a_list_of_a_type_that_is_served() {
        for (type_name, field, _) in TABLE {
            assert!(schema::has_list(type_name, field), "{type_name}.{field}");
        }
    }
}
