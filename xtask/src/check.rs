//! `cargo xtask check`: everything that can be said about the sources without running them.
//!
//! All steps run even when one fails, so that one call shows everything there is to mend.

use anyhow::{Context, Result, bail};
use std::process::Command;
use std::time::Instant;

use crate::ebpf;
use crate::process;
use crate::project::Project;
use crate::setup::{self, Need};
use crate::tidy;

type Step = (&'static str, fn(&Project) -> Result<()>);

const STEPS: &[Step] = &[
    ("tidy", tidy::check),
    ("metadata", metadata),
    ("fmt", formatting),
    ("clippy, BPF", clippy_bpf),
    ("clippy, host", clippy_host),
    ("doc", documentation),
];

/// The command.
pub(crate) fn command(project: &Project) -> Result<()> {
    setup::ensure(project, &[Need::Bpf, Need::Lint])?;
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        let start = Instant::now();
        println!("check: {name}");
        match step(project) {
            Ok(()) => println!("check: {name}: ok ({:.1} s)", start.elapsed().as_secs_f32()),
            Err(error) => {
                println!("check: {name}: FAILED: {error:#}");
                failed.push(*name);
            }
        }
    }
    if failed.is_empty() {
        println!("check: all of {} steps passed", STEPS.len());
        return Ok(());
    }
    bail!("check failed in: {}", failed.join(", "))
}

fn formatting(project: &Project) -> Result<()> {
    process::run(host(project).args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")
}

fn clippy_host(project: &Project) -> Result<()> {
    process::run(
        host(project)
            .args(["clippy", "--quiet", "--locked", "--workspace", "--all-targets"])
            .args(DENY),
    )
}

fn clippy_bpf(project: &Project) -> Result<()> {
    process::run(
        ebpf::clippy(project)?
            .args(["--bin", "proxy-ebpf", "--profile", "bpf"])
            .args(DENY),
    )
}

const DENY: [&str; 3] = ["--", "--deny", "warnings"];

fn documentation(project: &Project) -> Result<()> {
    let mut command = host(project);
    command.env("RUSTDOCFLAGS", "--deny warnings");
    process::run(command.args(["doc", "--quiet", "--locked", "--workspace", "--no-deps"]))
}

/// Each package says what it is and under which licence, cannot be published by accident, and the texts of the
/// licences are there.
fn metadata(project: &Project) -> Result<()> {
    let mut command = host(project);
    let text = process::capture(command.args(["metadata", "--no-deps", "--locked", "--format-version", "1"]))
        .context("Cargo.toml and Cargo.lock do not agree")?;
    let metadata: serde_json::Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"]
        .as_array()
        .context("no packages in cargo's metadata")?;
    let problems: Vec<String> = packages.iter().flat_map(package_problems).collect();
    if !problems.is_empty() {
        bail!("{}", problems.join("; "));
    }
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
        if !project.root.join(licence).is_file() {
            bail!("{licence} is missing at the top level");
        }
    }
    Ok(())
}

fn package_problems(package: &serde_json::Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or("?");
    let mut problems = Vec::new();
    let mut expect = |fine: bool, what: &str| {
        if !fine {
            problems.push(format!("{name}: {what}"));
        }
    };
    expect(
        package["license"] == "MIT OR Apache-2.0",
        "license is not that of the workspace",
    );
    expect(
        package["description"].as_str().is_some_and(|text| !text.is_empty()),
        "no description",
    );
    expect(package["rust_version"].is_string(), "no rust-version");
    expect(
        package["publish"].as_array().is_some_and(Vec::is_empty),
        "publish is not false",
    );
    problems
}

fn host(project: &Project) -> Command {
    let mut command = process::cargo();
    command.current_dir(&project.root);
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_package_must_say_what_it_is() {
        let good = json!({"name": "a", "license": "MIT OR Apache-2.0", "description": "A.", "rust_version": "1.95", "publish": []});
        assert_eq!(package_problems(&good), Vec::<String>::new());
        let bad = json!({"name": "b", "license": null, "description": "", "publish": null});
        assert_eq!(package_problems(&bad).len(), 4);
    }
}
