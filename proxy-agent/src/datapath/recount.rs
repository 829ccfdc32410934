//! Checks the counts of open flows, by which least-connections chooses, against what is really open, and mends what has
//! drifted: an entry that the LRU pushed out, or an agent killed between two map calls, leaves a count behind.
//!
//! [`expire`](super::expire) calls [`Recount::round`] now and then.
//!
//! Truth is the flows of `CONNTRACK` that hold a count, plus the sockets that do, which the `recount` iterator lists over
//! all namespaces. It can't be read in one moment, so the counters are read before and after; a flow that came or went
//! meanwhile may or may not have been seen:
//!
//! ```text
//! before.open - closed meanwhile  <=  really open  <=  before.open + opened meanwhile
//! ```
//!
//! Only what lies outside of these bounds is drift, and it is mended when two rounds in a row agree on its direction, by
//! the smaller amount. For a backend at rest the bounds are one number and the check is exact.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
};

use proxy_ebpf::abi::{Backend, BackendExpired, BackendId, BackendLoad, FlowEntry, FlowKey, SocketState};
use tracing::info;

use super::{
    bpf::{self, TypedMap},
    map,
    pins::Pins,
};

/// Counters of a backend at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    generation: u32,
    opened: u64,
    closed: u64,
    expired: u64,
}

impl Count {
    /// Open flows; below zero if the counters have drifted that way.
    fn open(&self) -> i64 {
        self.opened
            .wrapping_sub(self.closed)
            .wrapping_sub(self.expired)
            .cast_signed()
    }

    /// By how much `actual` lies outside of what two readings allow; `None` if the id changed hands between them.
    fn drift(before: &Self, after: &Self, actual: i64) -> Option<i64> {
        let opened = after.opened.wrapping_sub(before.opened).cast_signed();
        let ended = (after.closed.wrapping_sub(before.closed))
            .wrapping_add(after.expired.wrapping_sub(before.expired))
            .cast_signed();
        let (low, high) = (before.open() - ended, before.open() + opened);
        (before.generation == after.generation).then_some((actual - high).max(0) + (actual - low).min(0))
    }
}

/// How much of two rounds' drift to mend: what both agree on.
fn agreed(first: i64, second: i64) -> i64 {
    if first.signum() == second.signum() {
        first.signum() * first.abs().min(second.abs())
    } else {
        0
    }
}

/// The maps and the iterator.
pub struct Recount {
    conntrack: TypedMap<FlowKey, FlowEntry>,
    backends: TypedMap<BackendId, Backend>,
    loads: TypedMap<BackendId, BackendLoad>,
    expired: TypedMap<BackendId, BackendExpired>,
    /// The iterator's program and the map of sockets; `None` without a socket path.
    sockets: Option<(OwnedFd, TypedMap<u32, SocketState>)>,
    /// What the round before found.
    suspected: BTreeMap<BackendId, i64>,
}

impl Recount {
    /// Opens the pinned maps; `iterator` is the loaded program `recount`, `None` without a socket path.
    ///
    /// # Errors
    /// A map is not pinned.
    pub fn new(pins: &Pins, iterator: Option<OwnedFd>) -> io::Result<Self> {
        let sockets = match iterator {
            Some(program) => Some((program, TypedMap::new(bpf::open_pinned(&pins.map("SOCKETS"))?)?)),
            None => None,
        };
        Ok(Self {
            conntrack: TypedMap::new(bpf::open_pinned(&pins.map("CONNTRACK"))?)?,
            backends: TypedMap::new(bpf::open_pinned(&pins.map("BACKENDS"))?)?,
            loads: TypedMap::new(bpf::open_pinned(&pins.map("BACKEND_LOADS"))?)?,
            expired: TypedMap::new(bpf::open_pinned(&pins.map("BACKEND_EXPIRED"))?)?,
            sockets,
            suspected: BTreeMap::new(),
        })
    }

    /// Compares once, and mends what this round and the one before agree on. Returns how many backends were mended.
    ///
    /// # Errors
    /// The kernel's.
    pub fn round(&mut self) -> io::Result<u64> {
        let before = self.read_counts()?;
        let actual = self.read_actual(&before)?;
        let after = self.read_counts()?;
        let mut suspected = BTreeMap::new();
        let mut mended = 0;
        for (id, after) in &after {
            let really = actual.get(id).copied().unwrap_or(0);
            let before = before.get(id).copied().unwrap_or(Count {
                generation: after.generation,
                ..Count::default()
            });
            let Some(drift) = Count::drift(&before, after, really).filter(|drift| *drift != 0) else {
                continue;
            };
            match agreed(self.suspected.get(id).copied().unwrap_or(0), drift) {
                0 => _ = suspected.insert(*id, drift),
                sure => {
                    self.mend(*id, sure)?;
                    mended += 1;
                }
            }
        }
        self.suspected = suspected;
        Ok(mended)
    }

