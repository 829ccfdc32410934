//! Identifiers the agent hands out: 32 bits, stable over restarts, distinct types so that they can't be mixed up.

use super::shared;

/// Index into `SERVICES`, `CURSORS` and `SERVICE_COUNTERS`. 0 is never given out.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct ServiceId(pub u32);

/// Index into `BACKENDS`, `BACKEND_LOADS` and `BACKEND_EXPIRED`. 0 is never given out: a slot that holds it is empty.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(not(target_arch = "bpf"), derive(bytemuck::Pod, bytemuck::Zeroable))]
pub struct BackendId(pub u32);

shared!(ServiceId, 4);
shared!(BackendId, 4);
