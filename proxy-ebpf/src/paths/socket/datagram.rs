//! Unconnected UDP: sendto and recvfrom. A socket keeps one backend per virtual address it talks to, in a slot of its
//! state, and replies show that virtual address. Called by the entry points.
//!
//! ```text
//! sendto 10.96.0.10:53   slot 0: 10.96.0.10:53 -> 10.0.1.5:53, sequence 1
//! sendto 10.96.0.11:53   slot 1: 10.96.0.11:53 -> 10.0.1.6:53, sequence 2
//! recvfrom 10.0.1.5:53   shown as 10.96.0.10:53
//! ```
//!
//! Two virtual addresses may lead to one backend, and a reply doesn't say which of them it is for: another backend is
//! chosen where there is one, and else the address used last wins. Connects take numbers from the same sequence.

use super::route::{Route, Target, choose, count, target};
use super::{Call, Endpoint, Storage};
use crate::abi::{SocketState, UdpSlot};
use crate::maps::Maps;
use crate::verdict::Reason;

/// A process sends a datagram to an address.
#[inline(always)]
#[must_use]
pub fn send<C: Call, S: Storage, M: Maps>(call: &mut C, storage: &mut S, maps: &M) -> Reason {
    let target = match target(call, maps) {
        Ok(target) => target,
        Err(reason) => {
            if let Some(state) = storage.get() {
                forget(state, call.endpoint());
            }
            return reason;
        }
    };
    let mut state = storage.get_or_create();
    if let Some(state) = &mut state
        && let Some(backend) = reuse(state, &target, maps)
    {
        call.rewrite(backend);
        return Reason::SENT;
    }
    let mut route = Route::NONE;
    let mut chosen = choose::<C, M>(maps, &target, &mut route);
    if chosen && state.as_deref().is_some_and(|state| uses(state, route.endpoint)) {
        chosen = choose::<C, M>(maps, &target, &mut route);
    }
    count(maps, &target, chosen);
    if !chosen {
        return route.refused;
    }
    call.rewrite(route.endpoint);
    // Without memory for the state the datagram still goes to a backend; its reply shows the backend's address.
    let Some(state) = state else {
        return Reason::SOCKET_UNCOUNTED;
    };
    record(state, &target, &route)
}

/// The backend the socket had for this virtual address, if it may be used again.
#[inline(always)]
fn reuse<M: Maps>(state: &mut SocketState, target: &Target, maps: &M) -> Option<Endpoint> {
    let sequence = state.next_sequence();
    let slot = state.udp.iter_mut().find(|slot| is_for(slot, target))?;
    if !serves(slot, target, maps) {
        return None;
    }
    slot.sequence = sequence;
    Some(used(slot))
}

/// Remembers a new backend in place of the address's former one, in a free slot, or in the one used longest ago.
///
/// Whether there was a former one is found out here, and not carried from [`reuse`] over the choice: the verifier would
/// follow the choice once for each answer.
#[inline(always)]
fn record(state: &mut SocketState, target: &Target, route: &Route) -> Reason {
    let sequence = state.sequence;
    let former = state.udp.iter_mut().find(|slot| is_for(slot, target));
    match former {
        Some(slot) => {
            fill(slot, target, route, sequence);
            Reason::BACKEND_MOVED
        }
        None => {
            fill(oldest(state, sequence), target, route, sequence);
            Reason::SENT
        }
    }
}

#[inline(always)]
fn is_for(slot: &UdpSlot, target: &Target) -> bool {
    slot.sequence != 0 && named(slot) == target.vip
}

/// Whether a socket has a slot with this backend: then a second choice may find one whose answers can't be mistaken.
#[inline(always)]
fn uses(state: &SocketState, backend: Endpoint) -> bool {
    state.udp.iter().any(|slot| slot.sequence != 0 && used(slot) == backend)
}

/// A process receives a datagram: was the sender chosen for a virtual address?
#[inline(always)]
#[must_use]
pub fn receive<C: Call, S: Storage>(call: &mut C, storage: &mut S) -> Reason {
    let Some(state) = storage.get() else {
        return Reason::SOCKET_NOT_OURS;
    };
    let from = call.endpoint();
    let mut newest = None;
    let mut best = u32::MAX;
    if state.connected_at != 0
        && from
            == (Endpoint {
                addr: state.addr,
                port: state.port,
            })
    {
        best = age(state.sequence, state.connected_at);
        newest = Some(Endpoint {
            addr: state.vip,
            port: state.vport,
        });
    }
    for slot in &state.udp {
        let slot_age = age(state.sequence, slot.sequence);
        if slot.sequence != 0 && slot_age < best && used(slot) == from {
            best = slot_age;
            newest = Some(named(slot));
        }
    }
    let Some(vip) = newest else {
        return Reason::SOCKET_NOT_OURS;
    };
    call.rewrite(vip);
    Reason::REPLIED
}

/// Whether a slot's backend may be used again: alive, the same endpoint, and still of the service that answers there.
#[inline(always)]
fn serves<M: Maps>(slot: &UdpSlot, target: &Target, maps: &M) -> bool {
    slot.service == target.frontend.service
        && maps
            .backend(slot.backend)
            .is_some_and(|backend| backend.state.serves(slot.generation))
}

/// A free slot, or the one used longest ago.
#[inline(always)]
fn oldest(state: &mut SocketState, sequence: u32) -> &mut UdpSlot {
    let [first, rest @ ..] = &mut state.udp;
    let mut oldest = first;
    for slot in rest {
        if oldest.sequence != 0 && (slot.sequence == 0 || age(sequence, slot.sequence) > age(sequence, oldest.sequence))
        {
            oldest = slot;
        }
    }
    oldest
}

#[inline(always)]
fn fill(slot: &mut UdpSlot, target: &Target, route: &Route, sequence: u32) {
    slot.vip = target.vip.addr;
    slot.vport = target.vip.port;
    slot.addr = route.endpoint.addr;
    slot.port = route.endpoint.port;
    slot.service = target.frontend.service;
    slot.backend = route.backend;
    slot.generation = route.generation;
    slot.sequence = sequence;
}

/// The process talks to a backend by its own address: from now on replies from there are what they look like.
#[inline(always)]
fn forget(state: &mut SocketState, endpoint: Endpoint) {
    for slot in &mut state.udp {
        if used(slot) == endpoint {
            slot.sequence = 0;
        }
    }
}

/// How many sends ago, over the wrap of the counter.
#[inline(always)]
fn age(now: u32, sequence: u32) -> u32 {
    now.wrapping_sub(sequence)
}

/// The virtual address of a slot.
#[inline(always)]
fn named(slot: &UdpSlot) -> Endpoint {
    Endpoint {
        addr: slot.vip,
        port: slot.vport,
    }
}

/// The backend's address of a slot.
#[inline(always)]
fn used(slot: &UdpSlot) -> Endpoint {
    Endpoint {
        addr: slot.addr,
        port: slot.port,
    }
}
