//! `lab up`: the main job in one command. A cluster, the demo's manifests, requests to every Service, and where they went.

mod demo;
mod probe;
mod table;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cluster::{Cluster, Options};
use demo::Demo;
use probe::Outcome;

/// What `lab up` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Up {
    /// Send a fixed number of requests to each Service, check what the algorithms promise, clean up, and exit 0 or 1.
    #[arg(long)]
    once: bool,
    /// Requests to each Service with --once (rounded up to a multiple of its backends).
    #[arg(long, default_value_t = 240)]
    requests: u64,
    /// Number of nodes; the demo's Pods want three.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=9))]
    nodes: u8,
    /// The manifests to apply.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/demo"))]
    manifests: PathBuf,
    /// Write the administrator's kubeconfig here too (it stops working when this command ends).
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// More flags for each agent, as --agent=--xdp=off.
    #[arg(long = "agent")]
    agent: Vec<String>,
}

/// Runs the demo until it is done or interrupted.
///
/// # Errors
/// Names the step that failed; whatever was made is removed.
pub fn run(up: &Up) -> Result<ExitCode> {
    let begin = Instant::now();
    let step = move |text: &str| println!("[{:5.1} s] {text}", begin.elapsed().as_secs_f32());
    let options = Options {
        nodes: up.nodes,
        agent: up.agent.clone(),
    };
    let cluster = Cluster::new(&options, &step)?;
    if let Some(path) = &up.kubeconfig {
        std::fs::copy(cluster.control.kubeconfig(), path).with_context(|| format!("can't write {}", path.display()))?;
    }
    let mut demo = Demo::new(cluster);
    step(&format!(
        "manifests: {} applied {}",
        up.manifests.display(),
        demo.apply(&up.manifests)?
    ));
    demo.wait_ready()?;
    step("every Pod runs and every Service has its endpoints");
    println!("\n{}", demo.describe()?);
    let code = if up.once {
        once(&demo, up.requests)?
    } else {
        live(&mut demo, &up.manifests)?
    };
    println!("cleaning up");
    drop(demo);
    Ok(code)
}

fn once(demo: &Demo, requests: u64) -> Result<ExitCode> {
    let mut outcomes = Vec::new();
    for service in demo.services()? {
        outcomes.push(probe::send(demo, &service, requests)?);
    }
    println!("{}", table::outcomes(&outcomes));
    let broken: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| outcome.broken_promise().map(|what| (outcome, what)))
        .collect();
    for (outcome, what) in &broken {
        println!("FAILED {}: {what}", outcome.service);
    }
    if broken.is_empty() {
        println!("every Service kept its algorithm's promise\n");
        Ok(ExitCode::SUCCESS)
    } else {
        println!("\n{}", demo.cluster().describe());
        Ok(ExitCode::FAILURE)
    }
}

/// Requests in rounds, the table after each, until Ctrl-C.
fn live(demo: &mut Demo, manifests: &Path) -> Result<ExitCode> {
    let stop = interrupted(demo.cluster())?;
    let redraw = std::io::stdout().is_terminal();
    let mut totals: Vec<Outcome> = Vec::new();
    println!("{}", demo.what_to_try(manifests));
    while !stop.load(Ordering::Relaxed) {
        for notice in demo.supervise() {
            println!("{notice}");
        }
        let services = demo.services().unwrap_or_default();
        totals.retain(|total| services.iter().any(|service| total.is_of(service)));
        let before = totals.len();
        for service in &services {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            match probe::send(demo, service, 24) {
                Ok(outcome) => Outcome::add(&mut totals, outcome),
                Err(error) => println!("{}: {error:#}", service.name),
            }
        }
        let drawn = table::outcomes(&totals);
        if redraw && before == totals.len() {
            print!("\x1b[{}A\x1b[J", drawn.lines().count() + 1);
        }
        println!("{drawn}");
        std::thread::sleep(Duration::from_millis(700));
    }
    Ok(ExitCode::SUCCESS)
}

/// A flag that Ctrl-C or SIGTERM sets.
fn interrupted(cluster: &Cluster) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    cluster.spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
        flag.store(true, Ordering::Relaxed);
    });
    Ok(stop)
}
