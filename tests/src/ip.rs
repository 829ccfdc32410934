//! Configuring a namespace: batches for iproute2's `ip`, one process for many lines, and `ethtool` switches.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::netns::Netns;

/// Runs lines of `ip` commands (without the leading `ip`) in a namespace; all of them or the first error.
///
/// # Errors
/// With what `ip` said and the lines it was given.
pub fn batch(netns: &Netns, lines: &[String]) -> Result<()> {
    let mut child = Command::new("ip")
        .args(["-n", netns.name(), "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("can't run `ip` (package iproute2)")?;
    let text = lines.join("\n") + "\n";
    child
        .stdin
        .take()
        .context("no pipe to ip")?
        .write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "ip -n {}: {}\n{text}",
            netns.name(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Switches offloads of a device, as `ethtool -K device ...`.
///
/// # Errors
/// With what `ethtool` said.
pub fn offloads(netns: &Netns, device: &str, switches: &[&str]) -> Result<()> {
    let mut command = Command::new("ethtool");
    command.args(["-K", device]).args(switches);
    let output = run_in(netns, command).context("can't run `ethtool`")?;
    if !output.status.success() {
        bail!(
            "ethtool -K {device} {switches:?} in {}: {}",
            netns.name(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Runs a command in a namespace and waits for it. A thread that enters the namespace starts it; the child inherits.
///
/// # Errors
/// If it can't be started.
pub fn run_in(netns: &Netns, mut command: Command) -> Result<std::process::Output> {
    command.stdin(Stdio::null());
    netns.run(move || Ok(command.output()?))
}

/// What a failing test prints of a namespace: addresses, routes, neighbours and counters.
#[must_use]
pub fn describe(netns: &Netns) -> String {
    let mut text = format!("--- {}\n", netns.name());
    for arguments in [
        ["-s", "link"],
        ["-br", "address"],
        ["-4", "route"],
        ["-6", "route"],
        ["-4", "neigh"],
    ] {
        let mut command = Command::new("ip");
        command.args(arguments);
        if let Ok(output) = run_in(netns, command) {
            text.push_str(&String::from_utf8_lossy(&output.stdout));
        }
    }
    text
}
