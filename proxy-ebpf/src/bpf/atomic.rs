//! Atomic operations on words in maps.
//!
//! `core::sync::atomic` has no read-modify-write for this target. The intrinsics have, with sequentially consistent
//! order only: with a weaker one the addition is compiled without the fetch, and returns nonsense.

use core::intrinsics::{AtomicOrdering, atomic_or, atomic_xadd, atomic_xchg};

/// Adds, and returns the sum's old value.
///
/// # Safety
/// `word` points to an aligned `u64` in a map.
#[inline(always)]
pub(super) unsafe fn fetch_add(word: *mut u64, value: u64) -> u64 {
    // SAFETY: the caller's promise; all CPUs use atomic operations on such words.
    unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(word, value) }
}

/// Sets bits, and returns the word's old value.
///
/// # Safety
/// `word` points to an aligned `u32` in a map.
#[inline(always)]
pub(super) unsafe fn fetch_or(word: *mut u32, bits: u32) -> u32 {
    // SAFETY: the caller's promise; all CPUs use atomic operations on such words.
    unsafe { atomic_or::<u32, u32, { AtomicOrdering::SeqCst }>(word, bits) }
}

/// Replaces a word, and returns its old value.
///
/// # Safety
/// `word` points to an aligned `u32` in a map.
#[inline(always)]
pub(super) unsafe fn exchange(word: *mut u32, value: u32) -> u32 {
    // SAFETY: the caller's promise; all CPUs use atomic operations on such words.
    unsafe { atomic_xchg::<u32, { AtomicOrdering::SeqCst }>(word, value) }
}
