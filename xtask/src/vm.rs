//! `cargo xtask vm`: the tests meant for it, on other kernels, in QEMU. Software emulation is enough.
//!
//! Kernels are Debian's, unpacked under the target directory and never installed ([`kernel`]). A machine has no disk:
//! everything is in its initial file system ([`initramfs`], [`modules`]), whose init runs the lab's suites and turns the
//! machine off. What it prints on the serial line is shown and counted like any other suite ([`machine`]).

mod cpio;
mod initramfs;
pub(crate) mod kernel;
mod machine;
mod modules;

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Command, ExitCode};

use crate::process;
use crate::programs::{self, OTHERS};
use crate::project::Project;
use crate::setup::Need;
use crate::test::report::Report;
pub(crate) use kernel::Kernel;

/// Tests whose names contain this are meant for every kernel.
const MEANT: &str = "kernel_matrix";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel to boot: 6.1, 6.12, or all
    #[arg(long, default_value = "all", value_parser = ["6.1", "6.12", "all"])]
    kernel: String,
    /// Run the tests whose name contains this instead of those meant for the matrix
    filter: Option<String>,
}

/// The command: the exit code says whether all passed on all kernels.
///
/// # Errors
/// Something cannot be installed or built.
pub(crate) fn command(project: &Project, args: &Args) -> Result<ExitCode> {
    let needs = [Need::Bpf, Need::Lab, Need::Matrix];
    let built = programs::build_all(
        project,
        &needs,
        &[&OTHERS[..], &["--bins", "--test", "suites"]].concat(),
    )?;
    let suites = built
        .iter()
        .find(|artifact| artifact.test && artifact.target == "suites");
    let suites = suites.context("cargo built no suites: is there a [[test]] of that name in tests/Cargo.toml?")?;
    let kernels: Vec<Kernel> = Kernel::ALL
        .iter()
        .copied()
        .filter(|kernel| args.kernel == "all" || args.kernel == kernel.series)
        .collect();
    let mut report = Report::default();
    let names = names(project, &suites.executable, args.filter.as_deref().unwrap_or(MEANT))?;
    run(project, &suites.executable, &kernels, &names, &mut report)?;
    Ok(report.close(Some(args.filter.as_deref().unwrap_or(MEANT))))
}

/// The part of `cargo xtask test`: tests meant for the matrix whose names contain `filter`, if any do.
///
/// # Errors
/// No test is meant for the matrix, or a machine cannot be made.
pub(crate) fn run_matrix(project: &Project, suites: &Path, filter: Option<&str>, report: &mut Report) -> Result<()> {
    let mut names = names(project, suites, MEANT)?;
    ensure!(
        !names.is_empty(),
        "no test in the suites has {MEANT} in its name: the matrix would prove nothing"
    );
    names.retain(|name| filter.is_none_or(|filter| name.contains(filter)));
    run(project, suites, Kernel::ALL, &names, report)
}

fn run(project: &Project, suites: &Path, kernels: &[Kernel], names: &[String], report: &mut Report) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    for kernel in kernels {
        let files = kernel::locate(project, kernel)?;
        let initramfs = initramfs::build(project, &files, suites, names)?;
        machine::run(kernel, &files, &initramfs, report)?;
    }
    Ok(())
}

/// The names of the tests in `suites` that contain `filter`.
fn names(project: &Project, suites: &Path, filter: &str) -> Result<Vec<String>> {
    let mut command = Command::new(suites);
    command.args(["--list", "--format=terse", filter]);
    programs::announce(project, &mut command);
    let listing = process::capture(&mut command)?;
    Ok(listing
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}
