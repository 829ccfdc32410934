//! [`HostMaps`]: what the programs find in BPF maps, in collections a test can fill, look into and damage.
//!
//! Handles of removed entries stay usable, as in the kernel. Time and randomness are set by the test.

use core::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use crate::abi::{
    Addr, Affinity, AffinityKey, Backend, BackendExpired, BackendId, BackendLoad, FlowEntry, FlowKey, Frontend,
    FrontendKey, NodeConfig, PodAddrs, Service, ServiceCounters, ServiceId,
};
use crate::maps::{Flow, InsertError, Maps, Step, Table};
use crate::steps::Steps;
use crate::verdict::Reason;

/// A table of flows.
pub(crate) type Flows = RefCell<HashMap<FlowKey, HostFlow>>;

/// Maps for tests.
#[derive(Default)]
pub(crate) struct HostMaps {
    pub(crate) frontends: HashMap<FrontendKey, Frontend>,
    pub(crate) owned_addrs: Vec<Addr>,
    pub(crate) services: HashMap<ServiceId, Service>,
    pub(crate) slots: Vec<BackendId>,
    pub(crate) backends: RefCell<HashMap<BackendId, Backend>>,
    pub(crate) cursors: RefCell<HashMap<ServiceId, u64>>,
    pub(crate) loads: RefCell<HashMap<BackendId, BackendLoad>>,
    pub(crate) expired: RefCell<HashMap<BackendId, BackendExpired>>,
    pub(crate) conntrack: Flows,
    pub(crate) half_open: Flows,
    pub(crate) affinity: RefCell<HashMap<AffinityKey, Affinity>>,
    pub(crate) pods: HashMap<u64, PodAddrs>,
    pub(crate) node: NodeConfig,
    pub(crate) clock: Cell<u64>,
    pub(crate) seed: Cell<u32>,
    pub(crate) reasons: RefCell<HashMap<u32, u64>>,
    pub(crate) counters: RefCell<HashMap<ServiceId, ServiceCounters>>,
}

/// An entry of a table of flows.
#[derive(Clone)]
pub(crate) struct HostFlow(pub(crate) Rc<Cell<FlowEntry>>);

impl HostMaps {
    /// A table of flows.
    pub(crate) fn table(&self, table: Table) -> &Flows {
        match table {
            Table::Conntrack => &self.conntrack,
            Table::HalfOpen => &self.half_open,
        }
    }

    /// How often a reason was counted.
    pub(crate) fn reason(&self, reason: Reason) -> u64 {
        self.reasons.borrow().get(&reason.0).copied().unwrap_or(0)
    }
}

impl Maps for HostMaps {
    type Flow = HostFlow;

    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        self.frontends.get(key).copied()
    }

    fn owned(&self, addr: &Addr) -> bool {
        self.owned_addrs.contains(addr)
    }

    fn service(&self, id: ServiceId) -> Option<Service> {
        self.services.get(&id).copied()
    }

    fn slot(&self, index: u32) -> Option<BackendId> {
        self.slots.get(index as usize).copied()
    }

    fn backend(&self, id: BackendId) -> Option<Backend> {
        self.backends.borrow().get(&id).copied()
    }

    fn turn(&self, service: ServiceId) -> u64 {
        let mut cursors = self.cursors.borrow_mut();
        let cursor = cursors.entry(service).or_default();
        *cursor += 1;
        *cursor - 1
    }

    fn open_flows(&self, backend: BackendId) -> u64 {
        let expired = self.expired.borrow().get(&backend).copied().unwrap_or_default();
        self.loads
            .borrow()
            .get(&backend)
            .map_or(0, |load| load.open_flows(expired))
    }

    fn flow_opened(&self, backend: BackendId) {
        self.loads.borrow_mut().entry(backend).or_default().opened += 1;
    }

    fn flow_closed(&self, backend: BackendId) {
        self.loads.borrow_mut().entry(backend).or_default().closed += 1;
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinity.borrow().get(key).copied()
    }

    fn set_affinity(&self, key: &AffinityKey, value: &Affinity) {
        self.affinity.borrow_mut().insert(*key, *value);
    }

    fn pod_addrs(&self, cookie: u64) -> Option<PodAddrs> {
        self.pods.get(&cookie).copied()
    }

    fn node_config(&self) -> Option<NodeConfig> {
        Some(self.node)
    }

    fn flow(&self, table: Table, key: &FlowKey) -> Option<HostFlow> {
        self.table(table).borrow().get(key).cloned()
    }

    fn insert_flow(&self, table: Table, key: &FlowKey, entry: &FlowEntry, replace: bool) -> Result<(), InsertError> {
        let mut flows = self.table(table).borrow_mut();
        if !replace && flows.contains_key(key) {
            return Err(InsertError::Exists);
        }
        flows.insert(*key, HostFlow(Rc::new(Cell::new(*entry))));
        Ok(())
    }

    fn remove_flow(&self, table: Table, key: &FlowKey) {
        self.table(table).borrow_mut().remove(key);
    }

    fn now(&self) -> u64 {
        self.clock.get()
    }

    fn random(&self) -> u32 {
        let next = self.seed.get().wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.seed.set(next);
        next >> 8
    }

    fn repeat<S: Step>(&self, rounds: u32, step: &mut S) {
        for round in 0..rounds {
            if !step.step(round) {
                break;
            }
        }
    }

    fn count_reason(&self, reason: Reason) {
        *self.reasons.borrow_mut().entry(reason.0).or_default() += 1;
    }

    fn count_service(&self, service: ServiceId, add: ServiceCounters) {
        let mut counters = self.counters.borrow_mut();
        let sum = counters.entry(service).or_default();
        sum.connections += add.connections;
        sum.packets += add.packets;
        sum.bytes += add.bytes;
        sum.refused += add.refused;
    }
}

impl Steps for HostMaps {}

impl Flow for HostFlow {
    fn read(&self) -> FlowEntry {
        self.0.get()
    }

    fn set_flags(&self, bits: u32) -> u32 {
        let entry = self.0.get();
        self.0.set(FlowEntry {
            flags: entry.flags | bits,
            ..entry
        });
        entry.flags
    }

    fn touch(&self, now: u64) {
        self.0.set(FlowEntry {
            last_seen: now,
            ..self.0.get()
        });
    }

    fn take_count(&self) -> bool {
        let entry = self.0.get();
        self.0.set(FlowEntry { counted: 0, ..entry });
        entry.counted == 1
    }
}
