//! Finds ids and slots for one Service and writes it into the tables: whole, or not at all.
//!
//! Two phases: [`Planner::reserve`] takes everything the Service needs and gives it all back if something is missing;
//! [`Planner::commit`] can't fail. Called by [`super`] for each touched Service.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use proxy_ebpf::abi::{Addr, BackendId, Frontend, FrontendKey, Run, Service as ServiceEntry, ServiceId};

use super::{
    Effect, Planner, Shortage,
    backends::{BackendKey, Health, Member},
    claims::Rank,
    desired::{self, DesiredPort, PortKey},
    slots,
};
use crate::{
    maps::Table,
    model::{Model, Service, ServiceName},
};

/// A service port as it is in the tables.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) key: Arc<PortKey>,
    pub(super) id: ServiceId,
    /// Whether the internal, and the external, policy is Local and finds none, while there are endpoints elsewhere.
    pub(super) lacks_local: (bool, bool),
    created: i64,
    frontends: Vec<(FrontendKey, u8)>,
    owned: Vec<Addr>,
    members: BTreeSet<BackendKey>,
}

impl Placed {
    fn ranks(&self) -> impl Iterator<Item = (FrontendKey, Rank)> {
        self.frontends
            .iter()
            .map(|(key, kind)| (*key, (*kind, self.created, self.key.clone())))
    }
}

/// What a desired port will use.
struct Reserved {
    id: ServiceId,
    all: Run,
    local: Run,
}

/// What was taken for a Service so far, to be given back if it doesn't fit.
#[derive(Default)]
struct Taken {
    new_ids: Vec<ServiceId>,
    adopted_ids: Vec<ServiceId>,
    backends: Vec<BackendKey>,
    runs: Vec<Run>,
}

impl Planner {
    /// Brings one Service up to date, be it new, changed or gone.
    pub(super) fn place(&mut self, name: &ServiceName, model: &Model, now: Instant) {
        let service = model.service(name);
        let desired = service.map_or_else(Vec::new, |service| desired::ports(service, model, &self.policy));
        let old = self.placed.remove(name).unwrap_or_default();
        let placed = match self.reserve(&desired, &old) {
            Ok(reserved) => {
                self.waiting.remove(name);
                self.commit(service, desired, &reserved, &old, now)
            }
            Err(table) => {
                if table == Table::OwnedAddrs {
                    self.stop_lingering();
                }
                let effect = if old.is_empty() {
                    Effect::Absent
                } else {
                    Effect::Unchanged
                };
                self.waiting.insert(
                    name.clone(),
                    Shortage {
                        table,
                        size: self.size(table),
                        effect,
                    },
                );
                self.keep(&old, &desired);
                old
            }
        };
        if !placed.is_empty() {
            self.placed.insert(name.clone(), placed);
        }
    }

    fn reserve(&mut self, desired: &[DesiredPort], old: &[Placed]) -> Result<Vec<Reserved>, Table> {
        let keys: BTreeSet<_> = desired
            .iter()
            .flat_map(|port| port.frontends.iter().map(|(key, ..)| key))
            .collect();
        if self.ledger.frontends_with(keys.into_iter()) > self.size(Table::Frontends) as usize {
            return Err(Table::Frontends);
        }
        let addrs: BTreeSet<_> = desired.iter().flat_map(|port| &port.owned).collect();
        if self.ledger.owned_with(addrs.into_iter()) > self.size(Table::OwnedAddrs) as usize {
            return Err(Table::OwnedAddrs);
        }
        let mut taken = Taken::default();
        let mut reserved = Vec::with_capacity(desired.len());
        for port in desired {
            match self.reserve_port(port, old, &mut taken) {
                Ok(port) => reserved.push(port),
                Err(table) => {
                    self.give_back(taken);
                    return Err(table);
                }
            }
        }
        Ok(reserved)
    }

    fn reserve_port(&mut self, port: &DesiredPort, old: &[Placed], taken: &mut Taken) -> Result<Reserved, Table> {
        let held = old.iter().find(|placed| placed.key == port.key).map(|placed| placed.id);
        let id = match held.or_else(|| self.adopt_id(port, taken)) {
            Some(id) => id,
            None => self.new_id(taken).ok_or(Table::Services)?,
        };
        let current = self
            .tables()
            .services
            .get(&id)
            .map_or([Run::default(); 2], |entry| [entry.all, entry.local]);
        let all = self.fill(port, &port.all, taken)?;
        let local = self.fill(port, &port.local, taken)?;
        let all_run = self.find_run(&all, current, taken)?;
        // Where all endpoints are on this node, one run serves both policies.
        let local_run = if local == all {
            all_run
        } else {
            self.find_run(&local, current, taken)?
        };
        Ok(Reserved {
            id,
            all: all_run,
            local: local_run,
        })
    }

    /// The id under which the maps held this port when the agent started, if nobody else has claimed it.
    fn adopt_id(&mut self, port: &DesiredPort, taken: &mut Taken) -> Option<ServiceId> {
        let adoptable = &mut self.adoptable;
        let candidates = port
            .frontends
            .iter()
            .filter_map(|(key, ..)| adoptable.by_frontend.get(key));
        let id = candidates.copied().find(|id| adoptable.services.contains(id))?;
        adoptable.services.remove(&id);
        taken.adopted_ids.push(id);
        Some(id)
    }

    fn new_id(&mut self, taken: &mut Taken) -> Option<ServiceId> {
        let id = ServiceId(self.service_ids.take()?);
        taken.new_ids.push(id);
        Some(id)
    }

