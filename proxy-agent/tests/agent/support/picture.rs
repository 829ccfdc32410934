//! What maps hold, as text that doesn't depend on ids, and as text that shows them.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use proxy_agent::{config::algorithm_name, maps::Maps, maps::memory::MemoryMaps};
use proxy_ebpf::abi::{Backend, BackendId, Frontend, FrontendKey, Run, ServiceId, StateGeneration};

fn address(key: &FrontendKey) -> String {
    format!(
        "{}/{}",
        SocketAddr::new(IpAddr::from(key.addr), key.port.get()),
        protocol(key.proto)
    )
}

fn protocol(number: u8) -> &'static str {
    match number {
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        _ => "?",
    }
}

fn kind(frontend: &Frontend) -> String {
    let kind = match frontend.kind {
        Frontend::CLUSTER_IP => "cluster-ip",
        Frontend::NODE_PORT => "node-port",
        Frontend::LOAD_BALANCER => "load-balancer",
        Frontend::EXTERNAL_IP => "external-ip",
        _ => "?",
    };
    let flags = [
        (Frontend::EXTERNAL_LOCAL, " external-local"),
        (Frontend::INTERNAL_LOCAL, " internal-local"),
        (Frontend::HOST_ONLY, " host-only"),
    ];
    let set = flags
        .iter()
        .filter(|(bit, _)| frontend.flags & bit != 0)
        .map(|(_, name)| *name);
    kind.to_owned() + &set.collect::<String>()
}

fn backend(backend: &Backend) -> String {
    let state = match backend.state.state() {
        StateGeneration::ACTIVE => "active",
        StateGeneration::DRAINING => "draining",
        _ => "dead",
    };
    let place = if backend.flags & Backend::LOCAL != 0 {
        " local"
    } else {
        ""
    };
    let proto = protocol((backend.flags >> 8) as u8);
    format!(
        "{}/{proto} {state}{place}",
        SocketAddr::new(backend.addr.into(), backend.port.get())
    )
}

/// Without ids: for each frontend what a packet to it meets. Services are told apart by their first frontend.
pub(crate) fn meaning(maps: &MemoryMaps) -> String {
    let mut text = String::new();
    let mut first: BTreeMap<ServiceId, String> = BTreeMap::new();
    for (key, frontend) in maps.frontends().expect("read") {
        let name = first.entry(frontend.service).or_insert_with(|| address(&key)).clone();
        let service = maps.service(frontend.service);
        let run = |run: Run| {
            let slots = maps.slots(run).expect("read");
            slots
                .iter()
                .map(|id| backend(&maps.backend(*id)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        writeln!(
            text,
            "{} {} of {name}: {} affinity {} flags {} all [{}] local [{}]",
            address(&key),
            kind(&frontend),
            algorithm_name(service.algorithm),
            service.affinity_secs,
            service.flags,
            run(service.all),
            run(service.local),
        )
        .expect("text");
    }
    writeln!(text, "owned {:?}", maps.owned_addrs().expect("read")).expect("text");
    text
}

/// With ids: the maps one by one.
pub(crate) fn dump(maps: &MemoryMaps) -> String {
    let mut text = String::from("FRONTENDS\n");
    for (key, frontend) in maps.frontends().expect("read") {
        writeln!(
            text,
            "  {} {} -> service {}",
            address(&key),
            kind(&frontend),
            frontend.service.0
        )
        .expect("text");
    }
    writeln!(text, "OWNED_ADDRS\n  {:?}\nSERVICES", maps.owned_addrs().expect("read")).expect("text");
    for (id, service) in maps.services().expect("read") {
        let runs = format!("all {} local {}", run(maps, service.all), run(maps, service.local));
        let affinity = if service.affinity_secs > 0 {
            format!(" affinity {}", service.affinity_secs)
        } else {
            String::new()
        };
        let masquerade = if service.flags > 0 {
            format!(" flags {}", service.flags)
        } else {
            String::new()
        };
        let name = algorithm_name(service.algorithm);
        writeln!(
            text,
            "  {} {name} {runs}{affinity}{masquerade} generation {}",
            id.0, service.generation
        )
        .expect("text");
    }
    text.push_str("BACKENDS\n");
    for (id, entry) in maps.backends().expect("read") {
        writeln!(
            text,
            "  {} {} generation {}",
            id.0,
            backend(&entry),
            entry.state.generation()
        )
        .expect("text");
    }
    text
}

/// A run: its slots if they are few, else how many each backend has.
fn run(maps: &MemoryMaps, run: Run) -> String {
    let slots = maps.slots(run).expect("read");
    if slots.len() <= 16 {
        let ids: Vec<_> = slots.iter().map(|id| id.0).collect();
        return format!("{ids:?}");
    }
    let mut shares: BTreeMap<BackendId, usize> = BTreeMap::new();
    for id in &slots {
        *shares.entry(*id).or_default() += 1;
    }
    let shares: Vec<_> = shares.iter().map(|(id, n)| format!("{n} x {}", id.0)).collect();
    format!("[table of {}: {}]", slots.len(), shares.join(", "))
}
