//! Step 6: a packet of a flow leaves: to the stack, out again past it, or back to the Pod it came from.
//!
//! Called by [`paths`](crate::paths) with the flow's entry, whose flags say which. [`rewrite`](mod@crate::rewrite) is part
//! of it, because a packet whose way is not known must be passed on as it came: the program behind does it all again.

use crate::abi::FlowEntry;
use crate::family::Family;
use crate::packet::{Hop, Packet, Refused, Route, RouteRequest, Window};
use crate::parse::{ETHERNET, Headers};
use crate::rewrite::rewrite;
use crate::verdict::{Reason, Verdict};

/// Sends a packet where its flow's entry says; `reason` is what to say if it went well.
#[inline(always)]
pub fn forward<F: Family, P: Packet>(packet: &mut P, headers: &Headers, entry: &FlowEntry, reason: Reason) -> Verdict {
    if entry.flags & FlowEntry::SNAT != 0 {
        return out_again::<F, P>(packet, headers, entry, reason);
    }
    let written = rewrite::<F, P>(packet, headers, &entry.translated, false);
    if written != Reason::FORWARDED {
        return Verdict::drop(written);
    }
    if entry.flags & FlowEntry::HAIRPIN == 0 {
        // To the stack of this node, which routes it on and counts down its time to live.
        return Verdict::pass(reason);
    }
    // Out of the device it came in by, to whoever sent it.
    turn_around(packet);
    sent(packet.redirect(packet.ifindex()), reason)
}

/// Out of whatever device leads to the translated destination, past the stack.
#[inline(always)]
fn out_again<F: Family, P: Packet>(packet: &mut P, headers: &Headers, entry: &FlowEntry, reason: Reason) -> Verdict {
    let to = &entry.translated;
    let hop = packet.route(&RouteRequest {
        to,
        tos: headers.tos,
        v4: F::V4,
    });
    match hop.route {
        Route::None => return Verdict::drop(Reason::NO_ROUTE),
        Route::NoNeighbour if !P::RESOLVES_NEIGHBOURS => return Verdict::pass(Reason::NO_NEIGHBOUR),
        Route::Found | Route::NoNeighbour => {}
    }
    let written = rewrite::<F, P>(packet, headers, to, true);
    if written != Reason::FORWARDED {
        return Verdict::drop(written);
    }
    if hop.route == Route::NoNeighbour {
        return sent(packet.redirect_to_neighbour(hop.ifindex), reason);
    }
    address(packet, &hop);
    sent(packet.redirect(hop.ifindex), reason)
}

#[inline(always)]
fn sent(result: Result<(), Refused>, reason: Reason) -> Verdict {
    if result.is_ok() {
        Verdict::redirect(reason)
    } else {
        Verdict::drop(Reason::REWRITE)
    }
}

/// To the stack, whatever the entry's flags: for replies on egress.
#[inline(always)]
pub fn to_stack<F: Family, P: Packet>(packet: &mut P, headers: &Headers, entry: &FlowEntry, reason: Reason) -> Verdict {
    match rewrite::<F, P>(packet, headers, &entry.translated, false) {
        Reason::FORWARDED => Verdict::pass(reason),
        written => Verdict::drop(written),
    }
}

/// Gives a packet the Ethernet addresses of its next hop.
#[inline(always)]
fn address<P: Packet>(packet: &P, hop: &Hop) {
    let Some(ethernet) = packet.window::<ETHERNET>(0) else {
        return;
    };
    let [a, b, c] = hop.destination;
    ethernet.set_be16::<0>(a);
    ethernet.set_be16::<2>(b);
    ethernet.set_be16::<4>(c);
    let [a, b, c] = hop.source;
    ethernet.set_be16::<6>(a);
    ethernet.set_be16::<8>(b);
    ethernet.set_be16::<10>(c);
}

/// Swaps a packet's Ethernet addresses.
#[inline(always)]
pub(crate) fn turn_around<P: Packet>(packet: &P) {
    let Some(ethernet) = packet.window::<ETHERNET>(0) else {
        return;
    };
    let destination = [ethernet.be16::<0>(), ethernet.be16::<2>(), ethernet.be16::<4>()];
    ethernet.set_be16::<0>(ethernet.be16::<6>());
    ethernet.set_be16::<2>(ethernet.be16::<8>());
    ethernet.set_be16::<4>(ethernet.be16::<10>());
    ethernet.set_be16::<6>(destination[0]);
    ethernet.set_be16::<8>(destination[1]);
    ethernet.set_be16::<10>(destination[2]);
}
