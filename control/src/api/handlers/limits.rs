//! How many requests are worked on at the same time; watches do not count.
//!
//! Reading and writing have places of their own, so that a flood of one leaves the other alive. Whoever finds no place
//! is told to come back in a second.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::status::{Reason, Status};

pub(super) struct Limits {
    reading: Arc<Semaphore>,
    writing: Arc<Semaphore>,
}

impl Limits {
    /// Places for reading and for writing requests.
    pub(super) fn new((reading, writing): (usize, usize)) -> Self {
        Self {
            reading: Arc::new(Semaphore::new(reading)),
            writing: Arc::new(Semaphore::new(writing)),
        }
    }

    /// A place for as long as the permit lives.
    pub(super) fn admit(&self, mutating: bool) -> Result<OwnedSemaphorePermit, Status> {
        let places = if mutating { &self.writing } else { &self.reading };
        let full =
            |_| Status::new(Reason::TooManyRequests, "too many requests, please try again later").with_retry_after(1);
        Arc::clone(places).try_acquire_owned().map_err(full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_house_sends_away_and_says_when_to_come_back() {
        let limits = Limits::new((1, 1));
        let reading = limits.admit(false).unwrap();
        let refused = limits.admit(false).unwrap_err();
        assert_eq!((refused.code, refused.retry_after()), (429, 1));
        assert!(limits.admit(true).is_ok(), "writing has its own places");
        drop(reading);
        assert!(limits.admit(false).is_ok());
    }
}
