//! Changes of one object, one after the other.
//!
//! A change reads, computes and writes; two of the same object at the same time would make one of them do its work
//! again. They wait for each other here instead. Objects share lanes by the hash of their key: being in the same lane
//! costs time, never correctness, which only the store's conditional write decides.

use std::hash::{BuildHasher as _, RandomState};

use tokio::sync::{Mutex, MutexGuard};

const LANES: usize = 256;

pub(super) struct Lanes {
    lanes: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            lanes: std::iter::repeat_with(Mutex::default).take(LANES).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Lanes {
    /// Waits until nobody else changes the object at `key`; others wait while the guard lives.
    pub(super) async fn enter(&self, key: &str) -> MutexGuard<'_, ()> {
        let lane = self.hasher.hash_one(key) % LANES as u64;
        self.lanes[usize::try_from(lane).expect("a lane number is small")]
            .lock()
            .await
    }
}
