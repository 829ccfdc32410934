//! `proxy-agent` as a process on a node: started, killed, asked.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{Place, Process, eventually};
use crate::programs;
use crate::topology::{Node, POD_DEVICES, UPLINK};

/// An agent and what it was started with.
#[derive(Debug)]
pub struct Agent {
    place: Place,
    arguments: Vec<String>,
    common: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
}

impl Agent {
    /// An agent for a node, not yet running. `extra` comes after the flags every lab agent gets.
    #[must_use]
    pub fn new(node: &Node, kubeconfig: &str, dir: &std::path::Path, extra: &[String]) -> Self {
        let common = vec![
            format!("--bpffs={}", node.bpffs().display()),
            format!("--cgroup={}", node.cgroup().display()),
            format!("--state-dir={}", dir.join(node.name()).join("state").display()),
        ];
        let mut arguments = vec![
            "run".to_owned(),
            format!("--node-name={}", node.name()),
            format!("--kubeconfig={kubeconfig}"),
            format!("--uplink={UPLINK}"),
            format!("--pod-devices={POD_DEVICES}"),
        ];
        arguments.extend(common.iter().cloned());
        arguments.extend(extra.iter().cloned());
        let place = Place {
            netns: node.netns().clone(),
            cgroup: node.cgroup().join("agent"),
        };
        Self {
            place,
            arguments,
            common,
            log: dir.join(format!("{}-agent.log", node.name())),
            process: None,
        }
    }

    /// Starts it; [`Agent::wait_ready`] says when it serves.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(&mut self) -> Result<()> {
        let mut command = self.place.command(programs::agent()?)?;
        command.args(&self.arguments).env("WAGGLE_OBJECT", programs::object()?);
        self.process = Some(Process::spawn("proxy-agent", command, &self.log)?);
        Ok(())
    }

    /// Waits until `/healthz` answers 200: the first full lists are in the maps.
    ///
    /// # Errors
    /// With the end of its log, if it doesn't get there.
    pub fn wait_ready(&mut self) -> Result<()> {
        let place = self.place.clone();
        let process = self.process.as_mut().context("the agent was not started")?;
        eventually(Duration::from_secs(90), || {
            process.check_alive()?;
            let status = http_status(&place, 10256, "/healthz")?;
            if status == 200 {
                Ok(())
            } else {
                bail!("healthz says {status}")
            }
        })
        .with_context(|| format!("the agent isn't ready; its log ends:\n{}", process.log_tail(30)))
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it doesn't run.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the agent doesn't run")?.kill()
    }

    /// Whether it was started and has ended by itself or by somebody's signal.
    pub fn has_ended(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|process| process.check_alive().is_err())
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        self.process
            .as_ref()
            .map_or_else(String::new, |process| process.log_tail(lines))
    }

    /// Runs a subcommand (`services`, `flows`, ...) for people and returns what it prints.
    ///
    /// # Errors
    /// If it fails.
    pub fn text(&self, subcommand: &str, arguments: &[&str]) -> Result<String> {
        let mut all: Vec<&str> = vec![subcommand];
        all.extend(self.common.iter().map(String::as_str));
        all.extend(arguments);
        let output = self.place.output(programs::agent()?, &all)?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a subcommand with `-o json`.
    ///
    /// # Errors
    /// If it fails or prints no JSON.
    pub fn json(&self, subcommand: &str, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["-o", "json"];
        all.extend(arguments);
        let text = self.text(subcommand, &all)?;
        serde_json::from_str(&text).with_context(|| format!("proxy-agent {subcommand} printed no JSON: {text}"))
    }

    /// The text of its `/metrics`.
    ///
    /// # Errors
    /// If it doesn't answer.
    pub fn metrics(&self) -> Result<String> {
        http_get(&self.place, 10249, "/metrics").map(|(_, body)| body)
    }

    /// A sample of `/metrics` by its full name with labels, as printed.
    ///
    /// # Errors
    /// If there is no such sample.
    pub fn metric(&self, sample: &str) -> Result<f64> {
        let text = self.metrics()?;
        let line = text
            .lines()
            .find(|line| line.strip_prefix(sample).is_some_and(|rest| rest.starts_with(' ')));
        let line = line.with_context(|| format!("no sample {sample} in\n{text}"))?;
        Ok(line[sample.len()..].trim().parse()?)
    }
}

fn http_status(place: &Place, port: u16, path: &str) -> Result<u16> {
    http_get(place, port, path).map(|(status, _)| status)
}

/// One HTTP request from inside a namespace. The calling thread's cgroup is the test's own, so no Service is involved.
fn http_get(place: &Place, port: u16, path: &str) -> Result<(u16, String)> {
    let path = path.to_owned();
    place.netns.run(move || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(15)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let status = text
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .context("no HTTP status")?;
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
        Ok((status, body))
    })
}
