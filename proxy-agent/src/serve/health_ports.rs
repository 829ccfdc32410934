//! A server on every `healthCheckNodePort`: load balancers ask there whether this node has endpoints of the Service.
//! Started by [`serve`](super::serve); follows what the [status](crate::run::status) lists.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle, time};
use tracing::{info, warn};

use crate::run::status::{HealthPort, Status, StatusHandle};

/// How soon a new Service's port is listened on.
const LOOK: Duration = Duration::from_millis(500);

/// Opens and closes servers as Services come and go; never returns.
pub async fn follow(status: StatusHandle) {
    let mut servers: BTreeMap<u16, Option<JoinHandle<()>>> = BTreeMap::new();
    loop {
        let wanted: Vec<u16> = status.get().health_ports.iter().map(|port| port.port).collect();
        servers.retain(|port, server| {
            let keep = wanted.contains(port);
            if let (false, Some(server)) = (keep, server) {
                server.abort();
            }
            keep
        });
        for port in wanted {
            if let Entry::Vacant(entry) = servers.entry(port) {
                entry.insert(open(port, status.clone()).await);
            }
        }
        time::sleep(LOOK).await;
    }
}

/// `None` if the port is taken, which is logged once; it is not tried again while the Service has it.
async fn open(port: u16, status: StatusHandle) -> Option<JoinHandle<()>> {
    let listener = match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Ok(listener) => listener,
        Err(error) => {
            warn!(port, %error, "a health check node port can't be listened on: load balancers won't send to this node");
            return None;
        }
    };
    info!(port, "health check node port opened");
    let routes = Router::new().fallback(get(answer)).with_state((port, status));
    Some(tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            warn!(port, %error, "a health check node port's server ended");
        }
    }))
}

async fn answer(State((port, status)): State<(u16, StatusHandle)>) -> Response {
    let status = status.get();
    match status.health_ports.iter().find(|service| service.port == port) {
        Some(service) => describe(service, &status),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// kube-proxy's answer, headers included: some load balancers weigh nodes by them.
fn describe(service: &HealthPort, status: &Status) -> Response {
    let healthy = status.synced && !status.node_terminating;
    let code = if healthy && service.local_endpoints > 0 {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "service": { "namespace": service.namespace, "name": service.name },
        "localEndpoints": service.local_endpoints,
        "serviceProxyHealthy": healthy,
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (
            header::HeaderName::from_static("x-load-balancing-endpoint-weight"),
            service.local_endpoints.to_string(),
        ),
    ];
    (code, headers, body.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(local_endpoints: usize, synced: bool) -> StatusCode {
        let service = HealthPort {
            namespace: "shop".into(),
            name: "web".into(),
            port: 1,
            local_endpoints,
        };
        describe(
            &service,
            &Status {
                synced,
                ..Status::default()
            },
        )
        .status()
    }

    #[test]
    fn a_node_without_endpoints_of_the_service_asks_for_no_traffic() {
        assert_eq!(code(2, true), StatusCode::OK);
        assert_eq!(code(0, true), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(code(2, false), StatusCode::SERVICE_UNAVAILABLE);
    }
}
