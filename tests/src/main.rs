//! The lab's command: the demo (`up`), traffic (`serve`, `request`), and what the lab itself starts (`enter`, `warden`).

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use lab::{process, scope, traffic, up};

#[derive(Parser)]
#[command(
    name = "lab",
    version,
    about = "Clusters of network namespaces for Waggle's tests and demo"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Bring up three nodes with Services of every kind, and show where requests go.
    Up(up::Up),
    /// Serve HTTP and UDP, answering with a name.
    Serve(traffic::Serve),
    /// Send requests and print a report of who answered.
    Request(traffic::Request),
    /// Remove what labs left whose process is gone.
    Sweep,
    /// Join a namespace and a cgroup and run a program there.
    #[command(hide = true)]
    Enter {
        /// The namespace's file.
        #[arg(long)]
        netns: PathBuf,
        /// The cgroup's directory.
        #[arg(long)]
        cgroup: PathBuf,
        /// The program and its arguments.
        #[arg(last = true, required = true)]
        program: Vec<String>,
    },
    /// Hold a namespace open until killed, as a pause container does.
    #[command(hide = true)]
    Hold,
    /// Wait until standard input closes, then remove a lab.
    #[command(hide = true)]
    Warden {
        /// The lab.
        #[arg(long)]
        id: u32,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(options) => return up::run(&options),
        Command::Serve(serve) => tokio::runtime::Runtime::new()?.block_on(traffic::serve(serve))?,
        Command::Request(request) => println!("{}", serde_json::to_string(&traffic::request(&request)?)?),
        Command::Sweep => {
            for id in scope::sweep_orphans()? {
                println!("removed lab {id}");
            }
        }
        Command::Enter { netns, cgroup, program } => process::enter(&netns, &cgroup, &program)?,
        Command::Hold => loop {
            std::thread::park();
        },
        Command::Warden { id } => warden(id)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The owner holds the other end of standard input; it closes however the owner ends. A Ctrl-C meant for the owner
/// reaches the warden too, so it leaves the terminal's process group first.
fn warden(id: u32) -> Result<()> {
    nix::unistd::setsid().ok();
    std::io::stdin().read_to_end(&mut Vec::new()).ok();
    scope::sweep(id)
}
