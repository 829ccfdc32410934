//! The store: keys, values and revisions in one file, and the event log that feeds every watch.
//!
//! Called by [`crate::api`] for each request and by tests; it knows nothing of Kubernetes beyond what a key looks like.
//! One thread (`writer`) owns all writes: it takes whatever is queued, applies call after call to one transaction,
//! gives each its revision, commits once, publishes the events and then answers. Readers use snapshots and wait for
//! nobody.
//!
//! ```text
//! write() -> queue -> writer: check, apply, revision -> commit (one fsync for the group) -> log -> watches
//!                                                                                      \-> answers
//! ```
//!
//! Invariants:
//! - Revisions grow with each call in commit order, survive restarts, and are never given out twice.
//! - A [`Durability::Synced`] write is on disk before its answer; a [`Durability::Lazy`] one soon after. The disk always
//!   holds a prefix of the revisions: a crash loses a tail of lazy writes, never one from the middle.
//! - A crash may lose revisions somebody has already seen. Those are remembered as lost: whoever comes back with one gets
//!   [`StoreError::Compacted`] and starts over, instead of resuming from a state that no longer exists.

mod compact;
mod log;
mod open;
mod read;
mod schema;
mod watch;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

pub use watch::Watch;

/// A cheap handle on the store. The file closes when the last handle and the last [`Watch`] are gone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<open::Inner>,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After the fsync that holds it: no crash loses it.
    Synced,
    /// Before the fsync, in revision order. A crash may lose the last [`Options::lazy_sync`] of such writes.
    /// For Leases and Events, which are written often and mean little after a crash.
    Lazy,
}

/// One stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The full key.
    pub key: String,
    /// The bytes as written.
    pub value: Bytes,
    /// The revision that created the object.
    pub created: u64,
    /// The revision that last wrote it.
    pub modified: u64,
}

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// In key order.
    pub records: Vec<Record>,
    /// The revision of the state the page was read from.
    pub revision: u64,
    /// There are more keys after the last record.
    pub more: bool,
    /// How many more, when `more`.
    pub remaining: Option<u64>,
}

/// One change within a call of [`Store::write`]. A key may occur once per call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// The key must not exist.
    Create {
        /// The full key.
        key: String,
        /// The object's bytes.
        value: Bytes,
    },
    /// The key must exist, and its last write must be revision `expect`.
    Update {
        /// The full key.
        key: String,
        /// The object's new bytes.
        value: Bytes,
        /// The [`Record::modified`] the caller has seen.
        expect: u64,
    },
    /// The key must exist and, if `expect` is given, its last write must be that revision.
    Delete {
        /// The full key.
        key: String,
        /// The [`Record::modified`] the caller has seen.
        expect: Option<u64>,
    },
}

impl Write {
    /// The key this change is about.
    pub fn key(&self) -> &str {
        match self {
            Write::Create { key, .. } | Write::Update { key, .. } | Write::Delete { key, .. } => key,
        }
    }
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It came to be.
    Created,
    /// Its value was replaced.
    Updated,
    /// It is gone.
    Deleted,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The revision of the call that made the change; the changes of one call share it.
    pub revision: u64,
    /// The full key.
    pub key: String,
    /// What happened.
    pub kind: EventKind,
    /// The new value; for [`EventKind::Deleted`] the last one.
    pub value: Bytes,
    /// The value before the change; none for [`EventKind::Created`].
    pub previous: Option<Bytes>,
    /// The revision that created the object.
    pub created: u64,
}

/// Sizes and times of a store; [`Options::default`] is right for everything but tests.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long old versions and events stay readable (default 5 minutes).
    pub history: Duration,
    /// This many events stay readable however old they are (default 10,000).
    pub history_min_events: u64,
    /// No more than this many events are kept however young they are (default 200,000).
    pub history_max_events: u64,
    /// Events kept in memory for watches; older ones are read from the file (default 20,000).
    pub log_events: usize,
    /// Bytes of values kept in memory for watches (default 64 MiB).
    pub log_bytes: usize,
    /// A lazy write is on disk after at most this long (default 500 ms).
    pub lazy_sync: Duration,
    /// How often the compaction looks for old events (default 10 seconds).
    pub compact_every: Duration,
    /// Bytes of pages the database keeps in memory (default 128 MiB).
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            history: Duration::from_secs(300),
            history_min_events: 10_000,
            history_max_events: 200_000,
            log_events: 20_000,
            log_bytes: 64 << 20,
            lazy_sync: Duration::from_millis(500),
            compact_every: Duration::from_secs(10),
            cache_bytes: 128 << 20,
        }
    }
}

/// Why a call on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A create found the key.
    #[error("key {key} already exists")]
    AlreadyExists {
        /// The key.
        key: String,
    },
    /// An update or delete did not find the key.
    #[error("key {key} not found")]
    NotFound {
        /// The key.
        key: String,
    },
    /// The key was written since the caller read it.
    #[error("key {key} is at revision {actual}, not at {expected}: read it again")]
    Conflict {
        /// The key.
        key: String,
        /// The revision the caller gave.
        expected: u64,
        /// The revision of the last write.
        actual: u64,
    },
    /// The history no longer reaches back to the revision.
    #[error("revision {requested} is gone, the oldest kept is {oldest}: list again")]
    Compacted {
        /// What was asked for.
        requested: u64,
        /// The oldest revision from which on everything is kept.
        oldest: u64,
    },
    /// The revision has not been given out yet.
    #[error("revision {requested} is in the future, the newest is {current}")]
    Future {
        /// What was asked for.
        requested: u64,
        /// The newest revision.
        current: u64,
    },
    /// A watch fell so far behind that its events are gone; it ends with this.
    #[error("the watch fell too far behind: list again")]
    Lagged,
    /// A call that makes no sense, such as one key twice.
    #[error("invalid write: {0}")]
    InvalidWrite(String),
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
    /// Another process, or another part of this one, has the file open.
    #[error("{path} is already open: stop the other process, or use another data directory")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is none of ours.
    #[error("{path} is not a store of this program: {reason}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was written by a newer version.
    #[error("{path} has format {found}, this program reads up to {supported}: use a newer version of it")]
    Format {
        /// The file.
        path: PathBuf,
        /// The file's format.
        found: u64,
        /// The newest format this program knows.
        supported: u64,
    },
    /// Reading or writing the file failed.
    #[error("the database failed")]
    Backend(#[source] redb::Error),
    /// The commit of the group a write was in failed. Whether the write is there shows when the store is opened again.
    #[error("the write did not reach the disk: check the disk and restart")]
    Commit(#[source] Arc<StoreError>),
    /// The data directory cannot be used.
    #[error("cannot use {path}")]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

macro_rules! backend {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for StoreError {
            fn from(error: redb::$error) -> Self {
                StoreError::Backend(error.into())
            }
        }
    )*};
}
backend!(
    CommitError,
    DatabaseError,
    SetDurabilityError,
    StorageError,
    TableError,
    TransactionError
);

impl Store {
    /// Applies all of `writes` or none of them, as one new revision, which it returns once the write is as durable as
    /// asked. Fails with [`StoreError::AlreadyExists`], [`StoreError::NotFound`] or [`StoreError::Conflict`] when a
    /// change does not fit the present state. Once started, the write happens even if the future is dropped.
    pub async fn write(&self, writes: Vec<Write>, durability: Durability) -> Result<u64, StoreError> {
        let (answer, answered) = oneshot::channel();
        let call = writer::Call {
            writes,
            durability,
            answer,
        };
        self.inner.queue().send(call).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}
