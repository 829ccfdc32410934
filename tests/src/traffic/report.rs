//! What a traffic client saw.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The outcome of one run of the client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Requests answered.
    pub ok: u64,
    /// Requests that failed, by what was said.
    pub errors: BTreeMap<String, u64>,
    /// Requests answered, by backend.
    pub backends: BTreeMap<String, u64>,
    /// For each client address that was bound: how many answers from each backend.
    pub by_source: BTreeMap<IpAddr, BTreeMap<String, u64>>,
    /// Client addresses the servers saw.
    pub peers: BTreeMap<IpAddr, u64>,
    /// Longest time from the start of a request to its answer, in microseconds.
    pub slowest_us: u64,
}

impl Report {
    /// Number of failed requests.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// How many answers one backend gave.
    #[must_use]
    pub fn from(&self, backend: &str) -> u64 {
        self.backends.get(backend).copied().unwrap_or(0)
    }

    /// The one backend that answered a source, or `None` if several did or none.
    #[must_use]
    pub fn only_backend(&self, source: IpAddr) -> Option<&str> {
        let backends = self.by_source.get(&source)?;
        let mut names = backends.keys();
        let first = names.next()?;
        names.next().is_none().then_some(first.as_str())
    }

    /// Adds another run's numbers.
    pub fn merge(&mut self, other: Self) {
        self.ok += other.ok;
        add(&mut self.errors, other.errors);
        add(&mut self.backends, other.backends);
        add(&mut self.peers, other.peers);
        for (source, backends) in other.by_source {
            add(self.by_source.entry(source).or_default(), backends);
        }
        self.slowest_us = self.slowest_us.max(other.slowest_us);
    }

    pub(super) fn answered(&mut self, source: Option<IpAddr>, backend: &str, peer: Option<IpAddr>) {
        self.ok += 1;
        *self.backends.entry(backend.to_owned()).or_default() += 1;
        if let Some(source) = source {
            *self
                .by_source
                .entry(source)
                .or_default()
                .entry(backend.to_owned())
                .or_default() += 1;
        }
        if let Some(peer) = peer {
            *self.peers.entry(peer).or_default() += 1;
        }
    }

    pub(super) fn error(&mut self, what: String) {
        *self.errors.entry(what).or_default() += 1;
    }
}

fn add<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key).or_default() += count;
    }
}
