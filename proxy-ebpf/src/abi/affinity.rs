//! `sessionAffinity: ClientIP`: which backend a client address had, and when it was last used.

use super::{Addr, BackendId, ServiceId, shared};

/// Key of `AFFINITY`.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(Debug, PartialOrd, Ord, bytemuck::Pod, bytemuck::Zeroable)
)]
pub struct AffinityKey {
    /// The client; the port plays no part.
    pub client: Addr,
    /// The service port.
    pub service: ServiceId,
}

/// Value of `AFFINITY`.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, bytemuck::Pod, bytemuck::Zeroable))]
pub struct Affinity {
    /// `CLOCK_MONOTONIC` (coarse) of the last new flow, in nanoseconds.
    pub last_used: u64,
    /// The backend the client had.
    pub backend: BackendId,
    /// Its generation then.
    pub generation: u32,
}

shared!(AffinityKey, 20);
shared!(Affinity, 16);
