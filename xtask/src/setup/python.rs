//! A Python with the stock `kubernetes` client, for `setup`: the client tests run it against our API server.
//!
//! It lives in a virtual environment under the target directory and touches nothing else.

use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::apt;
use crate::process;
use crate::project::Project;

/// The client's version; newer ones are taken on deliberately.
const KUBERNETES: &str = "37.0.2";

/// Makes the environment unless it is there.
pub(crate) fn ensure(project: &Project) -> Result<()> {
    if locate(project).is_some() {
        return Ok(());
    }
    let directory = project.tools().join("python");
    eprintln!(
        "setup: Python with kubernetes {KUBERNETES} into {} (client tests)",
        project.show(&directory)
    );
    let python = interpreter()?;
    if create(&python, &directory).is_err() {
        // Debian splits the part of Python that makes environments off into a package.
        apt::install(&["python3-venv"], "a virtual environment for the client tests")?;
        create(&interpreter()?, &directory)?;
    }
    let mut pip = Command::new(directory.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    process::run_quietly(pip.arg(format!("kubernetes=={KUBERNETES}")))
        .context("the Python client cannot be installed: is PyPI reachable?")?;
    fs::write(directory.join(marker()), "").context("cannot mark the environment as complete")
}

/// The interpreter of a complete environment.
pub(crate) fn locate(project: &Project) -> Option<PathBuf> {
    project.tool(&format!("python/{}", marker()))?;
    project.tool("python/bin/python")
}

/// A file that says the environment is complete, and with which client.
fn marker() -> String {
    format!(".kubernetes-{KUBERNETES}")
}

/// The system's own interpreter rather than a version manager's, which may change under the environment.
fn interpreter() -> Result<PathBuf> {
    let system = PathBuf::from("/usr/bin/python3");
    if !system.is_file() && process::find("python3").is_none() {
        apt::install(&["python3", "python3-venv"], "the client tests")?;
    }
    Some(system)
        .filter(|path| path.is_file())
        .or_else(|| process::find("python3"))
        .context("python3 is not installed")
}

fn create(python: &PathBuf, directory: &PathBuf) -> Result<()> {
    process::run_quietly(Command::new(python).args(["-m", "venv", "--clear"]).arg(directory))
}
