//! The writer: the one thread that changes the file.
//!
//! Fed by [`Store::write`](super::Store::write) through a bounded queue. It takes all calls that wait, applies one after
//! the other to one transaction, commits, publishes the events and answers: under load many calls share an fsync. A call
//! that does not fit the state fails alone, before it has changed anything.
//!
//! Between groups it syncs lazy writes whose time has come, and lets [`super::compact`] do a small step.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redb::{ReadableTable, Table, WriteTransaction};
use tokio::sync::{mpsc, oneshot, watch};

use super::compact::Compactor;
use super::open::Shared;
use super::schema::{CURRENT, HISTORY, LOG, Meta};
use super::{Durability, Event, EventKind, Options, StoreError, Write};

/// Calls that may wait before callers have to.
pub(super) const QUEUE: usize = 4096;
/// Calls that share a commit at most: bounds what the first of them waits for.
const GROUP: usize = 1024;
/// Revisions reserved ahead, so that lazy commits need no fsync of their own.
pub(super) const RESERVE: u64 = 10_000;

/// One call of `Store::write`.
pub(super) struct Call {
    pub(super) writes: Vec<Write>,
    pub(super) durability: Durability,
    pub(super) answer: oneshot::Sender<Result<u64, StoreError>>,
}

/// The state of the writer thread.
pub(super) struct Writer {
    shared: Arc<Shared>,
    newest: watch::Sender<u64>,
    meta: Meta,
    options: Options,
    compactor: Compactor,
    /// When the oldest commit that is not on disk yet was made.
    unsynced: Option<Instant>,
}

/// The tables a call changes, opened once per group.
struct Tables<'a> {
    current: Table<'a, &'static str, (u64, u64, &'static [u8])>,
    history: Table<'a, (&'static str, u64), (u64, u64, &'static [u8])>,
    log: Table<'a, (u64, u32), (u8, u64, u64, &'static str)>,
}

/// The newest version of a key, as found before a change: created, modified, bytes.
type Found = Option<(u64, u64, Bytes)>;

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, newest: watch::Sender<u64>, meta: Meta, options: Options) -> Self {
        let compactor = Compactor::new(&options, meta.revision);
        Self {
            shared,
            newest,
            meta,
            options,
            compactor,
            unsynced: None,
        }
    }

    /// Works until the last handle is gone and the queue is empty, then closes the file in good order.
    pub(super) fn run(mut self, calls: mpsc::Receiver<Call>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        match runtime {
            Ok(runtime) => self.serve(&runtime, calls),
            Err(error) => tracing::error!(%error, "the store's writer has no timer"),
        }
        self.meta.ceiling = self.meta.revision;
        if let Err(error) = self.commit_meta(redb::Durability::Immediate) {
            tracing::error!(%error, "the store was not closed in good order");
        }
    }

    fn serve(&mut self, runtime: &tokio::runtime::Runtime, mut calls: mpsc::Receiver<Call>) {
        let mut group = Vec::with_capacity(GROUP);
        loop {
            let wait = self.until_next_chore();
            let received =
                runtime.block_on(async { tokio::time::timeout(wait, calls.recv_many(&mut group, GROUP)).await });
            match received {
                Ok(0) => return,
                Ok(_) => self.write(mem::take(&mut group)),
                Err(_) => {}
            }
            self.chores();
        }
    }

    fn until_next_chore(&self) -> Duration {
        let compact = self.compactor.due_in();
        let sync = self
            .unsynced
            .map(|since| self.options.lazy_sync.saturating_sub(since.elapsed()));
        sync.map_or(compact, |sync| sync.min(compact))
    }

    fn chores(&mut self) {
        if self
            .unsynced
            .is_some_and(|since| since.elapsed() >= self.options.lazy_sync)
        {
            match self.commit_meta(redb::Durability::Immediate) {
                Ok(()) => self.unsynced = None,
                Err(error) => tracing::error!(%error, "lazy writes did not reach the disk"),
            }
        }
        if self.compactor.due_in().is_zero() {
            match self.compactor.step(&self.shared.database, &mut self.meta) {
                Ok(changed) if changed => self.unsynced = self.unsynced.or_else(|| Some(Instant::now())),
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "the store's history was not compacted"),
            }
        }
    }

    /// Applies a group of calls, commits, publishes, answers.
    fn write(&mut self, group: Vec<Call>) {
        let mut meta = self.meta;
        let (mut applied, mut events) = (Vec::new(), Vec::new());
        let lazy = group.iter().all(|call| call.durability == Durability::Lazy);
        match self.apply(group, &mut meta, lazy, &mut applied, &mut events) {
            Ok(()) => {
                self.meta = meta;
                self.publish(events);
                for (answer, revision) in applied {
                    let _ = answer.send(Ok(revision));
                }
            }
            Err(error) => {
                tracing::error!(%error, "the store could not commit");
                let error = Arc::new(error);
                for (answer, _) in applied {
                    let _ = answer.send(Err(StoreError::Commit(Arc::clone(&error))));
                }
            }
        }
    }

    fn apply(
        &mut self,
        group: Vec<Call>,
        meta: &mut Meta,
        lazy: bool,
        applied: &mut Vec<(oneshot::Sender<Result<u64, StoreError>>, u64)>,
        events: &mut Vec<Arc<Event>>,
    ) -> Result<(), StoreError> {
        let mut transaction = self.shared.database.begin_write()?;
        let mut calls = group.into_iter();
        let outcome = Tables::open(&transaction).and_then(|mut tables| {
            for call in calls.by_ref() {
                match tables.apply(&call.writes, meta.revision + 1) {
                    Ok(changes) => {
                        meta.revision += 1;
                        events.extend(changes.into_iter().map(Arc::new));
                        applied.push((call.answer, meta.revision));
                    }
                    Err(Failure::Refused(error)) => drop(call.answer.send(Err(error))),
                    Err(Failure::Broken(error)) => {
                        applied.push((call.answer, 0));
                        return Err(error);
                    }
                }
            }
            Ok(())
        });
        // Whoever is left after a broken call learns of it too.
        applied.extend(calls.map(|call| (call.answer, 0)));
        outcome?;
        if applied.is_empty() {
            return Ok(transaction.abort()?);
        }
        let synced = !lazy || meta.revision >= meta.ceiling;
        if synced {
            meta.ceiling = meta.revision + RESERVE;
        }
        meta.write(&transaction)?;
        transaction.set_durability(if synced {
            redb::Durability::Immediate
        } else {
            redb::Durability::None
        })?;
        transaction.commit()?;
        self.unsynced = if synced {
            None
        } else {
            self.unsynced.or_else(|| Some(Instant::now()))
        };
        Ok(())
    }

    fn publish(&mut self, events: Vec<Arc<Event>>) {
        self.compactor.mark(self.meta.revision);
        self.shared.log.write().expect("the log never panics").append(events);
        self.newest
            .send_if_modified(|newest| mem::replace(newest, self.meta.revision) != self.meta.revision);
    }

    fn commit_meta(&mut self, durability: redb::Durability) -> Result<(), StoreError> {
        let mut transaction = self.shared.database.begin_write()?;
        self.meta.write(&transaction)?;
        transaction.set_durability(durability)?;
        Ok(transaction.commit()?)
    }
}

