//! `bpf-linker` for `setup`: the linker of the BPF target, built once from crates.io into the target directory.

use anyhow::{Context, Result};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::process;
use crate::project::Project;

/// The version the data path is known to build and load with.
pub(crate) const VERSION: &str = "0.10.3";

/// Installs bpf-linker unless the right version is there.
pub(crate) fn ensure(project: &Project) -> Result<()> {
    locate(project).map_or_else(|| install(project), |_| Ok(()))
}

/// The linker: one that `setup` installed, or the same version on `PATH`.
pub(crate) fn locate(project: &Project) -> Option<PathBuf> {
    let candidates = [project.tool("bin/bpf-linker"), process::find("bpf-linker")];
    candidates.into_iter().flatten().find(|path| {
        process::capture(Command::new(path).arg("--version"))
            .is_ok_and(|text| text.split_whitespace().last() == Some(VERSION))
    })
}

fn install(project: &Project) -> Result<()> {
    eprintln!("setup: building bpf-linker {VERSION} (links the BPF object; once, one to two minutes)");
    let build = project.tools().join("build");
    let mut command = process::cargo();
    command.args([
        "install",
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--force",
        "--quiet",
        "--root",
    ]);
    command.arg(project.tools()).arg("--target-dir").arg(&build);
    // The workspace's configuration does not apply to a tool, and its bin directory is meant to be off the PATH.
    command
        .current_dir("/")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS");
    process::run_quietly(&mut command)
        .context("bpf-linker cannot be built: it needs a C linker and access to crates.io")?;
    fs::remove_dir_all(build).context("cannot remove bpf-linker's build directory")?;
    Ok(())
}
