//! From the address a call names to a backend: frontend, who asks, which run, which slot. Called by `connect` and
//! `datagram`; the choice itself is [`select`], shared with the packet path.

use super::client;
use super::{Call, Endpoint};
use crate::abi::{Addr, BackendId, FlowKey, Frontend, FrontendKey, ServiceCounters};
use crate::lookup::{self, Origin};
use crate::maps::Maps;
use crate::select::{Request, select};
use crate::verdict::Reason;
use crate::wire::Be16;

/// A frontend that a call asked for, and who asked.
pub(super) struct Target {
    /// The address the call named.
    pub(super) vip: Endpoint,
    pub(super) proto: u8,
    pub(super) frontend: Frontend,
    pub(super) client: Addr,
}

/// The backend a call was given, or why it was given none.
pub(super) struct Route {
    pub(super) endpoint: Endpoint,
    pub(super) backend: BackendId,
    pub(super) generation: u32,
    pub(super) refused: Reason,
}

impl Route {
    /// For [`choose`] to fill in.
    pub(super) const NONE: Self = Self {
        endpoint: Endpoint {
            addr: Addr::UNSPECIFIED,
            port: Be16::ZERO,
        },
        backend: BackendId(0),
        generation: 0,
        refused: Reason::INCONSISTENT,
    };
}

/// Finds the frontend of a call.
///
/// # Errors
/// The reason why there is none: most calls go elsewhere and are left alone.
#[inline(always)]
pub(super) fn target<C: Call, M: Maps>(call: &C, maps: &M) -> Result<Target, Reason> {
    let proto = call.proto();
    if proto == 0 {
        return Err(Reason::SOCKET_NOT_OURS);
    }
    let vip = call.endpoint();
    let key = FrontendKey {
        addr: vip.addr,
        port: vip.port,
        proto,
        pad: 0,
    };
    let Some(frontend) = maps.frontend(&key) else {
        return Err(without_frontend(call, maps, &vip.addr));
    };
    let cookie = call.netns_cookie();
    let Some(client) = client::address(maps, cookie, vip.addr.is_v4()) else {
        return Err(Reason::SOCKET_OPT_OUT);
    };
    if frontend.flags & Frontend::HOST_ONLY != 0 && !client::is_host(maps, cookie) {
        return Err(Reason::SOCKET_NOT_OURS);
    }
    Ok(Target {
        vip,
        proto,
        frontend,
        client,
    })
}

/// A port nobody serves is refused on an address only Services have, and none of our business on any other.
#[inline(always)]
fn without_frontend<C: Call, M: Maps>(call: &C, maps: &M, addr: &Addr) -> Reason {
    if !maps.owned(addr) {
        return Reason::SOCKET_NOT_OURS;
    }
    if client::opted_out(maps, call.netns_cookie()) {
        return Reason::SOCKET_OPT_OUT;
    }
    Reason::UNKNOWN_PORT
}

/// Gives a call a backend: fills in `route` and returns true, or puts the reason why nobody can serve it in there.
///
/// Not a `Result`: its undefined half would be spilled, and the verifier refuses that.
#[inline(always)]
pub(super) fn choose<C: Call, M: Maps>(maps: &M, target: &Target, route: &mut Route) -> bool {
    let request = match request(maps, target) {
        Ok(request) => request,
        Err(reason) => {
            route.refused = reason;
            return false;
        }
    };
    let backend = select(maps, &request);
    if backend == BackendId(0) {
        route.refused = Reason::SOCKET_NO_ENDPOINTS;
        return false;
    }
    route.refused = Reason::INCONSISTENT;
    let Some(value) = maps.backend(backend) else {
        return false;
    };
    route.endpoint = Endpoint {
        addr: value.addr,
        port: value.port,
    };
    route.backend = backend;
    route.generation = value.state.generation();
    C::holds(&value.addr)
}

/// Which run of slots is in question; as everyone on the socket path is a Pod or the node, the internal policy says.
#[inline(always)]
fn request<M: Maps>(maps: &M, target: &Target) -> Result<Request, Reason> {
    let id = target.frontend.service;
    let service = lookup::service(maps, id)?;
    let run = lookup::run(&service, &target.frontend, Origin::Internal).map_err(|reason| match reason {
        Reason::NO_LOCAL_ENDPOINTS => Reason::SOCKET_NO_LOCAL_ENDPOINTS,
        _ => Reason::SOCKET_NO_ENDPOINTS,
    })?;
    // The kernel picks the source port later; any port will do to spread a client's connections over a Maglev table.
    let tuple = FlowKey {
        src: target.client,
        dst: target.vip.addr,
        sport: Be16::from_raw(maps.random() as u16),
        dport: target.vip.port,
        proto: target.proto,
        pad: [0; 3],
    };
    Ok(Request {
        id,
        service,
        run,
        tuple,
    })
}

/// Counts a connection, or a refusal, for the service.
#[inline(always)]
pub(super) fn count<M: Maps>(maps: &M, target: &Target, given: bool) {
    let (connections, refused) = (u64::from(given), u64::from(!given));
    maps.count_service(
        target.frontend.service,
        ServiceCounters {
            connections,
            refused,
            packets: 0,
            bytes: 0,
        },
    );
}
