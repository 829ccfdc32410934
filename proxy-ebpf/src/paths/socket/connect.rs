//! connect and getpeername: a socket, TCP or UDP, is connected to the backend, and shows its process the virtual
//! address. Called by the entry points; `close` ends what begins here.

use super::close::disconnect;
use super::route::{Route, Target, choose, count, target};
use super::{Call, Endpoint, Storage};
use crate::abi::SocketState;
use crate::maps::Maps;
use crate::verdict::Reason;

/// A process connects a socket.
///
/// A socket can connect more than once (UDP at will, TCP after a failure): whatever it held before is given back first,
/// so that least connections doesn't see it twice. Without memory for the state the socket is connected uncounted and
/// shows the backend's address as its peer, which is better than no connection.
#[inline(always)]
#[must_use]
pub fn connect<C: Call, S: Storage, M: Maps>(call: &mut C, storage: &mut S, maps: &M) -> Reason {
    let target = match target(call, maps) {
        Ok(target) => target,
        Err(reason) => {
            if let Some(state) = storage.get() {
                disconnect::<S, M>(state, maps);
            }
            return reason;
        }
    };
    let mut state = storage.get_or_create();
    if let Some(state) = &mut state {
        disconnect::<S, M>(state, maps);
    }
    let mut route = Route::NONE;
    let chosen = choose::<C, M>(maps, &target, &mut route);
    count(maps, &target, chosen);
    if !chosen {
        return route.refused;
    }
    call.rewrite(route.endpoint);
    let Some(state) = state else {
        return Reason::SOCKET_UNCOUNTED;
    };
    record::<S, M>(state, &target, &route, maps);
    Reason::CONNECTED
}

/// Remembers the pair of addresses, and counts the socket in.
#[inline(always)]
fn record<S: Storage, M: Maps>(state: &mut SocketState, target: &Target, route: &Route, maps: &M) {
    state.vip = target.vip.addr;
    state.vport = target.vip.port;
    state.addr = route.endpoint.addr;
    state.port = route.endpoint.port;
    state.service = target.frontend.service;
    state.backend = route.backend;
    state.generation = route.generation;
    state.proto = u32::from(target.proto);
    state.connected_at = state.next_sequence();
    maps.flow_opened(route.backend);
    S::exchange_counted(state, 1);
}

/// A process asks who its socket is connected to.
#[inline(always)]
#[must_use]
pub fn peer<C: Call, S: Storage>(call: &mut C, storage: &mut S) -> Reason {
    let Some(state) = storage.get() else {
        return Reason::SOCKET_NOT_OURS;
    };
    if state.connected_at == 0
        || call.endpoint()
            != (Endpoint {
                addr: state.addr,
                port: state.port,
            })
    {
        return Reason::SOCKET_NOT_OURS;
    }
    call.rewrite(Endpoint {
        addr: state.vip,
        port: state.vport,
    });
    Reason::CONNECTED
}
