//! Where ids and slots come from: [`IdPool`] for service and backend ids, [`Extents`] for runs of slots.
//!
//! Used by [`super`]; both know nothing of grace periods: whoever gives back has waited.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Ids from 1 up to the size of a map. One that was given back is given out again as late as possible, so that what
/// still remembers it (a flow, a counter) is most likely gone.
#[derive(Clone, Debug)]
pub(super) struct IdPool {
    /// The lowest id never given out.
    next: u32,
    /// Size of the map: ids are below.
    size: u32,
    /// Given back, oldest first.
    free: VecDeque<u32>,
}

impl IdPool {
    /// All ids of a map of `size` entries but those in `used`, which must be below `size`.
    pub(super) fn new(size: u32, used: &BTreeSet<u32>) -> Self {
        let next = used.last().map_or(1, |last| last + 1);
        Self {
            next,
            size,
            free: (1..next).filter(|id| !used.contains(id)).collect(),
        }
    }

    /// An id, or `None` if all are in use.
    pub(super) fn take(&mut self) -> Option<u32> {
        if self.next < self.size {
            self.next += 1;
            return Some(self.next - 1);
        }
        self.free.pop_front()
    }

    /// Gives an id back.
    pub(super) fn give_back(&mut self, id: u32) {
        self.free.push_back(id);
    }

    /// Gives an id back that nobody has seen: it is the next to be given out.
    pub(super) fn undo(&mut self, id: u32) {
        if id + 1 == self.next {
            self.next = id;
        } else {
            self.free.push_front(id);
        }
    }

    /// How many ids are in use.
    pub(super) fn used(&self) -> usize {
        self.next as usize - 1 - self.free.len()
    }
}

/// Free space of the flat array of slots, as extents that never touch each other.
#[derive(Clone, Debug)]
pub(super) struct Extents {
    /// Length by base.
    by_base: BTreeMap<u32, u32>,
    /// The same, shortest first.
    by_len: BTreeSet<(u32, u32)>,
    free: u32,
    size: u32,
}

impl Extents {
    /// An array of `size` free slots.
    pub(super) fn new(size: u32) -> Self {
        let mut extents = Self {
            by_base: BTreeMap::new(),
            by_len: BTreeSet::new(),
            free: 0,
            size,
        };
        extents.release(0, size);
        extents
    }

    /// Takes `len` slots in a row out of the shortest extent that has them; `None` if there is none.
    pub(super) fn allocate(&mut self, len: u32) -> Option<u32> {
        let &(found, base) = self.by_len.range((len, 0)..).next()?;
        self.remove(base, found);
        self.insert(base + len, found - len);
        Some(base)
    }

    /// Takes just these slots; false if one of them is taken already or outside.
    pub(super) fn reserve(&mut self, base: u32, len: u32) -> bool {
        let Some((&start, &found)) = self.by_base.range(..=base).next_back() else {
            return false;
        };
        let (end, wanted) = (u64::from(start) + u64::from(found), u64::from(base) + u64::from(len));
        if wanted > end {
            return false;
        }
        self.remove(start, found);
        self.insert(start, base - start);
        self.insert(base + len, (end - wanted) as u32);
        true
    }

    /// Gives slots back, and joins them with their free neighbours.
    pub(super) fn release(&mut self, mut base: u32, mut len: u32) {
        if let Some((&before, &before_len)) = self.by_base.range(..base).next_back()
            && before + before_len == base
        {
            self.remove(before, before_len);
            (base, len) = (before, before_len + len);
        }
        if let Some(&after_len) = self.by_base.get(&(base + len)) {
            self.remove(base + len, after_len);
            len += after_len;
        }
        self.insert(base, len);
    }

    /// How many slots are in use.
    pub(super) fn used(&self) -> u32 {
        self.size - self.free
    }

    fn insert(&mut self, base: u32, len: u32) {
        if len > 0 {
            self.by_base.insert(base, len);
            self.by_len.insert((len, base));
            self.free += len;
        }
    }

    fn remove(&mut self, base: u32, len: u32) {
        self.by_base.remove(&base);
        self.by_len.remove(&(len, base));
        self.free -= len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_start_at_one_and_are_reused_oldest_first_once_all_were_used() {
        let mut pool = IdPool::new(4, &BTreeSet::new());
        assert_eq!([pool.take(), pool.take()], [Some(1), Some(2)]);
        pool.give_back(2);
        pool.give_back(1);
        assert_eq!(
            [pool.take(), pool.take(), pool.take(), pool.take()],
            [Some(3), Some(2), Some(1), None]
        );
        assert_eq!(pool.used(), 3);
    }

    #[test]
    fn a_pool_skips_the_ids_that_are_in_use() {
        let mut pool = IdPool::new(6, &BTreeSet::from([1, 3]));
        assert_eq!(pool.used(), 2);
        assert_eq!([pool.take(), pool.take(), pool.take()], [Some(4), Some(5), Some(2)]);
        pool.undo(5);
        assert_eq!(pool.take(), Some(5));
    }

    #[test]
    fn a_gap_is_filled_by_what_fits_best() {
        let mut extents = Extents::new(100);
        assert!(extents.reserve(10, 5) && extents.reserve(40, 10));
        assert!(!extents.reserve(12, 1) && !extents.reserve(8, 3) && !extents.reserve(95, 6));
        assert_eq!(extents.allocate(10), Some(0));
        assert_eq!(extents.allocate(26), Some(50));
        assert_eq!(extents.used(), 51);
        assert_eq!(extents.allocate(80), None);
    }

    proptest! {
        #[test]
        fn extents_never_overlap_and_join_again(lens in prop::collection::vec(1_u32..40, 1..40), order in any::<u64>()) {
            let mut extents = Extents::new(1000);
            let mut held: Vec<(u32, u32)> = Vec::new();
            for len in lens {
                let Some(base) = extents.allocate(len) else { continue };
                prop_assert!(base + len <= 1000);
                prop_assert!(held.iter().all(|(b, l)| base + len <= *b || b + l <= base));
                held.push((base, len));
                prop_assert_eq!(extents.used(), held.iter().map(|(_, l)| l).sum::<u32>());
            }
            held.sort_by_key(|(base, _)| u64::from(*base).wrapping_mul(order | 1));
            for (base, len) in held {
                extents.release(base, len);
            }
            prop_assert_eq!(extents.allocate(1000), Some(0));
        }
    }
}
