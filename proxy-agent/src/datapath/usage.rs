//! What the sweeps saw, for metrics: written by [`expire`](super::expire), read by [`serve`](crate::serve).

use std::sync::{Arc, Mutex, PoisonError};

/// Entries in use and what was done to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Entries of `CONNTRACK` at the last sweep.
    pub conntrack: u64,
    /// Entries of `HALF_OPEN` at the last sweep.
    pub half_open: u64,
    /// Entries of `AFFINITY` at the last sweep.
    pub affinity: u64,
    /// Entries of flows that ended by timeout since the start.
    pub expired: u64,
    /// Backends whose count of open flows was mended since the start.
    pub healed: u64,
}

/// A handle on the newest [`Usage`]; clones share it.
#[derive(Clone, Debug, Default)]
pub struct UsageHandle(Arc<Mutex<Usage>>);

impl UsageHandle {
    /// The newest figures.
    pub fn get(&self) -> Usage {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes them in place.
    pub(super) fn update(&self, change: impl FnOnce(&mut Usage)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
