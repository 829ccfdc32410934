//! `cargo xtask test`: builds everything once, then runs all tests: on the host, in the lab (as root), on the matrix.
//!
//! Each suite is one executable; its output is shown while it runs and counted by `libtest`. The closing line sums all.

pub(crate) mod libtest;
pub(crate) mod report;

use anyhow::{Context, Result};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use crate::preflight;
use crate::process;
use crate::programs::{self, Artifact, OTHERS};
use crate::project::Project;
use crate::setup::Need;
use crate::vm;
use libtest::Tally;
use report::Report;

/// A suite that runs longer hangs.
const LIMIT: Duration = Duration::from_secs(600);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// Print the names of the tests instead of running them
    #[arg(long)]
    list: bool,
    /// Leave out the kernel matrix
    #[arg(long)]
    no_vm: bool,
}

/// The command: the exit code says whether all passed.
///
/// # Errors
/// The machine lacks something or a build fails.
pub(crate) fn command(project: &Project, args: &Args) -> Result<ExitCode> {
    let matrix = !args.no_vm && !args.list;
    if !args.list {
        preflight::check()?;
    }
    let suites = build(project, matrix)?;
    if args.list {
        return list(project, &suites, args);
    }
    let mut report = Report::default();
    for suite in &suites {
        run(&mut report, &label(suite), &mut suite_command(project, suite, args));
    }
    run(&mut report, "doc tests", &mut doc_tests(project, args));
    if matrix {
        let suite = suites
            .iter()
            .find(|suite| is_lab(suite))
            .context("the tests package has no suites")?;
        if let Err(error) = vm::run_matrix(project, &suite.executable, args.filter.as_deref(), &mut report) {
            report.add("kernel matrix", Tally::broken(format!("{error:#}")), Duration::ZERO);
        }
    }
    Ok(report.close(args.filter.as_deref()))
}

/// Builds programs and tests, xtask's own among them; host suites first, the lab's last.
fn build(project: &Project, matrix: bool) -> Result<Vec<Artifact>> {
    let start = Instant::now();
    let mut needs = vec![Need::Bpf, Need::Lab, Need::Clients];
    if matrix {
        needs.push(Need::Matrix);
    }
    let selected = [&OTHERS[..], &["--lib", "--bins", "--tests"]].concat();
    let mut suites = programs::build_all(project, &needs, &selected)?;
    suites.extend(programs::build(project, &["--package", "xtask", "--tests"])?);
    suites.retain(|artifact| artifact.test);
    suites.sort_by_key(|suite| {
        (
            is_lab(suite),
            suite.package.clone(),
            suite.kind.clone(),
            suite.target.clone(),
        )
    });
    eprintln!("test: built in {:.0} s", start.elapsed().as_secs_f32());
    Ok(suites)
}

fn is_lab(suite: &Artifact) -> bool {
    suite.package == "tests" && suite.target == "suites"
}

fn label(suite: &Artifact) -> String {
    match suite.kind.as_str() {
        "test" => format!("{} {}", suite.package, suite.target),
        kind => format!("{} ({kind})", suite.package),
    }
}

fn suite_command(project: &Project, suite: &Artifact, args: &Args) -> Command {
    let mut command = Command::new(&suite.executable);
    // As under `cargo test`: some crates look for their files from here.
    command
        .current_dir(&suite.directory)
        .env("CARGO_MANIFEST_DIR", &suite.directory);
    command.args(&args.filter);
    prepare(project, command)
}

fn doc_tests(project: &Project, args: &Args) -> Command {
    let mut command = process::cargo();
    command
        .current_dir(&project.root)
        .args(["test", "--quiet", "--locked", "--doc"])
        .args(OTHERS);
    command.arg("--").arg("--format=pretty").args(&args.filter);
    prepare(project, command)
}

fn prepare(project: &Project, mut command: Command) -> Command {
    programs::announce(project, &mut command);
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        command.env("RUST_BACKTRACE", "1");
    }
    command
}

/// Runs one suite with its output on ours, and adds it to the report.
fn run(report: &mut Report, label: &str, command: &mut Command) {
    println!("\n=== {label}");
    let start = Instant::now();
    let mut tally = Tally::default();
    let status = process::stream(command, LIMIT, |line| {
        println!("{line}");
        tally.line(line);
    });
    match status {
        Ok(status) => tally.finish(
            status.is_some_and(|status| status.success()),
            status.is_none().then_some(LIMIT),
        ),
        Err(error) => tally = Tally::broken(format!("{error:#}")),
    }
    report.add(label, tally, start.elapsed());
}

fn list(project: &Project, suites: &[Artifact], args: &Args) -> Result<ExitCode> {
    for suite in suites {
        let listing = process::capture(suite_command(project, suite, args).args(["--list", "--format=terse"]))?;
        for name in listing.lines().filter_map(|line| line.strip_suffix(": test")) {
            println!("{}: {name}", label(suite));
        }
    }
    Ok(ExitCode::SUCCESS)
}
