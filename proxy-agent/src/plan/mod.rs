//! What the maps of this node should hold.
//!
//! [`run`](crate::run) tells the [`Planner`] which Services an event touched; it asks the [`model`](crate::model) about
//! those alone, finds ids and slots for what [`desired`] says, and returns the [operations](crate::diff) that lead there.
//! [`apply`](crate::apply) comes next.
//!
//! - **Ids** are stable: a service port keeps its id while it has the same name, protocol and family, a backend while it
//!   has the same address, port and protocol. A new planner adopts ids, runs and generations from what the maps hold.
//! - **A run of slots is immutable.** A change of endpoints writes a new run, points the service to it, and frees the
//!   old one after a grace period ([`GRACE`]), when no program can still be reading it. Ids wait as long.
//! - **A Service is whole or absent.** If a map has no room for all of it, it keeps what it had (nothing, if it is new)
//!   and waits; it is tried again when room was made.

pub mod backends;
mod claims;
pub mod desired;
mod place;
mod pool;
mod slots;
pub mod tables;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use proxy_ebpf::abi::{Addr, Backend, BackendId, FrontendKey, Run, ServiceId, StateGeneration};

pub use desired::{Policy, PortKey};
pub use tables::{Edits, Tables};

use crate::{
    diff::{self, Operation},
    maps::Table,
    model::{Model, ServiceName},
};
use backends::Backends;
use claims::Claims;
use place::Placed;
use pool::{Extents, IdPool};
use tables::Ledger;

/// How long an id or a run that nothing refers to is kept from reuse. Programs run for microseconds; this is ample.
pub const GRACE: Duration = Duration::from_secs(2);

/// How long the address of a Service that is gone stays owned. Clients that still have it from DNS are refused at once;
/// without it their packets would leave the node for wherever its routes lead.
pub const LINGER: Duration = Duration::from_secs(60);

/// A Service the maps have no room for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room in map {} of {size} entries: raise {}; {effect}", .table.name(), .table.flag())]
pub struct Shortage {
    /// The map that is full.
    pub table: Table,
    /// Its size.
    pub size: u32,
    /// What becomes of the Service meanwhile.
    pub effect: Effect,
}

/// What becomes of a Service there is no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It was not programmed before, and is not.
    Absent,
    /// It stays as it was; endpoints that are gone get no traffic, new ones neither.
    Unchanged,
}

impl std::fmt::Display for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Absent => "the Service is not served on this node",
            Self::Unchanged => "the Service is served as before its last change",
        })
    }
}

/// Something nothing refers to any more, until its grace period is over.
#[derive(Clone, Copy, Debug)]
enum Retired {
    Service(ServiceId),
    Run(Run),
    Backend(BackendId),
}

/// What a start found in the maps and no Service has claimed yet.
#[derive(Clone, Debug, Default)]
struct Adoptable {
    by_frontend: HashMap<FrontendKey, ServiceId>,
    services: HashSet<ServiceId>,
}

/// What the maps should hold, and how to get there.
#[derive(Clone, Debug)]
pub struct Planner {
    policy: Policy,
    sizes: HashMap<Table, u32>,
    ledger: Ledger,
    service_ids: IdPool,
    backends: Backends,
    extents: Extents,
    claims: Claims,
    owned: HashMap<Addr, usize>,
    placed: BTreeMap<ServiceName, Vec<Placed>>,
    waiting: BTreeMap<ServiceName, Shortage>,
    /// Whether something was freed since those that wait were tried.
    freed: bool,
    retired: VecDeque<(Instant, Retired)>,
    /// Addresses of Services that are gone, and until when each stays owned.
    lingering: VecDeque<(Instant, Addr)>,
    linger_until: HashMap<Addr, Instant>,
    adoptable: Adoptable,
    /// Raised when a service port gets an id or gives it up.
    ports_version: u64,
}

impl Planner {
    /// A planner for maps of these sizes that hold `held`. Until [`Planner::start`] nothing changes.
    pub fn new(policy: Policy, size: impl Fn(Table) -> u32, held: Tables) -> Self {
        let sizes: HashMap<_, _> = Table::ALL.into_iter().map(|table| (table, size(table))).collect();
        let mut extents = Extents::new(sizes[&Table::Slots]);
        let mut held = held;
        held.services.retain(|id, service| {
            (1..sizes[&Table::Services]).contains(&id.0) && reserve(&mut extents, service.all, service.local)
        });
        let kept: HashSet<_> = held
            .services
            .values()
            .flat_map(|s| [s.all.base, s.local.base])
            .collect();
        held.slots.retain(|base, _| kept.contains(base));
        let services: BTreeSet<_> = held.services.keys().map(|id| id.0).collect();
        let by_frontend = held
            .frontends
            .iter()
            .map(|(key, frontend)| (*key, frontend.service))
            .collect();
        Self {
            policy,
            service_ids: IdPool::new(sizes[&Table::Services], &services),
            backends: Backends::adopt(&held.backends, sizes[&Table::Backends]),
            extents,
            claims: Claims::default(),
            owned: HashMap::new(),
            placed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            freed: false,
            retired: VecDeque::new(),
            lingering: VecDeque::new(),
            linger_until: HashMap::new(),
            adoptable: Adoptable {
                by_frontend,
                services: held.services.keys().copied().collect(),
            },
            ports_version: 0,
            ledger: Ledger::new(held),
            sizes,
        }
    }

