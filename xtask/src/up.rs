//! `cargo xtask up`: the main job in one command. Builds everything and becomes `lab up`, which starts a control plane
//! and three nodes, applies the demo and shows what runs.

use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::preflight;
use crate::programs::{self, OTHERS};
use crate::project::Project;
use crate::setup::Need;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Passed on to the lab, for example `--once`; `--help` here is the lab's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// The command. The lab takes our place, so that signals and exit code are its own.
///
/// # Errors
/// The machine lacks something, a build fails, or the lab cannot be started.
pub(crate) fn command(project: &Project, args: &Args) -> Result<ExitCode> {
    preflight::check()?;
    programs::build_all(project, &[Need::Bpf, Need::Lab], &[&OTHERS[..], &["--bins"]].concat())?;
    let lab = project.binary("lab");
    let mut command = Command::new(&lab);
    command.current_dir(&project.root).arg("up").args(&args.arguments);
    programs::announce(project, &mut command);
    Err(command.exec()).with_context(|| format!("cannot start {}", lab.display()))
}
