//! Reading: one object, a page of a list now or in the past, events from the file.
//!
//! Called by [`crate::api`] and [`super::watch`]. Each call reads from a snapshot of its own and waits for no writer.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::sync::Arc;

use bytes::Bytes;
use redb::{AccessGuard, ReadOnlyTable, ReadTransaction, ReadableDatabase, StorageError};

use super::open::{Shared, reachable};
use super::schema::{CURRENT, HISTORY, LOG, LOST, Meta, corrupted};
use super::{Event, EventKind, Listing, Record, Store, StoreError};

/// A value of `current` or `history`.
type Version = (u64, u64, &'static [u8]);
type Current = ReadOnlyTable<&'static str, Version>;
type History = ReadOnlyTable<(&'static str, u64), Version>;
/// What a walk over one of them yields.
type Entry<K> = Result<(AccessGuard<'static, K>, AccessGuard<'static, Version>), StorageError>;

impl Store {
    /// The newest version of the object at `key`.
    pub fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let snapshot = self.inner.shared.database.begin_read()?;
        let found = snapshot.open_table(CURRENT)?.get(key)?;
        Ok(found.map(|row| record(key, row.value())))
    }

    /// The objects whose key starts with `prefix` and is greater than `after`, in key order, at most `limit`, as they
    /// were at revision `at` or are now. Fails with [`StoreError::Compacted`] when `at` is too old, and with
    /// [`StoreError::Future`] when it has not been given out.
    pub fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: Option<usize>,
        at: Option<u64>,
    ) -> Result<Listing, StoreError> {
        let snapshot = self.inner.shared.database.begin_read()?;
        let meta = meta(&snapshot)?;
        let revision = at.unwrap_or(meta.revision);
        check(&snapshot, &meta, revision)?;
        // The smallest key greater than `after` is `after` and a zero byte.
        let start = match after {
            Some(after) if after >= prefix => format!("{after}\0"),
            _ => prefix.to_owned(),
        };
        let current = snapshot.open_table(CURRENT)?;
        if revision == meta.revision {
            return page(
                current.range(start.as_str()..)?.map(Row::current),
                prefix,
                limit,
                revision,
            );
        }
        let history = snapshot.open_table(HISTORY)?;
        page(past(&current, &history, &start, revision)?, prefix, limit, revision)
    }
}

/// Whether a watch may start after `after`.
pub(super) fn check_watchable(shared: &Shared, after: u64) -> Result<(), StoreError> {
    let snapshot = shared.database.begin_read()?;
    check(&snapshot, &meta(&snapshot)?, after)
}

/// Appends to `into` the events after `after` from the file: at most `limit`, but never part of a revision only.
/// Returns the revision up to which the answer is complete.
pub(super) fn replay(
    shared: &Shared,
    after: u64,
    limit: usize,
    into: &mut VecDeque<Arc<Event>>,
) -> Result<u64, StoreError> {
    let snapshot = shared.database.begin_read()?;
    let meta = meta(&snapshot)?;
    check(&snapshot, &meta, after)?;
    let (current, history) = (snapshot.open_table(CURRENT)?, snapshot.open_table(HISTORY)?);
    let mut upto = after;
    for (index, row) in snapshot.open_table(LOG)?.range((after + 1, 0)..)?.enumerate() {
        let (id, entry) = row?;
        let (revision, _) = id.value();
        if index >= limit && revision != upto {
            return Ok(upto);
        }
        upto = revision;
        into.push_back(Arc::new(event(&current, &history, revision, entry.value())?));
    }
    Ok(meta.revision)
}

fn meta(snapshot: &ReadTransaction) -> Result<Meta, StoreError> {
    Meta::read(snapshot)?.ok_or_else(|| corrupted("the revision is missing".into()))
}

/// Whether the state at `revision`, and all that happened after it, can be told.
fn check(snapshot: &ReadTransaction, meta: &Meta, revision: u64) -> Result<(), StoreError> {
    if revision > meta.revision {
        return Err(StoreError::Future {
            requested: revision,
            current: meta.revision,
        });
    }
    reachable(&snapshot.open_table(LOST)?, meta, revision)
}

fn record(key: &str, (created, modified, value): (u64, u64, &[u8])) -> Record {
    Record {
        key: key.into(),
        value: Bytes::copy_from_slice(value),
        created,
        modified,
    }
}

