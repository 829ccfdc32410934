//! What one Service should look like in the maps of this node, in terms of addresses rather than ids.
//!
//! A plain function of the [`model`](crate::model), called by [`super`] for a touched Service; [`super`] then finds ids
//! and slots for the result.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use proxy_ebpf::{
    abi::{Addr, Algorithm, Frontend, FrontendKey, Service as ServiceEntry},
    wire::Be16,
};

use super::backends::{BackendKey, Health, Member};
use crate::{
    config::NodePortAddresses,
    model::{Endpoint, Family, Model, Protocol, Service, ServiceName, ServicePort, topology},
};

/// What flags decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Algorithm of Services that name none.
    pub algorithm: Algorithm,
    /// Masquerade everything from outside.
    pub masquerade_all: bool,
    /// Addresses that answer on node ports.
    pub node_port_addresses: NodePortAddresses,
}

/// One port of a Service in one family: what has a service id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// The Service.
    pub service: ServiceName,
    /// Name of the port.
    pub port: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Family of addresses and endpoints.
    pub family: Family,
}

/// One port as it should be.
#[derive(Clone, Debug)]
pub(super) struct DesiredPort {
    pub(super) key: Arc<PortKey>,
    pub(super) settings: Settings,
    /// Frontends with their kind and flags, the ClusterIP first; each key once.
    pub(super) frontends: Vec<(FrontendKey, u8, u8)>,
    /// Addresses of the Service alone.
    pub(super) owned: Vec<Addr>,
    /// Endpoints of the Cluster policies, rising.
    pub(super) all: Vec<BackendKey>,
    /// Endpoints of the Local policies, rising; empty if no frontend has one.
    pub(super) local: Vec<BackendKey>,
    /// Every endpoint that may have flows, chosen or not.
    pub(super) members: BTreeMap<BackendKey, Member>,
}

/// The part of a `SERVICES` entry that doesn't depend on ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) algorithm: Algorithm,
    pub(super) affinity_secs: u32,
    pub(super) flags: u8,
}

/// Every port of a Service, by key.
pub(super) fn ports(service: &Service, model: &Model, policy: &Policy) -> Vec<DesiredPort> {
    let mut ports = BTreeMap::new();
    for family in Family::ALL {
        // As in kube-proxy, a Service exists in the families it has a ClusterIP of.
        let Some(cluster_ip) = service.cluster_ips.iter().copied().find(|ip| Family::of(*ip) == family) else {
            continue;
        };
        for port in &service.ports {
            let key = PortKey {
                service: service.name.clone(),
                port: port.name.clone(),
                protocol: port.protocol,
                family,
            };
            ports.entry(key).or_insert((cluster_ip, port));
        }
    }
    let build = |(key, (cluster_ip, port))| desired(Arc::new(key), cluster_ip, port, service, model, policy);
    ports.into_iter().map(build).collect()
}

fn desired(
    key: Arc<PortKey>,
    cluster_ip: IpAddr,
    port: &ServicePort,
    service: &Service,
    model: &Model,
    policy: &Policy,
) -> DesiredPort {
    let endpoints = model.endpoints(&service.name, (&port.name, port.protocol), key.family);
    let choice = topology::choose(&endpoints, model.node());
    let keys = |chosen: &[&Endpoint]| chosen.iter().map(|e| backend_key(e, port.protocol)).collect();
    let wants_local = service.internal_local || service.external_local;
    DesiredPort {
        frontends: frontends(key.family, cluster_ip, port, service, model, policy),
        owned: vec![Addr::from(cluster_ip)],
        settings: Settings {
            algorithm: service.algorithm.unwrap_or(policy.algorithm),
            affinity_secs: service.affinity_secs,
            flags: if policy.masquerade_all {
                ServiceEntry::MASQUERADE
            } else {
                0
            },
        },
        all: keys(&choice.all),
        local: if wants_local { keys(&choice.local) } else { Vec::new() },
        members: members(&endpoints, port.protocol, model),
        key,
    }
}

