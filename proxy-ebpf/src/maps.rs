//! What the steps ask of the maps: [`Maps`], implemented over BPF maps by the programs and over ordinary collections by
//! the tests, so that both run the same steps.
//!
//! Everything is handed out by value, except flows: a [`Flow`] is a handle to an entry that other CPUs use at the same
//! time, and it is changed by atomic operations only.

use crate::abi::{
    Addr, Affinity, AffinityKey, Backend, BackendId, FlowEntry, FlowKey, Frontend, FrontendKey, NodeConfig, PodAddrs,
    Service, ServiceCounters, ServiceId,
};
use crate::verdict::Reason;

/// Which table of flows.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug))]
pub enum Table {
    /// `CONNTRACK`.
    Conntrack,
    /// `HALF_OPEN`: TCP from outside before the client's second packet.
    HalfOpen,
}

/// Why an entry was not written.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug))]
pub enum InsertError {
    /// There is one with this key.
    Exists,
    /// The map refused.
    Full,
}

/// A tracked flow's entry in its map.
pub trait Flow: Clone {
    /// A copy of the entry.
    fn read(&self) -> FlowEntry;
    /// Sets flag bits and returns the flags as they were before.
    fn set_flags(&self, bits: u32) -> u32;
    /// Notes that a packet was seen at `now`.
    fn touch(&self, now: u64);
    /// Takes the flow's count away from the entry: true for exactly one caller, who then counts the flow out.
    fn take_count(&self) -> bool;
}

/// The body of a loop that [`Maps::repeat`] runs.
pub trait Step {
    /// One round; false ends the loop.
    fn step(&mut self, round: u32) -> bool;
}

/// The maps of the data path, as the steps use them. [`abi::maps`](crate::abi::maps) says what each holds.
pub trait Maps {
    /// A handle to an entry of a table of flows.
    type Flow: Flow;

    /// The frontend with this address, port and protocol.
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend>;
    /// Whether an address belongs to Services only.
    fn owned(&self, addr: &Addr) -> bool;
    /// A service as it lies in the map; [`lookup::service`](crate::lookup::service) checks that it is whole.
    fn service(&self, id: ServiceId) -> Option<Service>;
    /// The backend id in a slot.
    fn slot(&self, index: u32) -> Option<BackendId>;
    /// A backend.
    fn backend(&self, id: BackendId) -> Option<Backend>;
    /// Takes the next number from a service's round-robin cursor.
    fn turn(&self, service: ServiceId) -> u64;
    /// How many flows a backend has open.
    fn open_flows(&self, backend: BackendId) -> u64;
    /// Counts a flow in.
    fn flow_opened(&self, backend: BackendId);
    /// Counts a flow out.
    fn flow_closed(&self, backend: BackendId);
    /// What is remembered of a client.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Remembers a client's backend.
    fn set_affinity(&self, key: &AffinityKey, value: &Affinity);
    /// The addresses of the Pod in a network namespace.
    fn pod_addrs(&self, cookie: u64) -> Option<PodAddrs>;
    /// The node's configuration.
    fn node_config(&self) -> Option<NodeConfig>;
    /// The entry of a flow.
    fn flow(&self, table: Table, key: &FlowKey) -> Option<Self::Flow>;
    /// Writes an entry; with `replace` over one that exists.
    ///
    /// # Errors
    /// [`InsertError`]: there is one and `replace` is false, or the map refused.
    fn insert_flow(&self, table: Table, key: &FlowKey, entry: &FlowEntry, replace: bool) -> Result<(), InsertError>;
    /// Removes an entry, if it is there.
    fn remove_flow(&self, table: Table, key: &FlowKey);
    /// `CLOCK_MONOTONIC`, coarse, in nanoseconds.
    fn now(&self) -> u64;
    /// A random number.
    fn random(&self) -> u32;
    /// Runs a loop of at most `rounds` rounds. For loops too long for the verifier to follow round by round: the kernel's
    /// own loop has it check the body once.
    fn repeat<S: Step>(&self, rounds: u32, step: &mut S);
    /// Counts a verdict.
    fn count_reason(&self, reason: Reason);
    /// Adds to a service's counters.
    fn count_service(&self, service: ServiceId, add: ServiceCounters);
}
