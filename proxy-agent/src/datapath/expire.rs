//! Ends what has been silent for too long: flows, half-open flows, session affinity. The programs only ever add; without
//! this sweep the LRU would decide what goes, and it knows nothing of who is still connected.
//!
//! [`start`](super::start) runs [`Sweeper::follow`] on a thread; [`recount`](super::recount) takes its turn there.
//!
//! A flow is two entries, and each sees one direction only. It is over when *both* have been silent, so an entry that
//! looks old is compared with its other half, and they go together.

use std::{collections::HashMap, io, time::Duration};

use proxy_ebpf::abi::{
    Affinity, AffinityKey, Backend, BackendExpired, BackendId, FlowEntry, FlowKey, PROTO_TCP, Service, ServiceId,
};
use tracing::{debug, warn};

use super::{
    bpf::{self, TypedMap},
    map,
    pins::Pins,
    recount::Recount,
    stop::Stop,
    usage::{Usage, UsageHandle},
};
use crate::config::TimeoutArgs;

/// Time between sweeps; an entry outlives its timeout by no more than this.
const PERIOD: Duration = Duration::from_secs(5);
/// Sweeps between two recounts.
const RECOUNT_EVERY: u32 = 12;
/// Rest after each batch of a long sweep, so that a full table never costs a CPU.
const REST: Duration = Duration::from_millis(2);
/// How long a closed flow is remembered: for the last acknowledgements and for segments that were under way.
const CLOSED: Duration = Duration::from_secs(10);
/// The same behind the node's address: as long as a backend keeps a port in TIME_WAIT, so that no other client gets it.
const CLOSED_MASQUERADED: Duration = Duration::from_secs(60);

/// The maps that are swept.
pub struct Sweeper {
    conntrack: TypedMap<FlowKey, FlowEntry>,
    half_open: TypedMap<FlowKey, FlowEntry>,
    affinity: TypedMap<AffinityKey, Affinity>,
    services: TypedMap<ServiceId, Service>,
    backends: TypedMap<BackendId, Backend>,
    expired: TypedMap<BackendId, BackendExpired>,
    timeouts: TimeoutArgs,
}

impl Sweeper {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// A map is not pinned.
    pub fn new(pins: &Pins, timeouts: &TimeoutArgs) -> io::Result<Self> {
        Ok(Self {
            conntrack: TypedMap::new(bpf::open_pinned(&pins.map("CONNTRACK"))?)?,
            half_open: TypedMap::new(bpf::open_pinned(&pins.map("HALF_OPEN"))?)?,
            affinity: TypedMap::new(bpf::open_pinned(&pins.map("AFFINITY"))?)?,
            services: TypedMap::new(bpf::open_pinned(&pins.map("SERVICES"))?)?,
            backends: TypedMap::new(bpf::open_pinned(&pins.map("BACKENDS"))?)?,
            expired: TypedMap::new(bpf::open_pinned(&pins.map("BACKEND_EXPIRED"))?)?,
            timeouts: timeouts.clone(),
        })
    }

    /// Sweeps, and recounts in between, until told to stop.
    pub fn follow(&self, recount: &mut Option<Recount>, usage: &UsageHandle, stop: &Stop) {
        let mut sweeps = 0;
        while !stop.wait(PERIOD) {
            match self.sweep(stop) {
                Ok(seen) => usage.update(|all| {
                    *all = Usage {
                        healed: all.healed,
                        expired: all.expired + seen.expired,
                        ..seen
                    }
                }),
                Err(_) if stop.is_set() => return,
                Err(error) => warn!(%error, "flows can't be swept"),
            }
            sweeps += 1;
            if sweeps % RECOUNT_EVERY == 0
                && let Some(recount) = recount
            {
                match recount.round() {
                    Ok(healed) => usage.update(|all| all.healed += healed),
                    Err(error) => warn!(%error, "flows can't be recounted"),
                }
            }
        }
    }

    /// One pass over everything; returns what it saw.
    ///
    /// # Errors
    /// The kernel's.
    pub fn sweep(&self, stop: &Stop) -> io::Result<Usage> {
        let mut usage = Usage::default();
        usage.conntrack = self.sweep_flows(&self.conntrack, stop, &mut usage.expired, |key, entry| {
            timeout(&self.timeouts, key.proto, entry.flags)
        })?;
        usage.half_open = self.sweep_flows(&self.half_open, stop, &mut usage.expired, |_, _| {
            self.timeouts.tcp_half_open_timeout
        })?;
        usage.affinity = self.sweep_affinity(stop)?;
        Ok(usage)
    }

    /// Sweeps one table of flows; returns how many entries it held.
    fn sweep_flows(
        &self,
        table: &TypedMap<FlowKey, FlowEntry>,
        stop: &Stop,
        expired: &mut u64,
        timeout: impl Fn(&FlowKey, &FlowEntry) -> Duration,
    ) -> io::Result<u64> {
        let mut held = 0;
        map::for_each_chunk(table, |keys, entries| {
            held += keys.len() as u64;
            let now = bpf::coarse_clock();
            let silent = |key: &FlowKey, entry: &FlowEntry| is_past(now, entry.last_seen, timeout(key, entry));
            for (key, entry) in keys.iter().zip(entries).filter(|(key, entry)| silent(key, entry)) {
                let other_key = entry.translated.reversed();
                let both = merged(entry, table.get(&other_key)?.as_ref());
                if silent(key, &both) {
                    *expired += self.end(table, key, both.last_seen)? + self.end(table, &other_key, both.last_seen)?;
                }
            }
            rest(keys.len(), stop)
        })?;
        Ok(held)
    }

