//! What becomes of an incoming packet that is not simply the next one of a known flow: steps 3 and 4, and the moments
//! when a flow begins, is confirmed, or loses its backend.
//!
//! Called by `ingress`. Nothing here looks at the packet; it works on its headers and the maps, and ends with the flow to
//! forward the packet by, or the reason not to.

use crate::abi::{BackendId, FlowEntry, FlowKey, Frontend, PROTO_TCP, ServiceId};
use crate::conntrack::Begin;
use crate::lookup::{self, Origin};
use crate::maps::{Flow, Maps, Table};
use crate::parse::{Headers, TcpFlags};
use crate::select::{Request, select};
use crate::steps::Steps;
use crate::verdict::Reason;

/// Why a packet is not forwarded, and for which service (0 is none).
pub(super) struct Unserved {
    pub(super) reason: Reason,
    pub(super) service: ServiceId,
}

impl Unserved {
    #[inline(always)]
    const fn new(reason: Reason, service: ServiceId) -> Self {
        Self { reason, service }
    }

    #[inline(always)]
    const fn stranger(reason: Reason) -> Self {
        Self::new(reason, ServiceId(0))
    }
}

/// Decides, given the packet's flow if there is one in `CONNTRACK`.
#[inline(always)]
pub(super) fn decide<M: Steps>(
    maps: &M,
    headers: &Headers,
    uplink: bool,
    known: Option<M::Flow>,
) -> Result<(M::Flow, Reason), Unserved> {
    let mut fresh = Reason::NEW_FLOW;
    if let Some(flow) = known {
        let entry = flow.read();
        if entry.flags & FlowEntry::REPLY != 0 {
            return Err(Unserved::stranger(Reason::NOT_OURS));
        }
        // Its backend is gone, or it is over and begins anew.
        maps.forget(Table::Conntrack, &headers.key, &flow);
        if is_mid_flow(headers) {
            return Err(Unserved::new(Reason::BACKEND_GONE, entry.service));
        }
        if headers.key.proto != PROTO_TCP {
            fresh = Reason::BACKEND_MOVED;
        }
    }
    let Some(frontend) = lookup::frontend(maps, &headers.key) else {
        return stranger(maps, headers, uplink);
    };
    let tcp_from_outside = uplink && headers.key.proto == PROTO_TCP;
    if tcp_from_outside && let Some(half) = maps.flow(Table::HalfOpen, &headers.key) {
        let entry = half.read();
        if serves(maps, &entry) && !begins_anew(headers, &entry) {
            return half_open(maps, headers, half);
        }
        maps.forget(Table::HalfOpen, &headers.key, &half);
        if is_mid_flow(headers) {
            return Err(Unserved::new(Reason::BACKEND_GONE, frontend.service));
        }
    }
    if is_mid_flow(headers) {
        return recovered(maps, headers, &frontend, uplink);
    }
    let table = if tcp_from_outside {
        Table::HalfOpen
    } else {
        Table::Conntrack
    };
    match admit(maps, &headers.key, &frontend, table, uplink) {
        Reason::NEW_FLOW => written(maps, table, headers, fresh),
        reason => Err(Unserved::new(reason, frontend.service)),
    }
}

/// TCP in mid-flow that is in no table: a flow that lost its forward entry, or one from before our time.
#[inline(always)]
fn recovered<M: Steps>(
    maps: &M,
    headers: &Headers,
    frontend: &Frontend,
    uplink: bool,
) -> Result<(M::Flow, Reason), Unserved> {
    let new = Begin {
        service: frontend.service,
        backend: BackendId(0),
        from_uplink: uplink,
        table: Table::Conntrack,
    };
    match maps.recover(&headers.key, new) {
        Reason::REPAIRED => written(maps, Table::Conntrack, headers, Reason::FORWARDED),
        reason => Err(Unserved::stranger(reason)),
    }
}

/// TCP that doesn't begin a connection.
#[inline(always)]
fn is_mid_flow(headers: &Headers) -> bool {
    headers.key.proto == PROTO_TCP && !headers.tcp.begins()
}

