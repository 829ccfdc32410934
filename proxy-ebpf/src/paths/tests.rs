//! Whole walks over ordinary memory: what a sequence of packets does to the flows. What becomes of the bytes is checked in
//! the kernel by the packet tables.

use core::net::SocketAddr;

use etherparse::PacketBuilder;

use super::egress::egress;
use super::ingress::{Side, ingress};
use crate::abi::{
    Backend, BackendId, FlowEntry, FlowKey, Frontend, FrontendKey, NodeConfig, Run, Service, ServiceId, StateGeneration,
};
use crate::conntrack::REFRESH_NANOS;
use crate::host::{HostMaps, HostPacket};
use crate::maps::{Flow, Maps, Table};
use crate::packet::{Hop, Route};
use crate::verdict::{Reason, Verdict};
use crate::wire::Be16;

const CLIENT: ([u8; 4], u16) = ([10, 1, 0, 9], 30_000);
const VIP: ([u8; 4], u16) = ([10, 96, 0, 10], 80);
const POD: ([u8; 4], u16) = ([10, 244, 0, 1], 8080);
const OTHER: ([u8; 4], u16) = ([10, 244, 0, 2], 8080);
const NODE: ([u8; 4], u16) = ([192, 0, 2, 1], 30_000);

/// A service with a backend each at `POD` and `OTHER`, round robin, on this node or not.
fn maps(flags: u16) -> HostMaps {
    let mut maps = HostMaps::default();
    let active = StateGeneration::new(StateGeneration::ACTIVE, 1);
    for (id, endpoint) in [(1, POD), (2, OTHER)] {
        let (addr, port) = (SocketAddr::from(endpoint).ip().into(), Be16::new(endpoint.1));
        maps.backends.borrow_mut().insert(
            BackendId(id),
            Backend {
                addr,
                port,
                flags,
                state: active,
            },
        );
        maps.slots.push(BackendId(id));
    }
    let service = Service {
        all: Run { base: 0, len: 2 },
        generation: 1,
        ..Service::default()
    };
    maps.services.insert(ServiceId(1), service.sealed());
    for proto in [6, 17] {
        let key = FrontendKey {
            addr: SocketAddr::from(VIP).ip().into(),
            port: Be16::new(VIP.1),
            proto,
            pad: 0,
        };
        maps.frontends.insert(
            key,
            Frontend {
                service: ServiceId(1),
                kind: 1,
                flags: 0,
                pad: 0,
            },
        );
    }
    let snat_v4 = SocketAddr::from(NODE).ip().into();
    maps.node = NodeConfig {
        snat_v4,
        snat_port_min: 20_000,
        snat_port_max: 40_000,
        ..NodeConfig::default()
    };
    maps
}

type Endpoint = ([u8; 4], u16);

/// A TCP packet by the letters of its flags, or UDP without any.
fn packet(from: Endpoint, to: Endpoint, flags: &str) -> HostPacket {
    let ip = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from.0, to.0, 64);
    let mut bytes = Vec::new();
    if flags.is_empty() {
        ip.udp(from.1, to.1)
            .write(&mut bytes, b"datagram")
            .expect("a vector takes it");
    } else {
        let mut tcp = ip.tcp(from.1, to.1, 1, 1);
        tcp = if flags.contains('S') { tcp.syn() } else { tcp };
        tcp = if flags.contains('A') { tcp.ack(1) } else { tcp };
        tcp = if flags.contains('F') { tcp.fin() } else { tcp };
        tcp = if flags.contains('R') { tcp.rst() } else { tcp };
        tcp.write(&mut bytes, &[]).expect("a vector takes it");
    }
    HostPacket::new(&bytes)
}

fn key(from: Endpoint, to: Endpoint, proto: u8) -> FlowKey {
    let (src, dst) = (SocketAddr::from(from).ip().into(), SocketAddr::from(to).ip().into());
    FlowKey {
        src,
        dst,
        sport: Be16::new(from.1),
        dport: Be16::new(to.1),
        proto,
        pad: [0; 3],
    }
}

