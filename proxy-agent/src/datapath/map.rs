//! Whole-map reads and long writes, in batches of a size the kernel likes.
//!
//! Called by [`maps::kernel`](crate::maps::kernel), [`expire`](super::expire), `serve` and `commands`; the calls
//! themselves are in [`bpf`](super::bpf).

use std::io;

use bytemuck::Pod;

use super::bpf::{BatchCursor, TypedMap};

/// Entries in one call. Larger batches are hardly faster, and a call that holds a hash bucket's lock should be short.
const BATCH: usize = 4096;
/// A hash bucket with more entries than this is not ours: the kernel makes as many buckets as entries.
const LARGEST_BATCH: usize = 1 << 20;

/// Reads a map from its beginning in chunks and hands each to `each`: keys, and `values_per_key` values for each key.
///
/// # Errors
/// The kernel's, and whatever `each` returns.
pub fn for_each_chunk<K: Pod, V: Pod>(
    map: &TypedMap<K, V>,
    mut each: impl FnMut(&[K], &[V]) -> io::Result<()>,
) -> io::Result<()> {
    let mut cursor = None;
    let mut room = BATCH.min((map.max_entries() as usize).max(1));
    loop {
        let mut keys = vec![K::zeroed(); room];
        let mut values = vec![V::zeroed(); room * map.values_per_key()];
        match map.read_batch(cursor, &mut keys, &mut values) {
            Ok((read, next)) => {
                each(&keys[..read], &values[..read * map.values_per_key()])?;
                let Some(next) = next else { return Ok(()) };
                cursor = Some(next);
            }
            // One bucket holds more than there is room for: only a larger batch gets past it.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < LARGEST_BATCH => room *= 2,
            Err(error) => return Err(error),
        }
    }
}

/// Everything in a map that is not per CPU.
///
/// # Errors
/// The kernel's.
pub fn read_all<K: Pod, V: Pod>(map: &TypedMap<K, V>) -> io::Result<Vec<(K, V)>> {
    let mut entries = Vec::new();
    for_each_chunk(map, |keys, values| {
        entries.extend(keys.iter().copied().zip(values.iter().copied()));
        Ok(())
    })?;
    Ok(entries)
}

/// Every entry of an array that is not all zero, by rising index.
///
/// # Errors
/// The kernel's.
pub fn read_set<I: Pod, V: Pod>(map: &TypedMap<I, V>) -> io::Result<Vec<(I, V)>> {
    let mut entries = Vec::new();
    for_each_chunk(map, |keys, values| {
        // Most of a large array is empty: pass over it by the chunk.
        if bytemuck::cast_slice::<V, u8>(values) == bytemuck::cast_slice::<V, u8>(&vec![V::zeroed(); values.len()]) {
            return Ok(());
        }
        let pairs = keys.iter().zip(values);
        entries.extend(
            pairs
                .filter(|(_, value)| is_set(*value))
                .map(|(key, value)| (*key, *value)),
        );
        Ok(())
    })?;
    Ok(entries)
}

fn is_set<V: Pod>(value: &V) -> bool {
    bytemuck::bytes_of(value).iter().any(|byte| *byte != 0)
}

/// `len` consecutive values of an array from `first` on; the caller has checked that they lie within it.
///
/// # Errors
/// The kernel's, and `UnexpectedEof` if the array ends early.
pub fn read_range<V: Pod>(map: &TypedMap<u32, V>, first: u32, len: u32) -> io::Result<Vec<V>> {
    let mut values = vec![V::zeroed(); len as usize];
    let mut done = 0;
    let mut cursor = first.checked_sub(1).map(BatchCursor::after_index);
    while done < values.len() {
        let mut keys = vec![0_u32; BATCH.min(values.len() - done)];
        let (read, next) = map.read_batch(cursor, &mut keys, &mut values[done..])?;
        done += read;
        if next.is_none() && done < values.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        cursor = next;
    }
    Ok(values)
}

/// Writes entries in batches, in order.
///
/// # Errors
/// The number of entries written before the one that failed, and the kernel's answer.
pub fn write_all<K: Pod, V: Pod>(map: &TypedMap<K, V>, keys: &[K], values: &[V]) -> Result<(), (usize, io::Error)> {
    let chunks = keys.chunks(BATCH).zip(values.chunks(BATCH));
    for (index, (keys, values)) in chunks.enumerate() {
        map.write_batch(keys, values)
            .map_err(|(written, error)| (index * BATCH + written, error))?;
    }
    Ok(())
}

/// Removes entries in batches; one that isn't there is no error.
///
/// # Errors
/// The kernel's.
pub fn delete_all<K: Pod, V: Pod>(map: &TypedMap<K, V>, mut keys: &[K]) -> io::Result<()> {
    while !keys.is_empty() {
        let batch = &keys[..keys.len().min(BATCH)];
        match map.delete_batch(batch) {
            Ok(()) => keys = &keys[batch.len()..],
            // The kernel stops at a key that isn't there: go on behind it.
            Err((done, error)) if error.kind() == io::ErrorKind::NotFound => keys = &keys[(done + 1).min(keys.len())..],
            Err((_, error)) => return Err(error),
        }
    }
    Ok(())
}
