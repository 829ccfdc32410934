//! A watch: the events under a prefix, from a revision on, without end.
//!
//! Made by [`Store::watch`], consumed by [`crate::api`] and [`crate::controllers`]. It holds a position, not a queue: it
//! reads from the log in memory, and from the file where that does not reach back, so a slow consumer costs no memory.
//!
//! ```text
//! behind the log in memory --read file--> within it --read log--> at its end --wait for a commit--> within it
//!          \-- the compaction was faster: one Err(Lagged), then the end
//! ```

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::{Stream, StreamExt};
use tokio_stream::wrappers::WatchStream;

use super::open::Shared;
use super::{Event, Store, StoreError, read};

/// Events taken at once: bounds the time under the log's lock and the memory per watch.
const BATCH: usize = 256;

/// Events under a prefix in revision order. Ends only after an error item, or when the store closes.
pub struct Watch {
    prefix: String,
    /// Everything up to this revision is delivered or in `ready`.
    position: u64,
    ready: VecDeque<Arc<Event>>,
    shared: Arc<Shared>,
    commits: WatchStream<u64>,
    ended: bool,
}

impl Store {
    /// The events under `prefix` with a revision above `after`: those already there, then new ones as they happen.
    /// Fails with [`StoreError::Compacted`] when the history does not reach back that far, and with
    /// [`StoreError::Future`] when `after` has not been given out.
    pub fn watch(&self, prefix: &str, after: u64) -> Result<Watch, StoreError> {
        let shared = Arc::clone(&self.inner.shared);
        read::check_watchable(&shared, after)?;
        let commits = WatchStream::from_changes(shared.newest.clone());
        Ok(Watch {
            prefix: prefix.into(),
            position: after,
            ready: VecDeque::new(),
            shared,
            commits,
            ended: false,
        })
    }
}

impl Watch {
    /// The next event, an error that ends the watch, or none after that. Loses nothing when dropped before it is ready.
    pub async fn next(&mut self) -> Option<Result<Arc<Event>, StoreError>> {
        StreamExt::next(self).await
    }

    /// The newest revision up to which every event under the prefix has been handed out: what a bookmark may say.
    pub fn position(&self) -> u64 {
        self.ready
            .front()
            .map_or(self.position, |event| event.revision.saturating_sub(1))
    }

    /// Takes the next events; false when there are none yet.
    fn refill(&mut self) -> Result<bool, StoreError> {
        let before = self.position;
        let read = self
            .shared
            .log
            .read()
            .expect("the log never panics")
            .read(before, BATCH, &mut self.ready);
        self.position = match read {
            Some(position) => position,
            None => read::replay(&self.shared, before, BATCH, &mut self.ready)?,
        };
        self.ready.retain(|event| event.key.starts_with(&self.prefix));
        Ok(self.position > before)
    }
}

impl Stream for Watch {
    type Item = Result<Arc<Event>, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match self.refill() {
                // A long stretch without a match: let other tasks run in between.
                Ok(true) if self.ready.is_empty() => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => {
                    self.ended = true;
                    let error = if matches!(error, StoreError::Compacted { .. }) {
                        StoreError::Lagged
                    } else {
                        error
                    };
                    return Poll::Ready(Some(Err(error)));
                }
            }
            if ready!(self.commits.poll_next_unpin(context)).is_none() {
                self.ended = true;
            }
        }
    }
}
