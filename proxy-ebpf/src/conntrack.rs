//! Step 2: the flows. What a packet of a known flow changes in its entries, and how entries begin and end.
//!
//! Called by [`paths`](crate::paths); a hit goes on to [`forward`](crate::forward), a miss to [`lookup`](crate::lookup).
//!
//! A flow is two entries that know each other's key ([`FlowEntry`] shows how), so whichever is lost to eviction is rebuilt
//! from the other. The fast path is one lookup: only a packet that changes the state, or the first of a second, looks at
//! the other entry, which also keeps the two equally recent in an LRU map.
//!
//! ```text
//!  TCP from outside          SYN            next packet of the client
//!                 (none) ----------> HALF_OPEN ----------> CONNTRACK
//!  TCP from a Pod, UDP       first packet
//!                 (none) --------------------------------> CONNTRACK
//!
//!  CONNTRACK:  0 --reply--> REPLIED --FIN--> FIN_CLIENT or FIN_BACKEND --other FIN--> CLOSED
//!              any --RST--> CLOSED --SYN--> a new flow
//! ```
//!
//! A flow in `CONNTRACK` is counted in its backend's load; the forward entry carries the count and whoever takes it
//! counts the flow out: CLOSED, a dead backend, or the agent when it removes the entry.

use crate::abi::{FlowEntry, FlowKey};
use crate::maps::{Flow, InsertError, Maps, Table};
use crate::parse::TcpFlags;
use crate::steps::Steps;
use crate::verdict::Reason;

mod begin;
mod recover;

pub use begin::{Begin, begin};
pub use recover::recover;

/// How old `last_seen` may grow before a packet refreshes it, and checks that the other entry exists.
pub const REFRESH_NANOS: u64 = 1_000_000_000;

const FINS: u32 = FlowEntry::FIN_CLIENT | FlowEntry::FIN_BACKEND;
/// State that both entries of a flow carry.
const SHARED: u32 = FINS | FlowEntry::REPLIED | FlowEntry::CLOSED;

/// Notes a packet of a known flow.
#[inline(always)]
pub fn observe<M: Steps>(maps: &M, flow: &M::Flow, key: &FlowKey, tcp: TcpFlags) {
    let entry = flow.read();
    let stale = maps.now().wrapping_sub(entry.last_seen) >= REFRESH_NANOS;
    let first_reply = entry.flags & (FlowEntry::REPLY | FlowEntry::REPLIED) == FlowEntry::REPLY;
    if stale || first_reply || tcp.any(TcpFlags::SYN | TcpFlags::FIN | TcpFlags::RST) {
        maps.settle(flow, key, tcp);
    }
}

/// Brings both entries up to date, rebuilds the other if it is gone, and counts the flow out if this packet closed it.
///
/// The two sides may close at once on two CPUs. Each sets its bits in both entries and looks at what was there before: of
/// two that set bits in one entry the later one sees both.
#[inline(always)]
pub fn settle<M: Maps>(maps: &M, flow: &M::Flow, key: &FlowKey, tcp: TcpFlags) {
    flow.touch(maps.now());
    let before = flow.read().flags;
    let reply = before & FlowEntry::REPLY != 0;
    let other_key = flow.read().translated.reversed();
    let other = maps.flow(Table::Conntrack, &other_key);
    let mut flags = before | implied(before, tcp);
    flags |= flow.set_flags(flags & SHARED);
    if let Some(other) = &other {
        flags |= other.set_flags(flags & SHARED) & SHARED;
    }
    let over = flags & FINS == FINS || flags & FlowEntry::CLOSED != 0;
    if over {
        flow.set_flags(FlowEntry::CLOSED);
    }
    let mut counted_out = over && !reply && flow.take_count();
    if let Some(other) = &other {
        if over {
            other.set_flags(FlowEntry::CLOSED);
        }
        counted_out |= over && reply && other.take_count();
    } else if !over {
        rebuild(maps, flow, key, &other_key);
    }
    if counted_out {
        maps.flow_closed(flow.read().backend);
    }
}

/// The flags a packet adds to its flow.
#[inline(always)]
const fn implied(flags: u32, tcp: TcpFlags) -> u32 {
    let reply = flags & FlowEntry::REPLY != 0;
    let mut more = if reply { FlowEntry::REPLIED } else { 0 };
    if tcp.any(TcpFlags::FIN) {
        more |= if reply {
            FlowEntry::FIN_BACKEND
        } else {
            FlowEntry::FIN_CLIENT
        };
    }
    if tcp.any(TcpFlags::RST) {
        more |= FlowEntry::CLOSED;
    }
    more
}

/// Writes the other entry of a flow anew. A forward entry that was evicted held the flow's count, and the new one takes
/// it over: nothing was counted out.
#[inline(never)]
fn rebuild<M: Maps>(maps: &M, flow: &M::Flow, key: &FlowKey, other_key: &FlowKey) {
    let mut other = flow.read();
    other.translated.reverse_of(key);
    other.counted = u32::from(other.flags & FlowEntry::REPLY != 0);
    other.flags ^= FlowEntry::REPLY;
    if maps.insert_flow(Table::Conntrack, other_key, &other, false).is_ok() {
        maps.count_reason(Reason::REPAIRED);
    }
}

/// Forgets a flow, given its forward entry, and counts it out. Its next packet begins a new one.
#[inline(always)]
pub fn forget<M: Maps>(maps: &M, table: Table, key: &FlowKey, flow: &M::Flow) {
    let reply_key = flow.read().translated.reversed();
    if flow.take_count() {
        maps.flow_closed(flow.read().backend);
    }
    maps.remove_flow(table, key);
    maps.remove_flow(table, &reply_key);
}

/// Moves a flow from `HALF_OPEN` to `CONNTRACK` and counts it in: the client has answered.
///
/// Returns [`Reason::FORWARDED`], or [`Reason::FLOW_TABLE`] if the map refused and the flow stays half open.
#[inline(always)]
pub fn promote<M: Maps>(maps: &M, key: &FlowKey, half: &M::Flow) -> Reason {
    let mut entry = half.read();
    let backend = entry.backend;
    let mut reply_key = FlowKey::default();
    reply_key.reverse_of(&entry.translated);
    entry.translated.reverse_of(key);
    entry.last_seen = maps.now();
    entry.flags |= FlowEntry::REPLY;
    if maps.insert_flow(Table::Conntrack, &reply_key, &entry, true).is_err() {
        return Reason::FLOW_TABLE;
    }
    entry.translated.reverse_of(&reply_key);
    entry.flags ^= FlowEntry::REPLY;
    entry.counted = 1;
    match maps.insert_flow(Table::Conntrack, key, &entry, false) {
        Ok(()) => maps.flow_opened(backend),
        // Another CPU promoted it.
        Err(InsertError::Exists) => {}
        Err(InsertError::Full) => return Reason::FLOW_TABLE,
    }
    maps.remove_flow(Table::HalfOpen, key);
    maps.remove_flow(Table::HalfOpen, &reply_key);
    Reason::FORWARDED
}

/// Notes that a half-open connection is over, given either entry: the next SYN begins a new one.
#[inline(always)]
pub fn abandon<M: Maps>(maps: &M, flow: &M::Flow) {
    flow.set_flags(FlowEntry::CLOSED);
    let other_key = flow.read().translated.reversed();
    if let Some(other) = maps.flow(Table::HalfOpen, &other_key) {
        other.set_flags(FlowEntry::CLOSED);
    }
}
