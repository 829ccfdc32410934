//! The long steps that need maps only, as calls a program makes: [`Steps`].
//!
//! Where they are ordinary functions, the kernel's verifier walks through each of them again for every state it is called
//! in, hundreds of thousands of instructions in all. The programs override these methods by functions with global linkage,
//! which are checked once for all states. So everything they are given is a number or points to plain data.

use crate::abi::{BackendId, FlowKey, Frontend};
use crate::conntrack::{self, Begin};
use crate::maps::{Maps, Table};
use crate::parse::TcpFlags;
use crate::paths::choose;
use crate::verdict::Reason;

/// The steps; by default each is what its name says in [`conntrack`] and [`choose`].
pub trait Steps: Maps + Sized {
    /// [`choose`].
    #[inline(always)]
    fn choose(&self, key: &FlowKey, frontend: &Frontend, uplink: bool, backend: &mut BackendId) -> Reason {
        choose(self, key, frontend, uplink, backend)
    }

    /// [`conntrack::begin`].
    #[inline(always)]
    fn begin(&self, key: &FlowKey, new: Begin) -> Reason {
        conntrack::begin(self, key, &new)
    }

    /// [`conntrack::recover`].
    #[inline(always)]
    fn recover(&self, key: &FlowKey, new: Begin) -> Reason {
        conntrack::recover(self, key, &new)
    }

    /// [`conntrack::settle`].
    #[inline(always)]
    fn settle(&self, flow: &Self::Flow, key: &FlowKey, tcp: TcpFlags) {
        conntrack::settle(self, flow, key, tcp);
    }

    /// [`conntrack::promote`].
    #[inline(always)]
    fn promote(&self, key: &FlowKey, half: &Self::Flow) -> Reason {
        conntrack::promote(self, key, half)
    }

    /// [`conntrack::forget`].
    #[inline(always)]
    fn forget(&self, table: Table, key: &FlowKey, flow: &Self::Flow) {
        conntrack::forget(self, table, key, flow);
    }

    /// [`conntrack::abandon`].
    #[inline(always)]
    fn abandon(&self, flow: &Self::Flow) {
        conntrack::abandon(self, flow);
    }
}
