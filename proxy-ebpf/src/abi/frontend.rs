//! What a client connects to: an address, a port and a protocol of a Service.

use super::{Addr, ServiceId, shared};
use crate::wire::Be16;

/// Key of `FRONTENDS`.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, PartialOrd, Ord, bytemuck::Pod, bytemuck::Zeroable)
)]
pub struct FrontendKey {
    /// ClusterIP, node address, load-balancer or external IP.
    pub addr: Addr,
    /// Service port or node port.
    pub port: Be16,
    /// IANA protocol number.
    pub proto: u8,
    /// Always 0.
    pub pad: u8,
}

/// Value of `FRONTENDS`: which service answers, and as what.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, Hash, bytemuck::Pod, bytemuck::Zeroable))]
pub struct Frontend {
    /// The service behind it.
    pub service: ServiceId,
    /// One of the kind constants of this type.
    pub kind: u8,
    /// Bits of the flag constants of this type.
    pub flags: u8,
    /// Always 0.
    pub pad: u16,
}

impl Frontend {
    /// `spec.clusterIP`.
    pub const CLUSTER_IP: u8 = 1;
    /// A node address with `spec.ports[].nodePort`.
    pub const NODE_PORT: u8 = 2;
    /// `status.loadBalancer.ingress[].ip`.
    pub const LOAD_BALANCER: u8 = 3;
    /// `spec.externalIPs[]`.
    pub const EXTERNAL_IP: u8 = 4;

    /// Clients outside the cluster use the local run (`externalTrafficPolicy: Local`).
    pub const EXTERNAL_LOCAL: u8 = 1;
    /// Pods and the node itself use the local run (`internalTrafficPolicy: Local`).
    pub const INTERNAL_LOCAL: u8 = 2;
    /// Only sockets of the host's network namespace may use it (127.0.0.1 and ::1 node ports).
    pub const HOST_ONLY: u8 = 4;
}

shared!(FrontendKey, 20);
shared!(Frontend, 8);
