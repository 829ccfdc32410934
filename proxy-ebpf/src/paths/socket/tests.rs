//! The socket path over ordinary memory: calls and their sockets as plain structs.

use core::net::{IpAddr, SocketAddr};
use std::collections::HashMap;

use proptest::prelude::*;

use super::{Call, Endpoint, Storage, close, connect, peer, receive, refusal, send};
use crate::abi::{
    Addr, Algorithm, Backend, BackendExpired, BackendId, Frontend, FrontendKey, PROTO_TCP, PROTO_UDP, PodAddrs, Run,
    Service, ServiceId, SocketState, StateGeneration,
};
use crate::host::HostMaps;
use crate::maps::Maps;
use crate::verdict::Reason;
use crate::wire::Be16;

const HOST: u64 = 3;
const POD: u64 = 17;

/// A call of a socket in a namespace.
struct HostCall {
    endpoint: Endpoint,
    proto: u8,
    cookie: u64,
}

impl Call for HostCall {
    fn endpoint(&self) -> Endpoint {
        self.endpoint
    }
    fn holds(_: &Addr) -> bool {
        true
    }
    fn rewrite(&mut self, to: Endpoint) {
        self.endpoint = to;
    }
    fn proto(&self) -> u8 {
        self.proto
    }
    fn netns_cookie(&self) -> u64 {
        self.cookie
    }
}

/// A socket: its state, and whether the kernel has memory for one.
#[derive(Default)]
struct Socket {
    state: Option<SocketState>,
    no_memory: bool,
}

impl Storage for Socket {
    fn get(&mut self) -> Option<&mut SocketState> {
        self.state.as_mut()
    }
    fn get_or_create(&mut self) -> Option<&mut SocketState> {
        if self.no_memory {
            None
        } else {
            Some(self.state.get_or_insert_default())
        }
    }
    fn exchange_counted(state: &mut SocketState, value: u32) -> u32 {
        core::mem::replace(&mut state.counted, value)
    }
}

fn endpoint(addr: &str) -> Endpoint {
    let addr: SocketAddr = addr.parse().expect("a socket address");
    Endpoint {
        addr: addr.ip().into(),
        port: Be16::new(addr.port()),
    }
}

fn shown(endpoint: Endpoint) -> String {
    SocketAddr::new(IpAddr::from(endpoint.addr), endpoint.port.get()).to_string()
}

/// Maps with services, and the calls to try on them.
#[derive(Default)]
struct World {
    maps: HostMaps,
}

impl World {
    fn new() -> Self {
        let mut world = Self::default();
        world.maps.node.host_netns_cookie = HOST;
        world.maps.node.snat_v4 = endpoint("192.0.2.1:0").addr;
        world
    }

    /// A service of these backends; ids go on from what is there.
    fn service(&mut self, id: u32, algorithm: Algorithm, backends: &[&str]) -> Vec<BackendId> {
        let first = self.maps.backends.borrow().len() as u32 + 1;
        let ids: Vec<_> = (first..).map(BackendId).take(backends.len()).collect();
        for (id, addr) in ids.iter().zip(backends) {
            let Endpoint { addr, port } = endpoint(addr);
            let state = StateGeneration::new(StateGeneration::ACTIVE, 1);
            self.maps.backends.borrow_mut().insert(
                *id,
                Backend {
                    addr,
                    port,
                    flags: 0,
                    state,
                },
            );
        }
        let all = Run {
            base: self.maps.slots.len() as u32,
            len: ids.len() as u32,
        };
        self.maps.slots.extend(&ids);
        self.maps.services.insert(
            ServiceId(id),
            Service {
                all,
                algorithm,
                ..Service::default()
            }
            .sealed(),
        );
        ids
    }

    fn frontend(&mut self, vip: &str, service: u32, flags: u8) {
        let Endpoint { addr, port } = endpoint(vip);
        for proto in [PROTO_TCP, PROTO_UDP] {
            let frontend = Frontend {
                service: ServiceId(service),
                kind: Frontend::CLUSTER_IP,
                flags,
                pad: 0,
            };
            self.maps.frontends.insert(
                FrontendKey {
                    addr,
                    port,
                    proto,
                    pad: 0,
                },
                frontend,
            );
        }
        self.maps.owned_addrs.push(addr);
    }

    fn set_state(&self, id: BackendId, state: u8, generation: u32) {
        let mut backends = self.maps.backends.borrow_mut();
        let backend = backends.get_mut(&id).expect("a backend");
        backend.state = StateGeneration::new(state, generation);
    }

