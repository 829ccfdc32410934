//! What the cluster says, as far as this node's proxy cares.
//!
//! [`run`](crate::run) hands every [`Event`] of [`watch`](crate::watch) to [`Model::handle`] and collects which Services
//! it touched; [`plan`](crate::plan) then reads those Services and nothing else.

pub mod endpoints;
pub mod names;
pub mod objects;
pub mod topology;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

pub use endpoints::Endpoint;
pub use names::{Family, Protocol, ServiceName, SliceName};
pub use objects::{Conditions, Node, Service, ServicePort, Slice, SliceEndpoint, SlicePort};

use crate::watch::Event;

/// What an event changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// These Services, maybe none.
    Services(BTreeSet<ServiceName>),
    /// The node: every Service.
    Everything,
}

/// Services, EndpointSlices and this node's Node.
#[derive(Clone, Debug, Default)]
pub struct Model {
    services: BTreeMap<ServiceName, Service>,
    slices: HashMap<SliceName, Slice>,
    slices_of: HashMap<ServiceName, BTreeSet<SliceName>>,
    node: Node,
    interface_addresses: Vec<IpAddr>,
}

impl Model {
    /// An empty cluster, seen from the node of this name.
    pub fn new(node_name: &str) -> Self {
        Self {
            node: Node {
                name: node_name.to_owned(),
                ..Node::default()
            },
            ..Self::default()
        }
    }

    /// Takes an event in and says what it touched. An event that brings nothing new touches nothing.
    pub fn handle(&mut self, event: Event) -> Touched {
        Touched::Services(match event {
            Event::ServiceApplied(service) => self.put_service(service),
            Event::ServiceDeleted(name) => self.remove_service(&name),
            Event::ServicesReplaced(services) => self.replace_services(services),
            Event::SliceApplied(slice) => self.put_slice(slice),
            Event::SliceDeleted(name) => self.remove_slice(&name),
            Event::SlicesReplaced(slices) => self.replace_slices(slices),
            Event::NodeApplied(node) => return self.put_node(node),
            Event::NodeDeleted => {
                return self.put_node(Node {
                    name: self.node.name.clone(),
                    ..Node::default()
                });
            }
            Event::InterfaceAddresses(addresses) => return self.put_interface_addresses(addresses),
            Event::Synced => BTreeSet::new(),
        })
    }

    /// One Service.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    /// All Services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// This node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The addresses of this node's interfaces; empty until an event brought them.
    pub fn interface_addresses(&self) -> &[IpAddr] {
        &self.interface_addresses
    }

    /// Number of EndpointSlices.
    pub fn slice_count(&self) -> usize {
        self.slices.len()
    }

    /// The endpoints of one port of a Service, merged over its slices, by rising address and port.
    pub fn endpoints(&self, service: &ServiceName, port: (&str, Protocol), family: Family) -> Vec<Endpoint> {
        let names = self.slices_of.get(service).into_iter().flatten();
        let slices = names.filter_map(|name| self.slices.get(name));
        endpoints::merge(slices, port, family, &self.node.name)
    }

    /// How many distinct addresses on this node are ready for a Service, over all its ports: what its
    /// `healthCheckNodePort` answers with.
    pub fn ready_local_endpoints(&self, service: &ServiceName) -> usize {
        let names = self.slices_of.get(service).into_iter().flatten();
        let endpoints = names
            .filter_map(|name| self.slices.get(name))
            .flat_map(|slice| &slice.endpoints);
        let local = endpoints.filter(|e| e.conditions.ready && e.node.as_deref() == Some(&self.node.name));
        local.map(|e| e.address).collect::<BTreeSet<_>>().len()
    }

    fn put_service(&mut self, service: Service) -> BTreeSet<ServiceName> {
        if self.services.get(&service.name) == Some(&service) {
            return BTreeSet::new();
        }
        let name = service.name.clone();
        self.services.insert(name.clone(), service);
        BTreeSet::from([name])
    }

    fn remove_service(&mut self, name: &ServiceName) -> BTreeSet<ServiceName> {
        self.services
            .remove(name)
            .into_iter()
            .map(|service| service.name)
            .collect()
    }

    fn replace_services(&mut self, services: Vec<Service>) -> BTreeSet<ServiceName> {
        let mut old = std::mem::take(&mut self.services);
        let mut touched = BTreeSet::new();
        for service in services {
            if old.remove(&service.name).as_ref() != Some(&service) {
                touched.insert(service.name.clone());
            }
            self.services.insert(service.name.clone(), service);
        }
        touched.extend(old.into_keys());
        touched
    }

    fn put_slice(&mut self, slice: Slice) -> BTreeSet<ServiceName> {
        let old = self.slices.get(&slice.name);
        if old == Some(&slice) {
            return BTreeSet::new();
        }
        let mut touched = BTreeSet::from([slice.service.clone()]);
        if let Some(moved) = old
            .map(|old| old.service.clone())
            .filter(|service| *service != slice.service)
        {
            self.unlink(&moved, &slice.name);
            touched.insert(moved);
        }
        self.slices_of
            .entry(slice.service.clone())
            .or_default()
            .insert(slice.name.clone());
        self.slices.insert(slice.name.clone(), slice);
        touched
    }

    fn remove_slice(&mut self, name: &SliceName) -> BTreeSet<ServiceName> {
        let Some(slice) = self.slices.remove(name) else {
            return BTreeSet::new();
        };
        self.unlink(&slice.service, name);
        BTreeSet::from([slice.service])
    }

    fn unlink(&mut self, service: &ServiceName, slice: &SliceName) {
        if let Some(names) = self.slices_of.get_mut(service) {
            names.remove(slice);
            if names.is_empty() {
                self.slices_of.remove(service);
            }
        }
    }

    fn replace_slices(&mut self, slices: Vec<Slice>) -> BTreeSet<ServiceName> {
        let kept: BTreeSet<_> = slices.iter().map(|slice| slice.name.clone()).collect();
        let gone: Vec<_> = self
            .slices
            .keys()
            .filter(|name| !kept.contains(name))
            .cloned()
            .collect();
        let mut touched = BTreeSet::new();
        for name in gone {
            touched.extend(self.remove_slice(&name));
        }
        for slice in slices {
            touched.extend(self.put_slice(slice));
        }
        touched
    }

    fn put_node(&mut self, node: Node) -> Touched {
        // `terminating` is for the health server alone.
        let same = Node {
            terminating: self.node.terminating,
            ..node.clone()
        } == self.node;
        self.node = node;
        if same {
            Touched::Services(BTreeSet::new())
        } else {
            Touched::Everything
        }
    }

    fn put_interface_addresses(&mut self, addresses: Vec<IpAddr>) -> Touched {
        if self.interface_addresses == addresses {
            return Touched::Services(BTreeSet::new());
        }
        self.interface_addresses = addresses;
        Touched::Everything
    }
}
