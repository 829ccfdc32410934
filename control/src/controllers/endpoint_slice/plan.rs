//! From the endpoints that should be and the slices that are to the slices to create, update and delete.
//!
//! Called by [`super`] for one Service at a time; plain functions without I/O. As few slices as possible are touched:
//! an endpoint stays in its slice, changed slices are filled up first, then the unchanged one that fits best, then new
//! ones; a slice that would go is used again in place of a new one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::desired::{self, Group, PortKey};
use super::view::{PodView, ServiceView};

/// Who manages the slices, in their label.
pub(super) const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The label that says who manages a slice.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The label that says which Service a slice is of.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Endpoints per slice: kube-controller-manager's default.
pub(super) const MAX_ENDPOINTS: usize = 100;

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) create: Vec<EndpointSlice>,
    pub(super) update: Vec<EndpointSlice>,
    pub(super) delete: Vec<Arc<EndpointSlice>>,
}

impl Plan {
    pub(super) fn is_empty(&self) -> bool {
        self.create.is_empty() && self.update.is_empty() && self.delete.is_empty()
    }
}

/// What to do about the slices of a Service. `existing` are those that this controller manages for it.
pub(super) fn plan(
    service: &ServiceView,
    pods: &[Arc<PodView>],
    zone_of: &dyn Fn(&str) -> Option<Option<String>>,
    existing: Vec<Arc<EndpointSlice>>,
) -> Plan {
    let mut plan = Plan::default();
    let mut by_family = HashMap::<String, Vec<Arc<EndpointSlice>>>::new();
    for slice in existing {
        // A slice on its way out is not counted on.
        if slice.metadata.deletion_timestamp.is_none() {
            by_family.entry(slice.address_type.clone()).or_default().push(slice);
        }
    }
    for family in &service.families {
        let groups = desired::groups(service, family, pods, zone_of);
        let slices = by_family.remove(family).unwrap_or_default();
        Family {
            service,
            family,
            plan: Plan::default(),
            kept: 0,
        }
        .reconcile(groups, slices, &mut plan);
    }
    plan.delete.extend(by_family.into_values().flatten());
    plan
}

/// One address family of a Service.
struct Family<'a> {
    service: &'a ServiceView,
    family: &'a str,
    plan: Plan,
    /// Slices that stay, changed or not.
    kept: usize,
}

/// A slice with what is to be in it.
struct Draft {
    slice: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

impl Family<'_> {
    fn reconcile(mut self, mut groups: BTreeMap<PortKey, Group>, slices: Vec<Arc<EndpointSlice>>, into: &mut Plan) {
        let mut by_ports = BTreeMap::<PortKey, Vec<Arc<EndpointSlice>>>::new();
        for slice in slices {
            by_ports
                .entry(desired::port_key(slice.ports.as_deref().unwrap_or_default()))
                .or_default()
                .push(slice);
        }
        for (key, slices) in by_ports {
            self.group(groups.remove(&key).unwrap_or_default(), slices);
        }
        for group in groups.into_values() {
            self.group(group, Vec::new());
        }
        if self.kept == 0 && self.plan.create.is_empty() {
            self.placeholder();
        }
        self.recycle();
        into.create.append(&mut self.plan.create);
        into.update.append(&mut self.plan.update);
        into.delete.append(&mut self.plan.delete);
    }

    /// The endpoints with one set of ports, and the slices with these ports.
    fn group(&mut self, group: Group, slices: Vec<Arc<EndpointSlice>>) {
        let mut desired: HashMap<_, _> = group.endpoints.into_iter().map(|one| (identity(&one), one)).collect();
        let mut drafts: Vec<_> = slices.into_iter().map(|slice| self.keep(slice, &mut desired)).collect();
        let mut left: Vec<Endpoint> = desired.into_values().collect();
        left.sort_by_cached_key(identity);
        fill(&mut drafts, &mut left);
        for draft in drafts {
            if draft.endpoints.is_empty() {
                self.plan.delete.push(draft.slice);
                continue;
            }
            self.kept += 1;
            if draft.changed {
                let ports = draft.slice.ports.clone().unwrap_or_default();
                self.plan
                    .update
                    .push(self.rewritten(&draft.slice, ports, draft.endpoints));
            }
        }
        for endpoints in left.chunks(MAX_ENDPOINTS) {
            let slice = self.new_slice(group.ports.clone(), endpoints.to_vec());
            self.plan.create.push(slice);
        }
    }

