//! Backends and their ids. Used by [`super`] for every touched service.
//!
//! A backend is an address, a port and a protocol, and all services that use it share it: least connections then counts
//! what an endpoint really has to do, and one endpoint behind many Services is one entry. Each service *claims* a
//! backend with what its EndpointSlices say; the entry says the best of the claims:
//!
//! ```text
//! some claim says active                      ACTIVE    takes new flows
//! else some claim says draining               DRAINING  keeps its flows
//! else, or no claim is left                   DEAD      flows are answered with a reset or moved
//! ```
//!
//! An id is given out again after a grace period, with the next generation.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proxy_ebpf::{
    abi::{Addr, Backend, BackendId, ServiceId, StateGeneration},
    wire::Be16,
};

use super::{pool::IdPool, tables::Ledger};
use crate::model::Protocol;

/// Bits of `Backend::flags` above these hold the IANA protocol number, so that a restart can tell a TCP backend from a
/// UDP backend at the same address. The programs read [`Backend::LOCAL`] alone.
const PROTOCOL_SHIFT: u16 = 8;
const GENERATION_MASK: u32 = 0x00ff_ffff;

/// Who a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendKey {
    /// Address.
    pub addr: Addr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

impl BackendKey {
    /// Who an entry of `BACKENDS` is about; `None` for one this agent did not write.
    pub fn of(entry: &Backend) -> Option<Self> {
        let protocol = Protocol::from_number((entry.flags >> PROTOCOL_SHIFT) as u8)?;
        Some(Self {
            addr: entry.addr,
            port: entry.port.get(),
            protocol,
        })
    }
}

/// What a service says of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// How it is.
    pub health: Health,
    /// Whether it is on this node.
    pub local: bool,
}

/// How a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// In no slice any more.
    Gone,
    /// Keeps its flows.
    Draining,
    /// Takes new flows.
    Active,
}

#[derive(Clone, Debug)]
struct Record {
    id: BackendId,
    generation: u32,
    claims: Vec<(ServiceId, Member)>,
}

/// All backends in use.
#[derive(Clone, Debug)]
pub(super) struct Backends {
    records: HashMap<BackendKey, Record>,
    pool: IdPool,
    /// Keys whose claims changed since the last [`Backends::publish`].
    changed: BTreeSet<BackendKey>,
}

impl Backends {
    /// Adopts what is in the maps: living backends keep their ids until the first [`Backends::publish`] finds that
    /// nobody claims them.
    pub(super) fn adopt(entries: &BTreeMap<BackendId, Backend>, size: u32) -> Self {
        let mut records = HashMap::new();
        let mut used = BTreeSet::new();
        for (id, entry) in entries.iter().filter(|(id, _)| (1..size).contains(&id.0)) {
            let alive = entry.state.state() != StateGeneration::DEAD;
            let Some(key) = BackendKey::of(entry).filter(|key| alive && !records.contains_key(key)) else {
                continue;
            };
            used.insert(id.0);
            records.insert(
                key,
                Record {
                    id: *id,
                    generation: entry.state.generation(),
                    claims: Vec::new(),
                },
            );
        }
        Self {
            changed: records.keys().copied().collect(),
            records,
            pool: IdPool::new(size, &used),
        }
    }

    /// The id of a backend that has one.
    pub(super) fn id(&self, key: &BackendKey) -> Option<BackendId> {
        self.records.get(key).map(|record| record.id)
    }

    /// Gives a backend an id if it has none; true if it is new. `None` if there is no id left.
    pub(super) fn acquire(&mut self, key: BackendKey, ledger: &Ledger) -> Option<(BackendId, bool)> {
        if let Some(id) = self.id(&key) {
            return Some((id, false));
        }
        let id = BackendId(self.pool.take()?);
        let last = ledger
            .tables()
            .backends
            .get(&id)
            .map_or(0, |entry| entry.state.generation());
        let generation = ((last + 1) & GENERATION_MASK).max(1);
        self.records.insert(
            key,
            Record {
                id,
                generation,
                claims: Vec::new(),
            },
        );
        Some((id, true))
    }

    /// Takes back an [`acquire`](Backends::acquire) that was told to be new.
    pub(super) fn undo(&mut self, key: &BackendKey) {
        if let Some(record) = self.records.remove(key) {
            self.pool.undo(record.id.0);
        }
    }

    /// Notes what a service says of a backend that has an id.
    pub(super) fn claim(&mut self, key: BackendKey, service: ServiceId, member: Member) {
        let Some(record) = self.records.get_mut(&key) else {
            return;
        };
        match record.claims.iter_mut().find(|(claimant, _)| *claimant == service) {
            Some((_, said)) if *said == member => return,
            Some((_, said)) => *said = member,
            None => record.claims.push((service, member)),
        }
        self.changed.insert(key);
    }

    /// Forgets what a service said of a backend.
    pub(super) fn unclaim(&mut self, key: BackendKey, service: ServiceId) {
        if let Some(record) = self.records.get_mut(&key) {
            record.claims.retain(|(claimant, _)| *claimant != service);
            self.changed.insert(key);
        }
    }

    /// Writes the entries of all backends whose claims changed, and returns the ids nobody claims any more. They are
    /// dead; [`Backends::give_back`] follows after the grace period.
    pub(super) fn publish(&mut self, ledger: &mut Ledger) -> Vec<BackendId> {
        let mut retired = Vec::new();
        for key in std::mem::take(&mut self.changed) {
            let Some(record) = self.records.get(&key) else { continue };
            let (id, entry) = (record.id, record.entry(&key));
            let before = ledger.tables().backends.get(&id).copied();
            if before.is_some_and(|before| before.state.generation() != record.generation) {
                ledger.reset_load(id);
            }
            if record.claims.is_empty() {
                self.records.remove(&key);
                retired.push(id);
            }
            if before != Some(entry) {
                ledger.set_backend(id, entry);
            }
        }
        retired
    }

    /// An id may be given out again.
    pub(super) fn give_back(&mut self, id: BackendId) {
        self.pool.give_back(id.0);
    }

    /// How many ids are in use.
    pub(super) fn used(&self) -> usize {
        self.pool.used()
    }
}

impl Record {
    fn entry(&self, key: &BackendKey) -> Backend {
        let health = self
            .claims
            .iter()
            .map(|(_, member)| member.health)
            .max()
            .unwrap_or(Health::Gone);
        let state = match health {
            Health::Active => StateGeneration::ACTIVE,
            Health::Draining => StateGeneration::DRAINING,
            Health::Gone => StateGeneration::DEAD,
        };
        let local = if self.claims.iter().any(|(_, member)| member.local) {
            Backend::LOCAL
        } else {
            0
        };
        Backend {
            addr: key.addr,
            port: Be16::new(key.port),
            flags: local | u16::from(key.protocol.number()) << PROTOCOL_SHIFT,
            state: StateGeneration::new(state, self.generation),
        }
    }
}