    fn connect(&self, socket: &mut Socket, to: &str) -> (String, Reason) {
        self.connect_from(POD, socket, to)
    }

    fn connect_from(&self, cookie: u64, socket: &mut Socket, to: &str) -> (String, Reason) {
        let mut call = HostCall {
            endpoint: endpoint(to),
            proto: PROTO_TCP,
            cookie,
        };
        let reason = connect(&mut call, socket, &self.maps);
        (shown(call.endpoint), reason)
    }

    fn send(&self, socket: &mut Socket, to: &str) -> (String, Reason) {
        let mut call = HostCall {
            endpoint: endpoint(to),
            proto: PROTO_UDP,
            cookie: POD,
        };
        let reason = send(&mut call, socket, &self.maps);
        (shown(call.endpoint), reason)
    }

    fn open(&self, ids: &[BackendId]) -> Vec<u64> {
        ids.iter().map(|id| self.maps.open_flows(*id)).collect()
    }
}

fn receive_from(socket: &mut Socket, from: &str) -> String {
    let mut call = HostCall {
        endpoint: endpoint(from),
        proto: PROTO_UDP,
        cookie: POD,
    };
    let _ = receive(&mut call, socket);
    shown(call.endpoint)
}

fn peer_of(socket: &mut Socket, truly: &str) -> String {
    let mut call = HostCall {
        endpoint: endpoint(truly),
        proto: PROTO_TCP,
        cookie: POD,
    };
    let _ = peer(&mut call, socket);
    shown(call.endpoint)
}

