//! An informer: all objects of a resource, kept as the store has them, and each change as it comes.
//!
//! Used by every controller; reads the store's list and watch directly. When the watch ends because it fell behind, the
//! informer lists again and reports the difference, so that its user never sees a gap.
//!
//! ```text
//! list -> changes (everything is new) -> watch -> change, change, ... -> Lagged -> list -> difference -> watch ...
//! ```

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde::de::DeserializeOwned;

use crate::resources::Resource;
use crate::store::{EventKind, Record, Store, StoreError, Watch};

/// After a list that failed.
const RELIST_DELAY: Duration = Duration::from_secs(1);

/// Where an object is; the namespace is empty for cluster-scoped ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ObjectKey {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ObjectKey {
    pub(super) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The place in a store key below the resource's prefix: `namespace/name` or `name`.
    fn parse(rest: &str) -> Self {
        let (namespace, name) = rest.split_once('/').unwrap_or(("", rest));
        Self::new(namespace, name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return formatter.write_str(&self.name);
        }
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// An object that came, changed or went.
pub(super) struct Change<T> {
    pub(super) key: ObjectKey,
    pub(super) old: Option<Arc<T>>,
    pub(super) new: Option<Arc<T>>,
}

/// An object as far as a controller is interested in it, and its revision.
struct Entry<T> {
    object: Arc<T>,
    revision: u64,
}

/// All objects of a resource. `F` is how they are decoded, `T` what is kept of them.
pub(super) struct Informer<F, T> {
    store: Store,
    prefix: String,
    keep: fn(F, u64) -> T,
    objects: HashMap<ObjectKey, Entry<T>>,
    changes: VecDeque<Change<T>>,
    watch: Option<Watch>,
}

impl<F: DeserializeOwned, T> Informer<F, T> {
    /// Starts with nothing; the first changes are everything there is. `keep` gets an object and its revision.
    pub(super) fn new(store: Store, resource: &Resource, keep: fn(F, u64) -> T) -> Self {
        let prefix = resource.prefix(None);
        Self {
            store,
            prefix,
            keep,
            objects: HashMap::new(),
            changes: VecDeque::new(),
            watch: None,
        }
    }

    /// The object at `key`.
    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Arc<T>> {
        self.objects.get(key).map(|entry| &entry.object)
    }

    /// The next change, already made to what [`Informer::get`] answers; none when the store is closed. Loses nothing
    /// when dropped before it is ready.
    pub(super) async fn next(&mut self) -> Option<Change<T>> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Some(change);
            }
            let Some(watch) = &mut self.watch else {
                if let Err(error) = self.list() {
                    tracing::error!(%error, prefix = self.prefix, "cannot list, trying again");
                    tokio::time::sleep(RELIST_DELAY).await;
                }
                continue;
            };
            match watch.next().await {
                Some(Ok(event)) => {
                    let value = (event.kind != EventKind::Deleted).then_some(&event.value[..]);
                    self.see(&event.key, value, event.revision);
                }
                Some(Err(StoreError::Closed)) | None => return None,
                Some(Err(error)) => {
                    tracing::warn!(%error, prefix = self.prefix, "listing again");
                    self.watch = None;
                }
            }
        }
    }

    /// The changes up to `revision`, which the store has reached: what was written up to then is seen.
    pub(super) async fn catch_up(&mut self, revision: u64) -> Vec<Change<T>> {
        let mut changes = Vec::new();
        while !self.changes.is_empty() || self.watch.as_ref().is_none_or(|watch| watch.position() < revision) {
            match self.next().now_or_never() {
                Some(Some(change)) => changes.push(change),
                Some(None) => break,
                None if self.watch.is_some() => tokio::task::yield_now().await,
                None => tokio::time::sleep(RELIST_DELAY).await,
            }
        }
        changes
    }

    fn list(&mut self) -> Result<(), StoreError> {
        let listing = self.store.list(&self.prefix, None, None, None)?;
        self.watch = Some(self.store.watch(&self.prefix, listing.revision)?);
        let gone: Vec<_> = self
            .objects
            .keys()
            .filter(|key| !holds(&listing.records, &self.prefix, key))
            .cloned()
            .collect();
        for key in gone {
            self.set(key, None, listing.revision);
        }
        for record in &listing.records {
            let key = ObjectKey::parse(&record.key[self.prefix.len()..]);
            if self
                .objects
                .get(&key)
                .is_none_or(|entry| entry.revision != record.modified)
            {
                self.see(&record.key, Some(&record.value), record.modified);
            }
        }
        Ok(())
    }

    fn see(&mut self, key: &str, value: Option<&[u8]>, revision: u64) {
        match value.map(serde_json::from_slice).transpose() {
            Ok(object) => {
                let key = ObjectKey::parse(&key[self.prefix.len()..]);
                let object = object.map(|object| Arc::new((self.keep)(object, revision)));
                self.set(key, object, revision);
            }
            // The API lets nothing in that does not decode; the object stays as it was known last.
            Err(error) => tracing::error!(%error, key, "a stored object cannot be decoded"),
        }
    }

    fn set(&mut self, key: ObjectKey, new: Option<Arc<T>>, revision: u64) {
        let old = match &new {
            Some(object) => self.objects.insert(
                key.clone(),
                Entry {
                    object: Arc::clone(object),
                    revision,
                },
            ),
            None => self.objects.remove(&key),
        };
        let old = old.map(|entry| entry.object);
        if old.is_some() || new.is_some() {
            self.changes.push_back(Change { key, old, new });
        }
    }
}

