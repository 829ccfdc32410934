//! What the agent keeps of each object: parsed by [`watch`](crate::watch) once, held by [`Model`](super::Model), read by
//! [`plan`](crate::plan).

use std::net::IpAddr;

use proxy_ebpf::abi::Algorithm;

use super::names::{Family, Protocol, ServiceName, SliceName};

/// A Service that has virtual addresses. Headless ones and `ExternalName` don't become one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its uid, for the Events about it.
    pub uid: String,
    /// When it was made, in seconds since 1970: of two Services that claim one address and port, the older has it.
    pub created: i64,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.clusterIPs`.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer.ingress[].ip` with `ipMode: VIP`.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// `sessionAffinity: ClientIP` with this timeout in seconds; 0 is none.
    pub affinity_secs: u32,
    /// The annotation `waggle.dev/algorithm`, if it names one.
    pub algorithm: Option<Algorithm>,
    /// `spec.healthCheckNodePort`.
    pub health_port: Option<u16>,
    /// What in the object is not understood, and what is done instead.
    pub warnings: Vec<String>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, which EndpointSlices repeat; empty if it is the only one.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// The port on ClusterIPs, load-balancer and external IPs.
    pub port: u16,
    /// The port on nodes' addresses.
    pub node_port: Option<u16>,
}

/// An EndpointSlice of IP addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub name: SliceName,
    /// The Service it belongs to, by its label.
    pub service: ServiceName,
    /// The family of its addresses.
    pub family: Family,
    /// Its ports; each endpoint has all of them.
    pub ports: Vec<SlicePort>,
    /// Its endpoints.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One port of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service's port it is for.
    pub name: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where endpoints listen.
    pub port: u16,
}

/// One endpoint of an EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its first address, the only one that counts.
    pub address: IpAddr,
    /// How it is.
    pub conditions: Conditions,
    /// The node it is on, if known.
    pub node: Option<String>,
    /// Zones it is meant for.
    pub zone_hints: Vec<String>,
    /// Nodes it is meant for.
    pub node_hints: Vec<String>,
}

/// `endpoints[].conditions`, with Kubernetes' defaults filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conditions {
    /// Takes new flows.
    pub ready: bool,
    /// Answers.
    pub serving: bool,
    /// Is being deleted.
    pub terminating: bool,
}

/// This node's Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its label `topology.kubernetes.io/zone`.
    pub zone: Option<String>,
    /// The addresses of `status.addresses`, those of type `InternalIP` first, in the object's order.
    pub addresses: Vec<IpAddr>,
    /// Whether it is being deleted, or tainted by an autoscaler that is about to delete it (KEP-3836).
    pub terminating: bool,
}

impl Node {
    /// The first IPv4 address.
    pub fn primary_v4(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv4)
    }

    /// The first IPv6 address.
    pub fn primary_v6(&self) -> Option<IpAddr> {
        self.addresses.iter().copied().find(IpAddr::is_ipv6)
    }

    /// The first address of each family.
    pub fn primary(&self) -> Vec<IpAddr> {
        self.primary_v4().into_iter().chain(self.primary_v6()).collect()
    }
}