/// Whether a flow's backend still is what it was when the flow began.
#[inline(always)]
pub(super) fn serves<M: Maps>(maps: &M, entry: &FlowEntry) -> bool {
    maps.backend(entry.backend)
        .is_some_and(|backend| backend.state.serves(entry.generation))
}

/// A client uses the ports of a closed connection again.
#[inline(always)]
pub(super) fn begins_anew(headers: &Headers, entry: &FlowEntry) -> bool {
    headers.tcp.begins() && entry.flags & FlowEntry::CLOSED != 0
}

/// The entry that was just written, by this CPU or another.
#[inline(always)]
fn written<M: Maps>(maps: &M, table: Table, headers: &Headers, reason: Reason) -> Result<(M::Flow, Reason), Unserved> {
    match maps.flow(table, &headers.key) {
        Some(flow) => Ok((flow, reason)),
        None => Err(Unserved::stranger(Reason::FLOW_TABLE)),
    }
}

/// A packet to no frontend: the answer to a half-open connection, a port nobody serves on an address of a Service, or
/// none of our business.
#[inline(always)]
fn stranger<M: Steps>(maps: &M, headers: &Headers, uplink: bool) -> Result<(M::Flow, Reason), Unserved> {
    if uplink
        && headers.tcp.answers()
        && let Some(half) = maps.flow(Table::HalfOpen, &headers.key)
    {
        if half.read().flags & FlowEntry::SNAT == 0 {
            return Err(Unserved::stranger(Reason::NOT_OURS));
        }
        if headers.tcp.any(TcpFlags::RST) {
            maps.abandon(&half);
        }
        return Ok((half, Reason::REPLIED));
    }
    let owned = maps.owned(&headers.key.dst);
    Err(Unserved::stranger(if owned {
        Reason::UNKNOWN_PORT
    } else {
        Reason::NOT_OURS
    }))
}

/// The client of a half-open connection: its SYN once more, its RST, or the packet that confirms the connection.
#[inline(always)]
fn half_open<M: Steps>(maps: &M, headers: &Headers, half: M::Flow) -> Result<(M::Flow, Reason), Unserved> {
    if headers.tcp.any(TcpFlags::RST) {
        maps.abandon(&half);
    } else if headers.tcp.begins() {
        half.touch(maps.now());
    } else {
        return match maps.promote(&headers.key, &half) {
            Reason::FORWARDED => written(maps, Table::Conntrack, headers, Reason::FORWARDED),
            reason => Err(Unserved::stranger(reason)),
        };
    }
    Ok((half, Reason::FORWARDED))
}

/// The first packet of a flow: chooses a backend and writes the flow down.
#[inline(always)]
fn admit<M: Steps>(maps: &M, key: &FlowKey, frontend: &Frontend, table: Table, uplink: bool) -> Reason {
    let mut backend = BackendId(0);
    match maps.choose(key, frontend, uplink, &mut backend) {
        Reason::NEW_FLOW => {}
        reason => return reason,
    }
    let new = Begin {
        service: frontend.service,
        backend,
        from_uplink: uplink,
        table,
    };
    maps.begin(key, new)
}

/// Leaves the backend for a new flow in `backend`; returns [`Reason::NEW_FLOW`], or why there is none.
#[inline(always)]
pub fn choose<M: Maps>(maps: &M, key: &FlowKey, frontend: &Frontend, uplink: bool, backend: &mut BackendId) -> Reason {
    let origin = if uplink { Origin::External } else { Origin::Internal };
    let found = lookup::service(maps, frontend.service)
        .and_then(|service| lookup::run(&service, frontend, origin).map(|run| (service, run)));
    let (service, run) = match found {
        Ok(found) => found,
        Err(reason) => return reason,
    };
    *backend = select(
        maps,
        &Request {
            id: frontend.service,
            service,
            run,
            tuple: *key,
        },
    );
    if *backend == BackendId(0) {
        Reason::NO_ENDPOINTS
    } else {
        Reason::NEW_FLOW
    }
}
