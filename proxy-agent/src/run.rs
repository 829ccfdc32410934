//! `proxy-agent run`: wires the walk of a Service together and keeps it going.
//!
//! 1. The data path is loaded, or taken over from an agent that ran before ([`datapath`]).
//! 2. What the maps hold is adopted ([`agent`]).
//! 3. Events come from the API server ([`watch`]) and are taken in batches: whatever has arrived within
//!    [`COALESCE`] of the first one, so that a single change is in the maps within milliseconds, and a burst costs one
//!    pass.
//! 4. On SIGTERM or SIGINT the agent ends; everything in the kernel stays pinned and goes on.

pub mod agent;
pub mod events;
mod names;
pub mod status;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures::future::OptionFuture;
use proxy_ebpf::abi::{Addr, NodeConfig};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{sleep, sleep_until},
};

use crate::{
    config::RunArgs,
    datapath::{self, Datapath},
    maps::kernel::KernelMaps,
    model::Node,
    plan::Policy,
    serve::{self, Sources},
    watch::{self, Event, interfaces},
};
use agent::{Agent, Outcome};
use events::Reporter;
use names::NamesFile;
use status::StatusHandle;

/// How long the first event of a batch waits for others.
pub const COALESCE: Duration = Duration::from_millis(2);
/// Most events in a batch.
const BATCH: usize = 16_384;
/// Events on their way from the watches.
const QUEUE: usize = 4_096;

/// Runs until a signal.
///
/// # Errors
/// Whatever keeps the agent from starting. An API server that is away does not.
pub fn run(args: RunArgs) -> anyhow::Result<()> {
    let datapath = datapath::start(&args.place, &args.devices, &args.sizes, &args.timeouts)
        .context("the data path can't be started; `proxy-agent check` says what is missing")?;
    let datapath = Arc::new(datapath);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = runtime.block_on(follow(&args, &datapath));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn follow(args: &RunArgs, datapath: &Arc<Datapath>) -> anyhow::Result<()> {
    let status = StatusHandle::default();
    let mut agent = adopt(args, datapath, status.clone())?;
    let client = watch::client::connect(&args.kube).await?;
    let sources = Sources {
        status: status.clone(),
        datapath: Arc::clone(datapath),
        state_dir: args.place.state_dir.clone(),
    };
    let mut serving = pin!(serve::serve(
        args.healthz_bind_address,
        args.metrics_bind_address,
        sources
    ));
    let (send, mut events) = mpsc::channel(QUEUE);
    let addresses = interfaces::addresses().context("the addresses of interfaces can't be read")?;
    agent.handle([Event::InterfaceAddresses(addresses.clone())], Instant::now());
    let options = watch::Options {
        node_name: args.node_name.clone(),
        proxy_name: args.service_proxy_name.clone(),
    };
    let mut watches = watch::start(&client, &options, &send);
    watches.spawn(interfaces::follow(addresses, send));
    let mut reporter = Reporter::new(client, &args.node_name);
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut compare = tokio::time::interval(args.compare_period.max(Duration::from_secs(1)));
    compare.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    compare.reset();

    let mut batch = Vec::new();
    let mut names = NamesFile::new(args.place.state_dir.clone());
    loop {
        let due = agent.next_tick(Instant::now()).into_iter().chain(names.due()).min();
        let tick = OptionFuture::from(due.map(|due| sleep_until(due.into())));
        let outcome = tokio::select! {
            received = events.recv_many(&mut batch, BATCH) => {
                anyhow::ensure!(received > 0, "the watches have ended");
                gather(&mut batch, &mut events).await;
                agent.handle(batch.drain(..), Instant::now())
            }
            Some(()) = tick => agent.tick(Instant::now()),
            _ = compare.tick(), if !args.compare_period.is_zero() => {
                agent.compare(Instant::now());
                Outcome::default()
            }
            ended = &mut serving => return Ok(ended?),
            _ = term.recv() => break,
            _ = int.recv() => break,
        };
        tell(outcome, args, datapath);
        reporter.report(&status.get().problems, agent.model());
        names.follow(agent.planner(), Instant::now());
    }
    tracing::info!("stopping; programs and maps stay and go on");
    Ok(())
}

fn adopt(args: &RunArgs, datapath: &Datapath, status: StatusHandle) -> anyhow::Result<Agent<KernelMaps>> {
    let policy = Policy {
        algorithm: args.algorithm,
        masquerade_all: args.masquerade_all,
        node_port_addresses: args.node_port_addresses.clone(),
    };
    let agent = Agent::new(&args.node_name, policy, datapath.maps()?, status).context("the maps can't be adopted")?;
    let tables = agent.planner().tables();
    tracing::info!(
        services = tables.services.len(),
        frontends = tables.frontends.len(),
        "serving what the maps hold; waiting for the API server's lists"
    );
    Ok(agent)
}

/// Adds what arrives while the first events of a batch wait.
async fn gather(batch: &mut Vec<Event>, events: &mut mpsc::Receiver<Event>) {
    sleep(COALESCE).await;
    while batch.len() < BATCH
        && let Ok(event) = events.try_recv()
    {
        batch.push(event);
    }
}

fn tell(outcome: Outcome, args: &RunArgs, datapath: &Datapath) {
    if let Some(node) = outcome.node
        && let Err(error) = datapath.set_node(node_config(&node, args))
    {
        tracing::error!(%error, "the node's addresses can't be written to map NODE_CONFIG");
    }
    if !outcome.gone.is_empty() {
        datapath.backends_gone(outcome.gone);
    }
}

/// What the programs must know of the node; [`Datapath::set_node`] adds the namespace's cookie.
fn node_config(node: &Node, args: &RunArgs) -> NodeConfig {
    NodeConfig {
        snat_v4: node.primary_v4().map_or(Addr::UNSPECIFIED, Addr::from),
        snat_v6: node.primary_v6().map_or(Addr::UNSPECIFIED, Addr::from),
        hairpin_v4: Addr::from(std::net::IpAddr::V4(args.hairpin_v4)),
        hairpin_v6: Addr::from(std::net::IpAddr::V6(args.hairpin_v6)),
        host_netns_cookie: 0,
        snat_port_min: args.snat_ports.first,
        snat_port_max: args.snat_ports.last,
        pad: 0,
    }
}
