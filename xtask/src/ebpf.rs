//! `cargo xtask build-ebpf`: compiles the BPF programs, checks the object, and puts it into `<target>/bpf`.
//!
//! Called by `up`, `test` and `vm` too. Cargo decides what is out of date; a call with nothing to do takes well
//! under a second.

mod object;

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process;
use crate::project::Project;
use crate::setup::bpf_toolchain::{self, Toolchain};
use crate::setup::{self, Need, bpf_linker};

const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "proxy-ebpf";

/// The command: builds and says what is in the object.
pub(crate) fn command(project: &Project) -> Result<()> {
    setup::ensure(project, &[Need::Bpf])?;
    let facts = build(project)?;
    println!("{}: {facts}", project.show(&project.object()));
    Ok(())
}

/// Builds and checks the object; `setup` has been called.
pub(crate) fn build(project: &Project) -> Result<object::Facts> {
    if !project.object().exists() {
        eprintln!("build-ebpf: compiling the BPF programs; the first time with the library, about a minute");
    }
    let mut command = process::cargo();
    command.arg("build");
    let mut command = configure(project, &toolchain()?, command)?;
    command.args(["--bin", PACKAGE, "--profile", "bpf"]);
    process::run(&mut command).context("the BPF programs do not compile")?;
    let built = project.bpf_build().join(TARGET).join("bpf").join(PACKAGE);
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    let facts = object::check(&bytes, uses_fetching_atomics(project)?)
        .with_context(|| format!("{} would not work in the kernel", built.display()))?;
    publish(&bytes, &project.object())?;
    Ok(facts)
}

/// `cargo clippy` for the data path on the BPF target: the caller adds what to check.
///
/// Called by `check`. A clippy works with its own compiler only, so it is the one beside the BPF toolchain's rustc.
pub(crate) fn clippy(project: &Project) -> Result<Command> {
    let toolchain = toolchain()?;
    let mut command = Command::new(toolchain.rustc.with_file_name("cargo-clippy"));
    command.arg("clippy");
    configure(project, &toolchain, command)
}

fn toolchain() -> Result<Toolchain> {
    bpf_toolchain::locate().context("no BPF toolchain: run `cargo xtask setup`")
}

/// Adds to a cargo command what the BPF target needs: compiler, library, linker, flags.
fn configure(project: &Project, toolchain: &Toolchain, mut command: Command) -> Result<Command> {
    let linker = bpf_linker::locate(project).context("no bpf-linker: run `cargo xtask setup`")?;
    command
        .current_dir(&project.root)
        .args(["--quiet", "--locked", "--package", PACKAGE]);
    command
        .args(["-Z", "build-std=core", "--target", TARGET, "--target-dir"])
        .arg(project.bpf_build());
    // `-Z` flags and the library's own feature gates on a stable compiler.
    command.env("RUSTC", &toolchain.rustc).env("RUSTC_BOOTSTRAP", "1");
    // v3 is the newest instruction set bpf-linker takes, and the first with fetching atomics.
    let flags = ["-Ctarget-cpu=v3", "-Cdebuginfo=2", "-Clink-arg=--btf"];
    command
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env_remove("RUSTFLAGS");
    command
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("CARGO_TARGET_DIR");
    process::prepend_path(&mut command, linker.parent().context("bpf-linker has no directory")?)?;
    Ok(command)
}

/// Whether the sources use a read-modify-write whose result matters; then the object must contain one. A wrong memory
/// order makes the compiler drop the result silently, and round robin then sends everything to one backend.
fn uses_fetching_atomics(project: &Project) -> Result<bool> {
    let mut pending: Vec<PathBuf> = vec![
        project.root.join(PACKAGE).join("src/bpf"),
        project.root.join(PACKAGE).join("src/main.rs"),
    ];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path)?.collect::<Result<Vec<_>, _>>()?;
            pending.extend(entries.iter().map(fs::DirEntry::path));
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && fs::read_to_string(&path)?.contains("atomic_xadd")
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes the object so that nobody ever reads half of it, and not at all when it is unchanged.
fn publish(bytes: &[u8], to: &Path) -> Result<()> {
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let directory = to.parent().context("the object has no directory")?;
    fs::create_dir_all(directory)?;
    let partial = directory.join(format!(".proxy-ebpf.{}.o", std::process::id()));
    fs::write(&partial, bytes)?;
    fs::rename(&partial, to).with_context(|| format!("cannot write {}", to.display()))
}
