//! What the programs must know of their node.

use super::{Addr, shared};

/// The one value of `NODE_CONFIG`, written by the agent at start and when the Node changes.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, bytemuck::Pod, bytemuck::Zeroable))]
pub struct NodeConfig {
    /// Source of masqueraded IPv4 packets: the node's address.
    pub snat_v4: Addr,
    /// Source of masqueraded IPv6 packets: the node's address.
    pub snat_v6: Addr,
    /// Source a Pod sees when it reaches itself through a Service, IPv4.
    pub hairpin_v4: Addr,
    /// The same for IPv6.
    pub hairpin_v6: Addr,
    /// Cookie of the namespace the agent runs in: whose sockets may use 127.0.0.1 node ports.
    pub host_netns_cookie: u64,
    /// First source port that masquerading may use.
    pub snat_port_min: u16,
    /// Last source port that masquerading may use.
    pub snat_port_max: u16,
    /// Always 0.
    pub pad: u32,
}

shared!(NodeConfig, 80);
