//! One seeded 32-bit hash for the programs and for the agent, so that both find the same place in a Maglev table.
//!
//! Called by [`select`](crate::select) (source hash, destination hash, maglev), by the choice of masquerading ports, and
//! by the agent when it builds the tables. It is MurmurHash3 (x86, 32 bits) over whole words, taken as they lie in
//! memory, which is the same on every machine the programs run on (little endian).

use crate::abi::{Addr, FlowKey};

/// Seed of the hashes that choose a backend. Part of the layout: both sides of the maps must agree on it.
pub const BACKEND_SEED: u32 = 0x5761_6767;
/// Seed of the hash that spreads masquerading ports, so that ports say nothing about backends.
pub const PORT_SEED: u32 = 0x506f_7274;

/// The hash of some words.
#[inline(always)]
#[must_use]
pub fn words<const N: usize>(words: [u32; N], seed: u32) -> u32 {
    let mut hash = seed;
    let mut i = 0;
    while i < N {
        let scrambled = words[i]
            .wrapping_mul(0xcc9e_2d51)
            .rotate_left(15)
            .wrapping_mul(0x1b87_3593);
        hash = (hash ^ scrambled)
            .rotate_left(13)
            .wrapping_mul(5)
            .wrapping_add(0xe654_6b64);
        i += 1;
    }
    avalanche(hash ^ (N as u32) << 2)
}

/// The hash of an address: where a client (or a destination) belongs in a Maglev table.
#[inline(always)]
#[must_use]
pub fn address(addr: &Addr, seed: u32) -> u32 {
    let [a, b, c, d] = addr.words;
    words([a.raw(), b.raw(), c.raw(), d.raw()], seed)
}

/// The hash of a whole tuple.
#[inline(always)]
#[must_use]
pub fn tuple(key: &FlowKey, seed: u32) -> u32 {
    let ports = u32::from(key.sport.raw()) | u32::from(key.dport.raw()) << 16;
    let src = address(&key.src, seed);
    let dst = address(&key.dst, seed);
    words([src, dst, ports, u32::from(key.proto)], seed)
}

/// Makes every bit of the result depend on every bit of the input.
#[inline(always)]
fn avalanche(mut hash: u32) -> u32 {
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    /// Vectors of MurmurHash3_x86_32 over whole words.
    #[test]
    fn whole_words_hash_like_murmur3() {
        assert_eq!(words([], 0), 0);
        assert_eq!(words([], 1), 0x514e_28b7);
        assert_eq!(words([0], 0), 0x2362_f9de);
        assert_eq!(words([0xffff_ffff], 0), 0x7629_3b50);
        assert_eq!(words([0x8765_4321], 0), 0xf55b_516b);
        assert_eq!(words([0x8765_4321], 0x5082_edee), 0x2362_f9de);
    }

    #[test]
    fn addresses_spread_evenly() {
        let mut buckets = [0_u32; 16];
        for host in 0..16_384_u32 {
            let addr = Addr::from(IpAddr::from(std::net::Ipv4Addr::from(0x0a00_0000 + host)));
            buckets[address(&addr, BACKEND_SEED) as usize % 16] += 1;
        }
        assert!(buckets.iter().all(|n| (900..1150).contains(n)), "{buckets:?}");
    }

    #[test]
    fn both_directions_of_a_tuple_differ() {
        let key = FlowKey {
            src: Addr::from(IpAddr::from([10, 0, 0, 1])),
            proto: 6,
            ..FlowKey::default()
        };
        assert_ne!(tuple(&key, PORT_SEED), tuple(&key.reversed(), PORT_SEED));
    }
}
