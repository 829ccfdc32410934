//! The promises every implementation of [`Maps`] keeps, as one function that tries them all. The tests of
//! [`memory`](super::memory) and of [`kernel`](super::kernel) call it; nothing else does.

use std::net::IpAddr;

use proxy_ebpf::{
    abi::{
        Addr, Backend, BackendExpired, BackendId, Frontend, FrontendKey, PROTO_TCP, PROTO_UDP, Run, Service, ServiceId,
        StateGeneration,
    },
    wire::Be16,
};

use super::{MapError, Maps, Table};

/// Tries every promise on fresh, empty maps; `make` is told the size each map must have.
///
/// # Panics
/// With the promise that isn't kept.
pub fn check<M: Maps>(make: impl Fn(fn(Table) -> u32) -> M) {
    let small: fn(Table) -> u32 = |table| if table == Table::Slots { 64 } else { 8 };
    fresh_maps_are_empty_and_of_the_size_asked_for(&make(small));
    frontends_are_added_replaced_and_removed(&mut make(small));
    a_full_hash_refuses_new_keys_and_replaces_old_ones(&mut make(small));
    owned_addresses_are_a_set(&mut make(small));
    services_and_backends_are_read_back_by_rising_id(&mut make(small));
    a_run_of_slots_is_read_back(&mut make(small));
    an_index_outside_is_refused(&mut make(small));
    large_batches_are_written_whole(&mut make(|_| 5_000));
    counts_are_read_back(&mut make(small));
}

fn frontend(n: u16, proto: u8) -> (FrontendKey, Frontend) {
    let addr = Addr::from("10.96.0.1".parse::<IpAddr>().expect("an address"));
    let key = FrontendKey {
        addr,
        port: Be16::new(n),
        proto,
        pad: 0,
    };
    (
        key,
        Frontend {
            service: ServiceId(u32::from(n)),
            kind: Frontend::CLUSTER_IP,
            flags: 0,
            pad: 0,
        },
    )
}

fn address(n: u32) -> Addr {
    Addr::from(IpAddr::from((0x0a00_0000 + n).to_be_bytes()))
}

fn backend(n: u32) -> (BackendId, Backend) {
    let state = StateGeneration::new(StateGeneration::ACTIVE, 1);
    (
        BackendId(n),
        Backend {
            addr: address(n),
            port: Be16::new(80),
            flags: 0,
            state,
        },
    )
}

fn service(n: u32) -> (ServiceId, Service) {
    let service = Service {
        all: Run { base: n, len: 1 },
        generation: n,
        ..Service::default()
    };
    (ServiceId(n), service.sealed())
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list
}

fn by_key<K: Ord + Copy, V>(mut list: Vec<(K, V)>) -> Vec<(K, V)> {
    list.sort_by_key(|(key, _)| *key);
    list
}

fn fresh_maps_are_empty_and_of_the_size_asked_for(maps: &impl Maps) {
    assert_eq!(maps.size(Table::Slots), 64);
    assert_eq!(maps.size(Table::Frontends), 8);
    assert_eq!(maps.frontends().expect("read"), []);
    assert_eq!(maps.owned_addrs().expect("read"), []);
    assert_eq!(maps.services().expect("read"), []);
    assert_eq!(maps.backends().expect("read"), []);
    assert_eq!(maps.slots(Run { base: 60, len: 4 }).expect("read"), [BackendId(0); 4]);
}

fn frontends_are_added_replaced_and_removed(maps: &mut impl Maps) {
    let (tcp, udp) = (frontend(1, PROTO_TCP), frontend(1, PROTO_UDP));
    maps.put_frontends(&[tcp, udp]).expect("add");
    let moved = (
        tcp.0,
        Frontend {
            service: ServiceId(7),
            ..tcp.1
        },
    );
    maps.put_frontends(&[moved]).expect("replace");
    assert_eq!(by_key(maps.frontends().expect("read")), [moved, udp]);
    maps.delete_frontends(&[tcp.0, frontend(9, PROTO_TCP).0])
        .expect("a missing key is no error");
    assert_eq!(maps.frontends().expect("read"), [udp]);
    maps.put_frontends(&[]).expect("nothing to add");
    maps.delete_frontends(&[]).expect("nothing to remove");
}

