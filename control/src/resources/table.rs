//! The rows of the resource table.
//!
//! Read by discovery, by the handlers and by kubectl's Table rendering, through [`super::find`]. Names, short names,
//! categories and columns are those of kube-apiserver.

use crate::store::Durability;

use super::{Column, Resource};
use super::{
    config_map, endpoint_slice, endpoints, event, lease, namespace, node, pod, secret, service, service_account,
};

/// Every kind that is served.
pub static RESOURCES: &[Resource] = &[
    Resource {
        kind: "Namespace",
        list_kind: "NamespaceList",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        namespaced: false,
        subresources: &["finalize", "status"],
        columns: namespace::COLUMNS,
        selectable_fields: &["status.phase"],
        schema: "io.k8s.api.core.v1.Namespace",
        strategy: &namespace::NamespaceStrategy,
        ..CORE
    },
    Resource {
        kind: "Node",
        list_kind: "NodeList",
        plural: "nodes",
        singular: "node",
        short_names: &["no"],
        namespaced: false,
        subresources: &["status"],
        columns: node::COLUMNS,
        selectable_fields: &["spec.unschedulable"],
        schema: "io.k8s.api.core.v1.Node",
        strategy: &node::NodeStrategy,
        ..CORE
    },
    Resource {
        kind: "Service",
        list_kind: "ServiceList",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        subresources: &["status"],
        columns: service::COLUMNS,
        selectable_fields: &["spec.clusterIP", "spec.type"],
        schema: "io.k8s.api.core.v1.Service",
        strategy: &service::ServiceStrategy,
        ..CORE
    },
    Resource {
        kind: "Endpoints",
        list_kind: "EndpointsList",
        plural: "endpoints",
        singular: "endpoints",
        short_names: &["ep"],
        columns: endpoints::COLUMNS,
        schema: "io.k8s.api.core.v1.Endpoints",
        strategy: &endpoints::EndpointsStrategy,
        ..CORE
    },
    Resource {
        kind: "Pod",
        list_kind: "PodList",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        subresources: &["status"],
        columns: pod::COLUMNS,
        selectable_fields: pod::SELECTABLE_FIELDS,
        schema: "io.k8s.api.core.v1.Pod",
        strategy: &pod::PodStrategy,
        ..CORE
    },
    Resource {
        kind: "ConfigMap",
        list_kind: "ConfigMapList",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        columns: config_map::COLUMNS,
        schema: "io.k8s.api.core.v1.ConfigMap",
        strategy: &config_map::ConfigMapStrategy,
        ..CORE
    },
    Resource {
        kind: "Secret",
        list_kind: "SecretList",
        plural: "secrets",
        singular: "secret",
        columns: secret::COLUMNS,
        selectable_fields: &["type"],
        schema: "io.k8s.api.core.v1.Secret",
        strategy: &secret::SecretStrategy,
        ..CORE
    },
    Resource {
        kind: "ServiceAccount",
        list_kind: "ServiceAccountList",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        columns: service_account::COLUMNS,
        schema: "io.k8s.api.core.v1.ServiceAccount",
        strategy: &service_account::ServiceAccountStrategy,
        ..CORE
    },
    Resource {
        kind: "Event",
        list_kind: "EventList",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        durability: Durability::Lazy,
        columns: event::COLUMNS,
        selectable_fields: event::SELECTABLE_FIELDS,
        schema: "io.k8s.api.core.v1.Event",
        strategy: &event::EventStrategy,
        ..CORE
    },
    Resource {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        list_kind: "EndpointSliceList",
        plural: "endpointslices",
        singular: "endpointslice",
        columns: endpoint_slice::COLUMNS,
        schema: "io.k8s.api.discovery.v1.EndpointSlice",
        strategy: &endpoint_slice::EndpointSliceStrategy,
        ..CORE
    },
    Resource {
        group: "coordination.k8s.io",
        kind: "Lease",
        list_kind: "LeaseList",
        plural: "leases",
        singular: "lease",
        durability: Durability::Lazy,
        columns: lease::COLUMNS,
        schema: "io.k8s.api.coordination.v1.Lease",
        strategy: &lease::LeaseStrategy,
        ..CORE
    },
];

/// What most rows have in common: core group, `v1`, namespaced.
const CORE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "",
    list_kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    subresources: &[],
    durability: Durability::Synced,
    columns: &[],
    selectable_fields: &[],
    schema: "",
    strategy: &namespace::NamespaceStrategy,
};

/// The first column of every kind.
pub(super) const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within a namespace.",
    priority: 0,
};

/// The age column of every kind.
pub(super) const AGE: Column = text("Age", "Time since the object was created.");

/// A text column.
pub(super) const fn text(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        kind: "string",
        format: "",
        description,
        priority: 0,
    }
}

/// A text column shown with `-o wide`.
pub(super) const fn wide(name: &'static str, description: &'static str) -> Column {
    Column {
        priority: 1,
        ..text(name, description)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::resources::{find, schema};

    #[test]
    fn every_row_is_whole_and_has_a_schema() {
        for resource in RESOURCES {
            let name = resource.kind;
            assert!(schema::DEFINITIONS.contains_key(resource.schema), "{name}");
            assert_eq!(resource.list_kind, format!("{name}List"));
            assert!(find(resource.group, resource.version, resource.plural).is_some());
            assert!(resource.columns.iter().any(|column| column.format == "name"), "{name}");
            let cells = resource
                .strategy
                .row(&json!({"metadata": {"name": "a"}}), Timestamp::UNIX_EPOCH);
            assert_eq!(cells.len(), resource.columns.len(), "cells of {name}");
        }
    }

    #[test]
    fn names_that_clients_use_are_unique_within_a_group() {
        let mut seen = BTreeSet::new();
        for resource in RESOURCES {
            for name in resource.short_names.iter().chain([&resource.plural]) {
                assert!(seen.insert((resource.group, *name)), "{name} twice");
            }
        }
    }

    #[test]
    fn keys_are_under_their_group_and_namespace() {
        let slice = find("discovery.k8s.io", "v1", "endpointslices").unwrap();
        assert_eq!(
            slice.key(Some("a"), "b"),
            "/registry/discovery.k8s.io/endpointslices/a/b"
        );
        let node = find("", "v1", "nodes").unwrap();
        assert_eq!(node.key(None, "n1"), "/registry/core/nodes/n1");
        assert_eq!(slice.qualified_kind(), "EndpointSlice.discovery.k8s.io");
    }
}
