//! Opening a store: the file, its format, what a crash left, and the writer thread.
//!
//! Called once per process by [`crate::run`]; next is [`super::writer`].

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError};
use tokio::sync::{mpsc, watch};

use super::log::Log;
use super::schema::{self, FORMAT, LOST, Meta};
use super::writer::{self, Call, Writer};
use super::{Options, Store, StoreError};

const FILE: &str = "store.redb";

/// What the handles, the watches and the writer thread share.
pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) log: RwLock<Log>,
    /// The newest revision, once its events are in `log`; closed when the writer ends.
    pub(super) newest: watch::Receiver<u64>,
}

/// Dropped with the last handle: lets the writer finish what is queued, and waits for it.
pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    queue: Option<mpsc::Sender<Call>>,
    writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the store in `dir`, making both if missing. After a crash the numbering continues above every revision
    /// that may have been given out. Fails with [`StoreError::InUse`], [`StoreError::Foreign`] or
    /// [`StoreError::Format`] when the file is not to be touched.
    pub fn open(dir: &Path, options: Options) -> Result<Store, StoreError> {
        let path = dir.join(FILE);
        if !path.exists() {
            create(dir, &path, &options)?;
        }
        let database = builder(&options).open(&path).map_err(|error| unusable(&path, error))?;
        Store::start(database, &path, options)
    }

    fn start(database: Database, path: &Path, options: Options) -> Result<Store, StoreError> {
        let meta = recover(&database, path)?;
        let (newest, revisions) = watch::channel(meta.revision);
        let log = RwLock::new(Log::new(meta.revision, options.log_events, options.log_bytes));
        let shared = Arc::new(Shared {
            database,
            log,
            newest: revisions,
        });
        let (queue, calls) = mpsc::channel(writer::QUEUE);
        let writer = Writer::new(Arc::clone(&shared), newest, meta, options);
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(calls))
            .map_err(|source| StoreError::Directory {
                path: path.into(),
                source,
            })?;
        Ok(Store {
            inner: Arc::new(Inner {
                shared,
                queue: Some(queue),
                writer: Some(writer),
            }),
        })
    }

    /// The newest revision; 1 in an empty store.
    pub fn revision(&self) -> u64 {
        *self.inner.shared.newest.borrow()
    }
}

impl Inner {
    pub(super) fn queue(&self) -> &mpsc::Sender<Call> {
        self.queue.as_ref().expect("taken only when dropped")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.take();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the store's writer thread panicked");
        }
    }
}

fn builder(options: &Options) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(options.cache_bytes);
    builder
}

/// Makes a new file under another name and renames it, so that a crash leaves no half-made store.
fn create(dir: &Path, path: &Path, options: &Options) -> Result<(), StoreError> {
    let failed = |path: &Path| {
        let path = PathBuf::from(path);
        move |source| StoreError::Directory { path, source }
    };
    // What is stored, Secrets too, is for nobody else to read.
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed(dir))?;
    let unfinished = path.with_extension("redb.new");
    if unfinished.exists() {
        fs::remove_file(&unfinished).map_err(failed(&unfinished))?;
    }
    let database = builder(options)
        .create(&unfinished)
        .map_err(|error| unusable(&unfinished, error))?;
    schema::initialise(&database)?;
    drop(database);
    fs::rename(&unfinished, path).map_err(failed(path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))
}

/// Checks that the file is ours, and reserves revisions above all that were ever given out.
fn recover(database: &Database, path: &Path) -> Result<Meta, StoreError> {
    let found = Meta::read(&database.begin_read()?)?;
    let mut meta = found.ok_or_else(|| foreign(path, "its tables are unknown".into()))?;
    if meta.format > FORMAT {
        return Err(StoreError::Format {
            path: path.into(),
            found: meta.format,
            supported: FORMAT,
        });
    }
    let transaction = database.begin_write()?;
    if meta.ceiling > meta.revision {
        let (first, last) = (meta.revision + 1, meta.ceiling);
        tracing::warn!(
            first,
            last,
            "the store was not closed in good order, skipping the revisions that may be lost"
        );
        transaction.open_table(LOST)?.insert(first, last)?;
        meta.revision = meta.ceiling + 1;
    }
    meta.ceiling = meta.revision + writer::RESERVE;
    meta.write(&transaction)?;
    transaction.commit()?;
    Ok(meta)
}

/// Whether everything after `revision` can still be told: it is neither compacted nor lost.
pub(super) fn reachable(lost: &impl ReadableTable<u64, u64>, meta: &Meta, revision: u64) -> Result<(), StoreError> {
    let oldest = if revision < meta.compacted {
        Some(meta.compacted)
    } else {
        schema::lost_until(lost, revision)?.map(|last| last + 1)
    };
    match oldest {
        Some(oldest) => Err(StoreError::Compacted {
            requested: revision,
            oldest,
        }),
        None => Ok(()),
    }
}

fn unusable(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.into() },
        DatabaseError::UpgradeRequired(version) => foreign(path, format!("its database format {version} is outdated")),
        DatabaseError::Storage(StorageError::Corrupted(reason)) => foreign(path, reason),
        DatabaseError::Storage(StorageError::Io(source)) if source.kind() == std::io::ErrorKind::InvalidData => {
            foreign(path, source.to_string())
        }
        DatabaseError::Storage(StorageError::Io(source)) => StoreError::Directory {
            path: path.into(),
            source,
        },
        other => other.into(),
    }
}

fn foreign(path: &Path, reason: String) -> StoreError {
    StoreError::Foreign {
        path: path.into(),
        reason,
    }
}
