//! How long a failed watch waits before the next try: twice as long each time, up to a bound, and never all nodes at
//! the same moment. Used by [`kinds`](super::kinds).

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use kube::runtime::utils::Backoff;

const FIRST: Duration = Duration::from_millis(200);
/// An API server that comes back is noticed within this time.
const LAST: Duration = Duration::from_secs(5);

/// Delays of 0.2 s, 0.4 s, ... 5 s, each shortened by up to a third at random.
#[derive(Debug)]
pub(super) struct Doubling {
    next: Duration,
    random: RandomState,
}

impl Doubling {
    pub(super) fn new() -> Self {
        Self {
            next: FIRST,
            random: RandomState::new(),
        }
    }
}

impl Iterator for Doubling {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = self.next;
        self.next = (delay * 2).min(LAST);
        // The hasher's keys are random: enough to keep nodes apart.
        let thousandths = self.random.hash_one(delay) % 333;
        Some(delay.mul_f64(1.0 - thousandths as f64 / 1000.0))
    }
}

impl Backoff for Doubling {
    fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_bound_and_start_again_after_success() {
        let mut delays = Doubling::new();
        let list: Vec<_> = delays.by_ref().take(12).collect();
        assert!(list[0] <= FIRST && list[0] >= FIRST.mul_f64(0.66));
        assert!(list[11] <= LAST && list[11] >= LAST.mul_f64(0.66));
        delays.reset();
        assert!(delays.next().is_some_and(|delay| delay <= FIRST));
    }
}