#[test]
fn a_connect_goes_to_a_backend_and_shows_the_virtual_address() {
    for (vip, backend) in [("10.96.0.10:80", "10.0.1.5:8080"), ("[fd00::10]:80", "[fd01::5]:8080")] {
        let mut world = World::new();
        let ids = world.service(1, Algorithm::ROUND_ROBIN, &[backend]);
        world.frontend(vip, 1, 0);
        let mut socket = Socket::default();
        assert_eq!(world.connect(&mut socket, vip), (backend.to_owned(), Reason::CONNECTED));
        assert_eq!(peer_of(&mut socket, backend), vip);
        assert_eq!(
            peer_of(&mut socket, "10.9.9.9:1"),
            "10.9.9.9:1",
            "connected elsewhere by now"
        );
        assert_eq!(world.open(&ids), [1]);
        close(&mut socket, &world.maps);
        close(&mut socket, &world.maps);
        assert_eq!(world.open(&ids), [0], "counted out once");
        assert_eq!(world.maps.counters.borrow()[&ServiceId(1)].connections, 1);
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let mut world = World::new();
    world.service(1, Algorithm::ROUND_ROBIN, &["10.0.1.5:8080"]);
    world.frontend("10.96.0.10:80", 1, 0);
    world.frontend("127.0.0.1:30080", 1, Frontend::HOST_ONLY);
    world
        .maps
        .owned_addrs
        .retain(|addr| IpAddr::from(*addr) != IpAddr::from([127, 0, 0, 1]));
    let connect = |to| world.connect(&mut Socket::default(), to);
    assert_eq!(
        connect("192.0.2.7:80"),
        ("192.0.2.7:80".to_owned(), Reason::SOCKET_NOT_OURS)
    );
    assert_eq!(
        connect("127.0.0.1:30080"),
        ("127.0.0.1:30080".to_owned(), Reason::SOCKET_NOT_OURS)
    );
    assert_eq!(connect("10.96.0.10:81").1, Reason::UNKNOWN_PORT);
    let from_host = world.connect_from(HOST, &mut Socket::default(), "127.0.0.1:30080");
    assert_eq!(from_host, ("10.0.1.5:8080".to_owned(), Reason::CONNECTED));
    let mut other = HostCall {
        endpoint: endpoint("10.96.0.10:80"),
        proto: 0,
        cookie: POD,
    };
    assert_eq!(
        super::connect(&mut other, &mut Socket::default(), &world.maps),
        Reason::SOCKET_NOT_OURS
    );

    world.maps.pods.insert(
        POD,
        PodAddrs {
            flags: PodAddrs::OPT_OUT,
            ..PodAddrs::default()
        },
    );
    for to in ["10.96.0.10:80", "10.96.0.10:81"] {
        assert_eq!(
            world.connect(&mut Socket::default(), to),
            (to.to_owned(), Reason::SOCKET_OPT_OUT)
        );
    }
}

#[test]
fn refusals_have_errors_and_nothing_else_has() {
    let errors: HashMap<_, _> = Reason::ALL
        .iter()
        .filter_map(|(reason, name)| Some((*name, refusal(*reason)?)))
        .collect();
    let expected = [
        ("socket_no_endpoints", 111),
        ("unknown_port", 111),
        ("socket_no_local_endpoints", 113),
        ("inconsistent", 113),
    ];
    assert_eq!(errors, HashMap::from(expected));
}

#[test]
fn no_endpoints_and_none_here_are_told_apart() {
    let mut world = World::new();
    world.service(1, Algorithm::ROUND_ROBIN, &[]);
    world.service(2, Algorithm::ROUND_ROBIN, &["10.0.1.5:8080"]);
    let dead = world.service(3, Algorithm::ROUND_ROBIN, &["10.0.1.6:8080"]);
    world.set_state(dead[0], StateGeneration::DEAD, 1);
    world.frontend("10.96.0.1:80", 1, 0);
    world.frontend("10.96.0.2:80", 2, Frontend::INTERNAL_LOCAL);
    world.frontend("10.96.0.3:80", 3, 0);
    world.frontend("10.96.0.4:80", 4, 0);
    world.frontend("10.96.0.5:80", 2, Frontend::EXTERNAL_LOCAL);
    let connect = |to| world.connect(&mut Socket::default(), to).1;
    assert_eq!(connect("10.96.0.1:80"), Reason::SOCKET_NO_ENDPOINTS);
    assert_eq!(connect("10.96.0.2:80"), Reason::SOCKET_NO_LOCAL_ENDPOINTS);
    assert_eq!(connect("10.96.0.3:80"), Reason::SOCKET_NO_ENDPOINTS);
    assert_eq!(
        connect("10.96.0.4:80"),
        Reason::INCONSISTENT,
        "a frontend of a service that isn't there"
    );
    assert_eq!(
        connect("10.96.0.5:80"),
        Reason::CONNECTED,
        "the external policy is for clients outside"
    );
    assert_eq!(world.maps.counters.borrow()[&ServiceId(2)].refused, 1);
}

#[test]
fn a_refused_connect_gives_back_what_the_socket_held() {
    let mut world = World::new();
    let ids = world.service(1, Algorithm::ROUND_ROBIN, &["10.0.1.5:8080"]);
    world.service(2, Algorithm::ROUND_ROBIN, &[]);
    world.frontend("10.96.0.1:80", 1, 0);
    world.frontend("10.96.0.2:80", 2, 0);
    let mut socket = Socket::default();
    for elsewhere in ["10.96.0.2:80", "10.96.0.1:81", "192.0.2.7:80"] {
        assert_eq!(world.connect(&mut socket, "10.96.0.1:80").1, Reason::CONNECTED);
        assert_eq!(world.open(&ids), [1]);
        let _ = world.connect(&mut socket, elsewhere);
        assert_eq!(world.open(&ids), [0], "{elsewhere}");
        assert_eq!(peer_of(&mut socket, "10.0.1.5:8080"), "10.0.1.5:8080", "{elsewhere}");
    }
}

#[test]
fn without_memory_a_socket_is_connected_uncounted() {
    let mut world = World::new();
    let ids = world.service(1, Algorithm::LEAST_CONN, &["10.0.1.5:8080"]);
    world.frontend("10.96.0.1:80", 1, 0);
    let mut socket = Socket {
        no_memory: true,
        ..Socket::default()
    };
    let expected = ("10.0.1.5:8080".to_owned(), Reason::SOCKET_UNCOUNTED);
    assert_eq!(world.connect(&mut socket, "10.96.0.1:80"), expected);
    assert_eq!(world.send(&mut socket, "10.96.0.1:80"), expected);
    assert_eq!(world.open(&ids), [0]);
}

#[test]
fn a_recycled_backend_is_not_counted_down_by_sockets_of_its_former_owner() {
    let mut world = World::new();
    let ids = world.service(1, Algorithm::LEAST_CONN, &["10.0.1.5:8080"]);
    world.frontend("10.96.0.1:80", 1, 0);
    let (mut old, mut new) = (Socket::default(), Socket::default());
    let _ = world.connect(&mut old, "10.96.0.1:80");
    // The agent gives the id away: what is open now expires with the former owner.
    world
        .maps
        .expired
        .borrow_mut()
        .insert(ids[0], BackendExpired { flows: 1 });
    world.set_state(ids[0], StateGeneration::ACTIVE, 2);
    let _ = world.connect(&mut new, "10.96.0.1:80");
    close(&mut old, &world.maps);
    assert_eq!(world.open(&ids), [1], "the new owner's socket is still there");
    close(&mut new, &world.maps);
    assert_eq!(world.open(&ids), [0]);
}

#[test]
fn clients_of_a_source_hash_are_pods_the_node_or_their_namespace() {
    let mut world = World::new();
    let backends = ["10.0.1.1:80", "10.0.1.2:80", "10.0.1.3:80", "10.0.1.4:80"];
    world.service(1, Algorithm::SOURCE_HASH, &backends);
    world.frontend("10.96.0.1:80", 1, 0);
    let backend_of = |world: &World, cookie| world.connect_from(cookie, &mut Socket::default(), "10.96.0.1:80").0;
    let pod_at = |world: &mut World, host: u8| {
        let v4 = Addr::from(IpAddr::from([10, 0, 0, host]));
        world.maps.pods.insert(
            POD,
            PodAddrs {
                v4,
                ..PodAddrs::default()
            },
        );
        backend_of(world, POD)
    };
    let spread: std::collections::BTreeSet<_> = (1..64).map(|host| pod_at(&mut world, host)).collect();
    assert_eq!(spread.len(), 4, "Pods find all backends");
    assert_eq!(pod_at(&mut world, 7), pod_at(&mut world, 7));
    // The node's own sockets hash by the node's address: a Pod with that address would get the same backend.
    let node = backend_of(&world, HOST);
    world.maps.pods.insert(
        POD,
        PodAddrs {
            v4: world.maps.node.snat_v4,
            ..PodAddrs::default()
        },
    );
    assert_eq!(backend_of(&world, POD), node);
    let unknown: std::collections::BTreeSet<_> = (100..164).map(|cookie| backend_of(&world, cookie)).collect();
    assert_eq!(unknown.len(), 4, "unknown namespaces find all backends");
    assert_eq!(backend_of(&world, 100), backend_of(&world, 100));
}

#[test]
fn a_datagram_socket_keeps_its_backend_until_it_dies() {
    let mut world = World::new();
    let ids = world.service(1, Algorithm::ROUND_ROBIN, &["10.0.1.1:53", "10.0.1.2:53"]);
    world.frontend("10.96.0.1:53", 1, 0);
    let mut socket = Socket::default();
    let first = ("10.0.1.1:53".to_owned(), Reason::SENT);
    assert_eq!(world.send(&mut socket, "10.96.0.1:53"), first);
    assert_eq!(world.send(&mut socket, "10.96.0.1:53"), first);
    assert_eq!(receive_from(&mut socket, "10.0.1.1:53"), "10.96.0.1:53");
    assert_eq!(
        receive_from(&mut socket, "10.0.1.2:53"),
        "10.0.1.2:53",
        "nobody it talked to"
    );
    world.set_state(ids[0], StateGeneration::DRAINING, 1);
    assert_eq!(
        world.send(&mut socket, "10.96.0.1:53"),
        first,
        "draining keeps its clients"
    );
    world.set_state(ids[0], StateGeneration::DEAD, 1);
    let moved = ("10.0.1.2:53".to_owned(), Reason::BACKEND_MOVED);
    assert_eq!(world.send(&mut socket, "10.96.0.1:53"), moved);
    assert_eq!(receive_from(&mut socket, "10.0.1.2:53"), "10.96.0.1:53");
    // The address goes to another service while the backend lives on.
    world.service(2, Algorithm::ROUND_ROBIN, &["10.0.2.1:53"]);
    world.frontend("10.96.0.1:53", 2, 0);
    assert_eq!(
        world.send(&mut socket, "10.96.0.1:53"),
        ("10.0.2.1:53".to_owned(), Reason::BACKEND_MOVED)
    );
    assert_eq!(world.open(&ids), [0, 0], "datagrams aren't connections");
}

#[test]
fn two_virtual_addresses_get_different_backends_where_there_are_two() {
    let mut world = World::new();
    for service in [1, 2] {
        world.service(service, Algorithm::ROUND_ROBIN, &["10.0.1.1:53", "10.0.1.2:53"]);
        world.frontend(&format!("10.96.0.{service}:53"), service, 0);
    }
    let mut socket = Socket::default();
    assert_eq!(world.send(&mut socket, "10.96.0.1:53").0, "10.0.1.1:53");
    assert_eq!(world.send(&mut socket, "10.96.0.2:53").0, "10.0.1.2:53");
    assert_eq!(receive_from(&mut socket, "10.0.1.1:53"), "10.96.0.1:53");
    assert_eq!(receive_from(&mut socket, "10.0.1.2:53"), "10.96.0.2:53");
}

#[test]
fn the_newest_of_connects_and_sends_names_the_sender() {
    let mut world = World::new();
    world.service(1, Algorithm::ROUND_ROBIN, &["10.0.1.1:53"]);
    for vip in 1..=9 {
        world.frontend(&format!("10.96.0.{vip}:53"), 1, 0);
    }
    // Also where the counter wraps.
    let state = SocketState {
        sequence: u32::MAX - 2,
        ..SocketState::default()
    };
    let mut socket = Socket {
        state: Some(state),
        ..Socket::default()
    };
    for vip in [1, 2, 1, 3, 4, 5, 6] {
        let vip = format!("10.96.0.{vip}:53");
        assert_eq!(world.send(&mut socket, &vip).0, "10.0.1.1:53");
        assert_eq!(receive_from(&mut socket, "10.0.1.1:53"), vip);
    }
    let _ = world.connect(&mut socket, "10.96.0.9:53");
    assert_eq!(receive_from(&mut socket, "10.0.1.1:53"), "10.96.0.9:53");
    let _ = world.send(&mut socket, "10.96.0.3:53");
    assert_eq!(receive_from(&mut socket, "10.0.1.1:53"), "10.96.0.3:53");
    // A connect elsewhere, and a datagram to the backend itself: no virtual address is left for it.
    let _ = world.connect(&mut socket, "10.0.1.1:53");
    assert_eq!(world.send(&mut socket, "10.0.1.1:53").1, Reason::SOCKET_NOT_OURS);
    assert_eq!(receive_from(&mut socket, "10.0.1.1:53"), "10.0.1.1:53");
}

/// What may happen to a socket.
#[derive(Clone, Copy, Debug)]
enum Event {
    Connect(u8),
    ConnectElsewhere,
    Send(u8),
    Close,
    Die(u8),
    Revive(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..3_u8).prop_map(Event::Connect),
        1 => Just(Event::ConnectElsewhere),
        3 => (0..3_u8).prop_map(Event::Send),
        3 => Just(Event::Close),
        1 => (0..4_u8).prop_map(Event::Die),
        1 => (0..4_u8).prop_map(Event::Revive),
    ]
}

