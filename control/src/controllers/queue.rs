//! A work queue: keys that wait for work, each at most once, with a delay after failures.
//!
//! Owned by [`super::runtime`]. A key that is added while it is being worked on waits until that is over and then gets
//! its turn again: nothing is worked on twice at the same time, and no change is missed.
//!
//! ```text
//! add -> waiting -> take -> active -> done -> (added meanwhile? waiting)
//!            ^--- delay passed --- delayed <- retry
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

/// The first delay after a failure; each further one is twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(10);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Keys that wait for work.
pub(super) struct Queue<K> {
    waiting: VecDeque<K>,
    /// What is in `waiting`, or was added while active.
    wanted: HashSet<K>,
    active: HashSet<K>,
    delayed: BTreeMap<Instant, BTreeSet<K>>,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash + Ord> Queue<K> {
    pub(super) fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            wanted: HashSet::new(),
            active: HashSet::new(),
            delayed: BTreeMap::new(),
            failures: HashMap::new(),
        }
    }

    /// Asks for work on a key.
    pub(super) fn add(&mut self, key: K) {
        if self.wanted.insert(key.clone()) && !self.active.contains(&key) {
            self.waiting.push_back(key);
        }
    }

    /// The next key to work on; it is active until [`Queue::done`] or [`Queue::retry`].
    pub(super) fn take(&mut self) -> Option<K> {
        let now = Instant::now();
        while let Some(entry) = self.delayed.first_entry().filter(|entry| *entry.key() <= now) {
            entry.remove().into_iter().for_each(|key| self.add(key));
        }
        let key = self.waiting.pop_front()?;
        self.wanted.remove(&key);
        self.active.insert(key.clone());
        Some(key)
    }

    /// The work on a key is finished.
    pub(super) fn done(&mut self, key: &K) {
        self.failures.remove(key);
        self.release(key);
    }

    /// The work on a key has failed: it is wanted again after a while. Returns how long that is.
    pub(super) fn retry(&mut self, key: &K) -> Duration {
        let failures = self.failures.entry(key.clone()).or_insert(0);
        let delay = LONGEST_DELAY.min(FIRST_DELAY.saturating_mul(1 << (*failures).min(16)));
        *failures += 1;
        self.delayed
            .entry(Instant::now() + delay)
            .or_default()
            .insert(key.clone());
        self.release(key);
        delay
    }

    /// When the next delayed key is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.first_key_value().map(|(due, _)| *due)
    }

    fn release(&mut self, key: &K) {
        self.active.remove(key);
        if self.wanted.contains(key) {
            self.waiting.push_back(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_waits_once_and_is_active_once() {
        let mut queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.take(), Some("a"));
        queue.add("a");
        assert_eq!((queue.take(), queue.take()), (Some("b"), None), "a is being worked on");
        queue.done(&"a");
        assert_eq!(
            (queue.take(), queue.take()),
            (Some("a"), None),
            "it was added meanwhile"
        );
    }

    #[tokio::test]
    async fn failures_are_retried_later_and_later_until_one_succeeds() {
        let mut queue = Queue::new();
        queue.add("a");
        for delay in [10, 20, 40] {
            assert_eq!(queue.take(), Some("a"));
            assert_eq!(queue.retry(&"a"), Duration::from_millis(delay));
            assert_eq!(queue.take(), None, "not before its time");
            tokio::time::sleep_until(queue.next_due().unwrap()).await;
        }
        assert_eq!(queue.take(), Some("a"));
        queue.done(&"a");
        queue.add("a");
        queue.take();
        assert_eq!(queue.retry(&"a"), FIRST_DELAY, "a success makes failures forgotten");
    }
}
