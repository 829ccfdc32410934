//! What each algorithm promises, on the socket path, on the packet path and at a node port.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use lab::cluster::outside_addresses;
use lab::process::eventually;

use crate::fixture::{Backend, Case, Shared, backend, finish};

static SOCKET_PATH: Shared = Shared::new(&[]);
static PACKET_PATH: Shared = Shared::new(&["--no-socket-path"]);

const FOUR: [Backend; 4] = [
    backend("b-1", 1),
    backend("b-2", 2),
    backend("b-3", 1),
    backend("b-4", 2),
];
const NAMES: [&str; 4] = ["b-1", "b-2", "b-3", "b-4"];

/// Ten thousand requests of one thread, exactly a quarter each.
fn round_robin(case: &mut Case) -> Result<()> {
    case.backends("rr", &FOUR)?;
    case.service("rr", "rr", "rr", "")?;
    let client = case.client("client", 1)?;
    let vip = case.vip("rr", false)?;
    case.wait_served(&client.place, vip, &NAMES)?;
    let report = case.request(&client.place, vip, &["--count=10000"])?;
    let counts = NAMES.map(|name| report.from(name));
    assert_eq!((counts, report.failed()), ([2500; 4], 0), "{:?}", report.errors);
    Ok(())
}

#[test]
fn round_robin_on_the_socket_path_is_exact() {
    SOCKET_PATH.test("rr", round_robin);
}

#[test]
fn round_robin_on_the_packet_path_is_exact() {
    PACKET_PATH.test("rr", round_robin);
}

/// 200 client addresses stay where they are, and few of them move when a fifth backend joins.
#[test]
fn source_hashing_keeps_each_client_and_moves_few_when_a_backend_joins() {
    SOCKET_PATH.test("sh-outside", |case| {
        case.backends("sh", &FOUR)?;
        case.service("sh", "sh", "sh", "  type: NodePort\n")?;
        let to = case.node_port("sh", 1, false)?;
        let outside = case.cluster.outside.place().clone();
        let sources: Vec<IpAddr> = outside_addresses().into_iter().filter(IpAddr::is_ipv4).collect();
        let list = sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let ask = |case: &Case, each: u32| {
            case.request(
                &outside,
                to,
                &["--source", &list, &format!("--count={each}"), "--timeout-ms=1000"],
            )
        };
        eventually(Duration::from_secs(5), || {
            let report = ask(case, 1)?;
            anyhow::ensure!(
                report.failed() == 0 && report.backends.len() == 4,
                "{:?}",
                report.backends
            );
            Ok(())
        })?;

        let before = ask(case, 50)?;
        assert_eq!((before.ok, before.failed()), (10_000, 0), "{:?}", before.errors);
        for source in &sources {
            assert!(
                before.only_backend(*source).is_some(),
                "{source}: {:?}",
                before.by_source[source]
            );
        }

        case.backends("sh", &[backend("b-5", 2)])?;
        let after = eventually(Duration::from_secs(5), || {
            let report = ask(case, 1)?;
            anyhow::ensure!(
                report.from("b-5") > 0 && report.failed() == 0,
                "b-5 hasn't joined: {:?}",
                report.backends
            );
            Ok(report)
        })?;
        let moved = sources
            .iter()
            .filter(|source| before.only_backend(**source) != after.only_backend(**source))
            .count();
        println!("source hashing: {moved} of 200 clients moved when a fifth backend joined");
        assert!(moved > 0 && moved < 80, "{moved} of 200 moved");
        Ok(())
    });
}

