//! What a run of slots holds, by algorithm. Called by [`super`] when the backends of a service are known.
//!
//! - Where the programs count (`rr`, `lc`, `random`), a run is the backends, each once, by rising address.
//! - Where they hash (`sh`, `dh`, `maglev`), it is a table after Eisenbud et al., "Maglev: A Fast and Reliable Software
//!   Network Load Balancer", NSDI 2016, section 3.4: each backend has a permutation of the table, and they take turns
//!   in claiming their next free place. The table depends on the backends' addresses alone, so every node builds the
//!   same one, and when a backend comes or goes most places keep theirs.

use proxy_ebpf::{
    abi::{Algorithm, BackendId},
    hash,
};

use super::backends::BackendKey;

/// Sizes of hash tables: primes, so that every step walks the whole table. Each serves up to a hundredth of its size in
/// backends (shares then differ by a percent or two), the last as many as there are. Few sizes, far apart: a change of
/// size moves nearly every client.
const PRIMES: [usize; 3] = [1_021, 16_381, 65_521];
const PLACES_PER_BACKEND: usize = 100;

const OFFSET_SEED: u32 = 0x6d61_676c;
const STEP_SEED: u32 = 0x6576_2121;

/// The slots of a run for some backends, which are in rising order.
pub(super) fn fill(algorithm: Algorithm, backends: &[(BackendKey, BackendId)]) -> Vec<BackendId> {
    let hashed = matches!(
        algorithm,
        Algorithm::SOURCE_HASH | Algorithm::DEST_HASH | Algorithm::MAGLEV
    );
    if !hashed || backends.len() < 2 {
        return backends.iter().map(|(_, id)| *id).collect();
    }
    table(backends, size(backends.len()))
}

fn size(backends: usize) -> usize {
    PRIMES
        .into_iter()
        .find(|prime| prime / PLACES_PER_BACKEND >= backends)
        .unwrap_or(PRIMES[PRIMES.len() - 1])
}

fn table(backends: &[(BackendKey, BackendId)], size: usize) -> Vec<BackendId> {
    let mut places = vec![BackendId(0); size];
    let mut walks: Vec<_> = backends.iter().map(|(key, id)| (Walk::new(key, size), *id)).collect();
    let mut left = size;
    // More backends than places: those that come last get none.
    while left > 0 {
        for (walk, id) in walks.iter_mut().take(left) {
            let place = walk.find(|&place| places[place] == BackendId(0));
            if let Some(place) = place {
                places[place] = *id;
                left -= 1;
            }
        }
    }
    places
}

/// A backend's permutation of the table: from a place of its own, by steps of its own. It never ends.
struct Walk {
    place: usize,
    step: usize,
    size: usize,
}

impl Walk {
    fn new(key: &BackendKey, size: usize) -> Self {
        let [a, b, c, d] = key.addr.words;
        let words = [a.raw(), b.raw(), c.raw(), d.raw(), u32::from(key.port)];
        let place = hash::words(words, OFFSET_SEED) as usize % size;
        let step = hash::words(words, STEP_SEED) as usize % (size - 1) + 1;
        Self { place, step, size }
    }
}

impl Iterator for Walk {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let place = self.place;
        self.place = (self.place + self.step) % self.size;
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Protocol;
    use proxy_ebpf::abi::Addr;
    use std::{collections::BTreeMap, net::IpAddr};

    fn backends(n: u8) -> Vec<(BackendKey, BackendId)> {
        let key = |host| BackendKey {
            addr: Addr::from(IpAddr::from([10, 1, 0, host])),
            port: 8080,
            protocol: Protocol::Tcp,
        };
        (1..=n).map(|host| (key(host), BackendId(u32::from(host)))).collect()
    }

    fn shares(run: &[BackendId]) -> BTreeMap<u32, usize> {
        let mut shares = BTreeMap::new();
        for id in run {
            *shares.entry(id.0).or_default() += 1;
        }
        shares
    }

    #[test]
    fn counting_algorithms_get_each_backend_once() {
        for algorithm in [Algorithm::ROUND_ROBIN, Algorithm::LEAST_CONN, Algorithm::RANDOM] {
            assert_eq!(
                fill(algorithm, &backends(3)),
                [BackendId(1), BackendId(2), BackendId(3)]
            );
        }
        assert_eq!(fill(Algorithm::SOURCE_HASH, &[]), []);
        assert_eq!(fill(Algorithm::SOURCE_HASH, &backends(1)), [BackendId(1)]);
    }

    #[test]
    fn a_hash_table_is_full_prime_and_even() {
        for n in [2, 4, 10, 11, 100] {
            let run = fill(Algorithm::SOURCE_HASH, &backends(n));
            assert!(PRIMES.contains(&run.len()) && run.len() >= 100 * usize::from(n));
            let shares = shares(&run);
            assert_eq!(shares.len(), usize::from(n));
            let fair = run.len() / usize::from(n);
            assert!(
                shares.values().all(|share| share.abs_diff(fair) <= fair / 20 + 1),
                "{n}: {shares:?}"
            );
        }
    }

    #[test]
    fn a_fifth_backend_moves_little_more_than_its_share() {
        let (four, five) = (
            fill(Algorithm::SOURCE_HASH, &backends(4)),
            fill(Algorithm::SOURCE_HASH, &backends(5)),
        );
        let moved = four.iter().zip(&five).filter(|(a, b)| a != b).count();
        assert!(moved * 100 / four.len() < 30, "{moved} of {}", four.len());
    }

    #[test]
    fn the_table_depends_on_addresses_and_not_on_ids() {
        let renumbered: Vec<_> = backends(7)
            .into_iter()
            .map(|(key, id)| (key, BackendId(id.0 + 100)))
            .collect();
        let (one, other) = (
            fill(Algorithm::MAGLEV, &backends(7)),
            fill(Algorithm::MAGLEV, &renumbered),
        );
        assert!(one.iter().zip(&other).all(|(a, b)| a.0 + 100 == b.0));
    }
}
