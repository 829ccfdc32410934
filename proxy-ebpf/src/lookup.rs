//! Step 3: a destination becomes a frontend, a frontend a service and a run of slots.
//!
//! Called by the packet path for packets of no known flow and by the socket path; [`select`](crate::select) comes next.

use crate::abi::{FlowKey, Frontend, FrontendKey, Run, Service, ServiceId};
use crate::maps::Maps;
use crate::verdict::Reason;

/// How often a service is read again when it changed while it was read.
const READS: u32 = 4;

/// Where a packet or a call comes from, which decides which of a Service's two traffic policies applies.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug))]
pub enum Origin {
    /// Outside the cluster: `externalTrafficPolicy`.
    External,
    /// A Pod or the node: `internalTrafficPolicy`.
    Internal,
}

/// The frontend a packet is sent to. Node ports of the loopback addresses are for sockets only.
#[inline(always)]
pub fn frontend<M: Maps>(maps: &M, key: &FlowKey) -> Option<Frontend> {
    let key = FrontendKey {
        addr: key.dst,
        port: key.dport,
        proto: key.proto,
        pad: 0,
    };
    maps.frontend(&key)
        .filter(|frontend| frontend.flags & Frontend::HOST_ONLY == 0)
}

/// A service, read in one piece.
///
/// # Errors
/// [`Reason::INCONSISTENT`]: the id is out of range, or the agent kept writing it while it was read.
#[inline(always)]
pub fn service<M: Maps>(maps: &M, id: ServiceId) -> Result<Service, Reason> {
    for _ in 0..READS {
        let service = maps.service(id).ok_or(Reason::INCONSISTENT)?;
        if service.is_whole() {
            return Ok(service);
        }
    }
    Err(Reason::INCONSISTENT)
}

/// The run of slots that serves traffic of an origin.
///
/// # Errors
/// [`Reason::NO_ENDPOINTS`] if the service has none at all, [`Reason::NO_LOCAL_ENDPOINTS`] if a Local policy finds none
/// on this node.
#[inline(always)]
pub fn run(service: &Service, frontend: &Frontend, origin: Origin) -> Result<Run, Reason> {
    let local = match origin {
        Origin::External => Frontend::EXTERNAL_LOCAL,
        Origin::Internal => Frontend::INTERNAL_LOCAL,
    };
    if service.all.len == 0 && service.local.len == 0 {
        return Err(Reason::NO_ENDPOINTS);
    }
    if frontend.flags & local == 0 {
        return if service.all.len == 0 {
            Err(Reason::NO_ENDPOINTS)
        } else {
            Ok(service.all)
        };
    }
    if service.local.len == 0 {
        Err(Reason::NO_LOCAL_ENDPOINTS)
    } else {
        Ok(service.local)
    }
}