    /// Removes an entry that was last seen at `seen` and counts it out; returns how many were removed. If a packet has
    /// refreshed it since, it is put back.
    fn end(&self, table: &TypedMap<FlowKey, FlowEntry>, key: &FlowKey, seen: u64) -> io::Result<u64> {
        let Some(entry) = table.take(key)? else { return Ok(0) };
        if entry.last_seen > seen {
            // If a new flow took the key meanwhile, that one is the truth.
            return match table.set(key, &entry, bpf::NO_EXIST) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => Ok(0),
            };
        }
        if entry.counted == 1 {
            self.count_out(entry.backend, entry.generation)?;
        }
        Ok(1)
    }

    /// Adds one to what has ended without the programs seeing it, unless the id has another owner by now.
    fn count_out(&self, backend: BackendId, generation: u32) -> io::Result<()> {
        let current = self
            .backends
            .get(&backend)?
            .is_some_and(|found| found.state.generation() == generation);
        if current && let Some(expired) = self.expired.get(&backend)? {
            self.expired.set(
                &backend,
                &BackendExpired {
                    flows: expired.flows.wrapping_add(1),
                },
                bpf::ANY,
            )?;
        }
        Ok(())
    }

    /// Sweeps session affinity; returns how many entries it held.
    fn sweep_affinity(&self, stop: &Stop) -> io::Result<u64> {
        let mut held = 0;
        let mut timeouts: HashMap<ServiceId, Duration> = HashMap::new();
        map::for_each_chunk(&self.affinity, |keys, entries| {
            held += keys.len() as u64;
            let now = bpf::coarse_clock();
            for (key, entry) in keys.iter().zip(entries) {
                let timeout = match timeouts.get(&key.service) {
                    Some(known) => *known,
                    None => *timeouts
                        .entry(key.service)
                        .or_insert(self.affinity_timeout(key.service)?),
                };
                if is_past(now, entry.last_used, timeout) {
                    debug!(client = ?key.client, "affinity ended");
                    self.affinity.delete(key)?;
                }
            }
            rest(keys.len(), stop)
        })?;
        Ok(held)
    }

    fn affinity_timeout(&self, service: ServiceId) -> io::Result<Duration> {
        let found = self.services.get(&service)?;
        Ok(Duration::from_secs(
            found.map_or(0, |service| service.affinity_secs.into()),
        ))
    }
}

/// How long a flow may be silent.
fn timeout(timeouts: &TimeoutArgs, proto: u8, flags: u32) -> Duration {
    let has = |flag| flags & flag != 0;
    if proto != PROTO_TCP {
        return if has(FlowEntry::REPLIED) {
            timeouts.udp_stream_timeout
        } else {
            timeouts.udp_timeout
        };
    }
    if has(FlowEntry::CLOSED) && has(FlowEntry::SNAT) {
        CLOSED_MASQUERADED
    } else if has(FlowEntry::CLOSED) {
        CLOSED
    } else if has(FlowEntry::FIN_CLIENT | FlowEntry::FIN_BACKEND) {
        timeouts.tcp_close_wait_timeout
    } else if has(FlowEntry::REPLIED) {
        timeouts.tcp_established_timeout
    } else {
        timeouts.tcp_half_open_timeout
    }
}

/// An entry with what its other half has seen.
fn merged(entry: &FlowEntry, other: Option<&FlowEntry>) -> FlowEntry {
    let Some(other) = other else { return *entry };
    FlowEntry {
        flags: entry.flags | other.flags,
        last_seen: entry.last_seen.max(other.last_seen),
        ..*entry
    }
}

fn is_past(now: u64, last: u64, timeout: Duration) -> bool {
    Duration::from_nanos(now.saturating_sub(last)) > timeout
}

/// A pause after a batch; an error once the agent stops.
fn rest(entries: usize, stop: &Stop) -> io::Result<()> {
    let stopped = if entries > 1024 { stop.wait(REST) } else { stop.is_set() };
    if stopped {
        Err(io::ErrorKind::Interrupted.into())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{Cli, Command};

    fn timeouts() -> TimeoutArgs {
        let Command::Run(args) = Cli::parse_from(["proxy-agent", "run", "--node-name", "n"]).command else {
            panic!("not run");
        };
        args.timeouts
    }

    #[test]
    fn a_flow_is_silent_only_when_both_directions_are() {
        let old = FlowEntry {
            last_seen: 1,
            ..FlowEntry::default()
        };
        let fresh = FlowEntry {
            last_seen: 90,
            flags: FlowEntry::REPLY,
            ..FlowEntry::default()
        };
        assert_eq!(merged(&old, Some(&fresh)).last_seen, 90);
        assert_eq!(merged(&old, None).last_seen, 1);
    }

    #[test]
    fn the_state_of_a_flow_decides_how_long_it_may_be_silent() {
        let secs = |proto, flags| timeout(&timeouts(), proto, flags).as_secs();
        assert_eq!(secs(PROTO_TCP, 0), 60);
        assert_eq!(secs(PROTO_TCP, FlowEntry::REPLIED), 24 * 3600);
        assert_eq!(secs(PROTO_TCP, FlowEntry::REPLIED | FlowEntry::FIN_BACKEND), 120);
        assert_eq!(
            secs(
                PROTO_TCP,
                FlowEntry::REPLIED | FlowEntry::FIN_BACKEND | FlowEntry::CLOSED
            ),
            10
        );
        assert_eq!(secs(17, 0), 30);
        assert_eq!(secs(17, FlowEntry::REPLIED), 180);
    }

    #[test]
    fn a_clock_a_little_behind_ends_nothing() {
        assert!(!is_past(100, 105, Duration::ZERO));
        assert!(is_past(2_000_000_001, 0, Duration::from_secs(2)));
    }
}