    fn fill(&mut self, port: &DesiredPort, keys: &[BackendKey], taken: &mut Taken) -> Result<Vec<BackendId>, Table> {
        let mut backends = Vec::with_capacity(keys.len());
        for key in keys {
            let (id, new) = self.backends.acquire(*key, &self.ledger).ok_or(Table::Backends)?;
            if new {
                taken.backends.push(*key);
            }
            backends.push((*key, id));
        }
        Ok(slots::fill(port.settings.algorithm, &backends))
    }

    /// A run with these slots: one the service has already, or a new one.
    fn find_run(&mut self, slots: &[BackendId], current: [Run; 2], taken: &mut Taken) -> Result<Run, Table> {
        if slots.is_empty() {
            return Ok(Run::default());
        }
        if let Some(run) = current.into_iter().find(|run| self.tables().run(*run) == slots) {
            return Ok(run);
        }
        let len = u32::try_from(slots.len()).map_err(|_| Table::Slots)?;
        let base = self.extents.allocate(len).ok_or(Table::Slots)?;
        let run = Run { base, len };
        self.ledger.add_run(base, slots.to_vec());
        taken.runs.push(run);
        Ok(run)
    }

    fn give_back(&mut self, taken: Taken) {
        for run in taken.runs.iter().rev() {
            self.ledger.drop_run(run.base);
            self.extents.release(run.base, run.len);
        }
        for key in taken.backends.iter().rev() {
            self.backends.undo(key);
        }
        for id in taken.new_ids.iter().rev() {
            self.service_ids.undo(id.0);
        }
        self.adoptable.services.extend(taken.adopted_ids);
    }

    fn commit(
        &mut self,
        service: Option<&Service>,
        desired: Vec<DesiredPort>,
        reserved: &[Reserved],
        old: &[Placed],
        now: Instant,
    ) -> Vec<Placed> {
        let mut placed = Vec::with_capacity(desired.len());
        if let Some(service) = service {
            for (port, reserved) in desired.into_iter().zip(reserved) {
                self.write_service(&port, reserved, now);
                placed.push(self.write_references(service, port, reserved));
            }
        }
        let known = |placed: &Placed| old.iter().any(|before| before.key == placed.key);
        if placed.len() != old.len() || !placed.iter().all(known) {
            self.ports_version += 1;
        }
        for before in old {
            let after = placed.iter().find(|after| after.key == before.key);
            self.drop_references(before, after, now);
            if after.is_none() {
                self.retire_service(before.id, now);
            }
        }
        placed
    }

    fn write_service(&mut self, port: &DesiredPort, reserved: &Reserved, now: Instant) {
        let current = self.tables().services.get(&reserved.id).copied().unwrap_or_default();
        let entry = ServiceEntry {
            all: reserved.all,
            local: reserved.local,
            generation: current.generation,
            affinity_secs: port.settings.affinity_secs,
            algorithm: port.settings.algorithm,
            flags: port.settings.flags,
            pad: 0,
            check: 0,
        };
        if entry.sealed() == current {
            return;
        }
        let entry = ServiceEntry {
            generation: current.generation.wrapping_add(1),
            ..entry
        };
        self.ledger.set_service(reserved.id, Some(entry.sealed()));
        self.retire_runs([current.all, current.local], [reserved.all, reserved.local], now);
    }

    /// Everything that refers to a service: frontends, owned addresses, claims to backends.
    fn write_references(&mut self, service: &Service, port: DesiredPort, reserved: &Reserved) -> Placed {
        let id = reserved.id;
        let lacks_local = reserved.local.len == 0 && reserved.all.len > 0;
        let mut placed = Placed {
            id,
            created: service.created,
            lacks_local: (
                service.internal_local && lacks_local,
                service.external_local && lacks_local,
            ),
            frontends: port.frontends.iter().map(|(key, kind, _)| (*key, *kind)).collect(),
            owned: port.owned,
            members: BTreeSet::new(),
            key: port.key,
        };
        for (key, kind, flags) in port.frontends {
            let value = Frontend {
                service: id,
                kind,
                flags,
                pad: 0,
            };
            self.claims
                .add(key, (kind, placed.created, placed.key.clone()), value, &mut self.ledger);
        }
        for addr in &placed.owned {
            *self.owned.entry(*addr).or_default() += 1;
            self.ledger.set_owned(*addr, true);
        }
        for (key, member) in port.members {
            // An endpoint that was never chosen has no id, and needs none until it is.
            if self.backends.id(&key).is_some() {
                self.backends.claim(key, id, member);
                placed.members.insert(key);
            }
        }
        placed
    }

    fn drop_references(&mut self, before: &Placed, after: Option<&Placed>, now: Instant) {
        let kept: BTreeSet<_> = after.into_iter().flat_map(Placed::ranks).collect();
        for (key, rank) in before.ranks().filter(|claim| !kept.contains(claim)) {
            self.claims.remove(key, &rank, &mut self.ledger);
        }
        for addr in &before.owned {
            if let Some(count) = self.owned.get_mut(addr) {
                *count -= 1;
                if *count == 0 {
                    self.owned.remove(addr);
                    self.linger(*addr, now);
                }
            }
        }
        let still = |key: &BackendKey| after.is_some_and(|after| after.members.contains(key));
        for key in before.members.iter().filter(|key| !still(key)) {
            self.backends.unclaim(*key, before.id);
        }
    }

    /// A Service that stays as it was still learns how its backends are.
    fn keep(&mut self, old: &[Placed], desired: &[DesiredPort]) {
        let gone = Member {
            health: Health::Gone,
            local: false,
        };
        for placed in old {
            let port = desired.iter().find(|port| port.key == placed.key);
            for key in &placed.members {
                let member = port.and_then(|port| port.members.get(key)).copied().unwrap_or(gone);
                self.backends.claim(*key, placed.id, member);
            }
        }
    }
}
