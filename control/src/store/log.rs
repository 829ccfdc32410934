//! The newest events in memory, shared by all watches.
//!
//! [`super::writer`] appends after each commit; [`super::watch`] reads. Bounded by number and by bytes: a watch that is
//! further behind reads the file instead.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Event;

/// A run of events without gaps, up to the newest.
pub(super) struct Log {
    events: VecDeque<Arc<Event>>,
    /// Every event after this revision is in `events`.
    floor: u64,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
}

impl Log {
    /// An empty log that starts after `floor`.
    pub(super) fn new(floor: u64, max_events: usize, max_bytes: usize) -> Self {
        Self {
            events: VecDeque::new(),
            floor,
            bytes: 0,
            max_events,
            max_bytes,
        }
    }

    /// Appends the events of a commit, in order, and drops the oldest that no longer fit.
    pub(super) fn append(&mut self, events: impl IntoIterator<Item = Arc<Event>>) {
        for event in events {
            self.bytes += size(&event);
            self.events.push_back(event);
        }
        while self.events.len() > self.max_events || self.bytes > self.max_bytes {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= size(&oldest);
            self.floor = oldest.revision;
        }
    }

    /// Appends to `into` the events after `after`: at most `limit`, but never part of a revision only. None when the
    /// log does not reach back that far; otherwise the revision up to which the answer is complete.
    pub(super) fn read(&self, after: u64, limit: usize, into: &mut VecDeque<Arc<Event>>) -> Option<u64> {
        if after < self.floor {
            return None;
        }
        let start = self.events.partition_point(|event| event.revision <= after);
        let mut upto = after;
        for (index, event) in self.events.range(start..).enumerate() {
            if index >= limit && event.revision != upto {
                break;
            }
            upto = event.revision;
            into.push_back(Arc::clone(event));
        }
        Some(upto)
    }
}

fn size(event: &Event) -> usize {
    event.key.len() + event.value.len() + event.previous.as_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EventKind;

    fn event(revision: u64) -> Arc<Event> {
        let (key, value) = (String::from("k"), Bytes::from_static(b"123456789"));
        Arc::new(Event {
            revision,
            key,
            kind: EventKind::Created,
            value,
            previous: None,
            created: revision,
        })
    }

    fn read(log: &Log, after: u64, limit: usize) -> Option<(Vec<u64>, u64)> {
        let mut events = VecDeque::new();
        let upto = log.read(after, limit, &mut events)?;
        Some((events.iter().map(|event| event.revision).collect(), upto))
    }

    #[test]
    fn a_limit_never_splits_a_revision() {
        let mut log = Log::new(1, 100, 1 << 20);
        log.append([2, 3, 3, 3, 4].map(event));
        assert_eq!(read(&log, 1, 2), Some((vec![2, 3, 3, 3], 3)));
        assert_eq!(read(&log, 3, 2), Some((vec![4], 4)));
        assert_eq!(read(&log, 4, 2), Some((vec![], 4)));
    }

    #[test]
    fn what_was_dropped_is_not_pretended_to_be_there() {
        let mut log = Log::new(1, 2, 1 << 20);
        log.append([2, 3, 3, 4].map(event));
        assert_eq!(read(&log, 2, 10), None, "one event of revision 3 is gone");
        assert_eq!(read(&log, 3, 10), Some((vec![4], 4)));
    }

    #[test]
    fn the_bytes_are_bounded_too() {
        let mut log = Log::new(1, 100, 25);
        log.append([2, 3, 4].map(event));
        assert_eq!(read(&log, 2, 10), Some((vec![3, 4], 4)));
        assert_eq!(read(&log, 1, 10), None);
    }
}
