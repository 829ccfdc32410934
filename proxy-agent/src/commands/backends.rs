//! `proxy-agent backends`: the backends in the maps, their state, who uses them and how many flows they have open. Called
//! by `main`.

use std::{collections::BTreeMap, net::SocketAddr};

use proxy_ebpf::abi::{Backend, BackendId, StateGeneration};
use serde_json::json;

use super::{names::Names, table};
use crate::{
    config::ShowArgs,
    datapath::{
        pins::Pins,
        view::{BackendView, View},
    },
};

/// Prints the backends that are alive, and those that still have flows.
///
/// # Errors
/// There are no maps, or they can't be read.
pub fn run(args: ShowArgs) -> anyhow::Result<()> {
    let view = View::open(&Pins::new(&args.place.bpffs))?;
    let names = Names::read(&args.place.state_dir);
    let mut users: BTreeMap<BackendId, Vec<String>> = BTreeMap::new();
    for service in view.services()? {
        for backend in &service.backends | &service.local {
            users.entry(backend).or_default().push(names.show(service.id));
        }
    }
    let is_shown = |view: &BackendView| view.backend.state.state() != StateGeneration::DEAD || view.open > 0;
    let backends: Vec<_> = view.backends()?.into_iter().filter(is_shown).collect();
    let users = |view: &BackendView| users.get(&view.id).cloned().unwrap_or_default();
    let rows: Vec<_> = backends.iter().map(|view| row(view, &users(view))).collect();
    let all: Vec<_> = backends
        .iter()
        .map(|view| {
            json!({
                "id": view.id.0,
                "address": address(view).ip(),
                "port": address(view).port(),
                "state": state(view),
                "generation": view.backend.state.generation(),
                "local": is_local(view),
                "openFlows": view.open,
                "openedFlows": view.opened,
                "services": users(view),
            })
        })
        .collect();
    table::print(
        args.output,
        ["ID", "BACKEND", "STATE", "LOCAL", "OPEN", "OPENED", "SERVICES"],
        &rows,
        &all,
    )
}

fn row(view: &BackendView, users: &[String]) -> [String; 7] {
    [
        view.id.0.to_string(),
        address(view).to_string(),
        state(view).into(),
        if is_local(view) { "yes" } else { "no" }.into(),
        view.open.to_string(),
        view.opened.to_string(),
        users.join(" "),
    ]
}

fn address(view: &BackendView) -> SocketAddr {
    SocketAddr::new(view.backend.addr.into(), view.backend.port.get())
}

fn is_local(view: &BackendView) -> bool {
    view.backend.flags & Backend::LOCAL != 0
}

fn state(view: &BackendView) -> &'static str {
    match view.backend.state.state() {
        StateGeneration::ACTIVE => "active",
        StateGeneration::DRAINING => "draining",
        _ => "dead",
    }
}
