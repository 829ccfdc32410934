//! Python's stock `kubernetes` client, through a script of its own: `python_client.py`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Server;

/// The interpreter of an environment that has the client: `cargo xtask setup` makes one and names it in `WAGGLE_PYTHON`.
fn interpreter() -> Result<PathBuf> {
    let path = std::env::var_os("WAGGLE_PYTHON").context(
        "WAGGLE_PYTHON names no Python with the `kubernetes` client: run through `cargo xtask test`, or make one with \
         `python3 -m venv DIR && DIR/bin/pip install kubernetes==37.0.2` and set WAGGLE_PYTHON=DIR/bin/python",
    )?;
    Ok(path.into())
}

fn run(server: &Server, scenario: &str) -> Result<()> {
    let output = Command::new(interpreter()?)
        .arg("-c")
        .arg(include_str!("python_client.py"))
        .arg(server.kubeconfig())
        .arg(scenario)
        .output()
        .context("can't run the Python that WAGGLE_PYTHON names")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.success(),
        "{scenario}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    ensure!(
        text(&output.stdout).trim_end().ends_with("done"),
        "{scenario} did not end: {}",
        text(&output.stdout)
    );
    Ok(())
}

#[test]
fn objects_are_created_listed_patched_and_deleted() -> Result<()> {
    run(&Server::start()?, "crud")
}

#[test]
fn a_watch_sees_every_change_in_order() -> Result<()> {
    run(&Server::start()?, "watch")
}

#[test]
fn pages_continue_where_they_ended() -> Result<()> {
    run(&Server::start()?, "pages")
}

#[test]
fn two_candidates_never_lead_at_once() -> Result<()> {
    run(&Server::start()?, "election")
}

#[test]
fn errors_carry_a_status() -> Result<()> {
    run(&Server::start()?, "errors")
}
