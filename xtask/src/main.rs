//! `cargo xtask <command>`: everything one does with this project, on a fresh machine too.
//!
//! This file is the list of commands; each has a file of its own below. Every command calls [`setup`] for what it
//! needs by itself, so that a first `cargo xtask up` works without reading anything.

mod check;
mod ebpf;
mod elf;
mod preflight;
mod process;
mod programs;
mod project;
mod setup;
mod test;
mod tidy;
mod up;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

use project::Project;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Waggle's project commands",
    disable_help_subcommand = true
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what the other commands need (they call it themselves) and say what was installed and why
    Setup,
    /// Build the BPF object, check it, and put it where the other commands look for it
    BuildEbpf,
    /// Format, lints, documentation and the project's own rules
    Check,
    /// Build everything, then all tests: on the host, in the lab, and on the kernel matrix
    Test(test::Args),
    /// The whole of it on this machine: a control plane, three nodes, Pods and Services, with real traffic
    #[command(disable_help_flag = true)]
    Up(up::Args),
    /// The tests meant for it, on other kernels, in an emulator
    Vm(vm::Args),
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<ExitCode> {
    let project = Project::locate()?;
    match args.command {
        Command::Setup => setup::command(&project)?,
        Command::BuildEbpf => ebpf::command(&project)?,
        Command::Check => check::command(&project)?,
        Command::Test(args) => return test::command(&project, &args),
        Command::Vm(args) => return vm::command(&project, &args),
        Command::Up(args) => return up::command(&project, &args),
    }
    Ok(ExitCode::SUCCESS)
}
