//! Whatever happens in a cluster, in whatever order, with restarts in between: the maps end as a fresh start would leave
//! them, no moment on the way shows a half-written Service, and a restart changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::support::{checked::Checked, picture};
use proptest::{prelude::*, sample::subsequence};
use proxy_agent::{
    config::NodePortAddresses,
    maps::{Maps, Table, memory::MemoryMaps},
    model::{
        Conditions, Family, Node, Protocol, Service, ServiceName, ServicePort, Slice, SliceEndpoint, SliceName,
        SlicePort,
    },
    plan::{GRACE, LINGER, Policy},
    run::{agent::Agent, status::StatusHandle},
    watch::Event,
};
use proxy_ebpf::abi::{Algorithm, BackendLoad};

#[derive(Clone, Debug)]
enum Step {
    Apply(Box<Event>),
    /// The events so far are one batch.
    Flush,
    Wait(u64),
    Restart,
    /// The watches list anew.
    Relist,
}

impl Step {
    fn apply(event: Event) -> Self {
        Self::Apply(Box::new(event))
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn name(n: usize) -> ServiceName {
    ServiceName {
        namespace: "ns".into(),
        name: NAMES[n].into(),
    }
}

fn address(family: Family, net: u8, host: u8) -> IpAddr {
    match family {
        Family::V4 => [10, net, 0, host].into(),
        Family::V6 => [0xfd00, u16::from(net), 0, 0, 0, 0, 0, u16::from(host)].into(),
    }
}

fn ports() -> impl Strategy<Value = Vec<ServicePort>> {
    let port = |name: &str, protocol, port, node_port| ServicePort {
        name: name.into(),
        protocol,
        port,
        node_port,
    };
    let all = vec![
        port("http", Protocol::Tcp, 80, None),
        port("web", Protocol::Tcp, 8080, Some(30080)),
        port("dns", Protocol::Udp, 53, Some(30053)),
    ];
    subsequence(all, 1..=3)
}

fn algorithm() -> impl Strategy<Value = Option<Algorithm>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Algorithm::LEAST_CONN)),
        1 => Just(Some(Algorithm::SOURCE_HASH)),
    ]
}

/// Services share external IPs, load-balancer IPs and node ports now and then, and swap ports.
fn service() -> impl Strategy<Value = Service> {
    let shape = (
        0..4_usize,
        ports(),
        any::<[bool; 4]>(),
        0..3_i64,
        subsequence(vec![1_u8, 2], 0..=2),
    );
    (shape, algorithm(), prop_oneof![Just(0_u32), Just(60)]).prop_map(
        |(
            (n, ports, [dual, internal_local, external_local, balanced], created, external),
            algorithm,
            affinity_secs,
        )| {
            let host = n as u8 + 1;
            let mut cluster_ips = vec![address(Family::V4, 96, host)];
            cluster_ips.extend(dual.then(|| address(Family::V6, 96, host)));
            Service {
                name: name(n),
                uid: String::new(),
                created,
                ports,
                cluster_ips,
                external_ips: external
                    .into_iter()
                    .map(|host| address(Family::V4, 200, host))
                    .collect(),
                load_balancer_ips: balanced.then(|| address(Family::V4, 201, 1)).into_iter().collect(),
                internal_local,
                external_local,
                affinity_secs,
                algorithm,
                health_port: None,
                warnings: Vec::new(),
            }
        },
    )
}

fn endpoint(family: Family) -> impl Strategy<Value = SliceEndpoint> {
    let conditions = prop_oneof![
        4 => Just((true, true, false)),
        1 => Just((false, true, true)),
        1 => Just((false, false, false)),
        1 => Just((false, false, true)),
    ];
    (0..6_u8, conditions, any::<bool>()).prop_map(move |(host, (ready, serving, terminating), hinted)| SliceEndpoint {
        address: address(family, 1, host + 1),
        conditions: Conditions {
            ready,
            serving,
            terminating,
        },
        // Where an endpoint is follows from its address.
        node: Some(if host % 3 == 0 { "here" } else { "there" }.into()),
        zone_hints: if hinted { vec!["z".into()] } else { Vec::new() },
        node_hints: Vec::new(),
    })
}

