//! The tables of the file, and the few numbers about it as a whole.
//!
//! Written by [`super::writer`], [`super::compact`] and [`super::open`]; read by [`super::read`].
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | `current` | object key | created, modified, bytes: the newest version |
//! | `history` | object key, modified | created, superseded, bytes: a version until revision `superseded` |
//! | `log` | revision, index within the call | kind, modified of the version before (0: none), created, object key |
//! | `lost` | first lost revision | last lost revision |
//! | `meta` | name | number |
//!
//! Worked example: `a` is created at 5, updated at 7, deleted at 9.
//!
//! ```text
//! history  (a,5) -> created 5, superseded 7     log  (5,0) -> Created, 0, 5, a
//!          (a,7) -> created 5, superseded 9          (7,0) -> Updated, 5, 5, a
//! current  nothing                                   (9,0) -> Deleted, 7, 5, a
//! ```
//!
//! A version's bytes are kept once: an event finds its value in `current` or `history` by key and revision, the value
//! before it in `history`. Compacting to revision 7 removes (a,5) and the log up to (7,0).

use redb::{Database, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::{EventKind, StoreError};

/// The newest version of each object: key -> created, modified, bytes.
pub(super) const CURRENT: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("current");
/// Older versions: key, modified -> created, superseded, bytes.
pub(super) const HISTORY: TableDefinition<'_, (&str, u64), (u64, u64, &[u8])> = TableDefinition::new("history");
/// What happened: revision, index -> kind, modified of the version before, created, key.
pub(super) const LOG: TableDefinition<'_, (u64, u32), (u8, u64, u64, &str)> = TableDefinition::new("log");
/// Revisions lost in a crash: first -> last.
pub(super) const LOST: TableDefinition<'_, u64, u64> = TableDefinition::new("lost");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The newest format this program reads; it writes no other.
pub(super) const FORMAT: u64 = 1;

/// The numbers about the file as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    /// The layout of the tables.
    pub(super) format: u64,
    /// The newest revision.
    pub(super) revision: u64,
    /// No revision above this has been given out, not even one that a crash has lost. Equal to `revision` in a file
    /// that was closed in good order.
    pub(super) ceiling: u64,
    /// Everything that happened after this revision is kept.
    pub(super) compacted: u64,
}

impl Meta {
    /// A new file: revision 1 is the empty state.
    pub(super) const NEW: Meta = Meta {
        format: FORMAT,
        revision: 1,
        ceiling: 1,
        compacted: 1,
    };

    /// Reads the numbers as of a snapshot; none in a file that is not ours.
    pub(super) fn read(snapshot: &ReadTransaction) -> Result<Option<Meta>, StoreError> {
        let table = match snapshot.open_table(META) {
            Ok(table) => table,
            Err(redb::TableError::Storage(error)) => return Err(error.into()),
            Err(_) => return Ok(None),
        };
        let number = |name: &str| Ok::<_, StoreError>(table.get(name)?.map(|value| value.value()));
        let (Some(format), Some(revision), Some(ceiling), Some(compacted)) = (
            number("format")?,
            number("revision")?,
            number("ceiling")?,
            number("compacted")?,
        ) else {
            return Ok(None);
        };
        Ok(Some(Meta {
            format,
            revision,
            ceiling,
            compacted,
        }))
    }

    /// Writes the numbers as part of a transaction.
    pub(super) fn write(self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let mut table = transaction.open_table(META)?;
        for (name, value) in [
            ("format", self.format),
            ("revision", self.revision),
            ("ceiling", self.ceiling),
            ("compacted", self.compacted),
        ] {
            table.insert(name, value)?;
        }
        Ok(())
    }
}

/// Makes the tables of a new file.
pub(super) fn initialise(database: &Database) -> Result<(), StoreError> {
    let transaction = database.begin_write()?;
    transaction.open_table(CURRENT)?;
    transaction.open_table(HISTORY)?;
    transaction.open_table(LOG)?;
    transaction.open_table(LOST)?;
    Meta::NEW.write(&transaction)?;
    Ok(transaction.commit()?)
}

/// The end of the run of lost revisions that holds `revision`, if one does.
pub(super) fn lost_until(lost: &impl ReadableTable<u64, u64>, revision: u64) -> Result<Option<u64>, StoreError> {
    let Some(run) = lost.range(..=revision)?.next_back() else {
        return Ok(None);
    };
    let last = run?.1.value();
    Ok((revision <= last).then_some(last))
}

impl EventKind {
    /// The number in the `log` table.
    pub(super) fn code(self) -> u8 {
        match self {
            EventKind::Created => 0,
            EventKind::Updated => 1,
            EventKind::Deleted => 2,
        }
    }

    /// The kind a number in the `log` table stands for.
    pub(super) fn of_code(code: u8) -> Result<EventKind, StoreError> {
        match code {
            0 => Ok(EventKind::Created),
            1 => Ok(EventKind::Updated),
            2 => Ok(EventKind::Deleted),
            _ => Err(corrupted(format!("event of unknown kind {code}"))),
        }
    }
}

/// A table contradicts another.
pub(super) fn corrupted(what: String) -> StoreError {
    redb::StorageError::Corrupted(what).into()
}
