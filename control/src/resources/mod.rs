//! The resource table: every kind this API server serves, and what is particular to each.
//!
//! The request handlers are generic. What they need to know about a kind is one row of [`RESOURCES`]: names, scope,
//! subresources, the columns of `kubectl get`, selectable fields, and a [`Strategy`] for defaulting, validation,
//! allocation and printing. A write walks through this module in the order [`Resource::decode`] (types and unknown
//! fields), [`Strategy::default`], [`Strategy::prepare_create`] or [`Strategy::prepare_update`], validation
//! ([`metadata`] for the common part, [`Strategy::validate`] for the kind), [`Strategy::allocate`]; then the store.

pub mod address;
pub mod allocation;
pub mod duration;
pub mod field_error;
pub mod metadata;
pub mod names;
pub mod object;
pub mod openapi;
pub mod schema;
pub mod strategic_merge;
pub mod strategy;

mod config_map;
mod endpoint_slice;
mod endpoints;
mod event;
mod lease;
mod namespace;
mod node;
mod pod;
mod secret;
mod service;
mod service_account;
mod table;

use serde_json::Value;

use crate::store::Durability;

pub use allocation::{Claim, Ranges, Taken};
pub use field_error::{FieldError, FieldErrorKind};
pub use openapi::{openapi_v3, openapi_v3_index};
pub use strategic_merge::{Merge, merge_key, merge_strategy};
pub use strategy::Strategy;
pub use table::RESOURCES;

/// One kind as it is served under one group and version.
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// API version, such as `v1`.
    pub version: &'static str,
    /// Kind of one object, such as `Service`.
    pub kind: &'static str,
    /// Kind of a list, such as `ServiceList`.
    pub list_kind: &'static str,
    /// The name in paths, such as `services`.
    pub plural: &'static str,
    /// The singular name, such as `service`.
    pub singular: &'static str,
    /// Abbreviations that kubectl accepts, such as `svc`.
    pub short_names: &'static [&'static str],
    /// Groups of resources the kind belongs to, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Subresources with a path of their own: `status`, `finalize`.
    pub subresources: &'static [&'static str],
    /// How soon a write must be on disk before it is acknowledged.
    pub durability: Durability,
    /// Columns of the Table rendering, in order.
    pub columns: &'static [Column],
    /// Fields that may appear in a field selector, besides `metadata.name` and `metadata.namespace`.
    pub selectable_fields: &'static [&'static str],
    /// Name of the type's schema in OpenAPI, such as `io.k8s.api.core.v1.Service`.
    pub schema: &'static str,
    /// What differs from kind to kind.
    pub strategy: &'static dyn Strategy,
}

/// A column of `kubectl get`, as in `metav1.TableColumnDefinition`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading as the API gives it, such as `Cluster-IP`; kubectl prints it in capitals.
    pub name: &'static str,
    /// OpenAPI type of the cells; upstream calls nearly all of them `string`, numbers included.
    pub kind: &'static str,
    /// OpenAPI format: `name` for the column that identifies the object, else empty.
    pub format: &'static str,
    /// What the column shows.
    pub description: &'static str,
    /// 0 is always shown; 1 only with `-o wide`.
    pub priority: i32,
}

impl Resource {
    /// `v1` for the core group, else `group/version`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Group, version and kind.
    #[must_use]
    pub const fn gvk(&self) -> (&'static str, &'static str, &'static str) {
        (self.group, self.version, self.kind)
    }

    /// `services` for the core group, else `endpointslices.discovery.k8s.io`: the form used in error messages.
    #[must_use]
    pub fn qualified_plural(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }

    /// `Service` for the core group, else `EndpointSlice.discovery.k8s.io`: how messages name the kind.
    #[must_use]
    pub fn qualified_kind(&self) -> String {
        if self.group.is_empty() {
            self.kind.to_owned()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }

    /// The store key of one object. `namespace` is `None` for cluster-scoped kinds.
    #[must_use]
    pub fn key(&self, namespace: Option<&str>, name: &str) -> String {
        format!("{}{name}", self.prefix(namespace))
    }

    /// What the store keys of all objects, or of all in one namespace, begin with. Ends in `/`.
    #[must_use]
    pub fn prefix(&self, namespace: Option<&str>) -> String {
        let group = if self.group.is_empty() { "core" } else { self.group };
        match namespace {
            Some(namespace) => format!("/registry/{group}/{}/{namespace}/", self.plural),
            None => format!("/registry/{group}/{}/", self.plural),
        }
    }

    /// Whether `field` may be used in a field selector of this kind.
    #[must_use]
    pub fn is_selectable(&self, field: &str) -> bool {
        field == "metadata.name"
            || (field == "metadata.namespace" && self.namespaced)
            || self.selectable_fields.contains(&field)
    }

    /// The value a field selector compares with. A field that is not set is the empty string (`false` for a boolean).
    #[must_use]
    pub fn selectable_value(&self, object: &Value, field: &str) -> String {
        match field {
            "metadata.name" | "metadata.namespace" => object::text_at(object, field),
            _ => self.strategy.selectable_value(object, field),
        }
    }

    /// Checks the types of all fields against the kind's schema.
    ///
    /// # Errors
    /// The text after `cannot be handled as a <Kind>: ` in the 400 answer, such as
    /// `json: cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32`.
    pub fn decode(&self, object: &Value) -> Result<(), String> {
        schema::check_types(self.schema, object)
    }

    /// Paths of fields the schema does not know, such as `spec.ports[0].prot`, in the order of the object.
    #[must_use]
    pub fn unknown_fields(&self, object: &Value) -> Vec<String> {
        schema::unknown_fields(self.schema, object)
    }

    /// Removes fields the schema does not know, and nulls, and writes times in one way. Every accepted object goes
    /// through this.
    pub fn prune(&self, object: &mut Value) {
        schema::prune(self.schema, object);
    }
}

/// The row for `group` (empty for core), `version` and `plural`.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .find(|resource| resource.group == group && resource.version == version && resource.plural == plural)
}

/// The row for an `apiVersion` and `kind`, as an object names its own type.
#[must_use]
pub fn find_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .find(|resource| resource.kind == kind && resource.api_version() == api_version)
}