/// Why a call was not applied.
enum Failure {
    /// It does not fit the state; nothing has changed.
    Refused(StoreError),
    /// The file cannot be read or written; the whole group fails.
    Broken(StoreError),
}

impl<'a> Tables<'a> {
    fn open(transaction: &'a WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            current: transaction.open_table(CURRENT)?,
            history: transaction.open_table(HISTORY)?,
            log: transaction.open_table(LOG)?,
        })
    }

    /// Checks every change of a call, then makes them all as `revision`.
    fn apply(&mut self, writes: &[Write], revision: u64) -> Result<Vec<Event>, Failure> {
        check_shape(writes).map_err(Failure::Refused)?;
        let mut before = Vec::with_capacity(writes.len());
        for write in writes {
            let found = self.find(write.key()).map_err(Failure::Broken)?;
            check(write, &found).map_err(Failure::Refused)?;
            before.push(found);
        }
        let changes = writes.iter().zip(before).zip(0..);
        let changes = changes.map(|((write, found), index)| self.change(write, found, (revision, index)));
        changes.collect::<Result<_, _>>().map_err(Failure::Broken)
    }

    fn find(&self, key: &str) -> Result<Found, StoreError> {
        let found = self.current.get(key)?;
        Ok(found.map(|row| {
            let (created, modified, value) = row.value();
            (created, modified, Bytes::copy_from_slice(value))
        }))
    }

    fn change(&mut self, write: &Write, found: Found, id: (u64, u32)) -> Result<Event, StoreError> {
        let (key, revision) = (write.key(), id.0);
        let before = found.as_ref().map_or(0, |(_, modified, _)| *modified);
        let created = found.as_ref().map_or(revision, |(created, ..)| *created);
        if let Some((created, modified, value)) = &found {
            self.history
                .insert((key, *modified), (*created, revision, value.as_ref()))?;
        }
        let previous = found.map(|(.., value)| value);
        let (kind, value) = match (write, &previous) {
            (Write::Create { value, .. }, _) => (EventKind::Created, value.clone()),
            (Write::Update { value, .. }, _) => (EventKind::Updated, value.clone()),
            (Write::Delete { .. }, previous) => (EventKind::Deleted, previous.clone().unwrap_or_default()),
        };
        match kind {
            EventKind::Deleted => drop(self.current.remove(key)?),
            _ => drop(self.current.insert(key, (created, revision, value.as_ref()))?),
        }
        self.log.insert(id, (kind.code(), before, created, key))?;
        Ok(Event {
            revision,
            key: key.into(),
            kind,
            value,
            previous,
            created,
        })
    }
}

fn check_shape(writes: &[Write]) -> Result<(), StoreError> {
    if writes.is_empty() {
        return Err(StoreError::InvalidWrite("no changes".into()));
    }
    let mut keys: Vec<_> = writes.iter().map(Write::key).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(StoreError::InvalidWrite(format!(
            "key {} occurs twice in one call",
            pair[0]
        ))),
        None => Ok(()),
    }
}

/// Whether a change fits what is there.
fn check(write: &Write, found: &Found) -> Result<(), StoreError> {
    let key = || write.key().to_owned();
    let (expect, actual) = match (write, found) {
        (Write::Create { .. }, None) => return Ok(()),
        (Write::Create { .. }, Some(_)) => return Err(StoreError::AlreadyExists { key: key() }),
        (_, None) => return Err(StoreError::NotFound { key: key() }),
        (Write::Update { expect, .. }, Some((_, actual, _))) => (Some(*expect), *actual),
        (Write::Delete { expect, .. }, Some((_, actual, _))) => (*expect, *actual),
    };
    match expect {
        Some(expected) if expected != actual => Err(StoreError::Conflict {
            key: key(),
            expected,
            actual,
        }),
        _ => Ok(()),
    }
}
