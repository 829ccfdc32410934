//! Discovery: which groups, versions and resources there are, in the plain and in the aggregated form.
//!
//! Built from the resource table for [`super::handlers`]. The aggregated form answers in two requests what the plain
//! one needs a request per group for; clients say with Accept which they know.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::negotiate::Discovery;
use crate::resources::{RESOURCES, Resource};

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// The document at `/api`.
pub(super) fn core(form: Discovery, address: Option<SocketAddr>) -> Value {
    if form != Discovery::Plain {
        return aggregated(form, &[""]);
    }
    let address = address.map_or_else(String::new, |address| address.to_string());
    json!({
        "kind": "APIVersions",
        "versions": versions(""),
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }],
    })
}

/// The document at `/apis`.
pub(super) fn groups(form: Discovery) -> Value {
    let names = group_names();
    if form != Discovery::Plain {
        return aggregated(form, &names);
    }
    let groups: Vec<Value> = names.iter().map(|name| group_entry(name)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// The document at `/apis/<group>`; none for a group nobody serves.
pub(super) fn group(name: &str) -> Option<Value> {
    let known = !name.is_empty() && RESOURCES.iter().any(|resource| resource.group == name);
    known.then(|| {
        let mut entry = group_entry(name);
        entry["kind"] = "APIGroup".into();
        entry["apiVersion"] = "v1".into();
        entry
    })
}

/// The document at `/api/<version>` or `/apis/<group>/<version>`; none when there is no such version.
pub(super) fn resource_list(group: &str, version: &str) -> Option<Value> {
    let entries: Vec<Value> = of_version(group, version).flat_map(entries).collect();
    let name = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    (!entries.is_empty())
        .then(|| json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": entries }))
}

/// Groups other than the core group, in the order of the table.
fn group_names() -> Vec<&'static str> {
    let mut names = Vec::new();
    for resource in RESOURCES.iter().filter(|resource| !resource.group.is_empty()) {
        if !names.contains(&resource.group) {
            names.push(resource.group);
        }
    }
    names
}

fn versions(group: &str) -> Vec<&'static str> {
    let mut versions = Vec::new();
    for resource in RESOURCES.iter().filter(|resource| resource.group == group) {
        if !versions.contains(&resource.version) {
            versions.push(resource.version);
        }
    }
    versions
}

fn of_version<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Resource> + 'a {
    RESOURCES
        .iter()
        .filter(move |resource| resource.group == group && resource.version == version)
}

fn group_entry(name: &str) -> Value {
    let versions: Vec<Value> = versions(name)
        .into_iter()
        .map(|version| json!({ "groupVersion": format!("{name}/{version}"), "version": version }))
        .collect();
    json!({ "name": name, "preferredVersion": versions[0], "versions": versions })
}

fn entries(resource: &'static Resource) -> Vec<Value> {
    let mut main = json!({
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        main["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        main["categories"] = json!(resource.categories);
    }
    let subresources = resource.subresources.iter().map(|name| {
        json!({ "name": format!("{}/{name}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": resource.kind, "verbs": subresource_verbs(name) })
    });
    std::iter::once(main).chain(subresources).collect()
}

/// A Namespace's `finalize` is only ever written as a whole.
fn subresource_verbs(name: &str) -> &'static [&'static str] {
    if name == "finalize" {
        &["update"]
    } else {
        &SUBRESOURCE_VERBS
    }
}

fn aggregated(form: Discovery, groups: &[&str]) -> Value {
    let version = if form == Discovery::AggregatedBeta {
        "v2beta1"
    } else {
        "v2"
    };
    let items: Vec<Value> = groups.iter().map(|group| aggregated_group(group)).collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
            "metadata": {}, "items": items })
}

fn aggregated_group(group: &str) -> Value {
    let versions: Vec<Value> = versions(group)
        .into_iter()
        .map(|version| {
            let resources: Vec<Value> = of_version(group, version).map(aggregated_resource).collect();
            json!({ "version": version, "resources": resources, "freshness": "Current" })
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({ "creationTimestamp": null })
    } else {
        json!({ "name": group, "creationTimestamp": null })
    };
    json!({ "metadata": metadata, "versions": versions })
}

fn aggregated_resource(resource: &'static Resource) -> Value {
    let kind = json!({ "group": resource.group, "version": resource.version, "kind": resource.kind });
    let mut entry = json!({
        "resource": resource.plural, "responseKind": kind, "singularResource": resource.singular, "verbs": VERBS,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    if !resource.subresources.is_empty() {
        let subresources = resource
            .subresources
            .iter()
            .map(|name| json!({ "subresource": name, "responseKind": kind, "verbs": subresource_verbs(name) }));
        entry["subresources"] = subresources.collect();
    }
    entry
}

/// The media type of a discovery answer: the aggregated form must be named in it.
pub(super) fn media_type(form: Discovery) -> Option<&'static str> {
    match form {
        Discovery::Plain => None,
        Discovery::Aggregated => Some("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
        Discovery::AggregatedBeta => Some("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &Value, member: &str) -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|entry| entry[member].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn plain_discovery_names_every_resource() {
        let core = resource_list("", "v1").unwrap();
        let found = names(&core["resources"], "name");
        for wanted in [
            "services",
            "services/status",
            "namespaces",
            "namespaces/finalize",
            "pods",
            "nodes",
            "configmaps",
        ] {
            assert!(
                found.iter().any(|name| name == wanted),
                "{wanted} is missing in {found:?}"
            );
        }
        assert!(resource_list("", "v9").is_none() && resource_list("nobody.example", "v1").is_none());
        let groups = groups(Discovery::Plain);
        assert!(names(&groups["groups"], "name").contains(&"discovery.k8s.io".to_owned()));
    }

    #[test]
    fn aggregated_discovery_holds_the_same() {
        let plain = resource_list("discovery.k8s.io", "v1").unwrap();
        let all = groups(Discovery::Aggregated);
        assert_eq!(all["apiVersion"], "apidiscovery.k8s.io/v2");
        let slices = all["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|item| item["metadata"]["name"] == "discovery.k8s.io");
        let resources = &slices.unwrap()["versions"][0]["resources"];
        assert_eq!(names(resources, "resource")[0], names(&plain["resources"], "name")[0]);
        assert_eq!(resources[0]["scope"], "Namespaced");
    }

    #[test]
    fn one_group_can_be_asked_for() {
        assert_eq!(group("discovery.k8s.io").unwrap()["preferredVersion"]["version"], "v1");
        assert!(group("").is_none() && group("nobody.example").is_none());
    }
}