fn comes_in(maps: &HostMaps, side: Side, from: Endpoint, to: Endpoint, flags: &str) -> Verdict {
    ingress(&mut packet(from, to, flags), maps, side)
}

fn goes_out(maps: &HostMaps, side: Side, from: Endpoint, to: Endpoint, flags: &str) -> Verdict {
    egress(&mut packet(from, to, flags), maps, side)
}

fn entry(maps: &HostMaps, key: &FlowKey) -> Option<FlowEntry> {
    maps.flow(Table::Conntrack, key).map(|flow| flow.read())
}

fn open(maps: &HostMaps) -> [u64; 2] {
    [1, 2].map(|id| maps.open_flows(BackendId(id)))
}

#[test]
fn a_connection_from_outside_is_half_open_until_the_client_confirms_it() {
    let maps = maps(Backend::LOCAL);
    assert_eq!(
        comes_in(&maps, Side::Uplink, CLIENT, VIP, "S"),
        Verdict::pass(Reason::NEW_FLOW)
    );
    assert_eq!((maps.half_open.borrow().len(), maps.conntrack.borrow().len()), (2, 0));
    assert_eq!(
        comes_in(&maps, Side::Uplink, CLIENT, VIP, "S"),
        Verdict::pass(Reason::FORWARDED),
        "a SYN once more"
    );
    assert_eq!(
        goes_out(&maps, Side::Uplink, POD, CLIENT, "SA"),
        Verdict::pass(Reason::REPLIED)
    );
    assert_eq!((maps.half_open.borrow().len(), open(&maps)), (2, [0, 0]));
    assert_eq!(
        comes_in(&maps, Side::Uplink, CLIENT, VIP, "A"),
        Verdict::pass(Reason::FORWARDED)
    );
    assert_eq!(
        (
            maps.half_open.borrow().len(),
            maps.conntrack.borrow().len(),
            open(&maps)
        ),
        (0, 2, [1, 0])
    );
    assert_eq!(maps.reason(Reason::NEW_FLOW), 1);
}

#[test]
fn a_flood_of_syns_leaves_no_trace_among_the_established() {
    let maps = maps(Backend::LOCAL);
    for port in 1..2000 {
        let _ = comes_in(&maps, Side::Uplink, (CLIENT.0, port), VIP, "S");
    }
    assert_eq!((maps.conntrack.borrow().len(), open(&maps)), (0, [0, 0]));
}

#[test]
fn a_refused_half_open_connection_can_be_tried_again() {
    let maps = maps(Backend::LOCAL);
    let _ = comes_in(&maps, Side::Uplink, CLIENT, VIP, "S");
    assert_eq!(
        goes_out(&maps, Side::Uplink, POD, CLIENT, "RA"),
        Verdict::pass(Reason::REPLIED)
    );
    assert_eq!(
        comes_in(&maps, Side::Uplink, CLIENT, VIP, "S"),
        Verdict::pass(Reason::NEW_FLOW)
    );
    let chosen = maps
        .flow(Table::HalfOpen, &key(CLIENT, VIP, 6))
        .map(|flow| flow.read().backend);
    assert_eq!(chosen, Some(BackendId(2)), "the next one is asked");
}

#[test]
fn fin_from_both_sides_or_a_reset_closes_and_counts_out_once() {
    for end in [
        &["FA", "reply FA", "A"][..],
        &["reply FA", "FA", "reply A"],
        &["RA", "RA"],
        &["reply RA", "FA"],
    ] {
        let maps = maps(0);
        let _ = comes_in(&maps, Side::Pod, CLIENT, VIP, "S");
        let _ = goes_out(&maps, Side::Pod, POD, CLIENT, "SA");
        assert_eq!(open(&maps), [1, 0]);
        for (n, packet) in end.iter().enumerate() {
            let reason = match packet.strip_prefix("reply ") {
                Some(flags) => goes_out(&maps, Side::Pod, POD, CLIENT, flags).reason(),
                None => comes_in(&maps, Side::Pod, CLIENT, VIP, packet).reason(),
            };
            assert!(
                reason == Reason::FORWARDED || reason == Reason::REPLIED,
                "{packet}: {reason:?}"
            );
            let half_closed = n == 0 && !packet.contains('R');
            assert_eq!(open(&maps), [u64::from(half_closed), 0], "{packet} of {end:?}");
        }
        assert_eq!(open(&maps), [0, 0], "{end:?}");
        for key in [key(CLIENT, VIP, 6), key(POD, CLIENT, 6)] {
            assert_ne!(
                entry(&maps, &key).expect("the entry is there").flags & FlowEntry::CLOSED,
                0,
                "{end:?}"
            );
        }
        assert_eq!(
            comes_in(&maps, Side::Pod, CLIENT, VIP, "S").reason(),
            Reason::NEW_FLOW,
            "the ports are free again"
        );
        assert_eq!(open(&maps), [0, 1]);
    }
}

