//! An index beside an informer's cache: from something objects have to the objects that have it.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use super::informer::ObjectKey;

/// The keys of objects by what they have.
pub(super) struct Index<K> {
    keys: HashMap<K, BTreeSet<ObjectKey>>,
}

impl<K: Eq + Hash> Index<K> {
    pub(super) fn new() -> Self {
        Self { keys: HashMap::new() }
    }

    /// Moves an object from what it had to what it has.
    pub(super) fn update(
        &mut self,
        key: &ObjectKey,
        old: impl IntoIterator<Item = K>,
        new: impl IntoIterator<Item = K>,
    ) {
        for had in old {
            if let Some(keys) = self.keys.get_mut(&had) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&had);
                }
            }
        }
        for has in new {
            self.keys.entry(has).or_default().insert(key.clone());
        }
    }

    /// The objects that have it.
    pub(super) fn get<'a>(&'a self, has: &K) -> impl ExactSizeIterator<Item = &'a ObjectKey> + use<'a, K> {
        static NONE: BTreeSet<ObjectKey> = BTreeSet::new();
        self.keys.get(has).unwrap_or(&NONE).iter()
    }
}
