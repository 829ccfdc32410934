//! Step 4: affinity, then the service's algorithm picks one slot of a run.
//!
//! Called by the packet path for a new flow ([`conntrack`](crate::conntrack)) and by the socket path for a connect or a
//! datagram; both build a [`Request`], so one client gets the same backend on either. What comes next is rewriting.
//!
//! An algorithm is a way to get an index. A backend that takes no new flows is passed over while another in the run
//! does; the agent builds runs without such backends, so this bridges the moment until it has.

use crate::abi::{Affinity, AffinityKey, Algorithm, BackendId, FlowKey, Run, Service, ServiceId, StateGeneration};
use crate::hash;
use crate::maps::{Maps, Step};

/// How many slots least connections compares: all of a run up to this size.
pub const LEAST_CONN_SCAN: u32 = 64;
/// How many random slots it compares in a longer run.
pub const LEAST_CONN_SAMPLES: u32 = 8;
/// How many slots are looked at before a backend that takes no new flows is accepted.
const TRIES: u32 = 4;
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// Who asks for a backend, and of which run.
#[derive(Clone, Copy)]
pub struct Request {
    /// The service.
    pub id: ServiceId,
    /// Its value, as [`lookup::service`](crate::lookup::service) returned it.
    pub service: Service,
    /// `service.all` or `service.local`.
    pub run: Run,
    /// The flow as the client sees it: its address, the frontend's address, the ports (a source port not known yet is
    /// 0), the protocol.
    pub tuple: FlowKey,
}

/// Chooses a backend: its id, or 0 if the run is empty or holds nobody who could serve.
///
/// A function of its own in the object, because every path calls it; hence the plain word as a result.
#[inline(never)]
pub fn select<M: Maps>(maps: &M, request: &Request) -> BackendId {
    if request.run.len == 0 {
        return BackendId(0);
    }
    let affine = request.service.affinity_secs != 0;
    let key = AffinityKey {
        client: request.tuple.src,
        service: request.id,
    };
    let mut backend = BackendId(0);
    if affine {
        backend = remembered(maps, request, &key);
    }
    if backend == BackendId(0) {
        backend = choose(maps, request);
    }
    if affine {
        remember(maps, &key, backend);
    }
    backend
}

#[inline(always)]
fn remember<M: Maps>(maps: &M, key: &AffinityKey, backend: BackendId) {
    if let Some(value) = maps.backend(backend) {
        let generation = value.state.generation();
        maps.set_affinity(
            key,
            &Affinity {
                last_used: maps.now(),
                backend,
                generation,
            },
        );
    }
}

/// The backend the client had, if that was not too long ago and it may have new flows of this run; else 0.
#[inline(always)]
fn remembered<M: Maps>(maps: &M, request: &Request, key: &AffinityKey) -> BackendId {
    let Some(affinity) = maps.affinity(key) else {
        return BackendId(0);
    };
    let timeout = u64::from(request.service.affinity_secs) * NANOS_PER_SEC;
    // The coarse clock may lie behind what another CPU has noted.
    if maps.now().saturating_sub(affinity.last_used) > timeout {
        return BackendId(0);
    }
    let Some(backend) = maps.backend(affinity.backend) else {
        return BackendId(0);
    };
    let same = backend.state == StateGeneration::new(StateGeneration::ACTIVE, affinity.generation);
    let local_only = request.run == request.service.local && request.run != request.service.all;
    let fits = !local_only || backend.flags & crate::abi::Backend::LOCAL != 0;
    if same && fits { affinity.backend } else { BackendId(0) }
}

#[inline(always)]
fn choose<M: Maps>(maps: &M, request: &Request) -> BackendId {
    let tuple = &request.tuple;
    let start = match request.service.algorithm {
        Algorithm::LEAST_CONN => return least_conn(maps, request),
        Algorithm::SOURCE_HASH => u64::from(hash::address(&tuple.src, hash::BACKEND_SEED)),
        Algorithm::DEST_HASH => u64::from(hash::address(&tuple.dst, hash::BACKEND_SEED)),
        Algorithm::MAGLEV => u64::from(hash::tuple(tuple, hash::BACKEND_SEED)),
        Algorithm::RANDOM => u64::from(maps.random()),
        _ => maps.turn(request.id),
    };
    first_that_serves(maps, request.run, start)
}

