//! What the tests of the store share.

use std::sync::Arc;

use control::store::{Event, Options, StoreError, Watch};
use futures::FutureExt;

/// An error by a short name.
pub(crate) fn name(error: &StoreError) -> &'static str {
    match error {
        StoreError::AlreadyExists { .. } => "exists",
        StoreError::NotFound { .. } => "missing",
        StoreError::Conflict { .. } => "conflict",
        StoreError::Compacted { .. } => "compacted",
        StoreError::Future { .. } => "future",
        StoreError::Lagged => "lagged",
        StoreError::InvalidWrite(_) => "invalid",
        StoreError::InUse { .. } => "in use",
        StoreError::Foreign { .. } => "foreign",
        StoreError::Format { .. } => "format",
        _ => "other",
    }
}

/// Limits so low that the file is read as often as memory.
pub(crate) fn small() -> Options {
    Options {
        log_events: 7,
        log_bytes: 1000,
        cache_bytes: 1 << 20,
        ..Options::default()
    }
}

/// What a watch has to deliver now.
pub(crate) fn drain(watch: &mut Watch) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    // A watch may give way to other tasks once per batch: ask again before believing that it is at its end.
    let mut quiet = 0;
    while quiet < 50 {
        match watch.next().now_or_never() {
            Some(event) => {
                events.push(event.expect("a watch does not end").expect("nothing is compacted"));
                quiet = 0;
            }
            None => quiet += 1,
        }
    }
    events
}
