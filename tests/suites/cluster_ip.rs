//! ClusterIPs, on the socket path and on the packet path: the same tests through both doors.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::fixture::{Case, Shared, backend};

fn pods_reach_backends_on_both_nodes(case: &mut Case) -> Result<()> {
    case.backends("web", &[backend("web-1", 1), backend("web-2", 2)])?;
    case.service("web", "web", "rr", "")?;
    let client = case.client("client", 1)?;
    for ipv6 in [false, true] {
        let vip = case.vip("web", ipv6)?;
        case.wait_served(&client.place, vip, &["web-1", "web-2"])?;
        let own = if ipv6 { client.ipv6.into() } else { client.ipv4.into() };
        for protocol in ["tcp", "udp", "keepalive", "udp-unconnected"] {
            let report = case.request(&client.place, vip, &["--count=20", "--protocol", protocol])?;
            assert_eq!((report.ok, report.failed()), (20, 0), "{protocol} to {vip}: {report:?}");
            assert_eq!(
                report.peers.get(&own),
                Some(&20),
                "the server sees the Pod's own address: {report:?}"
            );
        }
    }
    Ok(())
}

fn a_pod_reaches_itself_through_its_service(case: &mut Case) -> Result<()> {
    let pods = case.backends("self", &[backend("self-1", 1)])?;
    case.service("self", "self", "rr", "")?;
    for ipv6 in [false, true] {
        let vip = case.vip("self", ipv6)?;
        case.wait_served(&pods[0].place, vip, &["self-1"])?;
        for protocol in ["tcp", "udp"] {
            let report = case.request(&pods[0].place, vip, &["--count=10", "--protocol", protocol])?;
            assert_eq!(
                (report.from("self-1"), report.failed()),
                (10, 0),
                "{protocol} to {vip}: {report:?}"
            );
        }
    }
    Ok(())
}

fn a_service_is_reachable_within_a_second_and_refused_within_a_second_of_its_end(case: &mut Case) -> Result<()> {
    case.backends("quick", &[backend("quick-1", 2)])?;
    let client = case.client("client", 1)?;
    let begin = Instant::now();
    case.service("quick", "quick", "rr", "")?;
    let vip = case.vip("quick", false)?;
    case.wait_served(&client.place, vip, &["quick-1"])?;
    assert!(begin.elapsed() < Duration::from_secs(1), "took {:?}", begin.elapsed());

    case.delete("Pod", "quick-1")?;
    let begin = Instant::now();
    refused(case, &client.place, vip).context("after its last endpoint")?;
    assert!(begin.elapsed() < Duration::from_secs(1), "took {:?}", begin.elapsed());
    let report = case.request(&client.place, vip, &["--protocol=udp", "--timeout-ms=700"])?;
    assert_eq!(
        report.errors.get("refused"),
        Some(&1),
        "UDP hears port unreachable: {report:?}"
    );

    case.delete("Service", "quick")?;
    let begin = Instant::now();
    refused(case, &client.place, vip).context("after the Service")?;
    assert!(begin.elapsed() < Duration::from_secs(1), "took {:?}", begin.elapsed());
    Ok(())
}

fn a_port_nobody_serves_is_refused_at_once(case: &mut Case) -> Result<()> {
    case.backends("web", &[backend("web-1", 2)])?;
    case.service("web", "web", "rr", "")?;
    let client = case.client("client", 1)?;
    for ipv6 in [false, true] {
        let mut vip = case.vip("web", ipv6)?;
        case.wait_served(&client.place, vip, &["web-1"])?;
        vip.set_port(81);
        let report = case.request(&client.place, vip, &["--count=5"])?;
        assert_eq!(report.errors.get("refused"), Some(&5), "{vip}: {report:?}");
    }
    Ok(())
}

fn refused(case: &Case, place: &lab::process::Place, to: std::net::SocketAddr) -> Result<()> {
    lab::process::eventually(Duration::from_secs(2), || {
        let report = case.request(place, to, &["--timeout-ms=300"])?;
        anyhow::ensure!(report.errors.contains_key("refused"), "not refused: {report:?}");
        Ok(())
    })
}

/// Instantiates the tests above for one door.
macro_rules! through {
    ($door:ident, $flags:expr, $($test:ident: $namespace:literal,)*) => {
        mod $door {
            static CLUSTER: super::Shared = super::Shared::new($flags);
            $(
                #[test]
                fn $test() {
                    CLUSTER.test($namespace, super::$test);
                }
            )*
        }
    };
}

through! { socket_path, &[],
    pods_reach_backends_on_both_nodes: "both-nodes",
    a_pod_reaches_itself_through_its_service: "hairpin",
    a_service_is_reachable_within_a_second_and_refused_within_a_second_of_its_end: "in-a-second",
    a_port_nobody_serves_is_refused_at_once: "unknown-port",
}

through! { packet_path, &["--no-socket-path"],
    pods_reach_backends_on_both_nodes: "both-nodes",
    a_pod_reaches_itself_through_its_service: "hairpin",
    a_service_is_reachable_within_a_second_and_refused_within_a_second_of_its_end: "in-a-second",
    a_port_nobody_serves_is_refused_at_once: "unknown-port",
}

#[test]
fn the_node_itself_reaches_a_cluster_ip_by_the_socket_path() {
    static CLUSTER: Shared = Shared::new(&["--pod-devices=none"]);
    CLUSTER.test("from-node", |case| {
        case.backends("web", &[backend("web-1", 1), backend("web-2", 2)])?;
        case.service("web", "web", "rr", "")?;
        let node = case.cluster.node(1).place();
        for ipv6 in [false, true] {
            let vip = case.vip("web", ipv6)?;
            case.wait_served(&node, vip, &["web-1", "web-2"])?;
            for protocol in ["tcp", "udp"] {
                let report = case.request(&node, vip, &["--count=10", "--protocol", protocol])?;
                assert_eq!((report.ok, report.failed()), (10, 0), "{protocol} to {vip}: {report:?}");
            }
        }
        Ok(())
    });
}
