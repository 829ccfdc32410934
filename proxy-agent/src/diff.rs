//! What changed, as an ordered list of operations, which are plain data.
//!
//! Between [`plan`](crate::plan), which says what the maps should hold, and [`apply`](crate::apply), which carries the
//! operations out. The order is what makes every moment in between safe for packets: whatever an entry refers to is
//! written before it and taken away after it.
//!
//! ```text
//! add     loads reset -> BACKENDS -> SLOTS -> SERVICES -> FRONTENDS -> OWNED_ADDRS
//! remove  OWNED_ADDRS -> FRONTENDS -> SERVICES -> BACKENDS (dead)
//! ```

use std::fmt;

use proxy_ebpf::abi::{Addr, Backend, BackendId, Frontend, FrontendKey, Run, Service, ServiceId, StateGeneration};

use crate::plan::{Edits, Tables};

/// One call, or batch of calls, on one map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Make the open flows of these ids zero: they get a new owner.
    ResetLoads(Vec<BackendId>),
    /// Add or change backends.
    PutBackends(Vec<(BackendId, Backend)>),
    /// Write consecutive slots.
    PutSlots(u32, Vec<BackendId>),
    /// Add or change services.
    PutServices(Vec<(ServiceId, Service)>),
    /// Add or change frontends.
    PutFrontends(Vec<(FrontendKey, Frontend)>),
    /// Add owned addresses.
    PutOwnedAddrs(Vec<Addr>),
    /// Remove owned addresses.
    DeleteOwnedAddrs(Vec<Addr>),
    /// Remove frontends.
    DeleteFrontends(Vec<FrontendKey>),
    /// Clear services.
    ClearServices(Vec<ServiceId>),
    /// Declare backends dead.
    KillBackends(Vec<(BackendId, Backend)>),
}

impl Operation {
    /// How many entries it writes or removes.
    pub fn len(&self) -> usize {
        match self {
            Self::ResetLoads(ids) => ids.len(),
            Self::PutBackends(entries) | Self::KillBackends(entries) => entries.len(),
            Self::PutSlots(_, slots) => slots.len(),
            Self::PutServices(entries) => entries.len(),
            Self::PutFrontends(entries) => entries.len(),
            Self::PutOwnedAddrs(addrs) | Self::DeleteOwnedAddrs(addrs) => addrs.len(),
            Self::DeleteFrontends(keys) => keys.len(),
            Self::ClearServices(ids) => ids.len(),
        }
    }

    /// Whether there is nothing to do; [`operations`] makes none of these.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self {
            Self::ResetLoads(_) => "reset loads",
            Self::PutBackends(_) => "put backends",
            Self::PutSlots(..) => "put slots",
            Self::PutServices(_) => "put services",
            Self::PutFrontends(_) => "put frontends",
            Self::PutOwnedAddrs(_) => "put owned addresses",
            Self::DeleteOwnedAddrs(_) => "delete owned addresses",
            Self::DeleteFrontends(_) => "delete frontends",
            Self::ClearServices(_) => "clear services",
            Self::KillBackends(_) => "kill backends",
        };
        write!(f, "{what} ({})", self.len())
    }
}

/// The operations that bring maps from before the edits to `tables`. An edit that came back to where it began costs
/// nothing.
pub fn operations(edits: &Edits, tables: &Tables) -> Vec<Operation> {
    let dead = |backend: &Backend| backend.state.state() == StateGeneration::DEAD;
    let (killed, put): (Vec<_>, Vec<_>) = edits
        .backends
        .iter()
        .filter_map(|(id, before)| Some((*id, *tables.backends.get(id)?)).filter(|(_, now)| *before != Some(*now)))
        .partition(|(_, backend)| dead(backend));
    let (put_services, cleared) = changes(&edits.services, |id| tables.services.get(id).copied());
    let (put_frontends, deleted) = changes(&edits.frontends, |key| tables.frontends.get(key).copied());
    let owned = |now: bool| {
        let changed = edits
            .owned
            .iter()
            .filter(move |(_, before)| **before != now)
            .map(|(addr, _)| *addr);
        changed
            .filter(move |addr| tables.owned.contains(addr) == now)
            .collect::<Vec<_>>()
    };

    let mut operations = vec![
        Operation::ResetLoads(edits.reset.iter().copied().collect()),
        Operation::PutBackends(put),
    ];
    operations.extend(consecutive(edits, tables));
    operations.extend([
        Operation::PutServices(put_services),
        Operation::PutFrontends(put_frontends),
        Operation::PutOwnedAddrs(owned(true)),
        Operation::DeleteOwnedAddrs(owned(false)),
        Operation::DeleteFrontends(deleted),
        Operation::ClearServices(cleared),
        Operation::KillBackends(killed),
    ]);
    operations.retain(|operation| !operation.is_empty());
    operations
}

/// Entries to write and keys to remove.
fn changes<'a, K: Copy + 'a, V: PartialEq + 'a>(
    edits: impl IntoIterator<Item = (&'a K, &'a Option<V>)>,
    now: impl Fn(&K) -> Option<V>,
) -> (Vec<(K, V)>, Vec<K>) {
    let (mut put, mut removed) = (Vec::new(), Vec::new());
    for (key, before) in edits {
        match now(key) {
            Some(value) if before.as_ref() != Some(&value) => put.push((*key, value)),
            None if before.is_some() => removed.push(*key),
            _ => {}
        }
    }
    (put, removed)
}

/// The runs to write, those that lie next to each other as one.
fn consecutive(edits: &Edits, tables: &Tables) -> Vec<Operation> {
    let mut joined: Vec<(u32, Vec<BackendId>)> = Vec::new();
    for (base, slots) in edits
        .slots
        .iter()
        .filter_map(|base| Some((*base, tables.slots.get(base)?)))
    {
        match joined.last_mut() {
            Some((start, before)) if *start + before.len() as u32 == base => before.extend(slots),
            _ => joined.push((base, slots.clone())),
        }
    }
    joined
        .into_iter()
        .map(|(base, slots)| Operation::PutSlots(base, slots))
        .collect()
}

/// The operations that bring maps that hold `actual` to `desired`: after a failure, and when maps are compared in full.
/// A backend that should not be there is declared dead.
pub fn between(actual: &Tables, desired: &Tables) -> Vec<Operation> {
    let mut target = desired.clone();
    for (id, backend) in &actual.backends {
        let state = StateGeneration::new(StateGeneration::DEAD, backend.state.generation());
        target.backends.entry(*id).or_insert(Backend { state, ..*backend });
    }
    let wrong = |run: Run| actual.run(run) != desired.run(run);
    let edits = Edits {
        frontends: both(&actual.frontends, &target.frontends),
        owned: actual
            .owned
            .union(&target.owned)
            .map(|addr| (*addr, actual.owned.contains(addr)))
            .collect(),
        services: both(&actual.services, &target.services),
        slots: desired.runs().filter(|run| wrong(*run)).map(|run| run.base).collect(),
        backends: both(&actual.backends, &target.backends),
        reset: std::collections::BTreeSet::new(),
    };
    operations(&edits, &target)
}

fn both<K: Ord + Copy, V: Copy>(
    actual: &std::collections::BTreeMap<K, V>,
    desired: &std::collections::BTreeMap<K, V>,
) -> std::collections::BTreeMap<K, Option<V>> {
    actual
        .keys()
        .chain(desired.keys())
        .map(|key| (*key, actual.get(key).copied()))
        .collect()
}