    fn read_counts(&self) -> io::Result<BTreeMap<BackendId, Count>> {
        let mut counts: BTreeMap<BackendId, Count> = map::read_set(&self.backends)?
            .into_iter()
            .map(|(id, backend)| {
                (
                    id,
                    Count {
                        generation: backend.state.generation(),
                        ..Count::default()
                    },
                )
            })
            .collect();
        for (id, load) in map::read_set(&self.loads)? {
            let count = counts.entry(id).or_default();
            (count.opened, count.closed) = (load.opened, load.closed);
        }
        for (id, expired) in map::read_set(&self.expired)? {
            counts.entry(id).or_default().expired = expired.flows;
        }
        Ok(counts)
    }

    /// Flows and sockets that hold a count of a backend's present generation.
    fn read_actual(&self, counts: &BTreeMap<BackendId, Count>) -> io::Result<BTreeMap<BackendId, i64>> {
        let mut actual = BTreeMap::new();
        let mut add = |id: BackendId, generation: u32| {
            if counts.get(&id).is_some_and(|count| count.generation == generation) {
                *actual.entry(id).or_default() += 1;
            }
        };
        map::for_each_chunk(&self.conntrack, |_, entries| {
            entries
                .iter()
                .filter(|entry| entry.counted == 1)
                .for_each(|entry| add(entry.backend, entry.generation));
            Ok(())
        })?;
        for [id, generation] in self.read_sockets()? {
            add(BackendId(id), generation);
        }
        Ok(actual)
    }

    /// Backend and generation of every socket that holds a count.
    fn read_sockets(&self) -> io::Result<Vec<[u32; 2]>> {
        let Some((program, sockets)) = &self.sockets else {
            return Ok(Vec::new());
        };
        let mut bytes = Vec::new();
        bpf::iterate(program.as_fd(), sockets.as_fd())?.read_to_end(&mut bytes)?;
        Ok(bytes
            .chunks_exact(size_of::<[u32; 2]>())
            .map(bytemuck::pod_read_unaligned)
            .collect())
    }

    fn mend(&self, id: BackendId, drift: i64) -> io::Result<()> {
        let expired = self.expired.get(&id)?.unwrap_or_default();
        let flows = expired.flows.wrapping_sub(drift.cast_unsigned());
        info!(backend = id.0, drift, "the count of open flows had drifted: mended");
        self.expired.set(&id, &BackendExpired { flows }, bpf::ANY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(opened: u64, closed: u64, expired: u64) -> Count {
        Count {
            generation: 1,
            opened,
            closed,
            expired,
        }
    }

    #[test]
    fn a_backend_at_rest_is_checked_exactly() {
        let at_rest = count(10, 4, 1);
        assert_eq!(Count::drift(&at_rest, &at_rest, 5), Some(0));
        assert_eq!(Count::drift(&at_rest, &at_rest, 3), Some(-2));
        assert_eq!(Count::drift(&at_rest, &at_rest, 6), Some(1));
    }

    #[test]
    fn flows_that_came_and_went_meanwhile_are_no_drift() {
        let (before, after) = (count(10, 4, 0), count(13, 6, 0));
        for actual in 4..=9 {
            assert_eq!(Count::drift(&before, &after, actual), Some(0), "{actual}");
        }
        assert_eq!(Count::drift(&before, &after, 10), Some(1));
        assert_eq!(Count::drift(&before, &after, 3), Some(-1));
    }

    #[test]
    fn an_id_that_changed_hands_is_left_alone() {
        let after = Count {
            generation: 2,
            ..count(10, 4, 6)
        };
        assert_eq!(Count::drift(&count(10, 4, 0), &after, 0), None);
    }

    #[test]
    fn two_rounds_must_agree() {
        assert_eq!(agreed(-3, -2), -2);
        assert_eq!(agreed(2, 5), 2);
        assert_eq!(agreed(2, -2), 0);
        assert_eq!(agreed(0, 4), 0);
    }

    #[test]
    fn a_count_below_zero_is_seen_as_such() {
        assert_eq!(count(3, 5, 0).open(), -2);
        assert_eq!(count(5, 3, u64::MAX).open(), 3);
    }
}