fn a_full_hash_refuses_new_keys_and_replaces_old_ones(maps: &mut impl Maps) {
    let all: Vec<_> = (1..=9).map(|n| frontend(n, PROTO_TCP)).collect();
    let error = maps.put_frontends(&all).expect_err("nine keys in eight places");
    assert!(
        matches!(
            error,
            MapError::Full {
                table: Table::Frontends,
                size: 8
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("--max-frontends"), "{error}");
    let held = maps.frontends().expect("read");
    assert!(
        held.iter().all(|(key, _)| key.port != Be16::new(9)),
        "nothing after the entry that failed is written"
    );
    maps.put_frontends(&all[..8]).expect("eight keys in eight places");
    maps.put_frontends(&all[2..4]).expect("replacing needs no room");
    maps.delete_frontends(&[all[0].0]).expect("remove");
    maps.put_frontends(&all[8..]).expect("room again");
    assert_eq!(by_key(maps.frontends().expect("read")), all[1..]);
}

fn owned_addresses_are_a_set(maps: &mut impl Maps) {
    maps.put_owned_addrs(&[address(1), address(2)]).expect("add");
    maps.put_owned_addrs(&[address(2), address(3)])
        .expect("one is there already");
    maps.delete_owned_addrs(&[address(1), address(9)])
        .expect("one isn't there");
    assert_eq!(sorted(maps.owned_addrs().expect("read")), [address(2), address(3)]);
    let many: Vec<_> = (10..20).map(address).collect();
    let error = maps.put_owned_addrs(&many).expect_err("too many");
    assert!(
        matches!(
            error,
            MapError::Full {
                table: Table::OwnedAddrs,
                ..
            }
        ),
        "{error}"
    );
}

fn services_and_backends_are_read_back_by_rising_id(maps: &mut impl Maps) {
    maps.put_services(&[service(5), service(2)]).expect("add");
    maps.put_backends(&[backend(7), backend(1)]).expect("add");
    assert_eq!(maps.services().expect("read"), [service(2), service(5)]);
    assert_eq!(maps.backends().expect("read"), [backend(1), backend(7)]);
    maps.put_services(&[(ServiceId(5), Service::default())]).expect("clear");
    assert_eq!(maps.services().expect("read"), [service(2)]);
    let dead = StateGeneration::new(StateGeneration::DEAD, 4);
    let dead = (
        BackendId(1),
        Backend {
            state: dead,
            ..Backend::default()
        },
    );
    maps.put_backends(&[dead]).expect("replace");
    assert_eq!(
        maps.backends().expect("read"),
        [dead, backend(7)],
        "a dead backend keeps its generation"
    );
}

fn a_run_of_slots_is_read_back(maps: &mut impl Maps) {
    let ids: Vec<_> = (1..=10).map(BackendId).collect();
    maps.put_slots(54, &ids).expect("write up to the end");
    assert_eq!(maps.slots(Run { base: 54, len: 10 }).expect("read"), ids);
    assert_eq!(
        maps.slots(Run { base: 53, len: 2 }).expect("read"),
        [BackendId(0), BackendId(1)]
    );
    assert_eq!(maps.slots(Run { base: 9, len: 0 }).expect("read"), []);
    maps.put_slots(64, &[]).expect("nothing to write");
}

fn an_index_outside_is_refused(maps: &mut impl Maps) {
    let outside = |error: MapError, table| {
        assert!(
            matches!(error, MapError::OutOfRange { .. }) && error.table() == table,
            "{error}"
        );
        assert!(error.to_string().contains(table.flag()), "{error}");
    };
    outside(maps.put_services(&[service(8)]).expect_err("outside"), Table::Services);
    outside(
        maps.put_backends(&[backend(1), backend(8)]).expect_err("outside"),
        Table::Backends,
    );
    outside(
        maps.put_slots(60, &[BackendId(1); 5]).expect_err("outside"),
        Table::Slots,
    );
    assert_eq!(
        maps.slots(Run { base: 60, len: 4 }).expect("read"),
        [BackendId(0); 4],
        "nothing of it is written"
    );
    outside(maps.slots(Run { base: 63, len: 2 }).expect_err("outside"), Table::Slots);
    outside(
        maps.put_expired(&[(BackendId(8), BackendExpired::default())])
            .expect_err("outside"),
        Table::BackendExpired,
    );
    outside(maps.load(BackendId(8)).expect_err("outside"), Table::BackendLoads);
}

fn large_batches_are_written_whole(maps: &mut impl Maps) {
    let frontends: Vec<_> = (1..=4_999).map(|n| frontend(n, PROTO_TCP)).collect();
    maps.put_frontends(&frontends).expect("add");
    assert_eq!(by_key(maps.frontends().expect("read")), frontends);
    let backends: Vec<_> = (1..=4_999).map(backend).collect();
    maps.put_backends(&backends).expect("add");
    assert_eq!(maps.backends().expect("read"), backends);
    let slots: Vec<_> = (1..=5_000).map(BackendId).collect();
    maps.put_slots(0, &slots).expect("write");
    assert_eq!(maps.slots(Run { base: 0, len: 5_000 }).expect("read"), slots);
    let keys: Vec<_> = frontends.iter().map(|(key, _)| *key).collect();
    maps.delete_frontends(&keys).expect("remove");
    assert_eq!(maps.frontends().expect("read"), []);
}

fn counts_are_read_back(maps: &mut impl Maps) {
    let id = BackendId(3);
    assert_eq!(maps.load(id).expect("read").opened, 0);
    maps.put_expired(&[(id, BackendExpired { flows: 41 })]).expect("write");
    assert_eq!(maps.expired(id).expect("read"), BackendExpired { flows: 41 });
    assert_eq!(maps.expired(BackendId(4)).expect("read"), BackendExpired { flows: 0 });
}