/// The backend at `start` modulo the run's length, or the next that takes new flows, or else one that still serves.
#[inline(always)]
fn first_that_serves<M: Maps>(maps: &M, run: Run, start: u64) -> BackendId {
    let Some(start) = start.checked_rem(u64::from(run.len)) else {
        return BackendId(0);
    };
    let id = slot(maps, run, start as u32);
    if state(maps, id) == StateGeneration::ACTIVE {
        return id;
    }
    let mut search = Search {
        maps,
        run,
        start: start as u32,
        found: BackendId(0),
    };
    maps.repeat(TRIES, &mut search);
    search.found
}

/// The slots of a run from a start on, until one takes new flows.
struct Search<'a, M> {
    maps: &'a M,
    run: Run,
    start: u32,
    found: BackendId,
}

impl<M: Maps> Step for Search<'_, M> {
    #[inline(always)]
    fn step(&mut self, round: u32) -> bool {
        let id = nth(self.maps, self.run, self.start, round);
        let state = state(self.maps, id);
        if state != StateGeneration::DEAD {
            self.found = id;
        }
        state != StateGeneration::ACTIVE
    }
}

/// The backend with the fewest open flows: of all, with ties going to the first from a start that moves on with every
/// choice, or in a long run of some at random.
#[inline(always)]
fn least_conn<M: Maps>(maps: &M, request: &Request) -> BackendId {
    let run = request.run;
    let rounds = if run.len > LEAST_CONN_SCAN {
        LEAST_CONN_SAMPLES
    } else {
        run.len
    };
    let start = maps.turn(request.id).checked_rem(u64::from(run.len)).unwrap_or(0) as u32;
    let mut scan = Scan {
        maps,
        run,
        start,
        best: Candidate::NONE,
    };
    maps.repeat(rounds, &mut scan);
    scan.best.id
}

/// The slots of a run one after the other, or random ones of a run too long for that.
struct Scan<'a, M> {
    maps: &'a M,
    run: Run,
    start: u32,
    best: Candidate,
}

impl<M: Maps> Step for Scan<'_, M> {
    #[inline(always)]
    fn step(&mut self, round: u32) -> bool {
        let sampled = self.run.len > LEAST_CONN_SCAN;
        let (start, round) = if sampled {
            (self.maps.random(), 0)
        } else {
            (self.start, round)
        };
        self.best.challenge(self.maps, nth(self.maps, self.run, start, round));
        true
    }
}

/// The best backend so far.
struct Candidate {
    id: BackendId,
    /// Open flows, with the top bit set for a backend that takes no new flows: any that does is better.
    rank: u64,
}

impl Candidate {
    const NONE: Self = Self {
        id: BackendId(0),
        rank: u64::MAX,
    };
    const RELUCTANT: u64 = 1 << 63;

    #[inline(always)]
    fn challenge<M: Maps>(&mut self, maps: &M, id: BackendId) {
        let reluctance = match state(maps, id) {
            StateGeneration::ACTIVE => 0,
            StateGeneration::DEAD => return,
            _ => Self::RELUCTANT,
        };
        let rank = maps.open_flows(id) | reluctance;
        if rank < self.rank {
            *self = Self { id, rank };
        }
    }
}

/// The backend in the slot `round` places after `start`, around the run's end.
#[inline(always)]
fn nth<M: Maps>(maps: &M, run: Run, start: u32, round: u32) -> BackendId {
    let offset = start.wrapping_add(round).checked_rem(run.len).unwrap_or(0);
    slot(maps, run, offset)
}

#[inline(always)]
fn slot<M: Maps>(maps: &M, run: Run, offset: u32) -> BackendId {
    maps.slot(run.base.wrapping_add(offset)).unwrap_or(BackendId(0))
}

#[inline(always)]
fn state<M: Maps>(maps: &M, id: BackendId) -> u8 {
    maps.backend(id)
        .map_or(StateGeneration::DEAD, |backend| backend.state.state())
}

#[cfg(test)]
mod tests;