#[test]
fn each_half_rebuilds_the_other_when_it_is_next_refreshed() {
    let maps = maps(0);
    let _ = comes_in(&maps, Side::Pod, CLIENT, VIP, "");
    let _ = goes_out(&maps, Side::Pod, POD, CLIENT, "");
    let (forward, reply) = (key(CLIENT, VIP, 17), key(POD, CLIENT, 17));
    for lost in [forward, reply] {
        let whole = entry(&maps, &lost).expect("the entry is there");
        maps.remove_flow(Table::Conntrack, &lost);
        maps.clock.set(maps.clock.get() + REFRESH_NANOS);
        let verdict = if lost == reply {
            comes_in(&maps, Side::Pod, CLIENT, VIP, "")
        } else {
            goes_out(&maps, Side::Pod, POD, CLIENT, "")
        };
        assert!(verdict.reason() == Reason::FORWARDED || verdict.reason() == Reason::REPLIED);
        let rebuilt = entry(&maps, &lost).expect("it was rebuilt");
        assert_eq!(
            FlowEntry {
                last_seen: 0,
                ..rebuilt
            },
            FlowEntry { last_seen: 0, ..whole }
        );
    }
    assert_eq!(
        (maps.reason(Reason::REPAIRED), open(&maps)),
        (2, [1, 0]),
        "the count was taken over, not repeated"
    );
}

#[test]
fn a_client_that_speaks_first_after_its_entry_was_lost_is_recognised_by_the_reply_entry() {
    for (side, flags) in [(Side::Pod, 0), (Side::Uplink, Backend::LOCAL), (Side::Uplink, 0)] {
        let maps = maps(flags);
        let _ = comes_in(&maps, side, CLIENT, VIP, "S");
        let _ = comes_in(&maps, side, CLIENT, VIP, "A");
        let forward = key(CLIENT, VIP, 6);
        let whole = entry(&maps, &forward).expect("the entry is there");
        maps.remove_flow(Table::Conntrack, &forward);
        let verdict = comes_in(&maps, side, CLIENT, VIP, "A");
        assert_eq!(verdict.reason(), Reason::FORWARDED);
        let rebuilt = entry(&maps, &forward).expect("it was rebuilt");
        assert_eq!(rebuilt.translated, whole.translated);
        assert_eq!(open(&maps), [1, 0], "the count was taken over, not repeated");
        assert_eq!(
            comes_in(&maps, side, ([10, 1, 0, 8], 30_000), VIP, "A").reason(),
            Reason::UNKNOWN_FLOW,
            "somebody else's packet finds nothing"
        );
    }
}

#[test]
fn the_fast_path_looks_at_the_other_half_once_a_second_at_most() {
    let maps = maps(0);
    let _ = comes_in(&maps, Side::Pod, CLIENT, VIP, "");
    let _ = goes_out(&maps, Side::Pod, POD, CLIENT, "");
    maps.remove_flow(Table::Conntrack, &key(POD, CLIENT, 17));
    maps.clock.set(REFRESH_NANOS - 1);
    let _ = comes_in(&maps, Side::Pod, CLIENT, VIP, "");
    assert_eq!(maps.reason(Reason::REPAIRED), 0);
}