    /// Takes out of `desired` what a slice already has, and drops what is no longer desired.
    fn keep(&self, slice: Arc<EndpointSlice>, desired: &mut HashMap<Identity, Endpoint>) -> Draft {
        let (labels, owner) = (self.labels(), self.owner());
        let owners = slice.metadata.owner_references.as_deref().unwrap_or_default();
        let mut changed = slice.metadata.labels.as_ref() != Some(&labels) || !owners.contains(&owner);
        let mut endpoints = Vec::with_capacity(slice.endpoints.len());
        for endpoint in &slice.endpoints {
            match desired.remove(&identity(endpoint)) {
                Some(wanted) => {
                    changed |= wanted != *endpoint;
                    endpoints.push(wanted);
                }
                None => changed = true,
            }
        }
        Draft {
            slice,
            endpoints,
            changed,
        }
    }

    /// A Service always has a slice, if need be one without endpoints.
    fn placeholder(&mut self) {
        let is_placeholder =
            |slice: &Arc<EndpointSlice>| slice.endpoints.is_empty() && slice.ports.as_ref().is_none_or(Vec::is_empty);
        let placeholder = self.new_slice(Vec::new(), Vec::new());
        let same = |slice: &Arc<EndpointSlice>| {
            let (old, new) = (&slice.metadata, &placeholder.metadata);
            old.labels == new.labels && old.owner_references == new.owner_references
        };
        match self
            .plan
            .delete
            .iter()
            .position(|slice| is_placeholder(slice) && same(slice))
        {
            Some(index) => drop(self.plan.delete.swap_remove(index)),
            None => self.plan.create.push(placeholder),
        }
    }

    /// Turns pairs of a slice to create and one to delete into one to update.
    fn recycle(&mut self) {
        while !self.plan.delete.is_empty() {
            let Some(new) = self.plan.create.pop() else { return };
            if let Some(old) = self.plan.delete.pop() {
                self.plan
                    .update
                    .push(self.rewritten(&old, new.ports.unwrap_or_default(), new.endpoints));
            }
        }
    }

    fn new_slice(&self, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
        EndpointSlice {
            address_type: self.family.into(),
            endpoints,
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", self.service.name)),
                namespace: Some(self.service.namespace.clone()),
                labels: Some(self.labels()),
                owner_references: Some(vec![self.owner()]),
                ..ObjectMeta::default()
            },
            ports: Some(ports),
        }
    }

    fn rewritten(&self, slice: &EndpointSlice, ports: Vec<EndpointPort>, endpoints: Vec<Endpoint>) -> EndpointSlice {
        let mut metadata = slice.metadata.clone();
        metadata.labels = Some(self.labels());
        let mut owners = metadata.owner_references.take().unwrap_or_default();
        owners.retain(|owner| owner.controller != Some(true));
        owners.push(self.owner());
        metadata.owner_references = Some(owners);
        EndpointSlice {
            address_type: slice.address_type.clone(),
            endpoints,
            metadata,
            ports: Some(ports),
        }
    }

    /// The Service's own labels, and the three that say what the slice is.
    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.service.labels.clone();
        labels.remove(HEADLESS);
        if self.service.headless {
            labels.insert(HEADLESS.into(), String::new());
        }
        labels.insert(SERVICE_NAME.into(), self.service.name.clone());
        labels.insert(MANAGED_BY.into(), MANAGER.into());
        labels
    }

    fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: "v1".into(),
            kind: "Service".into(),
            name: self.service.name.clone(),
            uid: self.service.uid.clone(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }
    }
}

/// What makes two endpoints the same one: addresses, host name, and the Pod.
type Identity = (Vec<String>, Option<String>, Option<(Option<String>, Option<String>)>);

fn identity(endpoint: &Endpoint) -> Identity {
    let mut addresses = endpoint.addresses.clone();
    addresses.sort();
    let target = endpoint
        .target_ref
        .as_ref()
        .map(|target| (target.namespace.clone(), target.name.clone()));
    (addresses, endpoint.hostname.clone(), target)
}

/// Puts new endpoints into slices with room: those that change anyway, the fullest first; the rest, if less than a
/// slice, into the unchanged one that it fills best.
fn fill(drafts: &mut [Draft], left: &mut Vec<Endpoint>) {
    let mut open: Vec<_> = drafts
        .iter_mut()
        .filter(|draft| draft.changed && !draft.endpoints.is_empty())
        .collect();
    open.sort_by_key(|draft| std::cmp::Reverse(draft.endpoints.len()));
    for draft in open {
        let room = MAX_ENDPOINTS.saturating_sub(draft.endpoints.len()).min(left.len());
        draft.endpoints.extend(left.drain(..room));
    }
    if left.is_empty() || left.len() >= MAX_ENDPOINTS {
        return;
    }
    let fits = |draft: &&mut Draft| draft.endpoints.len() + left.len() <= MAX_ENDPOINTS && !draft.endpoints.is_empty();
    if let Some(draft) = drafts.iter_mut().filter(fits).max_by_key(|draft| draft.endpoints.len()) {
        draft.endpoints.append(left);
        draft.changed = true;
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
