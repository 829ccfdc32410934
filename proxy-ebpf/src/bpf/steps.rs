//! The long steps as functions with global linkage, which the verifier checks once, whoever calls them.
//!
//! It checks them for arguments that are any number, null, or point to readable and writable memory of the type's size:
//! hence the tests, which never fail. Kernel 6.1 takes no such memory as the key of a map, so keys are copied.

use proxy_ebpf::abi::{BackendId, FlowEntry, FlowKey, Frontend, ServiceId};
use proxy_ebpf::conntrack::{self, Begin};
use proxy_ebpf::maps::Table;
use proxy_ebpf::parse::TcpFlags;
use proxy_ebpf::paths;
use proxy_ebpf::steps::Steps;
use proxy_ebpf::verdict::Reason;

use super::maps::{KernelFlow, KernelMaps};

impl Steps for KernelMaps {
    #[inline(always)]
    fn choose(&self, key: &FlowKey, frontend: &Frontend, uplink: bool, backend: &mut BackendId) -> Reason {
        Reason(step_choose(key, frontend, u32::from(uplink), &raw mut *backend))
    }

    #[inline(always)]
    fn begin(&self, key: &FlowKey, new: Begin) -> Reason {
        Reason(step_begin(
            key,
            new.service.0,
            new.backend.0,
            u32::from(new.from_uplink),
            number(new.table),
        ))
    }

    #[inline(always)]
    fn recover(&self, key: &FlowKey, new: Begin) -> Reason {
        Reason(step_recover(key, new.service.0, u32::from(new.from_uplink)))
    }

    #[inline(always)]
    fn settle(&self, flow: &KernelFlow, key: &FlowKey, tcp: TcpFlags) {
        step_settle(flow.as_ptr(), key, u32::from(tcp.0));
    }

    #[inline(always)]
    fn promote(&self, key: &FlowKey, half: &KernelFlow) -> Reason {
        Reason(step_promote(key, half.as_ptr()))
    }

    #[inline(always)]
    fn forget(&self, table: Table, key: &FlowKey, flow: &KernelFlow) {
        step_forget(number(table), key, flow.as_ptr());
    }

    #[inline(always)]
    fn abandon(&self, flow: &KernelFlow) {
        step_abandon(flow.as_ptr());
    }
}

#[inline(always)]
const fn number(table: Table) -> u32 {
    match table {
        Table::Conntrack => 0,
        Table::HalfOpen => 1,
    }
}

#[inline(always)]
const fn table(number: u32) -> Table {
    if number == 0 { Table::Conntrack } else { Table::HalfOpen }
}

/// A reference to what an argument points to.
#[inline(always)]
fn pointee<'a, T>(pointer: *const T) -> Option<&'a T> {
    // SAFETY: the callers in this file made the pointer from a reference that outlives the call.
    unsafe { pointer.as_ref() }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_choose(key: *const FlowKey, frontend: *const Frontend, uplink: u32, backend: *mut BackendId) -> u32 {
    // SAFETY: as in `pointee`, and nobody else has a reference to it during the call.
    let (Some(key), Some(frontend), Some(backend)) = (pointee(key), pointee(frontend), unsafe { backend.as_mut() })
    else {
        return Reason::INCONSISTENT.0;
    };
    paths::choose(&KernelMaps, key, frontend, uplink != 0, backend).0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_begin(key: *const FlowKey, service: u32, backend: u32, from_uplink: u32, number: u32) -> u32 {
    let Some(key) = pointee(key).copied() else {
        return Reason::INCONSISTENT.0;
    };
    let (service, backend) = (ServiceId(service), BackendId(backend));
    conntrack::begin(
        &KernelMaps,
        &key,
        &Begin {
            service,
            backend,
            from_uplink: from_uplink != 0,
            table: table(number),
        },
    )
    .0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_recover(key: *const FlowKey, service: u32, from_uplink: u32) -> u32 {
    let Some(key) = pointee(key).copied() else {
        return Reason::UNKNOWN_FLOW.0;
    };
    conntrack::recover(
        &KernelMaps,
        &key,
        &Begin {
            service: ServiceId(service),
            backend: BackendId(0),
            from_uplink: from_uplink != 0,
            table: Table::Conntrack,
        },
    )
    .0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_settle(flow: *mut FlowEntry, key: *const FlowKey, tcp: u32) -> u32 {
    if let (Some(flow), Some(key)) = (KernelFlow::new(flow), pointee(key)) {
        conntrack::settle(&KernelMaps, &flow, key, TcpFlags(tcp as u8));
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_promote(key: *const FlowKey, half: *mut FlowEntry) -> u32 {
    let (Some(key), Some(half)) = (pointee(key).copied(), KernelFlow::new(half)) else {
        return Reason::INCONSISTENT.0;
    };
    conntrack::promote(&KernelMaps, &key, &half).0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_forget(number: u32, key: *const FlowKey, flow: *mut FlowEntry) -> u32 {
    if let (Some(key), Some(flow)) = (pointee(key).copied(), KernelFlow::new(flow)) {
        conntrack::forget(&KernelMaps, table(number), &key, &flow);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn step_abandon(flow: *mut FlowEntry) -> u32 {
    if let Some(flow) = KernelFlow::new(flow) {
        conntrack::abandon(&KernelMaps, &flow);
    }
    0
}
