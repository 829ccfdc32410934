//! The HTTPS server: listeners, TLS, HTTP/1.1 and HTTP/2, and an orderly end.
//!
//! [`serve`] is called once by [`crate::run`]. Every connection is a task; its requests go to [`super::handlers`]. When
//! the shutdown token is cancelled nothing new is accepted, watches end, requests under way get their answers, and
//! after a grace period the rest is dropped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::auth::{self, Tokens};
use super::handlers::{Api, Connection};
use super::registry::Registry;

/// A client that has not finished its handshake or its headers by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(30);
/// How often an HTTP/2 peer is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// How long requests under way may take once the server stops.
const GRACE: Duration = Duration::from_secs(10);
/// How long to wait before accepting again after a failure such as "too many open files".
const PAUSE: Duration = Duration::from_millis(100);
const STREAMS_PER_CONNECTION: u32 = 1000;

/// What a server needs to know beyond its parts.
#[derive(Clone)]
pub struct ServeOptions {
    /// Known bearer tokens.
    pub tokens: Tokens,
    /// Reading requests worked on at the same time (default 400).
    pub max_reading: usize,
    /// Writing requests worked on at the same time (default 200).
    pub max_writing: usize,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            tokens: Tokens::default(),
            max_reading: 400,
            max_writing: 200,
        }
    }
}

/// Serves the API of `registry` on all `listeners` until `shutdown` is cancelled. `tls` says which client certificates
/// count; a client may also have none and bring a token.
pub async fn serve(
    listeners: Vec<TcpListener>,
    mut tls: ServerConfig,
    registry: Registry,
    options: ServeOptions,
    shutdown: CancellationToken,
) -> io::Result<()> {
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let in_flight = (options.max_reading, options.max_writing);
    let server = Arc::new(Server {
        acceptor: TlsAcceptor::from(Arc::new(tls)),
        api: Arc::new(Api::new(registry, options.tokens, in_flight, shutdown.clone())),
        shutdown: shutdown.clone(),
    });
    // Each connection holds a sender; when the last is gone, so are the connections.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let accepting = listeners
        .into_iter()
        .map(|listener| Arc::clone(&server).accept(listener, open.clone()));
    future::join_all(accepting).await;
    drop(open);
    if tokio::time::timeout(GRACE, all_closed.recv()).await.is_err() {
        tracing::warn!("connections were still open at the end of the grace period");
    }
    Ok(())
}

struct Server {
    acceptor: TlsAcceptor,
    api: Arc<Api>,
    shutdown: CancellationToken,
}

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener, open: mpsc::Sender<()>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.shutdown.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let (server, open) = (Arc::clone(&self), open.clone());
                    tokio::spawn(async move {
                        let _open = open;
                        if let Err(error) = server.connection(stream).await {
                            tracing::debug!(%peer, error = &*error, "the connection ended early");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn connection(&self, stream: TcpStream) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        stream.set_nodelay(true)?;
        let local = stream.local_addr().ok();
        let stream = tokio::time::timeout(HANDSHAKE, self.acceptor.accept(stream)).await??;
        let certificate = certificate_owner(&stream);
        let about = Connection { certificate, local };
        let service = service_fn(move |request| {
            let (api, about) = (Arc::clone(&self.api), about.clone());
            async move { Ok::<_, std::convert::Infallible>(api.answer(about, request).await) }
        });
        let http = http();
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = self.shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        // Past the grace period the process goes anyway; a client that never reads must not hold it up.
        tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
    }
}

fn certificate_owner(stream: &TlsStream<TcpStream>) -> Option<auth::Identity> {
    let (_, session) = stream.get_ref();
    auth::identity_of(session.peer_certificates()?.first()?)
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_PER_CONNECTION);
    http
}
