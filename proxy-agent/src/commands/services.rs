//! `proxy-agent services`: the service ports in the maps, what leads to them and how many backends they have. Called by
//! `main`.

use std::net::{IpAddr, SocketAddr};

use proxy_ebpf::abi::{Frontend, FrontendKey, PROTO_TCP, PROTO_UDP, ServiceCounters};
use serde_json::{Value, json};

use super::{names::Names, table};
use crate::{
    config::{ShowArgs, algorithm_name},
    datapath::{
        pins::Pins,
        view::{ServiceView, View},
    },
};

/// Prints the services.
///
/// # Errors
/// There are no maps, or they can't be read.
pub fn run(args: ShowArgs) -> anyhow::Result<()> {
    let view = View::open(&Pins::new(&args.place.bpffs))?;
    let names = Names::read(&args.place.state_dir);
    let services = view.services()?;
    let ids: Vec<_> = services.iter().map(|service| service.id).collect();
    let traffic = view.traffic(&ids)?;
    let lines: Vec<_> = services.iter().zip(&traffic).collect();
    let rows: Vec<_> = lines
        .iter()
        .map(|(service, traffic)| row(service, traffic, &names))
        .collect();
    let all: Vec<_> = lines
        .iter()
        .map(|(service, traffic)| describe(service, traffic, &names))
        .collect();
    let titles = [
        "ID",
        "SERVICE",
        "ALGORITHM",
        "BACKENDS",
        "LOCAL",
        "CONNECTIONS",
        "REFUSED",
        "FRONTENDS",
    ];
    table::print(args.output, titles, &rows, &all)
}

fn row(service: &ServiceView, traffic: &ServiceCounters, names: &Names) -> [String; 8] {
    let frontends = service
        .frontends
        .iter()
        .map(|(key, frontend)| show_frontend(key, *frontend));
    [
        service.id.0.to_string(),
        names.show(service.id),
        algorithm_name(service.service.algorithm).into(),
        service.backends.len().to_string(),
        service.local.len().to_string(),
        traffic.connections.to_string(),
        traffic.refused.to_string(),
        frontends.collect::<Vec<_>>().join(" "),
    ]
}

fn describe(service: &ServiceView, traffic: &ServiceCounters, names: &Names) -> Value {
    let frontends = service.frontends.iter().map(|(key, frontend)| {
        json!({
            "address": IpAddr::from(key.addr),
            "port": key.port.get(),
            "protocol": protocol(key.proto),
            "kind": kind(*frontend),
        })
    });
    json!({
        "id": service.id.0,
        "service": names.show(service.id),
        "algorithm": algorithm_name(service.service.algorithm),
        "affinitySeconds": service.service.affinity_secs,
        "backends": service.backends.iter().map(|id| id.0).collect::<Vec<_>>(),
        "localBackends": service.local.iter().map(|id| id.0).collect::<Vec<_>>(),
        "frontends": frontends.collect::<Vec<_>>(),
        "connections": traffic.connections,
        "packets": traffic.packets,
        "bytes": traffic.bytes,
        "refused": traffic.refused,
    })
}

fn show_frontend(key: &FrontendKey, frontend: Frontend) -> String {
    let address = SocketAddr::new(key.addr.into(), key.port.get());
    format!("{}:{address}/{}", kind(frontend), protocol(key.proto))
}

fn kind(frontend: Frontend) -> &'static str {
    match frontend.kind {
        Frontend::CLUSTER_IP => "ClusterIP",
        Frontend::NODE_PORT => "NodePort",
        Frontend::LOAD_BALANCER => "LoadBalancer",
        Frontend::EXTERNAL_IP => "ExternalIP",
        _ => "unknown",
    }
}

/// The name of an IANA protocol number, as Kubernetes writes it.
pub(super) fn protocol(number: u8) -> String {
    match number {
        PROTO_TCP => "TCP".into(),
        PROTO_UDP => "UDP".into(),
        132 => "SCTP".into(),
        other => other.to_string(),
    }
}