proptest! {
    /// Whatever happens in whatever order, a backend's load is the number of sockets connected to it, and an answer to
    /// the last datagram shows the address it was sent to.
    #[test]
    fn loads_are_what_the_sockets_hold(events in prop::collection::vec((0..5_usize, event()), 1..200)) {
        let mut world = World::new();
        let mut ids = Vec::new();
        for (service, algorithm) in [(1, Algorithm::ROUND_ROBIN), (2, Algorithm::LEAST_CONN), (3, Algorithm::RANDOM)] {
            let backends = [format!("10.0.{service}.1:80"), format!("10.0.{service}.2:80")];
            ids.extend(world.service(service, algorithm, &[&backends[0], &backends[1]]));
            world.frontend(&format!("10.96.0.{service}:80"), service, 0);
        }
        let mut sockets: Vec<Socket> = (0..5).map(|_| Socket::default()).collect();
        for (index, event) in events {
            let socket = &mut sockets[index];
            match event {
                Event::Connect(service) => {
                    let vip = format!("10.96.0.{}:80", service + 1);
                    let (backend, reason) = world.connect(socket, &vip);
                    if reason == Reason::CONNECTED {
                        prop_assert_eq!(peer_of(socket, &backend), vip);
                    }
                }
                Event::ConnectElsewhere => drop(world.connect(socket, "192.0.2.7:80")),
                Event::Send(service) => {
                    let vip = format!("10.96.0.{}:80", service + 1);
                    let (backend, reason) = world.send(socket, &vip);
                    if refusal(reason).is_none() {
                        prop_assert_eq!(receive_from(socket, &backend), vip);
                    }
                }
                Event::Close => {
                    close(socket, &world.maps);
                    *socket = Socket::default();
                }
                Event::Die(backend) => world.set_state(ids[backend as usize], StateGeneration::DEAD, 1),
                Event::Revive(backend) => world.set_state(ids[backend as usize], StateGeneration::ACTIVE, 1),
            }
            for id in &ids {
                let holders = sockets.iter().filter_map(|socket| socket.state).filter(|state| state.counted == 1 && state.backend == *id);
                prop_assert_eq!(world.maps.open_flows(*id), holders.count() as u64);
            }
        }
    }
}
