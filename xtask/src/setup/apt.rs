//! Debian packages for `setup`: installs those that are missing, with an index update when the index is too old to
//! know them, and says clearly when it cannot (no root, no apt, no network).

use anyhow::{Context, Result, bail};
use std::process::Command;

use crate::process;

/// Installs `packages` for the given reason, in one transaction.
///
/// # Errors
/// Not root, not a Debian-like system, or apt failed: each names the packages and what to do by hand.
pub(crate) fn install(packages: &[&str], why: &str) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if process::find("apt-get").is_none() {
        bail!("{why} needs {list} (names of Debian packages) and this system has no apt-get: install them by hand");
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("{why} needs the packages {list}: run `sudo apt-get install {list}`, or this command as root");
    }
    eprintln!("setup: installing {list} ({why})");
    if try_install(packages).is_ok() {
        return Ok(());
    }
    // The first attempt fails on a machine whose index was never fetched or is outdated.
    update()?;
    try_install(packages).with_context(|| format!("cannot install {list} for: {why}"))
}

/// Fetches the package index.
fn update() -> Result<()> {
    eprintln!("setup: apt-get update");
    process::run_quietly(apt().arg("update")).context("the package index cannot be fetched: is the machine offline?")
}

fn try_install(packages: &[&str]) -> Result<()> {
    process::run_quietly(apt().args(["install", "-y", "--no-install-recommends"]).args(packages))
}

/// `apt-get` that asks nothing, waits for another apt to finish, and leaves running services alone.
fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1");
    command.args(["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]);
    command
}
