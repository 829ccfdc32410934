//! `proxy-agent`: reads the command line and hands over to [`proxy_agent::run`] or to one of
//! [`proxy_agent::commands`].

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use proxy_agent::{
    commands,
    config::{Cli, Command},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("proxy-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => proxy_agent::run::run(*args),
        Command::Check(args) => commands::check::run(args),
        Command::Status(args) => commands::status::run(args),
        Command::Services(args) => commands::services::run(args),
        Command::Backends(args) => commands::backends::run(args),
        Command::Flows(args) => commands::flows::run(args),
        Command::Cleanup(args) => commands::cleanup::run(args),
    }
}

/// Logs go to standard error, so that a command's answer on standard output stays clean; `RUST_LOG` chooses them.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
