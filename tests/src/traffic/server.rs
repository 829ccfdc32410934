//! `lab serve`: an HTTP server, and a UDP server, that answer with the Pod's name and the client's address.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::get;
use tokio::net::{TcpListener, UdpSocket};

/// What `lab serve` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Serve {
    /// The name it answers with.
    #[arg(long)]
    pub name: String,
    /// TCP ports to serve HTTP on, both families.
    #[arg(long)]
    pub tcp: Vec<u16>,
    /// UDP ports to answer datagrams on, both families.
    #[arg(long)]
    pub udp: Vec<u16>,
    /// Wait this long before each HTTP answer: a slow backend, which holds its connections.
    #[arg(long, default_value_t = 0)]
    pub delay_ms: u64,
}

/// Serves until killed. Prints `ready` once every port is bound.
///
/// # Errors
/// If a port can't be bound; names it.
pub async fn run(serve: Serve) -> Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for port in &serve.tcp {
        let listener = TcpListener::bind(("::", *port))
            .await
            .with_context(|| format!("can't listen on TCP {port}"))?;
        let service = router(&serve).into_make_service_with_connect_info::<SocketAddr>();
        tasks.spawn(async move { axum::serve(listener, service).await.context("HTTP server") });
    }
    for port in &serve.udp {
        // A reply must leave from the address the datagram came to; with one address per family and Pod it does.
        let socket = UdpSocket::bind(("::", *port))
            .await
            .with_context(|| format!("can't listen on UDP {port}"))?;
        tasks.spawn(answer_datagrams(socket, serve.name.clone()));
    }
    println!("ready");
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

fn router(serve: &Serve) -> Router {
    let Serve { name, delay_ms, .. } = serve.clone();
    let answer = move |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
        if delay_ms > 0 {
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
        answer_text(&name, peer)
    };
    Router::new().route("/", get(answer))
}

async fn answer_datagrams(socket: UdpSocket, name: String) -> Result<()> {
    let mut buffer = [0; 2048];
    loop {
        // A port unreachable for an earlier answer is reported here; it concerns a client that left.
        if let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
            socket.send_to(answer_text(&name, peer).as_bytes(), peer).await.ok();
        }
    }
}

fn answer_text(name: &str, peer: SocketAddr) -> String {
    format!("{name} {} {}\n", peer.ip().to_canonical(), peer.port())
}
