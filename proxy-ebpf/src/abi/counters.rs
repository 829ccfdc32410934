//! What the programs count, per CPU.

use super::shared;

/// Value of `REASON_COUNTERS`, by [`Reason`](crate::verdict::Reason), one per CPU.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, bytemuck::Pod, bytemuck::Zeroable))]
pub struct ReasonCounters {
    /// Packets (or socket calls) that ended with the reason.
    pub packets: u64,
}

/// Value of `SERVICE_COUNTERS`, by service id, one per CPU.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, bytemuck::Pod, bytemuck::Zeroable))]
pub struct ServiceCounters {
    /// New flows and, on the socket path, connects.
    pub connections: u64,
    /// Packets of either direction translated on the packet path.
    pub packets: u64,
    /// Bytes of those packets, from the IP header on.
    pub bytes: u64,
    /// Packets and connects rejected or dropped.
    pub refused: u64,
}

shared!(ReasonCounters, 8);
shared!(ServiceCounters, 32);
