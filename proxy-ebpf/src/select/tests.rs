//! What each algorithm promises, over ordinary maps.

use super::*;
use crate::abi::{Addr, Backend, BackendLoad};
use crate::host::HostMaps;
use crate::wire::Be16;
use core::net::Ipv4Addr;
use std::collections::BTreeMap;

const SERVICE: ServiceId = ServiceId(1);

/// Maps with active backends 1 to `n`.
fn backends(n: u32) -> HostMaps {
    let maps = HostMaps::default();
    (1..=n).for_each(|id| set_state(&maps, id, StateGeneration::ACTIVE));
    maps
}

fn set_state(maps: &HostMaps, id: u32, state: u8) {
    let backend = Backend {
        state: StateGeneration::new(state, 5),
        ..Backend::default()
    };
    maps.backends.borrow_mut().insert(BackendId(id), backend);
}

/// A request for a run of these slots.
fn request(maps: &mut HostMaps, algorithm: Algorithm, slots: &[u32]) -> Request {
    let run = Run {
        base: maps.slots.len() as u32,
        len: slots.len() as u32,
    };
    maps.slots.extend(slots.iter().map(|id| BackendId(*id)));
    let service = Service {
        all: run,
        algorithm,
        ..Service::default()
    };
    Request {
        id: SERVICE,
        service,
        run,
        tuple: FlowKey::default(),
    }
}

fn from(client: u32, request: &Request) -> Request {
    let src = Addr::from(core::net::IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + client)));
    Request {
        tuple: FlowKey { src, ..request.tuple },
        ..*request
    }
}

fn tally(maps: &HostMaps, request: &Request, n: u32) -> BTreeMap<u32, u32> {
    let mut tally = BTreeMap::new();
    for client in 0..n {
        let tuple = FlowKey {
            sport: Be16::new(client as u16),
            ..from(client, request).tuple
        };
        *tally.entry(select(maps, &Request { tuple, ..*request }).0).or_default() += 1;
    }
    tally
}

/// A Maglev table as an agent builds it: each backend takes its next preferred slot in turn.
fn maglev(backends: &[u32], size: u32) -> Vec<u32> {
    let mut table = vec![0; size as usize];
    let mut next = vec![0_u32; backends.len()];
    let mut filled = 0;
    loop {
        for (turn, id) in next.iter_mut().zip(backends) {
            let (offset, skip) = (hash::words([*id], 1) % size, hash::words([*id], 2) % (size - 1) + 1);
            while filled < size {
                let slot = (u64::from(offset) + u64::from(*turn) * u64::from(skip)) % u64::from(size);
                *turn += 1;
                if table[slot as usize] == 0 {
                    table[slot as usize] = *id;
                    filled += 1;
                    break;
                }
            }
            if filled == size {
                return table;
            }
        }
    }
}

#[test]
fn round_robin_is_exact_and_repeated_slots_are_weights() {
    let mut maps = backends(4);
    let even = request(&mut maps, Algorithm::ROUND_ROBIN, &[1, 2, 3, 4]);
    assert_eq!(
        tally(&maps, &even, 400),
        BTreeMap::from([(1, 100), (2, 100), (3, 100), (4, 100)])
    );
    let weighted = request(&mut maps, Algorithm::ROUND_ROBIN, &[1, 2, 1, 3]);
    assert_eq!(
        tally(&maps, &weighted, 400),
        BTreeMap::from([(1, 200), (2, 100), (3, 100)])
    );
    let unknown = request(&mut maps, Algorithm(99), &[1, 2]);
    assert_eq!(tally(&maps, &unknown, 10), BTreeMap::from([(1, 5), (2, 5)]));
}

#[test]
fn an_empty_run_gives_nobody() {
    let mut maps = backends(1);
    for algorithm in 0..6 {
        let request = request(&mut maps, Algorithm(algorithm), &[]);
        assert_eq!(select(&maps, &request), BackendId(0));
    }
}

#[test]
fn least_connections_takes_the_fewest_and_ties_take_turns() {
    let mut maps = backends(64);
    let slots: Vec<u32> = (1..=64).collect();
    let request = request(&mut maps, Algorithm::LEAST_CONN, &slots);
    assert!(
        tally(&maps, &request, 640).values().all(|n| *n == 10),
        "with equal loads it takes turns"
    );
    for id in 1..=64 {
        let load = BackendLoad {
            opened: 100 + u64::from(id),
            closed: if id == 50 { 60 } else { 0 },
        };
        maps.loads.borrow_mut().insert(BackendId(id), load);
    }
    assert_eq!(tally(&maps, &request, 10), BTreeMap::from([(50, 10)]));
    set_state(&maps, 50, StateGeneration::DRAINING);
    assert_eq!(tally(&maps, &request, 10), BTreeMap::from([(1, 10)]));
}

