//! A tracked flow: two entries of `CONNTRACK` (or `HALF_OPEN`), one per direction.
//!
//! The key is the packet as it arrives, the value holds what the packet becomes. So each entry knows both tuples of the
//! flow, and either can rebuild the other:
//!
//! ```text
//! forward  key client:40000 -> 10.96.0.10:80     translated client:40000 -> 10.0.1.5:8080
//! reply    key 10.0.1.5:8080 -> client:40000     translated 10.96.0.10:80 -> client:40000
//! reply.key = forward.translated reversed, forward.key = reply.translated reversed
//! ```

use super::{Addr, BackendId, ServiceId, shared};
use crate::wire::Be16;

/// IANA protocol number of TCP.
pub const PROTO_TCP: u8 = 6;
/// IANA protocol number of UDP.
pub const PROTO_UDP: u8 = 17;
/// IANA protocol number of ICMP.
pub const PROTO_ICMP: u8 = 1;
/// IANA protocol number of ICMPv6.
pub const PROTO_ICMPV6: u8 = 58;

/// Key of `CONNTRACK` and `HALF_OPEN`: the tuple of a packet.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, PartialOrd, Ord, bytemuck::Pod, bytemuck::Zeroable)
)]
pub struct FlowKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// IANA protocol number.
    pub proto: u8,
    /// Always 0.
    pub pad: [u8; 3],
}

impl FlowKey {
    /// The tuple of a packet in the other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            proto: self.proto,
            pad: [0; 3],
        }
    }

    /// Whether the two are equal, by few comparisons: the verifier follows both ways of each.
    #[inline(always)]
    #[must_use]
    pub const fn same(&self, other: &Self) -> bool {
        let ports = (self.sport.raw() ^ other.sport.raw()) | (self.dport.raw() ^ other.dport.raw());
        let differs = ports | (self.proto ^ other.proto) as u16;
        self.src.same(&other.src) & self.dst.same(&other.dst) & (differs == 0)
    }

    /// Becomes `other` reversed, in place: the programs have little stack.
    #[inline(always)]
    pub const fn reverse_of(&mut self, other: &Self) {
        self.src = other.dst;
        self.dst = other.src;
        self.sport = other.dport;
        self.dport = other.sport;
        self.proto = other.proto;
    }
}

/// Value of `CONNTRACK` and `HALF_OPEN`.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, bytemuck::Pod, bytemuck::Zeroable))]
pub struct FlowEntry {
    /// The tuple the packet leaves with.
    pub translated: FlowKey,
    /// `CLOCK_MONOTONIC` (coarse) of the last packet in nanoseconds, refreshed at most once a second.
    pub last_seen: u64,
    /// The backend of the flow.
    pub backend: BackendId,
    /// The backend's generation when the flow began.
    pub generation: u32,
    /// The service of the flow.
    pub service: ServiceId,
    /// 1 while this entry holds a count in `BACKEND_LOADS`; whoever exchanges it for 0 counts the flow out. Only
    /// forward entries count.
    pub counted: u32,
    /// Bits of the flag constants of this type.
    pub flags: u32,
    /// Always 0.
    pub pad: u32,
}

impl FlowEntry {
    /// This is the reply's entry.
    pub const REPLY: u32 = 1;
    /// The source address was changed too: both directions are sent out by the program, past the stack.
    pub const SNAT: u32 = 1 << 1;
    /// The client is the backend; translated packets go back out of the device they came by.
    pub const HAIRPIN: u32 = 1 << 2;
    /// A packet of the other direction was seen: UDP gets the longer timeout, TCP is established.
    pub const REPLIED: u32 = 1 << 3;
    /// The client sent FIN.
    pub const FIN_CLIENT: u32 = 1 << 4;
    /// The backend sent FIN.
    pub const FIN_BACKEND: u32 = 1 << 5;
    /// Either side sent RST, or both FINs were seen: a SYN with this tuple begins a new flow.
    pub const CLOSED: u32 = 1 << 6;
    /// Came in by an uplink (else from a Pod of this node).
    pub const FROM_UPLINK: u32 = 1 << 7;
}

shared!(FlowKey, 40);
shared!(FlowEntry, 72);
