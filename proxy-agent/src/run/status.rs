//! What the agent would say of itself, shared with [`serve`](crate::serve): written by the loop of [`run`](super) after
//! every batch, read by probes and scrapes.

use std::{
    sync::{Arc, RwLock},
    time::{Duration, SystemTime},
};

/// A handle on the newest [`Status`]; clones share it.
#[derive(Clone, Debug, Default)]
pub struct StatusHandle(Arc<RwLock<Status>>);

impl StatusHandle {
    /// A copy of the newest status.
    pub fn get(&self) -> Status {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Changes the status in place.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

/// The agent's state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether the first full lists were programmed.
    pub synced: bool,
    /// Whether the Node is being deleted or tainted for it: `/healthz` answers 503 (KEP-3836).
    pub node_terminating: bool,
    /// When a change last arrived that had to be programmed.
    pub last_queued: Option<SystemTime>,
    /// When maps last held everything that had arrived.
    pub last_synced: Option<SystemTime>,
    /// Batches programmed, and how long they took from the first event to the last map call.
    pub syncs: SyncTimes,
    /// Changes of Services since the start, and those not programmed yet.
    pub service_changes: Changes,
    /// Changes of EndpointSlices since the start, and those not programmed yet.
    pub endpoint_changes: Changes,
    /// Entries in use and size, by map.
    pub fill: Vec<Fill>,
    /// Service ports with a Local policy that has no endpoint on this node: internal, external.
    pub no_local_endpoints: (u64, u64),
    /// Services that are not programmed, and why.
    pub problems: Vec<Problem>,
    /// Services with a `healthCheckNodePort`.
    pub health_ports: Vec<HealthPort>,
    /// Full compares that found a difference and mended it.
    pub mended: u64,
}

/// Figures of the `kubeproxy_sync_proxy_rules_duration_seconds` kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncTimes {
    /// Batches so far.
    pub count: u64,
    /// Time spent in all of them.
    pub sum: Duration,
    /// How many took at most 1 ms, 2 ms, 4 ms and so on, each without those of the bucket before.
    pub buckets: [u64; Self::BUCKETS],
}

impl SyncTimes {
    /// Number of buckets; what took longer than the last is in `count` only.
    pub const BUCKETS: usize = 15;

    /// Upper bound of a bucket.
    pub const fn bound(bucket: usize) -> Duration {
        Duration::from_millis(1 << bucket)
    }

    pub(crate) fn record(&mut self, took: Duration) {
        self.count += 1;
        self.sum += took;
        if let Some(bucket) = (0..Self::BUCKETS).find(|&bucket| took <= Self::bound(bucket)) {
            self.buckets[bucket] += 1;
        }
    }
}

/// Changes of one kind of object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Since the start.
    pub total: u64,
    /// Arrived and not programmed yet.
    pub pending: u64,
}

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Name of the map.
    pub map: &'static str,
    /// Entries in use.
    pub used: u64,
    /// Entries it can hold.
    pub size: u64,
}

/// A Service the agent could not program as its object asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `namespace/name` of the Service; `*` if it concerns all.
    pub service: String,
    /// One word for it, as the reason of a Kubernetes Event.
    pub reason: &'static str,
    /// What is wrong and what would mend it.
    pub message: String,
}

/// What a load balancer asks at a Service's `healthCheckNodePort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthPort {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub name: String,
    /// The port to answer on.
    pub port: u16,
    /// Ready endpoints on this node; 0 answers 503.
    pub local_endpoints: usize,
}