#[test]
fn least_connections_over_a_long_run_avoids_the_busiest() {
    let mut maps = backends(1000);
    let slots: Vec<u32> = (1..=1000).collect();
    let request = request(&mut maps, Algorithm::LEAST_CONN, &slots);
    for id in 1..=500 {
        maps.loads
            .borrow_mut()
            .insert(BackendId(id), BackendLoad { opened: 10, closed: 0 });
    }
    let busy: u32 = tally(&maps, &request, 1000)
        .iter()
        .filter(|(id, _)| **id <= 500)
        .map(|(_, n)| n)
        .sum();
    assert!(
        busy < 30,
        "the best of eight samples is a busy one once in 256: {busy} of 1000"
    );
}

#[test]
fn source_hash_keeps_a_client_and_moves_few_when_a_backend_joins() {
    let mut maps = backends(5);
    let before = request(&mut maps, Algorithm::SOURCE_HASH, &maglev(&[1, 2, 3, 4], 251));
    let after = request(&mut maps, Algorithm::SOURCE_HASH, &maglev(&[1, 2, 3, 4, 5], 251));
    let mut moved = 0;
    let mut used = BTreeMap::new();
    for client in 0..1000 {
        let (old, new) = (from(client, &before), from(client, &after));
        let chosen = select(&maps, &old);
        let other_port = FlowKey {
            sport: Be16::new(9),
            dport: Be16::new(80),
            ..old.tuple
        };
        assert_eq!(
            select(
                &maps,
                &Request {
                    tuple: other_port,
                    ..old
                }
            ),
            chosen,
            "the client's address alone decides"
        );
        *used.entry(chosen.0).or_insert(0) += 1;
        moved += u32::from(select(&maps, &new) != chosen);
    }
    assert!(
        used.len() == 4 && used.values().all(|n| (150..350).contains(n)),
        "{used:?}"
    );
    assert!(
        (100..350).contains(&moved),
        "a fifth of the clients has to move, {moved} of 1000 did"
    );
}

#[test]
fn destination_hash_maglev_and_random_use_what_their_names_say() {
    let mut maps = backends(4);
    let table = maglev(&[1, 2, 3, 4], 251);
    let by_destination = request(&mut maps, Algorithm::DEST_HASH, &table);
    assert_eq!(tally(&maps, &by_destination, 100).len(), 1, "the client plays no part");
    let by_tuple = request(&mut maps, Algorithm::MAGLEV, &table);
    assert_eq!(tally(&maps, &by_tuple, 400).len(), 4);
    assert_eq!(
        select(&maps, &by_tuple),
        select(&maps, &by_tuple),
        "one tuple, one backend"
    );
    let random = request(&mut maps, Algorithm::RANDOM, &[1, 2, 3, 4]);
    assert!(tally(&maps, &random, 4000).values().all(|n| (800..1200).contains(n)));
}

#[test]
fn backends_that_take_no_new_flows_are_a_last_resort() {
    let mut maps = backends(3);
    let request = request(&mut maps, Algorithm::ROUND_ROBIN, &[1, 2, 3]);
    set_state(&maps, 1, StateGeneration::DEAD);
    set_state(&maps, 2, StateGeneration::DRAINING);
    assert_eq!(tally(&maps, &request, 30), BTreeMap::from([(3, 30)]));
    set_state(&maps, 3, StateGeneration::DEAD);
    assert_eq!(tally(&maps, &request, 30), BTreeMap::from([(2, 30)]));
    set_state(&maps, 2, StateGeneration::DEAD);
    assert_eq!(tally(&maps, &request, 30), BTreeMap::from([(0, 30)]));
}

#[test]
fn affinity_holds_until_it_is_old_or_its_backend_is_not_what_it_was() {
    let mut maps = backends(3);
    let mut request = request(&mut maps, Algorithm::ROUND_ROBIN, &[1, 2, 3]);
    request.service.affinity_secs = 100;
    let client = from(1, &request);
    let first = select(&maps, &client);
    for _ in 0..10 {
        maps.clock.set(maps.clock.get() + 90 * NANOS_PER_SEC);
        assert_eq!(select(&maps, &client), first, "each use makes it last longer");
    }
    assert_ne!(select(&maps, &from(2, &request)), first, "another client is another's");
    maps.clock.set(maps.clock.get() + 101 * NANOS_PER_SEC);
    let second = select(&maps, &client);
    assert_ne!(second, first, "after the timeout the turn is somebody else's");
    let reborn = Backend {
        state: StateGeneration::new(StateGeneration::ACTIVE, 6),
        ..Backend::default()
    };
    maps.backends.borrow_mut().insert(second, reborn);
    assert_ne!(select(&maps, &client), second, "the id went to another endpoint");
}

#[test]
fn affinity_does_not_leave_the_node_under_a_local_policy() {
    let mut maps = backends(2);
    let mut request = request(&mut maps, Algorithm::ROUND_ROBIN, &[1, 2]);
    request.service.affinity_secs = 100;
    assert_eq!(select(&maps, &request), BackendId(1));
    maps.slots.push(BackendId(2));
    let local = Run { base: 2, len: 1 };
    request.service.local = local;
    assert_eq!(
        select(&maps, &Request { run: local, ..request }),
        BackendId(2),
        "backend 1 is elsewhere"
    );
}
