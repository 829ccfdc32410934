//! A map with the types of its keys and values: lookups, updates, and both in batches.
//!
//! Used through [`map`](super::super::map) for whole maps and directly for single entries; the calls go through
//! [`call`](super::call). What makes them safe is that the kernel's sizes are compared with the types' once, at the
//! beginning.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use bytemuck::{Pod, Zeroable};

use super::{MapInfo, address, call, map_info, number, owned};

const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const MAP_LOOKUP_AND_DELETE_ELEM: u32 = 21;
const MAP_LOOKUP_BATCH: u32 = 24;
const MAP_UPDATE_BATCH: u32 = 26;
const MAP_DELETE_BATCH: u32 = 27;

/// `BPF_ANY`: create or replace an entry.
pub const ANY: u64 = 0;
/// `BPF_NOEXIST`: create an entry, fail if there is one.
pub const NO_EXIST: u64 = 1;

/// `BPF_MAP_TYPE_HASH`.
pub const TYPE_HASH: u32 = 1;
/// `BPF_MAP_TYPE_ARRAY`.
pub const TYPE_ARRAY: u32 = 2;
const TYPE_PERCPU_HASH: u32 = 5;
const TYPE_PERCPU_ARRAY: u32 = 6;
const TYPE_LRU_PERCPU_HASH: u32 = 10;

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct CreateMap {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Element {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A map whose keys and values are known to have the sizes of `K` and `V`: what makes the calls on it safe.
#[derive(Debug)]
pub struct TypedMap<K, V> {
    fd: OwnedFd,
    info: MapInfo,
    values_per_key: usize,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Pod, V: Pod> TypedMap<K, V> {
    /// Makes a map that nothing else refers to; `kind` is of `enum bpf_map_type`.
    pub fn create(kind: u32, max_entries: u32) -> io::Result<Self> {
        let size = |bytes: usize| u32::try_from(bytes).expect("a few hundred bytes");
        let (key_size, value_size) = (size(size_of::<K>()), size(size_of::<V>()));
        let mut attr = CreateMap {
            kind,
            key_size,
            value_size,
            max_entries,
        };
        // SAFETY: no addresses; MAP_CREATE returns a new descriptor.
        Self::new(unsafe { call(MAP_CREATE, &mut attr).map(|fd| owned(fd))? })
    }

    /// Takes a map's descriptor; `InvalidData` if its sizes are not those of `K` and `V`.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let info = map_info(fd.as_fd())?;
        let per_cpu = matches!(info.kind, TYPE_PERCPU_HASH | TYPE_PERCPU_ARRAY | TYPE_LRU_PERCPU_HASH);
        let fits = info.key_size as usize == size_of::<K>() && info.value_size as usize == size_of::<V>();
        // The kernel rounds a per-CPU value up to 8 bytes; `[V]` must lie as it does.
        if !fits || (per_cpu && !size_of::<V>().is_multiple_of(8)) {
            let found = format!("keys of {} and values of {} bytes", info.key_size, info.value_size);
            return Err(io::Error::new(io::ErrorKind::InvalidData, found));
        }
        let values_per_key = if per_cpu {
            aya::util::nr_cpus().map_err(|(file, error)| io::Error::other(format!("{file}: {error}")))?
        } else {
            1
        };
        Ok(Self {
            fd,
            info,
            values_per_key,
            types: PhantomData,
        })
    }

    /// Number of entries the map was made for.
    pub fn max_entries(&self) -> u32 {
        self.info.max_entries
    }

    /// How many values an entry has: the number of possible CPUs for a per-CPU map, else 1.
    pub fn values_per_key(&self) -> usize {
        self.values_per_key
    }

    fn element(&self, key: &K) -> Element {
        Element {
            map_fd: number(self.fd.as_fd()),
            key: address(key),
            ..Element::default()
        }
    }

    fn read(&self, command: u32, key: &K) -> io::Result<Option<Vec<V>>> {
        let mut values = vec![V::zeroed(); self.values_per_key];
        let mut attr = Element {
            value: values.as_mut_ptr() as u64,
            ..self.element(key)
        };
        // SAFETY: the map's key size is that of `K`, which is read; the kernel writes one value per possible CPU (one for
        // other maps) of the size of `V`, and `values` has room for as many; any bytes are a `V`.
        match unsafe { call(command, &mut attr) } {
            Ok(_) => Ok(Some(values)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All values of a key: one per possible CPU for a per-CPU map, else one.
    pub fn get_all(&self, key: &K) -> io::Result<Option<Vec<V>>> {
        self.read(MAP_LOOKUP_ELEM, key)
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> io::Result<Option<V>> {
        Ok(self.get_all(key)?.and_then(|values| values.first().copied()))
    }

    /// Removes a key and returns the value it had at that moment.
    pub fn take(&self, key: &K) -> io::Result<Option<V>> {
        Ok(self
            .read(MAP_LOOKUP_AND_DELETE_ELEM, key)?
            .and_then(|values| values.first().copied()))
    }

    /// Writes an entry of a map that is not per CPU; `flags` is [`ANY`] or [`NO_EXIST`].
    pub fn set(&self, key: &K, value: &V, flags: u64) -> io::Result<()> {
        assert_eq!(self.values_per_key, 1, "per-CPU maps are written by the programs only");
        let mut attr = Element {
            value: address(value),
            flags,
            ..self.element(key)
        };
        // SAFETY: the map's sizes are those of `K` and `V`, both only read.
        unsafe { call(MAP_UPDATE_ELEM, &mut attr).map(|_| ()) }
    }

    /// Removes a key; `false` if it wasn't there.
    pub fn delete(&self, key: &K) -> io::Result<bool> {
        // SAFETY: the map's key size is that of `K`, only read.
        match unsafe { call(MAP_DELETE_ELEM, &mut self.element(key)) } {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads up to `keys.len()` entries, from where `cursor` says. Returns how many were read, and the cursor to go on
    /// from, or `None` at the end. `StorageFull` (ENOSPC): one bucket holds more than `keys` has room for.
    pub fn read_batch(
        &self,
        cursor: Option<BatchCursor>,
        keys: &mut [K],
        values: &mut [V],
    ) -> io::Result<(usize, Option<BatchCursor>)> {
        assert!(
            values.len() >= keys.len() * self.values_per_key,
            "room for every value of every key"
        );
        let mut next = BatchCursor::default();
        let mut attr = Batch {
            in_batch: cursor.as_ref().map_or(0, |cursor| address(&cursor.0)),
            out_batch: std::ptr::from_mut(&mut next.0) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            map_fd: number(self.fd.as_fd()),
            count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
            ..Batch::default()
        };
        // SAFETY: at most `count` keys of the size of `K` and as many times `values_per_key` values of the size of `V`
        // are written, and the slices have that room (asserted); a cursor is a bucket number (hash) or a 4-byte index
        // (array) and has room to spare.
        let result = unsafe { call(MAP_LOOKUP_BATCH, &mut attr) };
        let read = (attr.count as usize).min(keys.len());
        match result {
            Ok(_) => Ok((read, Some(next))),
            // The end of the map: the entries before it were still read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((read, None)),
            Err(error) => Err(error),
        }
    }

    /// Writes entries of a map that is not per CPU. On an error, how many were written is in the first field.
    pub fn write_batch(&self, keys: &[K], values: &[V]) -> Result<(), (usize, io::Error)> {
        assert_eq!(self.values_per_key, 1, "per-CPU maps are written by the programs only");
        assert_eq!(keys.len(), values.len(), "a value for every key");
        // SAFETY: `count` keys and values of the map's sizes are read, and the slices hold as many.
        unsafe { self.change_batch(MAP_UPDATE_BATCH, keys, values.as_ptr() as u64) }
    }

    /// Removes entries. On an error (a key that isn't there is one), how many were removed is in the first field.
    pub fn delete_batch(&self, keys: &[K]) -> Result<(), (usize, io::Error)> {
        // SAFETY: `count` keys of the map's size are read, and the slice holds as many.
        unsafe { self.change_batch(MAP_DELETE_BATCH, keys, 0) }
    }

    /// # Safety
    /// `values` must be the address of as many `V` as there are keys, if `command` reads values.
    unsafe fn change_batch(&self, command: u32, keys: &[K], values: u64) -> Result<(), (usize, io::Error)> {
        if keys.is_empty() {
            return Ok(());
        }
        let count = u32::try_from(keys.len()).expect("batches are split long before");
        let keys = keys.as_ptr() as u64;
        let mut attr = Batch {
            keys,
            values,
            count,
            map_fd: number(self.fd.as_fd()),
            ..Batch::default()
        };
        // SAFETY: `keys` is a slice of `count` keys of the map's size; the caller vouches for `values`.
        match unsafe { call(command, &mut attr) } {
            Ok(_) => Ok(()),
            Err(error) => Err((attr.count.min(count) as usize, error)),
        }
    }
}

impl<K, V> AsFd for TypedMap<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Where a batch read stopped; opaque.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchCursor([u64; 2]);

impl BatchCursor {
    /// To read an array from the index after this one.
    pub fn after_index(index: u32) -> Self {
        Self([u64::from(index), 0])
    }
}
