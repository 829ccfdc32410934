//! The end of a connected socket: counted out of its backend's load exactly once.
//!
//! TCP sockets are counted out when they reach CLOSE, UDP sockets and connects that failed early when the socket is
//! released. Neither hook sees everything: an MPTCP connection counts on its subflow, which is never released by a
//! process, and UDP has no states. Both run for most TCP sockets; the exchanged flag makes the second a no-op.
//! Called by the entry points, and by `connect` before a socket goes elsewhere.

use super::Storage;
use crate::abi::SocketState;
use crate::maps::Maps;

/// A socket was closed or released.
#[inline(always)]
pub fn close<S: Storage, M: Maps>(storage: &mut S, maps: &M) {
    if let Some(state) = storage.get() {
        count_out::<S, M>(state, maps);
    }
}

/// A socket is about to be connected elsewhere.
#[inline(always)]
pub(super) fn disconnect<S: Storage, M: Maps>(state: &mut SocketState, maps: &M) {
    count_out::<S, M>(state, maps);
    state.connected_at = 0;
}

/// An id that went to another endpoint was counted out by the agent when it did, with all its sockets; counting it here
/// again would take a flow from the new owner.
#[inline(always)]
fn count_out<S: Storage, M: Maps>(state: &mut SocketState, maps: &M) {
    if S::exchange_counted(state, 0) != 1 {
        return;
    }
    let same_owner = |generation| generation == state.generation;
    if maps
        .backend(state.backend)
        .is_some_and(|backend| same_owner(backend.state.generation()))
    {
        maps.flow_closed(state.backend);
    }
}
