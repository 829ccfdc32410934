//! `control serve` and `control kubeconfig`: the parts put together, started, and stopped in good order.
//!
//! Called by `main`. Start: addresses are bound and the store opened first, so that what cannot work fails at once; then
//! certificates, the objects every cluster has (`bootstrap`), controllers, the API. Stop: the API ends its requests and
//! watches, the controllers their loops, and the last handle closes the store.

mod bootstrap;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api::{self, Registry};
use crate::config::{self, ConfigError, Kubeconfig, Serve};
use crate::controllers;
use crate::pki::{self, Pki, PkiError};
use crate::store::{Options, Store, StoreError};

const ADMIN: &str = "kubernetes-admin";

/// Why `control` could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A flag.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An address to listen on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store.
    #[error("cannot open the store")]
    Store(#[from] StoreError),
    /// The certificates.
    #[error("cannot prepare the certificates")]
    Pki(#[from] PkiError),
    /// A file to write.
    #[error("cannot make {path}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server stopped by itself.
    #[error("the API server stopped")]
    Server(#[source] io::Error),
    /// Signals cannot be waited for.
    #[error("cannot listen to signals")]
    Signal(#[source] io::Error),
}

/// Runs the control plane until SIGTERM or SIGINT.
///
/// # Errors
/// See [`RunError`]; nothing is left half-started.
pub async fn serve(serve: &Serve) -> Result<(), RunError> {
    let shutdown = CancellationToken::new();
    let stopping = stop_on_signal(shutdown.clone())?;
    let ranges = serve.ranges()?;
    let advertised = serve.advertised()?;
    let listeners = bind(&serve.bind).await?;
    let port = listeners
        .first()
        .and_then(|listener| listener.local_addr().ok())
        .map_or(0, |address| address.port());
    let server = serve.server_url(advertised, port)?;
    let store = Store::open(&serve.data_dir.join("store"), Options::default())?;
    let pki = Pki::open_or_create(&serve.data_dir)?;
    let tls = pki.server_config(&serve.subject_names(advertised, &ranges))?;
    let registry = Registry::new(store, ranges.clone());
    bootstrap::ensure(&registry, &ranges, SocketAddr::new(advertised, port)).await;
    let mut loops = controllers::spawn(&registry, &shutdown);
    write_admin_kubeconfig(serve, &pki, &server)?;
    tracing::info!(%server, revision = registry.store().revision(), data = %serve.data_dir.display(), "ready");
    let served = api::serve(listeners, tls, registry, api::ServeOptions::default(), shutdown.clone()).await;
    shutdown.cancel();
    while let Some(ended) = loops.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a controller failed");
        }
    }
    stopping.abort();
    served.map_err(RunError::Server)
}

/// Writes a kubeconfig with a new client certificate.
///
/// # Errors
/// See [`RunError`].
pub fn kubeconfig(wanted: &Kubeconfig) -> Result<(), RunError> {
    let server = config::check_url(&wanted.server)?;
    let pki = Pki::open(&wanted.data_dir)?;
    let credentials = pki.client(&wanted.user, wanted.group.as_deref())?;
    let text = pki.kubeconfig(&server, &wanted.user, &credentials)?;
    match &wanted.out {
        Some(path) => Ok(pki::write_private(path, &text)?),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

fn stop_on_signal(shutdown: CancellationToken) -> Result<tokio::task::JoinHandle<()>, RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signal)?;
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM, stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT, stopping"),
        }
        shutdown.cancel();
    }))
}

async fn bind(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, RunError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    for &address in addresses {
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.map_err(|source| RunError::Bind { address, source })?);
    }
    Ok(listeners)
}

fn write_admin_kubeconfig(serve: &Serve, pki: &Pki, server: &str) -> Result<(), RunError> {
    let text = pki.kubeconfig(server, ADMIN, &pki.admin()?)?;
    let own = serve.data_dir.join("admin.kubeconfig");
    pki::write_private(&own, &text)?;
    if let Some(path) = serve.kubeconfig_out.as_deref().filter(|path| *path != own) {
        make_parent(path)?;
        pki::write_private(path, &text)?;
    }
    Ok(())
}

fn make_parent(path: &Path) -> Result<(), RunError> {
    match path.parent() {
        Some(dir) => std::fs::create_dir_all(dir).map_err(|source| RunError::File {
            path: dir.into(),
            source,
        }),
        None => Ok(()),
    }
}
