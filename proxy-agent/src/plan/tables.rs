//! What the maps hold, as values: [`Tables`], and which entries of them changed: [`Edits`].
//!
//! [`super`] changes tables only through `Ledger`, which notes each entry's value before its first change;
//! [`diff`](crate::diff) turns the notes into operations. A read-back of the maps gives the same type.

use std::collections::{BTreeMap, BTreeSet};

use proxy_ebpf::abi::{Addr, Backend, BackendId, Frontend, FrontendKey, Run, Service, ServiceId};

use crate::maps::{MapError, Maps, Table};

/// The content of the maps of Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// `FRONTENDS`.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// `OWNED_ADDRS`.
    pub owned: BTreeSet<Addr>,
    /// `SERVICES`, without cleared entries.
    pub services: BTreeMap<ServiceId, Service>,
    /// `SLOTS`: the runs that services refer to, by their base.
    pub slots: BTreeMap<u32, Vec<BackendId>>,
    /// `BACKENDS`; the dead keep their entry, because it holds their id's generation.
    pub backends: BTreeMap<BackendId, Backend>,
}

impl Tables {
    /// Reads the maps back. Services that were only half written, or refer to slots outside of the map, are left out:
    /// nothing can be learned from them. Besides the runs of services, `more` runs are read.
    ///
    /// # Errors
    /// The maps'.
    pub fn read(maps: &impl Maps, more: impl IntoIterator<Item = Run>) -> Result<Self, MapError> {
        let size = u64::from(maps.size(Table::Slots));
        let inside = |run: &Run| u64::from(run.base) + u64::from(run.len) <= size;
        let services: BTreeMap<_, _> = maps
            .services()?
            .into_iter()
            .filter(|(_, service)| service.is_whole() && inside(&service.all) && inside(&service.local))
            .collect();
        let mut slots = BTreeMap::new();
        // Runs of `more` come last: where two begin at one base, they are the ones asked for.
        let of_services = services.values().flat_map(|service| [service.all, service.local]);
        for run in of_services.chain(more).filter(|run| run.len > 0) {
            slots.insert(run.base, maps.slots(run)?);
        }
        Ok(Self {
            frontends: maps.frontends()?.into_iter().collect(),
            owned: maps.owned_addrs()?.into_iter().collect(),
            services,
            slots,
            backends: maps.backends()?.into_iter().collect(),
        })
    }

    /// The runs of [`Tables::slots`].
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        self.slots.iter().map(|(base, slots)| Run {
            base: *base,
            len: slots.len() as u32,
        })
    }

    /// The slots of a run; empty for an empty run and for one that isn't here.
    pub fn run(&self, run: Run) -> &[BackendId] {
        let slots = if run.len == 0 { None } else { self.slots.get(&run.base) };
        slots
            .filter(|slots| slots.len() == run.len as usize)
            .map_or(&[], Vec::as_slice)
    }
}

/// The entries that changed, each with its value before; `None` where there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// In `FRONTENDS`.
    pub frontends: BTreeMap<FrontendKey, Option<Frontend>>,
    /// In `OWNED_ADDRS`: whether it was there.
    pub owned: BTreeMap<Addr, bool>,
    /// In `SERVICES`.
    pub services: BTreeMap<ServiceId, Option<Service>>,
    /// Bases of runs to write.
    pub slots: BTreeSet<u32>,
    /// In `BACKENDS`.
    pub backends: BTreeMap<BackendId, Option<Backend>>,
    /// Backend ids with a new owner: what was counted for the last one counts no more.
    pub reset: BTreeSet<BackendId>,
}

/// Tables and what changed in them since [`Ledger::take_edits`].
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    tables: Tables,
    edits: Edits,
    /// Keys in `FRONTENDS` at the worst moment of the batch: removals come after additions.
    frontends_peak: usize,
    owned_peak: usize,
}

impl Ledger {
    pub(super) fn new(tables: Tables) -> Self {
        let (frontends_peak, owned_peak) = (tables.frontends.len(), tables.owned.len());
        Self {
            tables,
            edits: Edits::default(),
            frontends_peak,
            owned_peak,
        }
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(super) fn take_edits(&mut self) -> Edits {
        self.frontends_peak = self.tables.frontends.len();
        self.owned_peak = self.tables.owned.len();
        std::mem::take(&mut self.edits)
    }

    /// Entries `FRONTENDS` would have at most in this batch, were these keys added.
    pub(super) fn frontends_with<'a>(&self, keys: impl Iterator<Item = &'a FrontendKey>) -> usize {
        self.frontends_peak + keys.filter(|key| !self.frontend_is_counted(key)).count()
    }

    fn frontend_is_counted(&self, key: &FrontendKey) -> bool {
        self.tables.frontends.contains_key(key) || self.edits.frontends.get(key).is_some_and(Option::is_some)
    }

    /// The same for `OWNED_ADDRS`.
    pub(super) fn owned_with<'a>(&self, addrs: impl Iterator<Item = &'a Addr>) -> usize {
        self.owned_peak + addrs.filter(|addr| !self.owned_is_counted(addr)).count()
    }

    fn owned_is_counted(&self, addr: &Addr) -> bool {
        self.tables.owned.contains(addr) || self.edits.owned.get(addr).copied().unwrap_or(false)
    }

    pub(super) fn set_frontend(&mut self, key: FrontendKey, value: Option<Frontend>) {
        if value.is_some() && !self.frontend_is_counted(&key) {
            self.frontends_peak += 1;
        }
        set(&mut self.tables.frontends, &mut self.edits.frontends, key, value);
    }

    pub(super) fn set_owned(&mut self, addr: Addr, owned: bool) {
        if owned && !self.owned_is_counted(&addr) {
            self.owned_peak += 1;
        }
        let before = if owned {
            !self.tables.owned.insert(addr)
        } else {
            self.tables.owned.remove(&addr)
        };
        self.edits.owned.entry(addr).or_insert(before);
    }

    pub(super) fn set_service(&mut self, id: ServiceId, value: Option<Service>) {
        set(&mut self.tables.services, &mut self.edits.services, id, value);
    }

    pub(super) fn set_backend(&mut self, id: BackendId, value: Backend) {
        set(&mut self.tables.backends, &mut self.edits.backends, id, Some(value));
    }

    pub(super) fn reset_load(&mut self, id: BackendId) {
        self.edits.reset.insert(id);
    }

    pub(super) fn add_run(&mut self, base: u32, slots: Vec<BackendId>) {
        self.tables.slots.insert(base, slots);
        self.edits.slots.insert(base);
    }

    /// Forgets a run whose extent is free again.
    pub(super) fn drop_run(&mut self, base: u32) {
        self.tables.slots.remove(&base);
        self.edits.slots.remove(&base);
    }
}

fn set<K: Ord + Copy, V: Copy>(
    table: &mut BTreeMap<K, V>,
    edits: &mut BTreeMap<K, Option<V>>,
    key: K,
    value: Option<V>,
) {
    let before = match value {
        Some(value) => table.insert(key, value),
        None => table.remove(&key),
    };
    edits.entry(key).or_insert(before);
}
