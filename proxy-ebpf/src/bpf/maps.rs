//! The BPF maps and [`Maps`] over them. Names, sizes and who writes what: `proxy_ebpf::abi::maps`.
//!
//! References into maps are never kept: values are copied out where the lookup succeeded, and entries that more than one
//! CPU writes are changed by atomic operations. `SOCKETS` is in `socket`.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_loop};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use core::ffi::c_void;
use core::ptr::NonNull;
use proxy_ebpf::abi::{
    Addr, Affinity, AffinityKey, Backend, BackendExpired, BackendId, BackendLoad, FlowEntry, FlowKey, Frontend,
    FrontendKey, NodeConfig, PodAddrs, ReasonCounters, Service, ServiceCounters, ServiceId, maps as spec,
};
use proxy_ebpf::maps::{Flow, InsertError, Maps, Step, Table};
use proxy_ebpf::verdict::Reason;

use super::atomic;

macro_rules! maps {
    ($($name:ident: $type:ty;)*) => {
        $(#[map] static $name: $type = <$type>::pinned(spec::$name.max_entries, 0);)*
    };
}

maps! {
    FRONTENDS: HashMap<FrontendKey, Frontend>;
    OWNED_ADDRS: HashMap<Addr, u32>;
    SERVICES: Array<Service>;
    SLOTS: Array<BackendId>;
    BACKENDS: Array<Backend>;
    CURSORS: Array<u64>;
    BACKEND_LOADS: Array<BackendLoad>;
    BACKEND_EXPIRED: Array<BackendExpired>;
    CONNTRACK: LruHashMap<FlowKey, FlowEntry>;
    HALF_OPEN: LruHashMap<FlowKey, FlowEntry>;
    AFFINITY: LruHashMap<AffinityKey, Affinity>;
    POD_ADDRS: HashMap<u64, PodAddrs>;
    NODE_CONFIG: Array<NodeConfig>;
    REASON_COUNTERS: PerCpuArray<ReasonCounters>;
    SERVICE_COUNTERS: PerCpuArray<ServiceCounters>;
}

const BPF_NOEXIST: u64 = 1;
const BPF_ANY: u64 = 0;
const EEXIST: i32 = 17;

/// The maps of this object.
#[derive(Clone, Copy)]
pub(super) struct KernelMaps;

/// An entry of a table of flows.
#[derive(Clone, Copy)]
pub(super) struct KernelFlow(NonNull<FlowEntry>);

/// Copies a value out of a map.
#[inline(always)]
fn copied<T: Copy>(found: Option<*const T>) -> Option<T> {
    // SAFETY: the pointer came from a successful lookup of a map whose values are `T`, aligned and of its size, and stays
    // valid until the program ends. `T` is plain data: should another CPU write it meanwhile, the copy is a mixture of old
    // and new words, each of them valid; where that matters (`Service`) the value carries its own check.
    found.map(|value| unsafe { *value })
}

/// One round of [`Maps::repeat`], as `bpf_loop` calls it: 0 goes on, 1 ends the loop.
extern "C" fn round<S: Step>(round: u64, step: *mut S) -> i64 {
    // SAFETY: `step` is the pointer `repeat` handed to the helper, which borrows it until the loop is over.
    let goes_on = unsafe { (*step).step(round as u32) };
    if goes_on { 0 } else { 1 }
}

impl Maps for KernelMaps {
    type Flow = KernelFlow;

    #[inline(always)]
    fn frontend(&self, key: &FrontendKey) -> Option<Frontend> {
        copied(FRONTENDS.get_ptr(key))
    }

    #[inline(always)]
    fn owned(&self, addr: &Addr) -> bool {
        OWNED_ADDRS.get_ptr(addr).is_some()
    }

    #[inline(always)]
    fn service(&self, id: ServiceId) -> Option<Service> {
        copied(SERVICES.get_ptr(id.0))
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<BackendId> {
        copied(SLOTS.get_ptr(index))
    }

    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<Backend> {
        copied(BACKENDS.get_ptr(id.0))
    }

    #[inline(always)]
    fn turn(&self, service: ServiceId) -> u64 {
        match CURSORS.get_ptr_mut(service.0) {
            // SAFETY: a successful lookup; values of the map are aligned `u64`.
            Some(cursor) => unsafe { atomic::fetch_add(cursor, 1) },
            None => 0,
        }
    }

    #[inline(always)]
    fn open_flows(&self, backend: BackendId) -> u64 {
        let Some(load) = copied(BACKEND_LOADS.get_ptr(backend.0)) else {
            return 0;
        };
        let expired = copied(BACKEND_EXPIRED.get_ptr(backend.0)).unwrap_or_default();
        load.open_flows(expired)
    }

    #[inline(always)]
    fn flow_opened(&self, backend: BackendId) {
        if let Some(load) = BACKEND_LOADS.get_ptr_mut(backend.0) {
            // SAFETY: a successful lookup; the field is an aligned `u64`.
            unsafe { atomic::fetch_add(&raw mut (*load).opened, 1) };
        }
    }

    #[inline(always)]
    fn flow_closed(&self, backend: BackendId) {
        if let Some(load) = BACKEND_LOADS.get_ptr_mut(backend.0) {
            // SAFETY: a successful lookup; the field is an aligned `u64`.
            unsafe { atomic::fetch_add(&raw mut (*load).closed, 1) };
        }
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        copied(AFFINITY.get_ptr(key))
    }

    #[inline(always)]
    fn set_affinity(&self, key: &AffinityKey, value: &Affinity) {
        // A map that refuses costs the client its affinity, not its connection.
        let _ = AFFINITY.insert(key, value, BPF_ANY);
    }

    #[inline(always)]
    fn pod_addrs(&self, cookie: u64) -> Option<PodAddrs> {
        copied(POD_ADDRS.get_ptr(cookie))
    }

    #[inline(always)]
    fn node_config(&self) -> Option<NodeConfig> {
        copied(NODE_CONFIG.get_ptr(0))
    }

    #[inline(always)]
    fn flow(&self, table: Table, key: &FlowKey) -> Option<KernelFlow> {
        let found = match table {
            Table::Conntrack => CONNTRACK.get_ptr_mut(key),
            Table::HalfOpen => HALF_OPEN.get_ptr_mut(key),
        };
        found.and_then(NonNull::new).map(KernelFlow)
    }

    #[inline(always)]
    fn insert_flow(&self, table: Table, key: &FlowKey, entry: &FlowEntry, replace: bool) -> Result<(), InsertError> {
        let flags = if replace { BPF_ANY } else { BPF_NOEXIST };
        let inserted = match table {
            Table::Conntrack => CONNTRACK.insert(key, entry, flags),
            Table::HalfOpen => HALF_OPEN.insert(key, entry, flags),
        };
        inserted.map_err(|error| {
            if error == -EEXIST {
                InsertError::Exists
            } else {
                InsertError::Full
            }
        })
    }

    #[inline(always)]
    fn remove_flow(&self, table: Table, key: &FlowKey) {
        // Nothing to remove is as good as removed.
        let _ = match table {
            Table::Conntrack => CONNTRACK.remove(key),
            Table::HalfOpen => HALF_OPEN.remove(key),
        };
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: the helper takes no arguments and can't fail.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes no arguments and can't fail.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn repeat<S: Step>(&self, rounds: u32, step: &mut S) {
        let callback: extern "C" fn(u64, *mut S) -> i64 = round::<S>;
        // SAFETY: the helper calls the function with a round's number and the pointer it was given, in this very call.
        unsafe { bpf_loop(rounds, callback as *mut c_void, (&raw mut *step).cast(), 0) };
    }

    #[inline(always)]
    fn count_reason(&self, reason: Reason) {
        if let Some(counters) = REASON_COUNTERS.get_ptr_mut(reason.0) {
            // SAFETY: a successful lookup; the value belongs to this CPU, and the program isn't preempted by another that
            // counts (one interrupting it may lose a count, no more).
            unsafe { (*counters).packets += 1 };
        }
    }

    #[inline(always)]
    fn count_service(&self, service: ServiceId, add: ServiceCounters) {
        if let Some(counters) = SERVICE_COUNTERS.get_ptr_mut(service.0) {
            // SAFETY: as in `count_reason`.
            unsafe {
                (*counters).connections += add.connections;
                (*counters).packets += add.packets;
                (*counters).bytes += add.bytes;
                (*counters).refused += add.refused;
            }
        }
    }
}

impl KernelFlow {
    /// The entry at an address, unless that is null.
    #[inline(always)]
    pub(super) fn new(entry: *mut FlowEntry) -> Option<Self> {
        NonNull::new(entry).map(Self)
    }

    /// Its address.
    #[inline(always)]
    pub(super) fn as_ptr(&self) -> *mut FlowEntry {
        self.0.as_ptr()
    }
}

impl Flow for KernelFlow {
    #[inline(always)]
    fn read(&self) -> FlowEntry {
        // SAFETY: made by a successful lookup in a map of `FlowEntry`, valid until the program ends. The translated tuple of
        // an entry is never changed in place; an entry that is removed and reused meanwhile gives this one packet to another
        // flow's backend at worst, as the kernel's documentation of such maps says.
        unsafe { *self.0.as_ptr() }
    }

    #[inline(always)]
    fn set_flags(&self, bits: u32) -> u32 {
        // SAFETY: as in `read`; the field is an aligned `u32`, changed by atomic operations only.
        unsafe { atomic::fetch_or(&raw mut (*self.0.as_ptr()).flags, bits) }
    }

    #[inline(always)]
    fn touch(&self, now: u64) {
        // SAFETY: as in `read`; a whole aligned word is written, and whoever writes last is right.
        unsafe { (&raw mut (*self.0.as_ptr()).last_seen).write_volatile(now) };
    }

    #[inline(always)]
    fn take_count(&self) -> bool {
        // SAFETY: as in `read`; the field is an aligned `u32`, exchanged atomically only.
        unsafe { atomic::exchange(&raw mut (*self.0.as_ptr()).counted, 0) == 1 }
    }
}
