//! The loop every controller runs in: changes in, keys into the queue, work on the keys, some of it side by side.
//!
//! Started by [`super::spawn`]. A [`Controller`] is owned by its loop: its caches need no locks. It decides what to do
//! for a key from the caches alone, without waiting; the writes that follow run beside others. Before a key is decided
//! on again, the caches have caught up with what was written for it; before the first decision, with everything.

use std::fmt::Display;
use std::hash::Hash;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

use super::queue::Queue;
use crate::api::Status;

/// Pieces of work a controller has under way at most.
const PARALLEL: usize = 32;

/// What is to be done for a key.
pub(super) type Work = BoxFuture<'static, Outcome>;

/// What came of a piece of work.
#[derive(Default)]
pub(super) struct Outcome {
    /// The newest revision that was written; 0 if none.
    pub(super) written: u64,
    /// Whether it has to be tried again, and why.
    pub(super) failed: Option<Status>,
}

/// A control loop over keys.
pub(super) trait Controller: Send {
    /// What work is done for.
    type Key: Clone + Display + Eq + Hash + Ord + Send + Sync;

    /// Waits for changes, and says for which keys there may be work; none when the store is closed. Must lose nothing
    /// when dropped before it is ready.
    fn changed(&mut self) -> impl Future<Output = Option<Vec<Self::Key>>> + Send;

    /// Decides what to do for a key; none if nothing.
    fn decide(&mut self, key: &Self::Key) -> Option<Work>;

    /// Brings the caches to `revision`, which the store has reached, and says for which keys there may be work.
    fn catch_up(&mut self, revision: u64) -> impl Future<Output = Vec<Self::Key>> + Send;
}

/// Runs a controller over everything there is at revision `now` and what comes after, until `shutdown`, or until the store is closed.
pub(super) async fn run<C: Controller>(name: &'static str, mut controller: C, now: u64, shutdown: CancellationToken) {
    let mut queue = Queue::new();
    let mut working = FuturesUnordered::new();
    controller
        .catch_up(now)
        .await
        .into_iter()
        .for_each(|key| queue.add(key));
    loop {
        while working.len() < PARALLEL
            && let Some(key) = queue.take()
        {
            match controller.decide(&key) {
                Some(work) => working.push(async move { (key, work.await) }),
                None => queue.done(&key),
            }
        }
        let due = queue.next_due().filter(|_| working.len() < PARALLEL);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            Some((key, outcome)) = working.next() => {
                if outcome.written > 0 {
                    controller.catch_up(outcome.written).await.into_iter().for_each(|key| queue.add(key));
                }
                finish(name, &mut queue, &key, outcome.failed);
            }
            changed = controller.changed() => match changed {
                Some(keys) => keys.into_iter().for_each(|key| queue.add(key)),
                None => return,
            },
            () = sleep_until(due), if due.is_some() => {}
        }
    }
}

fn finish<K: Clone + Display + Eq + Hash + Ord>(name: &str, queue: &mut Queue<K>, key: &K, failed: Option<Status>) {
    match failed {
        None => queue.done(key),
        Some(status) => {
            let delay = queue.retry(key);
            tracing::warn!(controller = name, %key, reason = status.message, ?delay, "trying again");
        }
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
