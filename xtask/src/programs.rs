//! The host's programs: built once for `up` and for `test`, and announced to what runs them.
//!
//! `proxy-agent`, `control` and `lab` are always built together, so that cargo resolves the same features for both
//! commands and builds nothing twice.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::ebpf;
use crate::process;
use crate::project::Project;
use crate::setup::{self, Need, python};

/// An executable that cargo built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Artifact {
    pub(crate) package: String,
    /// The package's directory: tests run there.
    pub(crate) directory: PathBuf,
    pub(crate) target: String,
    /// `lib`, `bin`, `test`: what the tests were compiled from.
    pub(crate) kind: String,
    /// Whether it is a test harness rather than the program itself.
    pub(crate) test: bool,
    pub(crate) executable: PathBuf,
}

/// Installs `needs`, builds the BPF object and, at the same time, the host's side with these cargo arguments.
pub(crate) fn build_all(project: &Project, needs: &[Need], host: &[&str]) -> Result<Vec<Artifact>> {
    std::thread::scope(|scope| {
        // Apart from the processors nothing is shared: the BPF side has its own target directory.
        let bpf = scope.spawn(|| {
            setup::ensure(project, needs)?;
            let facts = ebpf::build(project)?;
            eprintln!("build-ebpf: {facts}");
            anyhow::Ok(())
        });
        let artifacts = build(project, host);
        bpf.join().expect("the thread only returns errors")?;
        artifacts
    })
}

/// The arguments that select all packages but this one: a running program is not to be replaced by a build of its own.
pub(crate) const OTHERS: [&str; 3] = ["--workspace", "--exclude", "xtask"];

/// Builds with the dev profile and these arguments, with cargo's own progress on the terminal.
///
/// # Errors
/// What cargo said is on the terminal already.
pub(crate) fn build(project: &Project, arguments: &[&str]) -> Result<Vec<Artifact>> {
    let mut command = process::cargo();
    command
        .current_dir(&project.root)
        .args(["build", "--locked", "--message-format=json-render-diagnostics"]);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", process::describe(&command)))?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut artifacts = Vec::new();
    for line in BufReader::new(output).lines() {
        artifacts.extend(artifact(&line?));
    }
    if !child.wait()?.success() {
        bail!("{} failed: {}", process::describe(&command), reason(project));
    }
    Ok(artifacts)
}

/// Why cargo failed, as far as it is not about the sources: what it printed is on the terminal already.
fn reason(project: &Project) -> &'static str {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut fetch = process::cargo();
    fetch
        .current_dir(&project.root)
        .args(["fetch", "--locked", "--offline", "--target", &platform]);
    match process::run_quietly(&mut fetch) {
        Ok(()) => "see above",
        Err(_) => {
            "crates of Cargo.lock are not on this machine and could not be fetched. Is it online? A mirror of crates.io is \
             set as [source] in cargo's configuration"
        }
    }
}

/// Tells a program where the things it works with are; the names are those the lab reads.
pub(crate) fn announce(project: &Project, command: &mut Command) {
    command.env("WAGGLE_OBJECT", project.object());
    for (variable, binary) in [
        ("WAGGLE_AGENT", "proxy-agent"),
        ("WAGGLE_CONTROL", "control"),
        ("WAGGLE_LAB", "lab"),
    ] {
        command.env(variable, project.binary(binary));
    }
    if let Some(python) = python::locate(project) {
        command.env("WAGGLE_PYTHON", python);
    }
}

/// One line of cargo's JSON, if it announces an executable.
fn artifact(line: &str) -> Option<Artifact> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" {
        return None;
    }
    let directory = Path::new(message["manifest_path"].as_str()?).parent()?;
    let kind = message["target"]["kind"][0].as_str()?;
    Some(Artifact {
        package: directory.file_name()?.to_string_lossy().into_owned(),
        directory: directory.to_path_buf(),
        target: message["target"]["name"].as_str()?.to_owned(),
        kind: kind.to_owned(),
        test: message["profile"]["test"].as_bool()?,
        executable: message["executable"].as_str()?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_what_cargo_prints() {
        let line = r#"{"reason":"compiler-artifact","package_id":"path+file:///w/tests#0.1.0","manifest_path":"/w/tests/Cargo.toml",
            "target":{"kind":["test"],"crate_types":["bin"],"name":"suites","src_path":"/w/tests/suites/main.rs"},
            "profile":{"opt_level":"0","test":true},"features":[],"filenames":["/t/suites-1"],"executable":"/t/suites-1","fresh":true}"#;
        let found = artifact(line).expect("an executable");
        assert_eq!(
            (found.package.as_str(), found.target.as_str(), found.kind.as_str()),
            ("tests", "suites", "test")
        );
        assert!(found.test);
        assert_eq!(found.executable, Path::new("/t/suites-1"));
    }

    #[test]
    fn libraries_and_other_messages_are_not_executables() {
        let library = r#"{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{"kind":["lib"],"name":"a"},"profile":{"test":false},"executable":null}"#;
        assert_eq!(artifact(library), None);
        assert_eq!(artifact(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(artifact("warning: not JSON"), None);
    }
}
