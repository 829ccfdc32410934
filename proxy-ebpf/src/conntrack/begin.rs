//! How a flow begins: which tuple it gets towards its backend, and its two entries.
//!
//! The reply's entry is written first, and only if there is none with its key: that is what makes a source port free. A
//! client whose own port is taken (two of its flows became one behind two frontends, or many clients behind the node's
//! address) gets another.

use crate::abi::{Addr, Backend, BackendId, FlowEntry, FlowKey, ServiceId};
use crate::hash;
use crate::maps::{Flow, InsertError, Maps, Step, Table};
use crate::verdict::Reason;
use crate::wire::Be16;

/// How many source ports are tried.
const PORT_TRIES: u32 = 8;
/// Distance between tried ports: odd and not small, so that neighbours don't walk into each other.
const PORT_STEP: u32 = 0x9e5;

/// A flow about to begin, beside its first packet's tuple.
#[derive(Clone, Copy)]
pub struct Begin {
    /// The service.
    pub service: ServiceId,
    /// The backend that was chosen.
    pub backend: BackendId,
    /// Whether it came in by an uplink.
    pub from_uplink: bool,
    /// The table it goes to.
    pub table: Table,
}

/// Writes a new flow's entries. Another CPU may have been first; then its entries are what counts.
///
/// Returns [`Reason::NEW_FLOW`], or why the packet is to be dropped.
#[inline(always)]
pub fn begin<M: Maps>(maps: &M, key: &FlowKey, new: &Begin) -> Reason {
    // One key and one buffer, which holds first the reply's entry, then the forward entry: the kernel's stack is small.
    let mut reply_key = FlowKey::default();
    let flags = towards(maps, key, new, &mut reply_key);
    if flags == UNSUITABLE {
        return Reason::INCONSISTENT;
    }
    let mut entry = FlowEntry {
        translated: FlowKey::default(),
        last_seen: maps.now(),
        backend: new.backend,
        generation: maps
            .backend(new.backend)
            .map_or(0, |backend| backend.state.generation()),
        service: new.service,
        counted: 0,
        flags: flags | FlowEntry::REPLY,
        pad: 0,
    };
    entry.translated.reverse_of(key);
    let mut ports = Ports {
        maps,
        table: new.table,
        key: &mut reply_key,
        reply: &entry,
        start: 0,
        claimed: false,
    };
    if !ports.claim(key, flags & FlowEntry::SNAT != 0) {
        return Reason::NO_SOURCE_PORT;
    }
    entry.translated.reverse_of(&reply_key);
    entry.flags = flags;
    write_forward(maps, key, new, &reply_key, &mut entry)
}

/// What [`towards`] returns if the backend can't be reached from this client: no flags are like this.
pub(super) const UNSUITABLE: u32 = u32::MAX;

/// Fills in the tuple of the backend's replies, and returns the flags of the flow: the source is kept, or is the node's
/// for a backend elsewhere, or the hairpin address for a Pod that reaches itself.
#[inline(never)]
pub(super) fn towards<M: Maps>(maps: &M, key: &FlowKey, new: &Begin, reply_key: &mut FlowKey) -> u32 {
    let Some(backend) = maps.backend(new.backend) else {
        return UNSUITABLE;
    };
    reply_key.src = backend.addr;
    reply_key.dst = key.src;
    reply_key.sport = backend.port;
    reply_key.dport = key.sport;
    reply_key.proto = key.proto;
    let v4 = key.dst.is_v4();
    let mut flags = 0;
    if new.from_uplink {
        flags = FlowEntry::FROM_UPLINK;
        if backend.flags & Backend::LOCAL == 0 {
            flags |= FlowEntry::SNAT;
            reply_key.dst = masquerade(maps, v4);
        }
    } else if reply_key.src.same(&reply_key.dst) {
        flags = FlowEntry::HAIRPIN;
        reply_key.dst = hairpin(maps, v4);
    }
    // An address that is not configured is of no family.
    let suitable =
        reply_key.src.is_v4() == v4 && reply_key.dst.is_v4() == v4 && !reply_key.dst.same(&Addr::UNSPECIFIED);
    if suitable { flags } else { UNSUITABLE }
}

#[inline(always)]
fn masquerade<M: Maps>(maps: &M, v4: bool) -> Addr {
    maps.node_config()
        .map_or(Addr::UNSPECIFIED, |node| if v4 { node.snat_v4 } else { node.snat_v6 })
}

#[inline(always)]
fn hairpin<M: Maps>(maps: &M, v4: bool) -> Addr {
    maps.node_config().map_or(
        Addr::UNSPECIFIED,
        |node| if v4 { node.hairpin_v4 } else { node.hairpin_v6 },
    )
}

/// The search for a source port: the client's own, then places spread over the node's range.
struct Ports<'a, M> {
    maps: &'a M,
    table: Table,
    /// The reply's key, whose destination port is what is tried.
    key: &'a mut FlowKey,
    reply: &'a FlowEntry,
    start: u32,
    claimed: bool,
}

