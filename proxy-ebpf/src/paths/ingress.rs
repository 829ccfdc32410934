//! Packets that come in: from outside by an uplink (XDP, and TC behind it), or from a Pod by its host-side device (TC).
//!
//! Called by the entry points `xdp_uplink`, `tc_uplink_ingress` and `tc_pod_ingress`. This is the walk of the crate's
//! documentation; read it from [`ingress`] down.

use crate::abi::{FlowEntry, ServiceCounters, ServiceId};
use crate::conntrack::observe;
use crate::family::{Family, V4, V6};
use crate::forward::forward;
use crate::maps::{Flow, Table};
use crate::packet::Packet;
use crate::parse::{Headers, parse};
use crate::paths::decide::{Unserved, begins_anew, decide, serves};
use crate::reject::reject;
use crate::steps::Steps;
use crate::verdict::{Reason, Verdict};
use crate::wire::Be16;

/// EtherType of IPv4.
pub(super) const IPV4: Be16 = Be16::new(0x0800);
/// EtherType of IPv6.
pub(super) const IPV6: Be16 = Be16::new(0x86dd);

/// Which door a packet uses.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug))]
pub enum Side {
    /// A device that leads out of the node.
    Uplink,
    /// A Pod's device in the host's namespace.
    Pod,
}

/// A packet comes in by one side.
#[inline(always)]
pub fn ingress<P: Packet, M: Steps>(packet: &mut P, maps: &M, side: Side) -> Verdict {
    let verdict = match packet.ethertype() {
        Some(IPV4) => walk::<V4, P, M>(packet, maps, side),
        Some(IPV6) => walk::<V6, P, M>(packet, maps, side),
        Some(_) => Verdict::pass(Reason::NOT_BALANCED),
        None => Verdict::pass(Reason::MALFORMED),
    };
    maps.count_reason(verdict.reason());
    verdict
}

/// A function of its own for each family: together they would need more stack than the kernel has.
#[inline(never)]
fn walk<F: Family, P: Packet, M: Steps>(packet: &mut P, maps: &M, side: Side) -> Verdict {
    let mut headers = Headers::default();
    if let Err(reason) = parse::<F, P>(packet, &mut headers) {
        return Verdict::pass(reason);
    }
    let flow = maps.flow(Table::Conntrack, &headers.key);
    let quick = flow
        .clone()
        .and_then(|flow| known(maps, side, &headers, &flow).map(|reason| (flow, reason)));
    let decided = match quick {
        Some(quick) => Ok(quick),
        None => decide(maps, &headers, side == Side::Uplink, flow),
    };
    match decided {
        Ok((flow, reason)) => send::<F, P, M>(packet, maps, &headers, &flow, reason),
        Err(unserved) => end::<F, P, M>(packet, maps, &headers, &unserved),
    }
}

/// What to say of a packet of a known flow that needs nothing but its entry; else `None`.
#[inline(always)]
fn known<M: Steps>(maps: &M, side: Side, headers: &Headers, flow: &M::Flow) -> Option<Reason> {
    let entry = flow.read();
    let reply = entry.flags & FlowEntry::REPLY != 0;
    let ours = if reply {
        turned_back_here(side, &entry)
    } else {
        serves(maps, &entry) && !begins_anew(headers, &entry)
    };
    if !ours {
        return None;
    }
    observe(maps, flow, &headers.key, headers.tcp);
    Some(if reply { Reason::REPLIED } else { Reason::FORWARDED })
}

/// Replies that come in are turned back here only if they went out past the stack, too; the rest is turned back on
/// egress, behind the stack.
#[inline(always)]
fn turned_back_here(side: Side, entry: &FlowEntry) -> bool {
    let here = match side {
        Side::Uplink => FlowEntry::SNAT,
        Side::Pod => FlowEntry::HAIRPIN,
    };
    entry.flags & here != 0
}

/// Forwards a packet by its flow's entry and counts it for its service, unless the program behind will. A function of its
/// own, for the stack again.
#[inline(never)]
fn send<F: Family, P: Packet, M: Steps>(
    packet: &mut P,
    maps: &M,
    headers: &Headers,
    flow: &M::Flow,
    reason: Reason,
) -> Verdict {
    let entry = flow.read();
    let verdict = forward::<F, P>(packet, headers, &entry, reason);
    if verdict.reason() == reason {
        let connections = u64::from(reason == Reason::NEW_FLOW || reason == Reason::BACKEND_MOVED);
        let bytes = u64::from(headers.bytes);
        maps.count_service(
            entry.service,
            ServiceCounters {
                connections,
                packets: 1,
                bytes,
                refused: 0,
            },
        );
    }
    verdict
}

/// A packet that is not forwarded: passed on untouched, answered or dropped.
#[inline(always)]
fn end<F: Family, P: Packet, M: Steps>(packet: &mut P, maps: &M, headers: &Headers, unserved: &Unserved) -> Verdict {
    let reason = unserved.reason;
    if reason == Reason::NOT_OURS || reason == Reason::UNKNOWN_FLOW {
        return Verdict::pass(reason);
    }
    if unserved.service != ServiceId(0) {
        maps.count_service(
            unserved.service,
            ServiceCounters {
                refused: 1,
                ..ServiceCounters::default()
            },
        );
    }
    match reason {
        Reason::NO_ENDPOINTS | Reason::BACKEND_GONE | Reason::UNKNOWN_PORT => reject::<F, P>(packet, headers, reason),
        _ => Verdict::drop(reason),
    }
}