/// Whether a list, which is in key order, has a record for `key`.
fn holds(records: &[Record], prefix: &str, key: &ObjectKey) -> bool {
    let key = format!("{prefix}{key}");
    records.binary_search_by(|record| record.key.as_str().cmp(&key)).is_ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::Value;

    use super::*;
    use crate::resources;
    use crate::store::{Durability, Options, Write};

    async fn write(store: &Store, name: &str, value: &'static str) -> u64 {
        let key = format!("/registry/core/configmaps/ns/{name}");
        let value = Bytes::from_static(value.as_bytes());
        let write = match store.get(&key).unwrap() {
            Some(record) => Write::Update {
                key,
                value,
                expect: record.modified,
            },
            None => Write::Create { key, value },
        };
        store.write(vec![write], Durability::Lazy).await.unwrap()
    }

    fn informer(store: &Store) -> Informer<Value, Value> {
        Informer::new(
            store.clone(),
            resources::find("", "v1", "configmaps").unwrap(),
            |object, _| object,
        )
    }

    fn told(change: &Change<Value>) -> (String, Option<i64>, Option<i64>) {
        let number = |object: &Option<Arc<Value>>| object.as_ref().and_then(|object| object.as_i64());
        (change.key.to_string(), number(&change.old), number(&change.new))
    }

    #[tokio::test]
    async fn it_starts_with_everything_and_goes_on_with_changes() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = Store::open(dir.path(), Options::default()).unwrap();
        write(&store, "a", "1").await;
        let mut informer = informer(&store);
        assert_eq!(told(&informer.next().await.unwrap()), ("ns/a".into(), None, Some(1)));
        let revision = write(&store, "a", "2").await;
        let changes = informer.catch_up(revision).await;
        assert_eq!(
            changes.iter().map(told).collect::<Vec<_>>(),
            [("ns/a".into(), Some(1), Some(2))]
        );
        assert_eq!(informer.get(&ObjectKey::new("ns", "a")).unwrap().as_i64(), Some(2));
    }

    #[tokio::test]
    async fn after_a_lag_the_difference_is_told() {
        let dir = tempfile::TempDir::new().unwrap();
        let (history, compact_every) = (Duration::ZERO, Duration::from_millis(5));
        let options = Options {
            history,
            compact_every,
            history_min_events: 1,
            log_events: 1,
            ..Options::default()
        };
        let store = Store::open(dir.path(), options).unwrap();
        let mut informer = informer(&store);
        for name in ["a", "b", "c"] {
            let revision = write(&store, name, "1").await;
            informer.catch_up(revision).await;
        }
        let first = store.revision();
        let key = String::from("/registry/core/configmaps/ns/a");
        store
            .write(vec![Write::Delete { key, expect: None }], Durability::Lazy)
            .await
            .unwrap();
        for _ in 0..20 {
            write(&store, "b", "2").await;
        }
        while store.watch("", first).is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut changes = [
            told(&informer.next().await.unwrap()),
            told(&informer.next().await.unwrap()),
        ];
        changes.sort();
        assert_eq!(
            changes,
            [("ns/a".into(), Some(1), None), ("ns/b".into(), Some(1), Some(2))]
        );
        assert!(informer.next().now_or_never().is_none(), "c has not changed");
    }
}