/// A version of an object where it lies, not copied yet.
enum Row {
    Current(AccessGuard<'static, &'static str>, AccessGuard<'static, Version>),
    History(AccessGuard<'static, (&'static str, u64)>, AccessGuard<'static, Version>),
}

impl Row {
    fn current(row: Entry<&'static str>) -> Result<Row, StoreError> {
        row.map(|(key, version)| Row::Current(key, version))
            .map_err(StoreError::from)
    }

    fn history(row: Entry<(&'static str, u64)>) -> Result<Row, StoreError> {
        row.map(|(id, version)| Row::History(id, version))
            .map_err(StoreError::from)
    }

    fn key(&self) -> &str {
        match self {
            Row::Current(key, _) => key.value(),
            Row::History(id, _) => id.value().0,
        }
    }

    /// Whether this was the object's version at `revision`.
    fn is_in_force(&self, revision: u64) -> bool {
        match self {
            Row::Current(_, version) => version.value().1 <= revision,
            Row::History(id, version) => id.value().1 <= revision && revision < version.value().1,
        }
    }

    fn record(&self) -> Record {
        match self {
            Row::Current(key, version) => record(key.value(), version.value()),
            Row::History(id, version) => {
                let ((key, modified), (created, _, value)) = (id.value(), version.value());
                record(key, (created, modified, value))
            }
        }
    }
}

/// Takes the first rows under `prefix`, and counts the rest.
fn page(
    rows: impl Iterator<Item = Result<Row, StoreError>>,
    prefix: &str,
    limit: Option<usize>,
    revision: u64,
) -> Result<Listing, StoreError> {
    let (mut records, mut rest) = (Vec::new(), 0);
    for row in rows {
        let row = row?;
        if !row.key().starts_with(prefix) {
            break;
        }
        if limit.is_some_and(|limit| records.len() >= limit) {
            rest += 1;
        } else {
            records.push(row.record());
        }
    }
    Ok(Listing {
        records,
        revision,
        more: rest > 0,
        remaining: (rest > 0).then_some(rest),
    })
}

/// The objects from `start` on as they were at `revision`: per key the newest version if it is old enough, otherwise
/// the one of the older versions that was in force then. Two sorted tables, walked side by side.
fn past(
    current: &Current,
    history: &History,
    start: &str,
    revision: u64,
) -> Result<impl Iterator<Item = Result<Row, StoreError>>, StoreError> {
    let in_force = move |row: &Result<Row, StoreError>| row.as_ref().map_or(true, |row| row.is_in_force(revision));
    let current = current.range(start..)?.map(Row::current).filter(in_force);
    let history = history.range((start, 0)..)?.map(Row::history).filter(in_force);
    Ok(Merge {
        left: current.peekable(),
        right: history.peekable(),
    })
}

/// Merges two sorted sequences without common keys: a version in force at a revision is in one table only.
struct Merge<L: Iterator, R: Iterator> {
    left: Peekable<L>,
    right: Peekable<R>,
}

impl<L, R> Iterator for Merge<L, R>
where
    L: Iterator<Item = Result<Row, StoreError>>,
    R: Iterator<Item = Result<Row, StoreError>>,
{
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        match (self.left.peek(), self.right.peek()) {
            (Some(Ok(left)), Some(Ok(right))) if left.key() > right.key() => self.right.next(),
            (Some(_), _) => self.left.next(),
            (None, _) => self.right.next(),
        }
    }
}

/// Puts an event together from its entry in the log and the versions it names.
fn event(
    current: &Current,
    history: &History,
    revision: u64,
    (kind, before, created, key): (u8, u64, u64, &str),
) -> Result<Event, StoreError> {
    let kind = EventKind::of_code(kind)?;
    let old = |modified| match history.get((key, modified))? {
        Some(row) => Ok(Bytes::copy_from_slice(row.value().2)),
        None => Err(corrupted(format!("{key} has lost its version {modified}"))),
    };
    let previous = if kind == EventKind::Created {
        None
    } else {
        Some(old(before)?)
    };
    let value = match (kind, &previous) {
        (EventKind::Deleted, Some(previous)) => previous.clone(),
        _ => match current.get(key)?.filter(|row| row.value().1 == revision) {
            Some(row) => Bytes::copy_from_slice(row.value().2),
            None => old(revision)?,
        },
    };
    Ok(Event {
        revision,
        key: key.into(),
        kind,
        value,
        previous,
        created,
    })
}
