//! Service: the kind with the most to default, validate and allocate.
//!
//! A write walks through the files in this order: [`default`], [`change`] (what an update carries over), [`validate`]
//! and [`addresses`], [`allocate`] with [`families`]. [`columns`] prints.

mod addresses;
mod allocate;
mod change;
mod columns;
mod default;
mod families;
mod validate;

use jiff::Timestamp;
use serde_json::Value;

use super::allocation::{Claim, Ranges, Taken};
use super::field_error::FieldError;
use super::strategy::Strategy;
use super::{names, object};

pub(super) use columns::COLUMNS;

/// Defaulting, validation, allocation and printing of Services.
pub(super) struct ServiceStrategy;

impl Strategy for ServiceStrategy {
    fn default(&self, object: &mut Value) {
        default::default(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        object::set(object, "status", serde_json::json!({"loadBalancer": {}}));
        change::sync_cluster_ips(object, None);
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::keep(new, old, "status");
        change::carry_over(new, old);
    }

    fn validate_name(&self, name: &str, is_prefix: bool) -> Vec<String> {
        names::dns_1035_label(name, is_prefix)
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(old) = old {
            errors.extend(addresses::validate_change(new, old));
            errors.extend(validate::load_balancer_class_change(new, old));
        }
        errors.extend(validate::validate(new));
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        validate::load_balancer_status(new)
    }

    fn allocate(
        &self,
        object: &mut Value,
        old: Option<&Value>,
        taken: &dyn Taken,
        ranges: &Ranges,
    ) -> Result<(), Vec<FieldError>> {
        allocate::allocate(object, old, taken, ranges)
    }

    fn claims(&self, object: &Value) -> Vec<Claim> {
        allocate::claims(object)
    }

    fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        columns::row(object, now)
    }
}

/// Whether Services of this type have a cluster address (headless ones included).
fn needs_cluster_ip(service: &Value) -> bool {
    matches!(service_type(service), "ClusterIP" | "NodePort" | "LoadBalancer")
}

/// Whether Services of this type may have node ports.
fn needs_node_ports(service: &Value) -> bool {
    matches!(service_type(service), "NodePort" | "LoadBalancer")
}

/// Whether a node port must be found for each port that has none.
fn allocates_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => object::at(service, "spec.allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    }
}

/// Whether nodes answer a load balancer's health checks for this Service.
fn needs_health_check(service: &Value) -> bool {
    service_type(service) == "LoadBalancer" && object::str_at(service, "spec.externalTrafficPolicy") == "Local"
}

/// Whether traffic may come from outside, so that the external traffic policy means something.
fn externally_accessible(service: &Value) -> bool {
    needs_node_ports(service)
        || (service_type(service) == "ClusterIP" && !object::is_empty_at(service, "spec.externalIPs"))
}

fn service_type(service: &Value) -> &str {
    object::str_at(service, "spec.type")
}

/// Whether the Service asked for no address at all.
fn is_headless(service: &Value) -> bool {
    object::strings_at(service, "spec.clusterIPs") == ["None"]
}
