//! How a flow is found again whose forward entry was lost while its reply's entry was not.
//!
//! The client's packet names the frontend, not the backend, so the reply's entry is looked for under the tuple it would
//! have with each backend of the service in turn. Called by `decide` for TCP in mid-flow to a frontend that is in no table:
//! rare, and bounded.

use super::begin::{Begin, UNSUITABLE, first_port, towards};
use super::rebuild;
use crate::abi::{FlowEntry, FlowKey, Run};
use crate::lookup;
use crate::maps::{Flow, Maps, Step, Table};
use crate::verdict::Reason;

/// How many slots are looked at: the first ones of the run.
const SLOTS: u32 = 64;

/// Rebuilds the forward entry from the reply's, if that is found; `new.backend` plays no part.
///
/// Returns [`Reason::REPAIRED`], or [`Reason::UNKNOWN_FLOW`].
#[inline(always)]
pub fn recover<M: Maps>(maps: &M, key: &FlowKey, new: &Begin) -> Reason {
    let Ok(service) = lookup::service(maps, new.service) else {
        return Reason::UNKNOWN_FLOW;
    };
    let mut search = Search {
        maps,
        key,
        new: *new,
        run: service.all,
        reply_key: FlowKey::default(),
        found: false,
    };
    maps.repeat(SLOTS, &mut search);
    if search.found {
        Reason::REPAIRED
    } else {
        Reason::UNKNOWN_FLOW
    }
}

struct Search<'a, M> {
    maps: &'a M,
    key: &'a FlowKey,
    new: Begin,
    run: Run,
    reply_key: FlowKey,
    found: bool,
}

impl<M: Maps> Step for Search<'_, M> {
    #[inline(always)]
    fn step(&mut self, round: u32) -> bool {
        if round >= self.run.len {
            return false;
        }
        let Some(backend) = self.maps.slot(self.run.base.wrapping_add(round)) else {
            return false;
        };
        self.new.backend = backend;
        let flags = towards(self.maps, self.key, &self.new, &mut self.reply_key);
        if flags == UNSUITABLE {
            return true;
        }
        if flags & FlowEntry::SNAT != 0 {
            self.reply_key.dport = first_port(self.maps, self.key);
        }
        let Some(reply) = self.maps.flow(Table::Conntrack, &self.reply_key) else {
            return true;
        };
        let entry = reply.read();
        let ours = entry.flags & (FlowEntry::REPLY | FlowEntry::CLOSED) == FlowEntry::REPLY
            && entry.translated.reversed().same(self.key);
        if ours {
            rebuild(self.maps, &reply, &self.reply_key, self.key);
            self.found = true;
        }
        !ours
    }
}