    /// The first plan, when the model holds full lists: places every Service, and removes what was found in the maps and
    /// belongs to none.
    pub fn start(&mut self, model: &Model, now: Instant) -> Vec<Operation> {
        // In the order of claims to frontends, so that each finds the id that was its own.
        let mut services: Vec<_> = model.services().collect();
        services.sort_by_key(|service| (service.created, &service.name));
        for service in services {
            self.place(&service.name, model, now);
        }
        self.drop_unclaimed(now);
        self.finish(model, now)
    }

    /// Plans the Services that were touched.
    pub fn plan<'a>(
        &mut self,
        model: &Model,
        touched: impl IntoIterator<Item = &'a ServiceName>,
        now: Instant,
    ) -> Vec<Operation> {
        for name in touched {
            self.place(name, model, now);
        }
        self.finish(model, now)
    }

    /// Plans every Service: when the node changed.
    pub fn plan_all(&mut self, model: &Model, now: Instant) -> Vec<Operation> {
        let mut names: BTreeSet<_> = self.placed.keys().chain(self.waiting.keys()).cloned().collect();
        names.extend(model.services().map(|service| service.name.clone()));
        self.plan(model, &names, now)
    }

    /// Frees what has waited long enough, and tries Services again that wait for room. To be called at
    /// [`Planner::next_tick`] or later.
    pub fn tick(&mut self, model: &Model, now: Instant) -> Vec<Operation> {
        self.finish(model, now)
    }

    /// When [`Planner::tick`] has something to do; `None` if it has nothing.
    pub fn next_tick(&self, now: Instant) -> Option<Instant> {
        if self.freed && !self.waiting.is_empty() {
            return Some(now);
        }
        let retired = self.retired.front().map(|(due, _)| *due);
        retired
            .into_iter()
            .chain(self.lingering.front().map(|(due, _)| *due))
            .min()
    }

    /// What the maps should hold.
    pub fn tables(&self) -> &Tables {
        self.ledger.tables()
    }

    /// Services there is no room for.
    pub fn shortages(&self) -> &BTreeMap<ServiceName, Shortage> {
        &self.waiting
    }

    /// Every service port in the maps, with its id.
    pub fn ports(&self) -> impl Iterator<Item = (ServiceId, &PortKey)> {
        self.placed.values().flatten().map(|placed| (placed.id, &*placed.key))
    }

    /// A number that differs whenever [`Planner::ports`] does.
    pub fn ports_version(&self) -> u64 {
        self.ports_version
    }

    /// Entries in use of a map.
    pub fn used(&self, table: Table) -> usize {
        match table {
            Table::Frontends => self.tables().frontends.len(),
            Table::OwnedAddrs => self.tables().owned.len(),
            Table::Services => self.service_ids.used(),
            Table::Slots => self.extents.used() as usize,
            Table::Backends | Table::BackendLoads | Table::BackendExpired => self.backends.used(),
        }
    }

    /// Entries a map can hold.
    pub fn size(&self, table: Table) -> u32 {
        self.sizes[&table]
    }

    /// Service ports with a Local policy, endpoints, and none of them on this node: by internal and external policy.
    pub fn without_local_endpoints(&self) -> (usize, usize) {
        let ports = || self.placed.values().flatten();
        (
            ports().filter(|p| p.lacks_local.0).count(),
            ports().filter(|p| p.lacks_local.1).count(),
        )
    }

    fn finish(&mut self, model: &Model, now: Instant) -> Vec<Operation> {
        self.release(now);
        self.release_addresses(now);
        if std::mem::take(&mut self.freed) {
            let waiting: Vec<_> = self.waiting.keys().cloned().collect();
            for name in waiting {
                self.place(&name, model, now);
            }
        }
        for id in self.backends.publish(&mut self.ledger) {
            self.retire(Retired::Backend(id), now);
        }
        let edits = self.ledger.take_edits();
        self.freed |= edits
            .frontends
            .iter()
            .any(|(key, _)| !self.tables().frontends.contains_key(key));
        self.freed |= edits.owned.iter().any(|(addr, _)| !self.tables().owned.contains(addr));
        diff::operations(&edits, self.tables())
    }

    fn retire(&mut self, what: Retired, now: Instant) {
        self.retired.push_back((now + GRACE, what));
    }

    fn release(&mut self, now: Instant) {
        while let Some((_, what)) = self.retired.pop_front_if(|(due, _)| *due <= now) {
            self.freed = true;
            match what {
                Retired::Backend(id) => self.backends.give_back(id),
                Retired::Service(id) => {
                    self.ledger.set_service(id, None);
                    self.service_ids.give_back(id.0);
                }
                Retired::Run(run) => {
                    self.ledger.drop_run(run.base);
                    self.extents.release(run.base, run.len);
                }
            }
        }
    }

    fn linger(&mut self, addr: Addr, now: Instant) {
        self.lingering.push_back((now + LINGER, addr));
        self.linger_until.insert(addr, now + LINGER);
    }

    fn release_addresses(&mut self, now: Instant) {
        while let Some((due, addr)) = self.lingering.pop_front_if(|(due, _)| *due <= now) {
            // An address that was used again meanwhile, and left again, stays for the later time.
            if self.linger_until.get(&addr) == Some(&due) {
                self.linger_until.remove(&addr);
                if !self.owned.contains_key(&addr) {
                    self.ledger.set_owned(addr, false);
                }
            }
        }
    }

    /// Gives up all lingering addresses: somebody needs the room.
    fn stop_lingering(&mut self) {
        self.lingering.clear();
        for (addr, _) in std::mem::take(&mut self.linger_until) {
            if !self.owned.contains_key(&addr) {
                self.ledger.set_owned(addr, false);
            }
        }
    }

    /// Retires the runs of a service, each once.
    fn retire_runs(&mut self, runs: [Run; 2], but: [Run; 2], now: Instant) {
        let [all, local] = runs;
        let distinct = if local == all { &runs[..1] } else { &runs[..] };
        for run in distinct.iter().filter(|run| run.len > 0 && !but.contains(run)) {
            self.retire(Retired::Run(*run), now);
        }
    }

    fn retire_service(&mut self, id: ServiceId, now: Instant) {
        if let Some(service) = self.tables().services.get(&id).copied() {
            self.retire_runs([service.all, service.local], [Run::default(); 2], now);
        }
        self.retire(Retired::Service(id), now);
    }

    /// Removes what the start found and no Service claimed. Backends without claims go when they are published.
    fn drop_unclaimed(&mut self, now: Instant) {
        let Adoptable { services, .. } = std::mem::take(&mut self.adoptable);
        let frontends: Vec<_> = self
            .tables()
            .frontends
            .keys()
            .filter(|key| !self.claims.has(key))
            .copied()
            .collect();
        for key in frontends {
            self.ledger.set_frontend(key, None);
        }
        let owned: Vec<_> = self
            .tables()
            .owned
            .iter()
            .filter(|a| !self.owned.contains_key(a))
            .copied()
            .collect();
        for addr in owned {
            self.linger(addr, now);
        }
        let mut services: Vec<_> = services.into_iter().collect();
        services.sort();
        for id in services {
            self.retire_service(id, now);
        }
        self.kill_strays();
    }

    /// Declares entries dead that live and are nobody's: written by something else, or twice.
    fn kill_strays(&mut self) {
        let alive = |entry: &Backend| entry.state.state() != StateGeneration::DEAD;
        let owner = |entry: &Backend| backends::BackendKey::of(entry).and_then(|key| self.backends.id(&key));
        let entries = self.tables().backends.iter();
        let strays = entries.filter(|(id, entry)| alive(entry) && owner(entry) != Some(**id));
        let strays: Vec<_> = strays.map(|(id, entry)| (*id, *entry)).collect();
        for (id, entry) in strays {
            let state = StateGeneration::new(StateGeneration::DEAD, entry.state.generation());
            self.ledger.set_backend(id, Backend { state, ..entry });
        }
    }
}

/// Takes the runs of a service that was found in the maps; false, and nothing taken, if others have them.
fn reserve(extents: &mut Extents, all: Run, local: Run) -> bool {
    let take = |extents: &mut Extents, run: Run| run.len == 0 || extents.reserve(run.base, run.len);
    if !take(extents, all) {
        return false;
    }
    if local == all || take(extents, local) {
        return true;
    }
    if all.len > 0 {
        extents.release(all.base, all.len);
    }
    false
}