impl<M: Maps> Ports<'_, M> {
    /// Writes the reply's entry under the first port that is free, which is left in its key.
    #[inline(always)]
    fn claim(&mut self, client: &FlowKey, masqueraded: bool) -> bool {
        // Behind the node's address a port outside the range may be a socket of the node's.
        let own = !masqueraded || in_range(self.maps, client.sport);
        if own && claim_key(self.maps, self.table, self.key, self.reply) {
            return true;
        }
        self.start = hash::tuple(client, hash::PORT_SEED);
        let maps = self.maps;
        maps.repeat(PORT_TRIES, self);
        self.claimed
    }
}

impl<M: Maps> Step for Ports<'_, M> {
    #[inline(always)]
    fn step(&mut self, round: u32) -> bool {
        let (min, span) = range(self.maps);
        let Some(offset) = self.start.wrapping_add(round.wrapping_mul(PORT_STEP)).checked_rem(span) else {
            return false;
        };
        self.key.dport = Be16::new((min + offset) as u16);
        self.claimed = claim_key(self.maps, self.table, self.key, self.reply);
        !self.claimed
    }
}

/// The source port a masqueraded flow gets unless it is taken.
#[inline(always)]
pub(super) fn first_port<M: Maps>(maps: &M, client: &FlowKey) -> Be16 {
    if in_range(maps, client.sport) {
        return client.sport;
    }
    let (min, span) = range(maps);
    let offset = hash::tuple(client, hash::PORT_SEED).checked_rem(span);
    Be16::new((min + offset.unwrap_or(0)) as u16)
}

/// The first port that masquerading may use, and how many there are.
#[inline(always)]
fn range<M: Maps>(maps: &M) -> (u32, u32) {
    let node = maps.node_config().unwrap_or_default();
    let (min, max) = (u32::from(node.snat_port_min), u32::from(node.snat_port_max));
    (min, (max + 1).saturating_sub(min))
}

#[inline(always)]
fn in_range<M: Maps>(maps: &M, port: Be16) -> bool {
    let (min, span) = range(maps);
    u32::from(port.get()).wrapping_sub(min) < span
}

/// Whether the reply's entry could be written under this key: it was free, or held by a flow that may go.
#[inline(never)]
fn claim_key<M: Maps>(maps: &M, table: Table, key: &FlowKey, reply: &FlowEntry) -> bool {
    if table == Table::HalfOpen && !vacate(maps, key, reply) {
        return false;
    }
    match maps.insert_flow(table, key, reply, false) {
        Ok(()) => true,
        Err(InsertError::Full) => false,
        Err(InsertError::Exists) => {
            may_replace(maps, table, key, reply) && maps.insert_flow(table, key, reply, true).is_ok()
        }
    }
}

/// Makes sure that no entry of `CONNTRACK`, where replies look first, hides one of `HALF_OPEN`.
#[inline(always)]
fn vacate<M: Maps>(maps: &M, key: &FlowKey, reply: &FlowEntry) -> bool {
    if !may_replace(maps, Table::Conntrack, key, reply) {
        return false;
    }
    maps.remove_flow(Table::Conntrack, key);
    true
}

/// Whether whatever has this key may go: an earlier life of the same flow, or a flow that is over. Not the latter behind
/// the node's address: the backend still remembers that port (TIME_WAIT) and there are others.
#[inline(always)]
fn may_replace<M: Maps>(maps: &M, table: Table, key: &FlowKey, reply: &FlowEntry) -> bool {
    maps.flow(table, key).is_none_or(|flow| {
        let held = flow.read();
        let over = held.flags & FlowEntry::CLOSED != 0 && reply.flags & FlowEntry::SNAT == 0;
        over || held.translated.same(&reply.translated)
    })
}

/// Writes the forward entry and counts the flow in.
#[inline(always)]
fn write_forward<M: Maps>(maps: &M, key: &FlowKey, new: &Begin, reply_key: &FlowKey, entry: &mut FlowEntry) -> Reason {
    let counts = new.table == Table::Conntrack;
    entry.counted = u32::from(counts);
    match maps.insert_flow(new.table, key, entry, false) {
        Ok(()) if counts => maps.flow_opened(new.backend),
        Ok(()) => {}
        Err(InsertError::Exists) => {
            // Another CPU began the same flow a moment earlier: its choice stands, and what was written for ours is taken
            // back, unless both chose alike.
            let first = maps.flow(new.table, key);
            if first.is_some_and(|first| !first.read().translated.same(&entry.translated)) {
                maps.remove_flow(new.table, reply_key);
            }
        }
        Err(InsertError::Full) => {
            maps.remove_flow(new.table, reply_key);
            return Reason::FLOW_TABLE;
        }
    }
    Reason::NEW_FLOW
}
