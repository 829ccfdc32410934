//! Forgetting: old versions and events are removed in small steps between commits.
//!
//! Called by [`super::writer`] when it has nothing better to do, and at least once per [`Options::compact_every`]. A step
//! removes at most a fixed number of events; while more is left the next step is due at once, after the calls that wait.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redb::{Database, ReadableTable, ReadableTableMetadata, Table};

use super::schema::{HISTORY, LOG, LOST, Meta};
use super::{Options, StoreError};

/// Events removed per step: a few milliseconds.
const STEP: usize = 500;

/// An event to remove, and with it the version it superseded.
struct Doomed {
    id: (u64, u32),
    superseded: Option<(String, u64)>,
}

/// Knows how old revisions are, and when to look again.
pub(super) struct Compactor {
    history: Duration,
    min_events: u64,
    max_events: u64,
    every: Duration,
    next: Instant,
    /// Moments, one per `every` at most, and the newest revision then. What was there at the start counts as new, so
    /// that a restart makes history live longer, not shorter.
    marks: VecDeque<(Instant, u64)>,
    /// The newest revision known to be older than `history`.
    expired: u64,
}

impl Compactor {
    pub(super) fn new(options: &Options, revision: u64) -> Self {
        let now = Instant::now();
        Self {
            history: options.history,
            min_events: options.history_min_events,
            max_events: options.history_max_events.max(options.history_min_events),
            every: options.compact_every,
            next: now + options.compact_every,
            marks: VecDeque::from([(now, revision)]),
            expired: 0,
        }
    }

    /// Notes that `revision` is the newest now.
    pub(super) fn mark(&mut self, revision: u64) {
        let now = Instant::now();
        match self.marks.back_mut() {
            Some((at, newest)) if now.duration_since(*at) < self.every => *newest = revision,
            _ => self.marks.push_back((now, revision)),
        }
    }

    pub(super) fn due_in(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Removes what is too old, up to a bound. True when the file changed; the change is not synced.
    pub(super) fn step(&mut self, database: &Database, meta: &mut Meta) -> Result<bool, StoreError> {
        self.next = Instant::now() + self.every;
        let expired = self.expired();
        let mut transaction = database.begin_write()?;
        let doomed = self.choose(&transaction.open_table(LOG)?, expired)?;
        let Some(upto) = doomed.last().map(|event| event.id.0) else {
            transaction.abort()?;
            return Ok(false);
        };
        {
            let (mut log, mut history) = (transaction.open_table(LOG)?, transaction.open_table(HISTORY)?);
            for event in doomed {
                log.remove(event.id)?;
                if let Some((key, modified)) = &event.superseded {
                    history.remove((key.as_str(), *modified))?;
                }
            }
        }
        transaction.open_table(LOST)?.retain(|_, last| last >= upto)?;
        let compacted = Meta {
            compacted: upto,
            ..*meta
        };
        compacted.write(&transaction)?;
        transaction.set_durability(redb::Durability::None)?;
        transaction.commit()?;
        *meta = compacted;
        Ok(true)
    }

    /// The oldest events that need not be kept, at most a step's worth, but each revision as a whole.
    fn choose(
        &mut self,
        log: &Table<'_, (u64, u32), (u8, u64, u64, &'static str)>,
        expired: u64,
    ) -> Result<Vec<Doomed>, StoreError> {
        let (mut doomed, mut left) = (Vec::<Doomed>::new(), log.len()?);
        for entry in log.iter()? {
            let (id, entry) = entry?;
            let (id, (_, before, _, key)) = (id.value(), entry.value());
            if doomed.last().is_none_or(|event| event.id.0 != id.0) {
                if left <= self.min_events || (id.0 > expired && left <= self.max_events) {
                    break;
                }
                if doomed.len() >= STEP {
                    self.next = Instant::now();
                    break;
                }
            }
            doomed.push(Doomed {
                id,
                superseded: (before != 0).then(|| (key.to_owned(), before)),
            });
            left -= 1;
        }
        Ok(doomed)
    }

    /// The newest revision that has been there for longer than history lasts.
    fn expired(&mut self) -> u64 {
        // A mark gathers revisions for up to `every`.
        while let Some((_, revision)) = self
            .marks
            .pop_front_if(|(at, _)| at.elapsed() > self.history + self.every)
        {
            self.expired = revision;
        }
        self.expired
    }
}