/// A Pod is one client, whichever port its connections come from.
fn source_hash_of_pods(case: &mut Case) -> Result<()> {
    case.backends("sh", &FOUR)?;
    case.service("sh", "sh", "sh", "")?;
    for name in ["client-a", "client-b", "client-c"] {
        let client = case.client(name, 1)?;
        let vip = case.vip("sh", false)?;
        eventually(Duration::from_secs(5), || {
            let report = case.request(&client.place, vip, &["--count=40", "--timeout-ms=500"])?;
            anyhow::ensure!(report.failed() == 0 && report.backends.len() == 1, "{report:?}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn source_hashing_sends_a_pod_to_one_backend_on_the_socket_path() {
    SOCKET_PATH.test("sh-pod", source_hash_of_pods);
}

#[test]
fn source_hashing_sends_a_pod_to_one_backend_on_the_packet_path() {
    PACKET_PATH.test("sh-pod", source_hash_of_pods);
}

/// A Pod that opted out of the socket path mid-way, or whose agent was restarted without it, stays where it was: both
/// paths hash the same address into the same table.
#[test]
fn source_hashing_agrees_between_the_socket_path_and_the_packet_path() {
    static CLUSTER: Shared = Shared::new(&[]);
    CLUSTER.test("sh-agree", |case| {
        case.backends("sh", &FOUR)?;
        case.service("sh", "sh", "sh", "")?;
        let vip = case.vip("sh", false)?;
        let clients: Vec<_> = (0..6)
            .map(|n| case.client(&format!("client-{n}"), 1))
            .collect::<Result<_>>()?;
        let choices = |case: &Case| -> Result<Vec<String>> {
            let one = |client: &lab::topology::Pod| {
                eventually(Duration::from_secs(5), || {
                    let report = case.request(&client.place, vip, &["--count=10", "--timeout-ms=500"])?;
                    anyhow::ensure!(report.failed() == 0 && report.backends.len() == 1, "{report:?}");
                    Ok(report.backends.into_keys().next().expect("one backend"))
                })
            };
            clients.iter().map(one).collect()
        };
        let on_sockets = choices(case)?;
        // A process outside the node's cgroup is one whose sockets no hook sees.
        let unhooked: Vec<_> = clients
            .iter()
            .map(|client| {
                let mut place = client.place.clone();
                place.cgroup = case.cluster.scope().cgroup().join("unhooked");
                place
            })
            .collect();
        for (place, chosen) in unhooked.iter().zip(&on_sockets) {
            let report = case.request(place, vip, &["--count=10"])?;
            assert_eq!(
                report.backends.keys().collect::<Vec<_>>(),
                [chosen],
                "the packet path: {report:?}"
            );
        }
        Ok(())
    });
}

/// The backend that holds its connections gets the fewest, and no flow stays counted after the last one closed.
fn least_connections(case: &mut Case) -> Result<()> {
    let slow = Backend {
        name: "slow",
        node: 2,
        args: &["--delay-ms=60"],
    };
    case.backends("lc", &[backend("b-1", 1), backend("b-2", 2), backend("b-3", 1), slow])?;
    case.service("lc", "lc", "lc", "")?;
    let client = case.client("client", 1)?;
    let vip = case.vip("lc", false)?;
    case.wait_served(&client.place, vip, &["b-1", "b-2", "b-3", "slow"])?;
    let report = case.request(&client.place, vip, &["--count=1250", "--threads=8"])?;
    let quick = ["b-1", "b-2", "b-3"].map(|name| report.from(name));
    println!("least connections: quick {quick:?}, slow {}", report.from("slow"));
    assert_eq!((report.ok, report.failed()), (10_000, 0), "{:?}", report.errors);
    assert!(
        report.from("slow") * 2 < *quick.iter().min().expect("three"),
        "{:?}",
        report.backends
    );
    eventually(Duration::from_secs(3), || {
        open_flows(case, "lc").and_then(|open| {
            anyhow::ensure!(open == 0, "{open} flows are still counted");
            Ok(())
        })
    })
}

/// Open flows of a Service's backends on the first node, as the agent tells them.
fn open_flows(case: &Case, service: &str) -> Result<i64> {
    let printed = case.cluster.agents[0].json("backends", &[])?;
    let name = format!("{}/{service}", case.namespace);
    let of_service = |entry: &&serde_json::Value| entry["services"].to_string().contains(&name);
    let backends = printed
        .as_array()
        .ok_or_else(|| anyhow::anyhow!("no list: {printed}"))?;
    let of_service: Vec<_> = backends.iter().filter(of_service).collect();
    anyhow::ensure!(!of_service.is_empty(), "no backend of {name} in {printed}");
    Ok(of_service
        .iter()
        .map(|entry| entry["openFlows"].as_i64().unwrap_or(i64::MAX / 1000))
        .sum())
}

#[test]
fn least_connections_on_the_socket_path_spares_the_slow_backend() {
    SOCKET_PATH.test("lc", least_connections);
}

#[test]
fn least_connections_on_the_packet_path_spares_the_slow_backend() {
    PACKET_PATH.test("lc", least_connections);
}

#[test]
fn a_connection_that_times_out_is_counted_out() {
    static CLUSTER: Shared = Shared::new(&["--no-socket-path", "--tcp-established-timeout=2s"]);
    CLUSTER.test("timeout", |case| {
        case.backends("lc", &[backend("b-1", 2)])?;
        case.service("lc", "lc", "lc", "")?;
        let client = case.client("client", 1)?;
        let vip = case.vip("lc", false)?;
        case.wait_served(&client.place, vip, &["b-1"])?;
        // One request, then silence on a connection that stays open.
        let silent = ["--protocol=keepalive", "--count=2", "--interval-ms=60000"];
        let mut silent = case.flow("silent", &client.place, vip, &silent)?;
        let open = |count: i64, limit| {
            eventually(Duration::from_secs(limit), || {
                let open = open_flows(case, "lc")?;
                anyhow::ensure!(open == count, "{open} flows are counted, not {count}");
                Ok(())
            })
        };
        open(1, 3)?;
        open(0, 15)?;
        silent.check_alive()
    });
}

/// Changing the annotation changes the very next choices, while requests flow.
#[test]
fn the_algorithm_changes_at_run_time_without_an_error() {
    SOCKET_PATH.test("switch", |case| {
        case.backends("web", &FOUR)?;
        case.service("web", "web", "rr", "")?;
        let client = case.client("client", 1)?;
        let vip = case.vip("web", false)?;
        case.wait_served(&client.place, vip, &NAMES)?;
        let background = ["--count=100000000", "--duration-ms=3000", "--interval-ms=1"];
        let mut flowing = case.flow("flow", &client.place, vip, &background)?;
        case.service("web", "web", "sh", "")?;
        eventually(Duration::from_secs(2), || {
            let report = case.request(&client.place, vip, &["--count=40"])?;
            anyhow::ensure!(
                report.backends.len() == 1,
                "not source hashing yet: {:?}",
                report.backends
            );
            Ok(())
        })?;
        case.service("web", "web", "rr", "")?;
        eventually(Duration::from_secs(2), || {
            let report = case.request(&client.place, vip, &["--count=40"])?;
            anyhow::ensure!(
                NAMES.iter().all(|name| report.from(name) > 0),
                "not round robin yet: {:?}",
                report.backends
            );
            Ok(())
        })?;
        let report = finish(&mut flowing)?;
        assert!(report.ok > 100 && report.failed() == 0, "{:?}", report.errors);
        Ok(())
    });
}

#[test]
fn session_affinity_keeps_a_client_and_lets_go_when_it_is_switched_off() {
    for shared in [&SOCKET_PATH, &PACKET_PATH] {
        shared.test("affinity", |case| {
            case.backends("web", &FOUR)?;
            case.service("web", "web", "rr", "  sessionAffinity: ClientIP\n")?;
            let client = case.client("client", 1)?;
            let vip = case.vip("web", false)?;
            eventually(Duration::from_secs(5), || {
                let report = case.request(&client.place, vip, &["--count=40", "--timeout-ms=500"])?;
                anyhow::ensure!(report.failed() == 0 && report.backends.len() == 1, "{report:?}");
                Ok(())
            })?;
            case.service("web", "web", "rr", "  sessionAffinity: None\n")?;
            case.wait_served(&client.place, vip, &NAMES)
        });
    }
}
