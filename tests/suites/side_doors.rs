//! What operators look at: subcommands, metrics, health, and a cleanup that leaves nothing.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::process::eventually;

use crate::fixture::{Case, Shared, backend};

static CLUSTER: Shared = Shared::new(&[]);

fn entry<'a>(list: &'a serde_json::Value, key: &str, value: &str) -> Result<&'a serde_json::Value> {
    let entries = list.as_array().with_context(|| format!("no list: {list}"))?;
    entries
        .iter()
        .find(|entry| entry[key] == value)
        .with_context(|| format!("no entry with {key} {value} in {list}"))
}

#[test]
fn services_backends_and_flows_are_shown_with_their_counters() {
    CLUSTER.test("shown", |case: &mut Case| {
        case.backends("web", &[backend("web-1", 1), backend("web-2", 2)])?;
        case.service("web", "web", "rr", "  type: NodePort\n")?;
        let outside = case.cluster.outside.place().clone();
        let to = case.node_port("web", 1, false)?;
        case.wait_served(&outside, to, &["web-1", "web-2"])?;
        let agent = &case.cluster.agents[0];
        let before = entry(&agent.json("services", &[])?, "service", "shown/web:tcp")?["connections"].as_u64();
        let before = before.context("no counter of connections")?;
        case.request(&outside, to, &["--count=30"])?;
        let service = entry(&agent.json("services", &[])?, "service", "shown/web:tcp")?.clone();
        assert_eq!(service["connections"].as_u64(), Some(before + 30), "{service}");
        assert_eq!(service["algorithm"], "rr", "{service}");
        assert!(service["bytes"].as_u64() > Some(30 * 60), "{service}");
        let backends = agent.json("backends", &[])?.to_string();
        assert!(backends.contains("shown/web"), "{backends}");
        let flows = agent.json("flows", &["--service", "shown/web"])?;
        assert!(flows.as_array().is_some_and(|flows| !flows.is_empty()), "{flows}");
        for subcommand in ["services", "backends", "flows", "status"] {
            let text = agent.text(subcommand, &[])?;
            assert!(text.lines().count() > 1, "{subcommand} prints no table: {text}");
        }
        Ok(())
    });
}

#[test]
fn metrics_count_verdicts_and_service_traffic() {
    CLUSTER.test("metrics", |case: &mut Case| {
        case.backends("web", &[backend("web-1", 2)])?;
        case.service("web", "web", "rr", "")?;
        let client = case.client("client", 1)?;
        let vip = case.vip("web", false)?;
        case.wait_served(&client.place, vip, &["web-1"])?;
        let agent = &case.cluster.agents[0];
        let connected = "waggle_verdicts_total{reason=\"connected\"}";
        let before = agent.metric(connected)?;
        case.request(&client.place, vip, &["--count=25"])?;
        let counted = agent.metric(connected)? - before;
        assert!(counted >= 25.0, "{counted} connects counted of 25");
        let text = agent.metrics()?;
        for name in [
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "waggle_service_connections_total",
            "waggle_map_entries",
        ] {
            assert!(text.contains(name), "no {name} in\n{text}");
        }
        Ok(())
    });
}

#[test]
fn check_says_what_the_node_offers() {
    CLUSTER.test("check", |case: &mut Case| {
        let agent = &case.cluster.agents[0];
        let text = agent.text("check", &["--uplink=eth0"])?;
        for word in ["kernel BTF", "cgroup v2", "BPF file system", "uplink eth0"] {
            assert!(text.contains(word), "check says nothing of {word}:\n{text}");
        }
        Ok(())
    });
}

#[test]
fn cleanup_leaves_nothing_and_the_agent_starts_afresh_after_it() {
    static OWN: Shared = Shared::new(&[]);
    OWN.test("cleanup", |case: &mut Case| {
        case.backends("web", &[backend("web-1", 2)])?;
        case.service("web", "web", "rr", "")?;
        let client = case.client("client", 1)?;
        let vip = case.vip("web", false)?;
        case.wait_served(&client.place, vip, &["web-1"])?;
        case.cluster.agents[0].kill()?;
        let node = case.cluster.node(1);
        case.cluster.agents[0].text("cleanup", &[])?;
        // A new bpffs may hold the kernel's own iterators, maps.debug and progs.debug.
        let pins = std::fs::read_dir(node.bpffs())?.filter_map(|entry| Some(entry.ok()?.path()));
        let left: Vec<_> = pins.filter(|path| path.is_dir()).collect();
        assert!(left.is_empty(), "pins are left: {left:?}");
        let report = case.request(&client.place, vip, &["--timeout-ms=300"])?;
        assert_eq!(report.ok, 0, "still carried: {report:?}");
        let mut links = std::process::Command::new("ip");
        links.args(["-details", "link", "show", "dev", "eth0"]);
        let links = lab::ip::run_in(node.netns(), links)?;
        assert!(
            !String::from_utf8_lossy(&links.stdout).contains("prog/xdp"),
            "XDP is still attached"
        );
        case.cluster.agents[0].start()?;
        case.cluster.agents[0].wait_ready()?;
        eventually(Duration::from_secs(3), || {
            case.wait_served(&client.place, vip, &["web-1"])
        })
    });
}