fn slice() -> impl Strategy<Value = Slice> {
    let family = prop_oneof![3 => Just(Family::V4), 1 => Just(Family::V6)];
    family.prop_flat_map(|family| {
        (0..4_usize, 0..3_usize, prop::collection::vec(endpoint(family), 0..5)).prop_map(
            move |(owner, n, endpoints)| {
                let port = |name: &str, protocol, port| SlicePort {
                    name: name.into(),
                    protocol,
                    port,
                };
                Slice {
                    name: slice_name(family, n),
                    service: name(owner),
                    family,
                    ports: vec![
                        port("http", Protocol::Tcp, 8000),
                        port("web", Protocol::Tcp, 8000),
                        port("dns", Protocol::Udp, 5353),
                    ],
                    endpoints,
                }
            },
        )
    })
}

fn slice_name(family: Family, n: usize) -> SliceName {
    SliceName {
        namespace: "ns".into(),
        name: format!("{family:?}-{n}"),
    }
}

fn node() -> impl Strategy<Value = Node> {
    (1..3_u8, any::<bool>()).prop_map(|(host, zone)| Node {
        name: "here".into(),
        zone: zone.then(|| "z".into()),
        addresses: vec![address(Family::V4, 0, host), address(Family::V6, 0, host)],
        terminating: false,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => service().prop_map(|service| Step::apply(Event::ServiceApplied(service))),
        2 => (0..4_usize).prop_map(|n| Step::apply(Event::ServiceDeleted(name(n)))),
        8 => slice().prop_map(|slice| Step::apply(Event::SliceApplied(slice))),
        2 => (0..3_usize).prop_map(|n| Step::apply(Event::SliceDeleted(slice_name(Family::V4, n)))),
        1 => node().prop_map(|node| Step::apply(Event::NodeApplied(node))),
        8 => Just(Step::Flush),
        2 => (0..4_u64).prop_map(Step::Wait),
        1 => Just(Step::Restart),
        1 => Just(Step::Relist),
    ]
}

/// The cluster: what a watch that lists now would get.
#[derive(Clone, Default)]
struct Cluster {
    services: BTreeMap<ServiceName, Service>,
    slices: BTreeMap<SliceName, Slice>,
    node: Option<Node>,
}

impl Cluster {
    fn take(&mut self, event: &Event) {
        match event.clone() {
            Event::ServiceApplied(service) => drop(self.services.insert(service.name.clone(), service)),
            Event::ServiceDeleted(name) => drop(self.services.remove(&name)),
            Event::SliceApplied(slice) => drop(self.slices.insert(slice.name.clone(), slice)),
            Event::SliceDeleted(name) => drop(self.slices.remove(&name)),
            Event::NodeApplied(node) => self.node = Some(node),
            other => panic!("not made here: {other:?}"),
        }
    }

    fn lists(&self) -> Vec<Event> {
        vec![
            Event::ServicesReplaced(self.services.values().cloned().collect()),
            Event::SlicesReplaced(self.slices.values().cloned().collect()),
            self.node.clone().map_or(Event::NodeDeleted, Event::NodeApplied),
        ]
    }
}

struct World {
    agent: Agent<Checked>,
    cluster: Cluster,
    pending: Vec<Event>,
    now: Instant,
}

fn policy() -> Policy {
    Policy {
        algorithm: Algorithm::ROUND_ROBIN,
        masquerade_all: false,
        node_port_addresses: NodePortAddresses::Primary,
    }
}

fn start(maps: Checked, cluster: &Cluster, now: Instant) -> Agent<Checked> {
    let mut agent = Agent::new("here", policy(), maps, StatusHandle::default()).expect("adopt");
    agent.handle(cluster.lists(), now);
    agent.handle([Event::Synced], now);
    agent
}

impl World {
    fn new(maps: Checked) -> Self {
        let (cluster, now) = (Cluster::default(), Instant::now());
        Self {
            agent: start(maps, &cluster, now),
            cluster,
            pending: Vec::new(),
            now,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Apply(event) => {
                self.cluster.take(&event);
                self.pending.push(*event);
            }
            Step::Flush => {
                self.agent.handle(self.pending.drain(..), self.now);
            }
            Step::Wait(seconds) => self.wait(seconds),
            Step::Relist => {
                self.pending.clear();
                self.agent.handle(self.cluster.lists(), self.now);
            }
            Step::Restart => self.restart(),
        }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.agent.tick(self.now);
    }

    fn settle(&mut self) {
        self.step(Step::Flush);
        for seconds in [GRACE.as_secs() + 1, GRACE.as_secs() + 1, LINGER.as_secs() + 1] {
            self.wait(seconds);
        }
    }

    fn restart(&mut self) {
        self.pending.clear();
        let maps = self.maps().clone();
        self.agent = start(maps, &self.cluster, self.now);
    }

    fn maps(&self) -> &Checked {
        self.agent.maps()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_as_a_fresh_start_would(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new(Checked::default());
        for step in steps {
            world.step(step);
        }
        world.settle();
        let fresh = start(Checked::default(), &world.cluster, world.now);
        prop_assert_eq!(picture::meaning(&world.maps().maps), picture::meaning(&fresh.maps().maps));
        // A restart on settled maps writes nothing at all: every id, run and generation is adopted.
        let before = picture::dump(&world.maps().maps);
        let mut maps = world.maps().clone();
        maps.writes = 0;
        let restarted = start(maps, &world.cluster, world.now);
        prop_assert_eq!(restarted.maps().writes, 0);
        prop_assert_eq!(picture::dump(&restarted.maps().maps), before);
        // And the plan agrees with the maps in every entry.
        let mut agent = restarted;
        agent.compare(world.now);
        prop_assert_eq!(agent.maps().writes, 0);
    }

    #[test]
    fn maps_that_are_too_small_never_show_half_a_service(steps in prop::collection::vec(step(), 1..60)) {
        let small = |table| match table {
            Table::Frontends => 12,
            Table::OwnedAddrs => 4,
            Table::Services => 7,
            Table::Slots => 1_100,
            _ => 8,
        };
        let mut world = World::new(Checked { maps: MemoryMaps::with_sizes(small), lenient: true, writes: 0 });
        for step in steps.into_iter().filter(|step| !matches!(step, Step::Restart)) {
            world.step(step);
        }
        world.settle();
        assert_whole_or_absent(&world);
        // Once the cluster is empty there is room for anything, and whoever waited is not forgotten.
        for name in world.cluster.services.keys().cloned().collect::<Vec<_>>() {
            world.step(Step::apply(Event::ServiceDeleted(name)));
        }
        world.settle();
        prop_assert!(world.agent.planner().shortages().is_empty());
        prop_assert!(world.maps().frontends().expect("read").is_empty());
        for table in [Table::Services, Table::Slots, Table::Backends] {
            prop_assert_eq!(world.agent.planner().used(table), 0, "{} leaks", table.name());
        }
    }
}

/// A Service that waits for room and was never placed has no frontend; every other has one per port and ClusterIP.
fn assert_whole_or_absent(world: &World) {
    let placed: BTreeSet<_> = world
        .agent
        .planner()
        .ports()
        .map(|(_, key)| key.service.clone())
        .collect();
    let waiting = world.agent.planner().shortages();
    for (name, service) in &world.cluster.services {
        assert!(
            placed.contains(name) || waiting.contains_key(name),
            "{name} is neither served nor waiting"
        );
        if waiting.contains_key(name) {
            continue;
        }
        let ports = world
            .agent
            .planner()
            .ports()
            .filter(|(_, key)| key.service == *name)
            .count();
        assert_eq!(
            ports,
            service.ports.len() * service.cluster_ips.len(),
            "{name} is served in part"
        );
    }
}

fn simple_service(n: usize) -> Service {
    Service {
        name: name(n),
        uid: String::new(),
        created: 0,
        ports: vec![ServicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        cluster_ips: vec![address(Family::V4, 96, n as u8 + 1)],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        internal_local: false,
        external_local: false,
        affinity_secs: 0,
        algorithm: None,
        health_port: None,
        warnings: Vec::new(),
    }
}

fn simple_slice(hosts: &[u8]) -> Slice {
    let endpoint = |host: &u8| SliceEndpoint {
        address: address(Family::V4, 1, *host),
        conditions: Conditions {
            ready: true,
            serving: true,
            terminating: false,
        },
        node: None,
        zone_hints: Vec::new(),
        node_hints: Vec::new(),
    };
    Slice {
        name: slice_name(Family::V4, 0),
        service: name(0),
        family: Family::V4,
        ports: vec![SlicePort {
            name: String::new(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints: hosts.iter().map(endpoint).collect(),
    }
}

#[test]
fn slots_are_not_written_again_before_their_grace_period_is_over() {
    let small = |table| if table == Table::Slots { 4 } else { 64 };
    let mut world = World::new(Checked {
        maps: MemoryMaps::with_sizes(small),
        lenient: true,
        writes: 0,
    });
    world.step(Step::apply(Event::ServiceApplied(simple_service(0))));
    world.step(Step::apply(Event::SliceApplied(simple_slice(&[1, 2]))));
    world.step(Step::Flush);
    let run = |world: &World| world.maps().services().expect("read")[0].1.all;
    let first = run(&world);
    world.step(Step::apply(Event::SliceApplied(simple_slice(&[3, 4]))));
    world.step(Step::Flush);
    assert_ne!(run(&world), first, "a run is never changed in place");
    let held = world.maps().slots(first).expect("read");

    world.step(Step::apply(Event::SliceApplied(simple_slice(&[5, 6]))));
    world.step(Step::Flush);
    world.wait(GRACE.as_secs() - 1);
    assert_eq!(
        world.maps().slots(first).expect("read"),
        held,
        "a program may still read the old run"
    );
    assert_eq!(world.agent.planner().shortages().len(), 1);

    world.wait(2);
    assert!(world.agent.planner().shortages().is_empty());
    assert_eq!(run(&world), first);
}

#[test]
fn a_reused_backend_id_starts_with_no_open_flows_and_the_next_generation() {
    let small = |table| if table == Table::Backends { 2 } else { 64 };
    let mut world = World::new(Checked {
        maps: MemoryMaps::with_sizes(small),
        lenient: false,
        writes: 0,
    });
    world.step(Step::apply(Event::ServiceApplied(simple_service(0))));
    world.step(Step::apply(Event::SliceApplied(simple_slice(&[1]))));
    world.step(Step::Flush);
    let (id, first) = world.maps().backends().expect("read")[0];

    world.step(Step::apply(Event::SliceDeleted(slice_name(Family::V4, 0))));
    world.settle();
    let maps = world.maps().clone();
    let mut with_flows = maps.clone();
    with_flows.maps.set_load(id, BackendLoad { opened: 10, closed: 3 });
    world.agent = start(with_flows, &world.cluster, world.now);

    world.step(Step::apply(Event::SliceApplied(simple_slice(&[2]))));
    world.settle();
    let (again, second) = world.maps().backends().expect("read")[0];
    assert_eq!(again, id, "there is only one id");
    assert_eq!(second.state.generation(), first.state.generation() + 1);
    assert_eq!(world.maps().expired(id).expect("read").flows, 7);
}
