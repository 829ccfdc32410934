//! What others ask the agent by HTTP, at kube-proxy's addresses and with kube-proxy's answers: `/healthz` and `/livez`,
//! `/metrics` and `/proxyMode`, and a server per `healthCheckNodePort`.
//!
//! [`run`](crate::run) starts [`serve`] beside its loop and shares what it knows through [`Sources`]; nothing here changes
//! anything. [`health`] and [`metrics`] compose the answers, [`health_ports`] follows
//! the Services; figures come from the maps through [`view`](crate::datapath::view).

pub mod health;
pub mod health_ports;
pub mod metrics;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
};

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use tokio::net::TcpListener;

use crate::{datapath::Datapath, run::status::StatusHandle};

/// Where the answers come from.
#[derive(Clone)]
pub struct Sources {
    /// What the loop of [`run`](crate::run) says of itself.
    pub status: StatusHandle,
    /// The data path.
    pub datapath: Arc<Datapath>,
    /// Where the names of Services are ([`names`](crate::commands::names)).
    pub state_dir: PathBuf,
}

/// Why the servers don't run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address can't be listened on.
    #[error("{flag} {address} can't be listened on: choose another address, or stop what listens there")]
    Bind {
        /// The flag that names it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// A server ended.
    #[error("the server of {flag} ended")]
    Ended {
        /// The flag that names its address.
        flag: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

const HEALTHZ: &str = "--healthz-bind-address";
const METRICS: &str = "--metrics-bind-address";

/// How often a probe was answered with 200 and with 503.
#[derive(Debug, Default)]
pub(crate) struct Probes {
    healthz: [AtomicU64; 2],
    livez: [AtomicU64; 2],
}

#[derive(Clone)]
struct App {
    sources: Sources,
    probes: Arc<Probes>,
}

/// Serves probes at `healthz` and scrapes at `metrics`, and follows the Services' health check ports, until one fails.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(healthz: SocketAddr, metrics: SocketAddr, sources: Sources) -> Result<(), ServeError> {
    let probes = bind(HEALTHZ, healthz).await?;
    let scrapes = bind(METRICS, metrics).await?;
    let status = sources.status.clone();
    let app = App {
        sources,
        probes: Arc::default(),
    };
    tokio::select! {
        ended = axum::serve(probes, probe_routes(app.clone())) => end(HEALTHZ, ended),
        ended = axum::serve(scrapes, scrape_routes(app)) => end(METRICS, ended),
        () = health_ports::follow(status) => Ok(()),
    }
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Bind { flag, address, source })
}

fn end(flag: &'static str, ended: io::Result<()>) -> Result<(), ServeError> {
    ended.map_err(|source| ServeError::Ended { flag, source })
}

fn probe_routes(app: App) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .with_state(app)
}

fn scrape_routes(app: App) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/proxyMode", get(|| async { "ebpf" }))
        .route("/healthz", get(|| async { "ok" }))
        .with_state(app)
}

async fn healthz(State(app): State<App>) -> impl IntoResponse {
    health::healthz(&app.sources.status.get()).counted(&app.probes.healthz)
}

async fn livez(State(app): State<App>) -> impl IntoResponse {
    health::livez(&app.sources.status.get()).counted(&app.probes.livez)
}

async fn scrape(State(app): State<App>) -> impl IntoResponse {
    // Reading maps blocks for some milliseconds.
    let text = tokio::task::spawn_blocking(move || metrics::scrape(&app.sources, &app.probes)).await;
    (
        [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)],
        text.unwrap_or_default(),
    )
}
