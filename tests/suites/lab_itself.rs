//! The lab before any proxy: what the other suites take for granted.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use lab::cluster::outside_addresses;
use lab::process::{Place, Process, eventually};
use lab::programs;
use lab::scope::Scope;
use lab::topology::{Host, Node, Pod, Wire, connect};
use lab::traffic::Report;

fn serve(scope: &Scope, pod: &Pod) -> Result<Process> {
    let mut command = pod.place.command(programs::lab()?)?;
    command.args(["serve", "--name", &pod.name, "--tcp", "8080", "--udp", "8080"]);
    let process = Process::spawn(&pod.name, command, &scope.dir().join(format!("{}.log", pod.name)))?;
    eventually(Duration::from_secs(5), || {
        if process.log().contains("ready") {
            Ok(())
        } else {
            anyhow::bail!("not ready")
        }
    })?;
    Ok(process)
}

fn request(place: &Place, to: &str, more: &[&str]) -> Result<Report> {
    let mut arguments = vec!["request", "--to", to];
    arguments.extend(more);
    Ok(serde_json::from_slice(
        &place.output(programs::lab()?, &arguments)?.stdout,
    )?)
}

#[test]
fn pods_nodes_and_outside_hosts_reach_each_other_without_a_proxy() -> Result<()> {
    let scope = Scope::new()?;
    let wire = Wire::new(&scope)?;
    let nodes = [Node::new(&scope, &wire, 1)?, Node::new(&scope, &wire, 2)?];
    connect(&nodes)?;
    let outside = Host::new(&scope, &wire, "outside", &outside_addresses())?;
    let client = nodes[0].pod(&scope, "client", 10)?;
    let server = nodes[1].pod(&scope, "server", 10)?;
    let _running = serve(&scope, &server)?;

    for protocol in ["tcp", "udp", "keepalive", "udp-unconnected"] {
        for to in [format!("{}:8080", server.ipv4), format!("[{}]:8080", server.ipv6)] {
            let report = request(&client.place, &to, &["--count=5", "--protocol", protocol])?;
            assert_eq!(
                (report.from("server"), report.failed()),
                (5, 0),
                "{protocol} to {to}: {report:?}"
            );
            let source = if to.starts_with('[') {
                client.ipv6.into()
            } else {
                client.ipv4.into()
            };
            assert_eq!(
                report.peers.get(&source),
                Some(&5),
                "the server sees the Pod's own address: {report:?}"
            );
        }
    }
    let report = request(&nodes[0].place(), &format!("{}:8080", server.ipv4), &[])?;
    assert_eq!(report.peers.get(&nodes[0].ipv4().into()), Some(&1), "{report:?}");
    // A host outside has no route to Pods: that is what node ports are for.
    let report = request(outside.place(), &format!("{}:8080", server.ipv4), &["--timeout-ms=300"])?;
    assert_eq!((report.ok, report.failed()), (0, 1), "{report:?}");
    Ok(())
}

#[test]
fn a_lab_whose_owner_was_killed_is_swept_by_its_warden() -> Result<()> {
    // A process that makes a lab and is then killed: this test binary again, asked for one test only.
    if std::env::var_os("WAGGLE_LAB_TO_LEAVE").is_some() {
        let scope = Scope::new()?;
        let wire = Wire::new(&scope)?;
        let _node = Node::new(&scope, &wire, 1)?;
        println!("made {}", scope.id());
        std::thread::sleep(Duration::from_secs(60));
        return Ok(());
    }
    let name = "lab_itself::a_lab_whose_owner_was_killed_is_swept_by_its_warden";
    let log = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([name, "--exact", "--nocapture"])
        .env("WAGGLE_LAB_TO_LEAVE", "1");
    let mut owner = Process::spawn("owner", command, log.path())?;
    let id: u32 = eventually(Duration::from_secs(20), || {
        owner.check_alive()?;
        let text = owner.log();
        let id = text.lines().find_map(|line| line.split_once("made ")?.1.parse().ok());
        id.ok_or_else(|| anyhow::anyhow!("no lab yet"))
    })?;
    assert!(lab::scope::known_ids().contains(&id));
    owner.kill()?;
    eventually(Duration::from_secs(5), || {
        let prefix = format!("wg{id}-");
        let left = std::fs::read_dir("/run/netns")?.filter_map(Result::ok);
        let left: Vec<_> = left
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
            .collect();
        anyhow::ensure!(
            left.is_empty() && !lab::scope::known_ids().contains(&id),
            "lab {id} is still there: {left:?}"
        );
        Ok(())
    })
}
