//! Killing the agent or the API server costs no packet and moves no flow, on both paths and at a node port.

use std::time::Duration;

use anyhow::Result;
use lab::process::{Place, eventually};
use lab::traffic::Report;

use crate::fixture::{Case, Shared, backend, finish};

static SOCKET_PATH: Shared = Shared::new(&[]);
static PACKET_PATH: Shared = Shared::new(&["--no-socket-path"]);

/// An established connection with a request each 5 ms, and new connections as fast as they go, for four seconds.
fn under_load(
    case: &mut Case,
    from: &Place,
    to: std::net::SocketAddr,
    act: impl FnOnce(&mut Case) -> Result<()>,
) -> Result<[Report; 3]> {
    let kept = [
        "--protocol=keepalive",
        "--count=100000000",
        "--duration-ms=4000",
        "--interval-ms=5",
    ];
    let new = ["--protocol=tcp", "--count=100000000", "--duration-ms=4000"];
    let datagrams = [
        "--protocol=udp",
        "--count=100000000",
        "--duration-ms=4000",
        "--interval-ms=1",
    ];
    let mut kept = case.flow("kept", from, to, &kept)?;
    let mut new = case.flow("new", from, to, &new)?;
    let mut datagrams = case.flow("datagrams", from, to, &datagrams)?;
    std::thread::sleep(Duration::from_millis(500));
    act(case)?;
    Ok([finish(&mut kept)?, finish(&mut new)?, finish(&mut datagrams)?])
}

fn nothing_was_lost(reports: &[Report; 3]) {
    let [kept, new, datagrams] = reports;
    println!(
        "kept connection: {} answers; new connections: {}; datagrams: {}",
        kept.ok, new.ok, datagrams.ok
    );
    assert_eq!(
        (kept.failed(), new.failed(), datagrams.failed()),
        (0, 0, 0),
        "{reports:?}"
    );
    assert!(
        kept.ok > 200 && new.ok > 200 && datagrams.ok > 200,
        "too little traffic to tell: {reports:?}"
    );
    assert_eq!(kept.backends.len(), 1, "the established connection moved: {kept:?}");
    assert_eq!(new.backends.len(), 2, "{new:?}");
}

fn kill_and_restart_agents(case: &mut Case) -> Result<()> {
    for _ in 0..2 {
        for agent in &mut case.cluster.agents {
            agent.kill()?;
        }
        std::thread::sleep(Duration::from_millis(300));
        for agent in &mut case.cluster.agents {
            agent.start()?;
        }
        case.cluster
            .agents
            .iter_mut()
            .try_for_each(lab::agent::Agent::wait_ready)?;
    }
    Ok(())
}

fn agent_restarts_cost_nothing_inside(case: &mut Case) -> Result<()> {
    case.backends("web", &[backend("web-1", 1), backend("web-2", 2)])?;
    case.service("web", "web", "rr", "")?;
    let client = case.client("client", 1)?;
    let vip = case.vip("web", false)?;
    case.wait_served(&client.place, vip, &["web-1", "web-2"])?;
    let before = identities(case)?;
    let reports = under_load(case, &client.place, vip, kill_and_restart_agents)?;
    nothing_was_lost(&reports);
    assert_eq!(before, identities(case)?, "ids were renumbered");
    Ok(())
}

/// Service names with their ids, as the maps have them.
fn identities(case: &Case) -> Result<Vec<String>> {
    let printed = case.cluster.agents[0].json("services", &[])?;
    let services = printed
        .as_array()
        .ok_or_else(|| anyhow::anyhow!("no list: {printed}"))?;
    let mut identities: Vec<String> = services
        .iter()
        .map(|service| format!("{} {} {}", service["id"], service["service"], service["frontends"]))
        .collect();
    identities.sort();
    anyhow::ensure!(!identities.is_empty(), "no services");
    Ok(identities)
}

#[test]
fn killing_the_agent_costs_nothing_on_the_socket_path() {
    SOCKET_PATH.test("agent-inside", agent_restarts_cost_nothing_inside);
}

#[test]
fn killing_the_agent_costs_nothing_on_the_packet_path() {
    PACKET_PATH.test("agent-inside", agent_restarts_cost_nothing_inside);
}

#[test]
fn killing_the_agent_costs_nothing_at_a_node_port() {
    SOCKET_PATH.test("agent-outside", |case| {
        case.backends("web", &[backend("web-1", 1), backend("web-2", 2)])?;
        case.service("web", "web", "rr", "  type: NodePort\n")?;
        let outside = case.cluster.outside.place().clone();
        let to = case.node_port("web", 1, false)?;
        case.wait_served(&outside, to, &["web-1", "web-2"])?;
        let kept = [
            "--protocol=keepalive",
            "--count=100000000",
            "--duration-ms=3000",
            "--interval-ms=5",
        ];
        let new = ["--protocol=tcp", "--count=100000000", "--duration-ms=3000"];
        let (mut kept, mut new) = (
            case.flow("kept", &outside, to, &kept)?,
            case.flow("new", &outside, to, &new)?,
        );
        std::thread::sleep(Duration::from_millis(300));
        kill_and_restart_agents(case)?;
        let (kept, new) = (finish(&mut kept)?, finish(&mut new)?);
        assert_eq!((kept.failed(), new.failed()), (0, 0), "{kept:?} {new:?}");
        assert!(
            kept.ok > 100 && new.ok > 100,
            "too little traffic to tell: {kept:?} {new:?}"
        );
        Ok(())
    });
}

#[test]
fn a_dead_agent_leaves_everything_forwarding() {
    SOCKET_PATH.test("agent-away", |case| {
        case.backends("web", &[backend("web-1", 1), backend("web-2", 2)])?;
        case.service("web", "web", "rr", "  type: NodePort\n")?;
        let client = case.client("client", 1)?;
        let (vip, port) = (case.vip("web", false)?, case.node_port("web", 1, false)?);
        let outside = case.cluster.outside.place().clone();
        case.wait_served(&client.place, vip, &["web-1", "web-2"])?;
        case.wait_served(&outside, port, &["web-1", "web-2"])?;
        case.cluster.agents[0].kill()?;
        for (place, to) in [(&client.place, vip), (&outside, port)] {
            let report = case.request(place, to, &["--count=100"])?;
            assert_eq!((report.ok, report.failed()), (100, 0), "{to}: {report:?}");
        }
        case.cluster.agents[0].start()?;
        case.cluster.agents[0].wait_ready()
    });
}

#[test]
fn killing_the_api_server_costs_nothing_and_changes_arrive_when_it_is_back() {
    SOCKET_PATH.test("api-away", |case| {
        case.backends("web", &[backend("web-1", 1), backend("web-2", 2)])?;
        case.service("web", "web", "rr", "")?;
        let client = case.client("client", 1)?;
        let vip = case.vip("web", false)?;
        case.wait_served(&client.place, vip, &["web-1", "web-2"])?;
        let reports = under_load(case, &client.place, vip, |case| {
            case.cluster.control.kill()?;
            std::thread::sleep(Duration::from_millis(700));
            case.cluster.control.restart()
        })?;
        nothing_was_lost(&reports);
        case.delete("Pod", "web-2")?;
        eventually(Duration::from_secs(10), || {
            let report = case.request(&client.place, vip, &["--count=10", "--timeout-ms=300"])?;
            anyhow::ensure!(report.from("web-1") == 10, "the change hasn't arrived: {report:?}");
            Ok(())
        })
    });
}
