//! Packets that leave the node by an uplink or towards a Pod (TC): replies of backends that were reached through the
//! stack get the frontend's address back, behind the stack, so that its own connection tracking saw both directions alike.
//!
//! Called by the entry points `tc_uplink_egress` and `tc_pod_egress`.

use crate::abi::{FlowEntry, ServiceCounters};
use crate::conntrack::observe;
use crate::family::{Family, V4, V6};
use crate::forward::to_stack;
use crate::maps::{Flow, Table};
use crate::packet::Packet;
use crate::parse::{Headers, TcpFlags, parse};
use crate::paths::ingress::{IPV4, IPV6, Side};
use crate::steps::Steps;
use crate::verdict::{Reason, Verdict};

/// A packet leaves by one side.
#[inline(always)]
pub fn egress<P: Packet, M: Steps>(packet: &mut P, maps: &M, side: Side) -> Verdict {
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
    let (flow, known) = match maps.flow(Table::Conntrack, &headers.key) {
        Some(flow) => (flow, true),
        None if side == Side::Uplink && headers.tcp.answers() => match maps.flow(Table::HalfOpen, &headers.key) {
            Some(half) => (half, false),
            None => return Verdict::pass(Reason::NOT_OURS),
        },
        None => return Verdict::pass(Reason::NOT_OURS),
    };
    if !turned_back_here(side, &flow.read()) {
        return Verdict::pass(Reason::NOT_OURS);
    }
    if known {
        observe(maps, &flow, &headers.key, headers.tcp);
    } else if headers.tcp.any(TcpFlags::RST) {
        maps.abandon(&flow);
    }
    turn_back::<F, P, M>(packet, maps, &headers, &flow)
}

/// Replies of flows through the stack, on the side their client is.
#[inline(always)]
fn turned_back_here(side: Side, entry: &FlowEntry) -> bool {
    const KINDS: u32 = FlowEntry::REPLY | FlowEntry::SNAT | FlowEntry::HAIRPIN | FlowEntry::FROM_UPLINK;
    let wanted = match side {
        Side::Uplink => FlowEntry::REPLY | FlowEntry::FROM_UPLINK,
        Side::Pod => FlowEntry::REPLY,
    };
    entry.flags & KINDS == wanted
}

#[inline(always)]
fn turn_back<F: Family, P: Packet, M: Steps>(packet: &mut P, maps: &M, headers: &Headers, flow: &M::Flow) -> Verdict {
    let entry = flow.read();
    let verdict = to_stack::<F, P>(packet, headers, &entry, Reason::REPLIED);
    if verdict.reason() == Reason::REPLIED {
        let bytes = u64::from(headers.bytes);
        maps.count_service(
            entry.service,
            ServiceCounters {
                packets: 1,
                bytes,
                ..ServiceCounters::default()
            },
        );
    }
    verdict
}
