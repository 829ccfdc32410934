//! Backends that come and go, flows that lose half of themselves, and what is refused.

use std::time::Duration;

use lab::process::eventually;

use crate::fixture::{Shared, backend, finish};

static SOCKET_PATH: Shared = Shared::new(&[]);
static PACKET_PATH: Shared = Shared::new(&["--no-socket-path"]);

#[test]
fn a_connection_to_a_backend_that_is_gone_is_reset_at_the_next_packet() {
    PACKET_PATH.test("gone-tcp", |case| {
        case.backends("web", &[backend("web-1", 2)])?;
        case.service("web", "web", "rr", "")?;
        let client = case.client("client", 1)?;
        let vip = case.vip("web", false)?;
        case.wait_served(&client.place, vip, &["web-1"])?;
        let arguments = [
            "--protocol=keepalive",
            "--count=100000000",
            "--duration-ms=1500",
            "--interval-ms=20",
            "--timeout-ms=900",
        ];
        let mut kept = case.flow("kept", &client.place, vip, &arguments)?;
        std::thread::sleep(Duration::from_millis(400));
        // The Pod leaves the Service but goes on serving: whatever the client hears, it hears from the data path.
        case.relabel("web-1", "retired")?;
        let report = finish(&mut kept)?;
        assert!(report.ok > 5, "no traffic before the end: {report:?}");
        assert!(
            report.errors.contains_key("reset"),
            "the client wasn't told: {report:?}"
        );
        assert!(!report.errors.contains_key("timeout"), "the client waited: {report:?}");
        assert!(
            report.errors.contains_key("refused"),
            "new connections are refused: {report:?}"
        );
        Ok(())
    });
}

/// One unconnected socket that goes on sending: its next datagram after the end goes to the other backend.
#[test]
fn datagrams_of_an_unconnected_socket_move_when_their_backend_is_gone() {
    for shared in [&SOCKET_PATH, &PACKET_PATH] {
        shared.test("gone-udp", |case| {
            case.backends("dns", &[backend("dns-1", 2)])?;
            case.service("dns", "dns", "rr", "")?;
            let client = case.client("client", 1)?;
            let vip = case.vip("dns", false)?;
            case.wait_served(&client.place, vip, &["dns-1"])?;
            let arguments = [
                "--protocol=udp-unconnected",
                "--count=100000000",
                "--duration-ms=3000",
                "--interval-ms=20",
                "--timeout-ms=250",
            ];
            let mut flow = case.flow("flow", &client.place, vip, &arguments)?;
            std::thread::sleep(Duration::from_millis(300));
            case.backends("dns", &[backend("dns-2", 1)])?;
            std::thread::sleep(Duration::from_millis(500));
            case.delete("Pod", "dns-1")?;
            let report = finish(&mut flow)?;
            assert!(report.from("dns-1") > 5 && report.from("dns-2") > 5, "{report:?}");
            assert!(
                report.failed() <= 1,
                "more than the datagram that was under way was lost: {report:?}"
            );
            Ok(())
        });
    }
}

/// Connected UDP sockets know nothing of backends: theirs are destroyed, so that the resolver opens new ones.
#[test]
fn a_connected_datagram_socket_hears_of_the_end_of_its_backend() {
    SOCKET_PATH.test("gone-connected", |case| {
        case.backends("dns", &[backend("dns-1", 2), backend("dns-2", 1)])?;
        case.service("dns", "dns", "rr", "")?;
        let client = case.client("client", 1)?;
        let vip = case.vip("dns", false)?;
        case.wait_served(&client.place, vip, &["dns-1", "dns-2"])?;
        let arguments = [
            "--protocol=udp",
            "--count=100000000",
            "--duration-ms=2500",
            "--interval-ms=5",
            "--timeout-ms=400",
        ];
        let mut flow = case.flow("flow", &client.place, vip, &arguments)?;
        std::thread::sleep(Duration::from_millis(300));
        case.delete("Pod", "dns-1")?;
        let report = finish(&mut flow)?;
        assert!(report.from("dns-1") > 5 && report.from("dns-2") > 50, "{report:?}");
        assert!(report.failed() <= 2, "{report:?}");
        Ok(())
    });
}

/// A table gives up what was used least recently, so a half that is lost was idle; whichever packet comes next, the half
/// that is left rebuilds the other before it is needed.
#[test]
fn an_idle_flow_that_loses_either_half_lives_on() {
    PACKET_PATH.test("halves", |case| {
        case.backends("web", &[backend("web-1", 2)])?;
        case.service("web", "web", "rr", "")?;
        let client = case.client("client", 1)?;
        let vip = case.vip("web", false)?;
        case.wait_served(&client.place, vip, &["web-1"])?;
        let conntrack = lab::maps::Conntrack::open(case.cluster.node(1).bpffs())?;
        let arguments = [
            "--protocol=keepalive",
            "--count=6",
            "--interval-ms=1500",
            "--timeout-ms=2500",
        ];
        let mut kept = case.flow("kept", &client.place, vip, &arguments)?;
        for half in [lab::maps::Half::Reply, lab::maps::Half::Forward] {
            let whole = || {
                eventually(Duration::from_secs(3), || {
                    let flows = conntrack.flows_of(client.ipv4.into(), vip)?;
                    anyhow::ensure!(flows.len() == 1 && flows[0].is_whole(), "{half:?}: {flows:?}");
                    Ok(())
                })
            };
            whole()?;
            std::thread::sleep(Duration::from_millis(200));
            let deleted = conntrack.delete_half(client.ipv4.into(), vip, half)?;
            assert_eq!(deleted, 1, "nothing to delete: {half:?}");
            whole()?;
        }
        let report = finish(&mut kept)?;
        assert_eq!((report.ok, report.failed()), (6, 0), "{report:?}");
        Ok(())
    });
}

#[test]
fn a_flood_of_half_open_connections_evicts_no_established_flow() {
    SOCKET_PATH.test("flood", |case| {
        case.backends("web", &[backend("web-1", 1), backend("web-2", 2)])?;
        case.service("web", "web", "rr", "  type: NodePort\n")?;
        let outside = case.cluster.outside.place().clone();
        let to = case.node_port("web", 1, false)?;
        case.wait_served(&outside, to, &["web-1", "web-2"])?;
        let arguments = [
            "--protocol=keepalive",
            "--count=100000000",
            "--duration-ms=4000",
            "--interval-ms=5",
            "--threads=8",
        ];
        let mut kept = case.flow("kept", &outside, to, &arguments)?;
        std::thread::sleep(Duration::from_millis(400));
        let node = case.cluster.node(1).ipv4();
        let netns = outside.netns.clone();
        let sent = netns.run(move || lab::traffic::syn_flood(std::net::SocketAddrV4::new(node, to.port()), 200_000))?;
        let new = case.request(&outside, to, &["--count=50"])?;
        let kept = finish(&mut kept)?;
        println!(
            "{sent} SYNs, each from another address and port; kept: {} answers, {} errors; new: {}",
            kept.ok,
            kept.failed(),
            new.ok
        );
        assert!(sent >= 100_000, "only {sent} SYNs were sent");
        assert_eq!((kept.failed(), new.ok, new.failed()), (0, 50, 0), "{kept:?} {new:?}");
        assert_eq!(kept.backends.len(), 2, "{kept:?}");
        Ok(())
    });
}