fn backend_key(endpoint: &Endpoint, protocol: Protocol) -> BackendKey {
    BackendKey {
        addr: Addr::from(endpoint.address),
        port: endpoint.port,
        protocol,
    }
}

/// An endpoint that is not ready keeps its TCP flows for as long as a slice lists it; UDP goes elsewhere as soon as the
/// endpoint doesn't serve, as kube-proxy has it when it clears stale entries of the kernel's table.
fn members(endpoints: &[Endpoint], protocol: Protocol, model: &Model) -> BTreeMap<BackendKey, Member> {
    let mut members = BTreeMap::new();
    for endpoint in endpoints {
        let health = match (endpoint.conditions.ready, endpoint.conditions.serving, protocol) {
            (true, _, _) => Health::Active,
            (_, true, _) | (_, _, Protocol::Tcp | Protocol::Sctp) => Health::Draining,
            (_, _, Protocol::Udp) => continue,
        };
        let address = endpoint.address;
        let local = endpoint.local || own_addresses(model).any(|own| own == address);
        members.insert(backend_key(endpoint, protocol), Member { health, local });
    }
    members
}

fn own_addresses(model: &Model) -> impl Iterator<Item = IpAddr> {
    model
        .node()
        .addresses
        .iter()
        .chain(model.interface_addresses())
        .copied()
}

/// Kubernetes' policies: what comes to a ClusterIP goes by the internal policy, wherever it comes from; what comes to
/// the others from outside goes by the external policy, while Pods and the node itself may use all endpoints.
fn frontends(
    family: Family,
    cluster_ip: IpAddr,
    port: &ServicePort,
    service: &Service,
    model: &Model,
    policy: &Policy,
) -> Vec<(FrontendKey, u8, u8)> {
    let internal = if service.internal_local {
        Frontend::INTERNAL_LOCAL | Frontend::EXTERNAL_LOCAL
    } else {
        0
    };
    let external = if service.external_local {
        Frontend::EXTERNAL_LOCAL
    } else {
        0
    };
    let mut list = vec![(cluster_ip, port.port, Frontend::CLUSTER_IP, internal)];
    if let Some(node_port) = port.node_port {
        let addresses = node_port_addresses(model, policy);
        list.extend(addresses.map(|address| (address, node_port, Frontend::NODE_PORT, external)));
        list.push((loopback(family), node_port, Frontend::NODE_PORT, Frontend::HOST_ONLY));
    }
    let balanced = service.load_balancer_ips.iter();
    list.extend(balanced.map(|address| (*address, port.port, Frontend::LOAD_BALANCER, external)));
    let external_ips = service.external_ips.iter();
    list.extend(external_ips.map(|address| (*address, port.port, Frontend::EXTERNAL_IP, external)));

    let mut seen = BTreeSet::new();
    let proto = port.protocol.number();
    let of_family = list.into_iter().filter(|(address, ..)| Family::of(*address) == family);
    let keyed = of_family.map(|(address, port, kind, flags)| {
        (
            FrontendKey {
                addr: Addr::from(address),
                port: Be16::new(port),
                proto,
                pad: 0,
            },
            kind,
            flags,
        )
    });
    keyed.filter(|(key, ..)| seen.insert(*key)).collect()
}

fn node_port_addresses<'a>(model: &'a Model, policy: &'a Policy) -> impl Iterator<Item = IpAddr> + 'a {
    let primary = match policy.node_port_addresses {
        NodePortAddresses::Primary => model.node().primary(),
        NodePortAddresses::Ranges(_) => Vec::new(),
    };
    let in_ranges = model
        .interface_addresses()
        .iter()
        .copied()
        .filter(|address| match &policy.node_port_addresses {
            NodePortAddresses::Primary => false,
            NodePortAddresses::Ranges(ranges) => !address.is_loopback() && ranges.iter().any(|r| r.contains(*address)),
        });
    primary.into_iter().chain(in_ranges)
}

const fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Family::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    }
}
