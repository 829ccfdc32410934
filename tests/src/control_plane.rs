//! `control` as a process on its own host on the wire, with a second way in from the root namespace for `kubectl`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::ip;
use crate::process::{Process, eventually};
use crate::programs;
use crate::scope::Scope;
use crate::topology::{Host, Wire};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(172, 18, 0, 2);
const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, 2);
const PORT: u16 = 6443;

/// A running API server.
#[derive(Debug)]
pub struct ControlPlane {
    host: Host,
    dir: PathBuf,
    outer: Ipv4Addr,
    process: Process,
}

impl ControlPlane {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// With the end of its log, if it doesn't come up.
    pub fn start(scope: &Scope, wire: &Wire) -> Result<Self> {
        let host = Host::new(scope, wire, "control", &[ADDRESS.into(), ADDRESS6.into()])?;
        let outer = wire_to_root(scope, &host)?;
        let dir = scope.dir().join("control");
        std::fs::create_dir_all(&dir)?;
        let process = spawn(&host, &dir, outer)?;
        let mut control = Self {
            host,
            dir,
            outer,
            process,
        };
        control.wait_ready()?;
        Ok(control)
    }

    /// Kubeconfig of a cluster administrator, with an address that the root namespace reaches.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("admin.kubeconfig")
    }

    /// Writes a kubeconfig for a node's agent and returns its path.
    ///
    /// # Errors
    /// If `control kubeconfig` fails.
    pub fn agent_kubeconfig(&self, node: &str) -> Result<PathBuf> {
        let path = self.dir.join(format!("{node}.kubeconfig"));
        let output = Command::new(programs::control()?)
            .arg("kubeconfig")
            .arg("--data-dir")
            .arg(&self.dir)
            .args([
                "--user",
                &format!("system:node-proxier:{node}"),
                "--group",
                "system:node-proxier",
            ])
            .args(["--server", &format!("https://{ADDRESS}:{PORT}")])
            .arg("--out")
            .arg(&path)
            .output()?;
        if !output.status.success() {
            bail!("control kubeconfig: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(path)
    }

    /// The process, for signals and logs.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it can't be reaped.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again over the same data.
    ///
    /// # Errors
    /// With the end of its log, if it doesn't come up.
    pub fn restart(&mut self) -> Result<()> {
        self.process = spawn(&self.host, &self.dir, self.outer)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        eventually(Duration::from_secs(20), || {
            self.process.check_alive()?;
            std::net::TcpStream::connect_timeout(&(self.outer, PORT).into(), Duration::from_millis(500))
                .context("the API server doesn't listen yet")?;
            if self.kubeconfig().exists() {
                Ok(())
            } else {
                bail!("no kubeconfig yet")
            }
        })
    }
}

fn spawn(host: &Host, dir: &Path, outer: Ipv4Addr) -> Result<Process> {
    let mut command = host.place().command(programs::control()?)?;
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(dir)
        .args([
            "--bind",
            &format!("0.0.0.0:{PORT}"),
            "--advertise",
            &ADDRESS.to_string(),
        ])
        .args(["--service-cidr", "10.96.0.0/16,fd00:10:96::/112"])
        .args(["--tls-san", &outer.to_string(), "--tls-san", &ADDRESS.to_string()])
        .arg("--kubeconfig-out")
        .arg(dir.join("admin.kubeconfig"))
        .args(["--kubeconfig-server", &format!("https://{outer}:{PORT}")]);
    Process::spawn("control", command, &dir.join("control.log"))
}

/// A veth between the root namespace and the control plane's host, in a link-local /30 of this lab's own.
fn wire_to_root(scope: &Scope, host: &Host) -> Result<Ipv4Addr> {
    let base = u32::from(Ipv4Addr::new(169, 254, 128, 0)) + scope.id() * 4;
    let (root, outer) = (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2));
    let device = scope.root_device();
    let netns = &host.place().netns;
    let steps = [
        format!("link add {device} type veth peer name root0 netns {}", netns.name()),
        format!("addr add {root}/30 dev {device}"),
        format!("link set {device} up"),
    ];
    for step in steps {
        let output = Command::new("ip")
            .args(step.split(' '))
            .output()
            .context("can't run `ip` (package iproute2)")?;
        if !output.status.success() {
            bail!("ip {step}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    ip::batch(
        netns,
        &[format!("addr add {outer}/30 dev root0"), "link set root0 up".into()],
    )?;
    Ok(outer)
}
