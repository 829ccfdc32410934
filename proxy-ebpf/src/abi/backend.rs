//! A backend: one endpoint address and port, its state, and how many flows it has open.

use super::{Addr, shared};
use crate::wire::Be16;

/// A backend's state (low 8 bits) and the generation of its id (high 24 bits) in one word, so that both are read and
/// written at once. A flow remembers the generation it began with: an id given to another endpoint is noticed.
#[repr(transparent)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, Hash, bytemuck::Pod, bytemuck::Zeroable))]
pub struct StateGeneration(pub u32);

impl StateGeneration {
    /// No such backend, or gone: flows to it are answered with a reset or moved.
    pub const DEAD: u8 = 0;
    /// Takes new flows.
    pub const ACTIVE: u8 = 1;
    /// Terminating: keeps its flows, takes new ones only if nothing else is left.
    pub const DRAINING: u8 = 2;

    /// The word for a state and a generation (24 bits).
    #[inline(always)]
    pub const fn new(state: u8, generation: u32) -> Self {
        Self(generation << 8 | state as u32)
    }

    /// One of the state constants.
    #[inline(always)]
    pub const fn state(self) -> u8 {
        self.0 as u8
    }

    /// The generation, 24 bits.
    #[inline(always)]
    pub const fn generation(self) -> u32 {
        self.0 >> 8
    }

    /// Whether a flow that began with `generation` may still go to this backend.
    #[inline(always)]
    pub const fn serves(self, generation: u32) -> bool {
        self.state() != Self::DEAD && self.generation() == generation
    }
}

/// Value of `BACKENDS`, by [`BackendId`](super::BackendId).
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, Hash, bytemuck::Pod, bytemuck::Zeroable))]
pub struct Backend {
    /// The endpoint's address.
    pub addr: Addr,
    /// The endpoint's port.
    pub port: Be16,
    /// Bits of the flag constants of this type.
    pub flags: u16,
    /// State and generation.
    pub state: StateGeneration,
}

impl Backend {
    /// The endpoint is on this node: packets to it are passed up, not sent out again.
    pub const LOCAL: u16 = 1;
}

/// Value of `BACKEND_LOADS`: written by the programs only, with atomics. Open flows are
/// `opened - closed - `[`BackendExpired::flows`].
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, bytemuck::Pod, bytemuck::Zeroable))]
pub struct BackendLoad {
    /// Flows counted in since the map was made.
    pub opened: u64,
    /// Flows counted out by the programs.
    pub closed: u64,
}

impl BackendLoad {
    /// How many flows are open: never negative, though the parts are read one after the other.
    #[inline(always)]
    #[must_use]
    pub const fn open_flows(&self, expired: BackendExpired) -> u64 {
        let open = self.opened.wrapping_sub(self.closed).wrapping_sub(expired.flows);
        if open >> 63 == 0 { open } else { 0 }
    }
}

/// Value of `BACKEND_EXPIRED`: written by the agent only; flows that ended by timeout, by a recount, or with an earlier
/// owner of the id.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, bytemuck::Pod, bytemuck::Zeroable))]
pub struct BackendExpired {
    /// Flows counted out by the agent, modulo 2^64 (a recount may also have to take some back).
    pub flows: u64,
}

shared!(StateGeneration, 4);
shared!(Backend, 24);
shared!(BackendLoad, 16);
shared!(BackendExpired, 8);