#[test]
fn a_dead_backend_ends_tcp_and_moves_udp() {
    for side in [Side::Pod, Side::Uplink] {
        let maps = maps(Backend::LOCAL);
        for flags in ["S", "A", ""] {
            let _ = comes_in(&maps, side, CLIENT, VIP, flags);
        }
        assert_eq!(open(&maps), [1, 1]);
        for id in [1, 2] {
            let backend = maps.backend(BackendId(id)).expect("it is there");
            let state = StateGeneration::new(StateGeneration::ACTIVE, 2);
            maps.backends
                .borrow_mut()
                .insert(BackendId(id), Backend { state, ..backend });
        }
        // Both ids went to others: the connection is reset, the datagrams choose anew.
        let mut last = packet(CLIENT, VIP, "A");
        assert_eq!(ingress(&mut last, &maps, side), Verdict::redirect(Reason::BACKEND_GONE));
        assert_eq!(
            last.redirected,
            Some(HostPacket::IFINDEX),
            "the reset goes back where the packet came from"
        );
        assert_eq!(
            comes_in(&maps, side, CLIENT, VIP, "A"),
            Verdict::pass(Reason::UNKNOWN_FLOW)
        );
        assert_eq!(
            comes_in(&maps, side, CLIENT, VIP, ""),
            Verdict::pass(Reason::BACKEND_MOVED)
        );
        assert_eq!(open(&maps), [1, 0], "what the ids' former owners had was counted out");
    }
}

#[test]
fn without_a_neighbour_the_packet_stays_as_it_is_and_the_flow_is_kept() {
    let maps = maps(0);
    let mut first = packet(CLIENT, VIP, "");
    first.hop = Hop {
        route: Route::NoNeighbour,
        ..first.hop
    };
    let before = first.bytes();
    assert_eq!(
        ingress(&mut first, &maps, Side::Uplink),
        Verdict::pass(Reason::NO_NEIGHBOUR)
    );
    assert_eq!(first.bytes(), before);
    assert_eq!(
        comes_in(&maps, Side::Uplink, CLIENT, VIP, ""),
        Verdict::redirect(Reason::FORWARDED)
    );
    assert_eq!(
        comes_in(&maps, Side::Uplink, POD, NODE, ""),
        Verdict::redirect(Reason::REPLIED)
    );
}

#[test]
fn when_no_source_port_is_free_the_packet_is_dropped() {
    let mut maps = maps(0);
    maps.node.snat_port_max = maps.node.snat_port_min;
    let mut verdicts = (1..4).map(|port| comes_in(&maps, Side::Uplink, (CLIENT.0, port), VIP, ""));
    // One port for each of the two backends.
    assert_eq!(verdicts.next(), Some(Verdict::redirect(Reason::NEW_FLOW)));
    assert_eq!(verdicts.next(), Some(Verdict::redirect(Reason::NEW_FLOW)));
    assert_eq!(verdicts.next(), Some(Verdict::drop(Reason::NO_SOURCE_PORT)));
}

#[test]
fn the_port_of_a_closed_flow_is_free_and_that_of_a_live_one_is_not() {
    for (close, kept) in [(true, true), (false, false)] {
        let mut maps = maps(0);
        maps.node.snat_port_max = 39_999;
        let other = ([10, 96, 0, 11], 80);
        let frontend = maps.frontends.values().next().copied().expect("there is one");
        let addr = SocketAddr::from(other).ip().into();
        maps.frontends.insert(
            FrontendKey {
                addr,
                port: Be16::new(80),
                proto: 6,
                pad: 0,
            },
            frontend,
        );
        maps.slots = vec![BackendId(1), BackendId(1)];
        let _ = comes_in(&maps, Side::Pod, CLIENT, VIP, "S");
        if close {
            let _ = comes_in(&maps, Side::Pod, CLIENT, VIP, "RA");
        }
        assert_eq!(
            comes_in(&maps, Side::Pod, CLIENT, other, "S"),
            Verdict::pass(Reason::NEW_FLOW)
        );
        let second = entry(&maps, &key(CLIENT, other, 6)).expect("it was written");
        assert_eq!(second.translated.sport == Be16::new(CLIENT.1), kept);
    }
}
