//! `proxy-agent flows`: the flows tracked by the packet path. Connections made on the socket path are the kernel's own and
//! not here; `backends` counts both. Called by `main`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use clap::Args;
use proxy_ebpf::abi::{FlowEntry, FlowKey};
use serde_json::{Value, json};

use super::{names::Names, services::protocol, table};
use crate::{
    config::ShowArgs,
    datapath::{bpf, pins::Pins, view::View},
};

/// `proxy-agent flows`.
#[derive(Clone, Debug, Args)]
pub struct FlowsArgs {
    /// What all such commands take.
    #[command(flatten)]
    pub show: ShowArgs,
    /// Only flows of Services whose namespace/name:port contains this
    #[arg(long, value_name = "TEXT")]
    pub service: Option<String>,
    /// Only flows of this client
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<IpAddr>,
}

/// Prints the flows, one line each: the half that goes from the client to the backend, or what is left of a flow.
///
/// # Errors
/// There are no maps, or they can't be read.
pub fn run(args: FlowsArgs) -> anyhow::Result<()> {
    let view = View::open(&Pins::new(&args.show.place.bpffs))?;
    let names = Names::read(&args.show.place.state_dir);
    let wanted = |flow: &Flow| {
        args.client.is_none_or(|client| flow.client.ip() == client)
            && args.service.as_ref().is_none_or(|text| flow.service.contains(text))
    };
    let entries = view.flows()?;
    let mut flows: Vec<_> = entries
        .iter()
        .filter(|(_, entry)| entry.flags & FlowEntry::REPLY == 0)
        .map(|(key, entry)| Flow::new(key, entry, &names))
        .filter(wanted)
        .collect();
    flows.sort_by(|a, b| (&a.service, a.client).cmp(&(&b.service, b.client)));
    let rows: Vec<_> = flows.iter().map(Flow::row).collect();
    let all: Vec<_> = flows.iter().map(Flow::describe).collect();
    table::print(
        args.show.output,
        ["SERVICE", "PROTO", "CLIENT", "FRONTEND", "BACKEND", "STATE", "IDLE"],
        &rows,
        &all,
    )
}

/// A flow, from its client's side.
#[derive(Debug)]
struct Flow {
    service: String,
    protocol: String,
    client: SocketAddr,
    frontend: SocketAddr,
    backend: SocketAddr,
    state: String,
    idle: Duration,
}

impl Flow {
    fn new(key: &FlowKey, entry: &FlowEntry, names: &Names) -> Self {
        let to = &entry.translated;
        Self {
            service: names.show(entry.service),
            protocol: protocol(key.proto),
            client: SocketAddr::new(key.src.into(), key.sport.get()),
            frontend: SocketAddr::new(key.dst.into(), key.dport.get()),
            backend: SocketAddr::new(to.dst.into(), to.dport.get()),
            state: state(entry.flags),
            idle: Duration::from_nanos(bpf::coarse_clock().saturating_sub(entry.last_seen)),
        }
    }

    fn row(&self) -> [String; 7] {
        [
            self.service.clone(),
            self.protocol.clone(),
            self.client.to_string(),
            self.frontend.to_string(),
            self.backend.to_string(),
            self.state.clone(),
            format!("{}s", self.idle.as_secs()),
        ]
    }

    fn describe(&self) -> Value {
        json!({
            "service": self.service,
            "protocol": self.protocol,
            "client": self.client,
            "frontend": self.frontend,
            "backend": self.backend,
            "state": self.state,
            "idleSeconds": self.idle.as_secs_f64(),
        })
    }
}

fn state(flags: u32) -> String {
    let names = [
        (FlowEntry::CLOSED, "closed"),
        (FlowEntry::FIN_CLIENT, "client-fin"),
        (FlowEntry::FIN_BACKEND, "backend-fin"),
        (FlowEntry::REPLIED, "replied"),
        (FlowEntry::SNAT, "masqueraded"),
        (FlowEntry::HAIRPIN, "hairpin"),
    ];
    let set: Vec<_> = names
        .iter()
        .filter(|(flag, _)| flags & flag != 0)
        .map(|(_, name)| *name)
        .collect();
    if set.is_empty() { "new".into() } else { set.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_names_every_flag_that_matters() {
        assert_eq!(state(0), "new");
        assert_eq!(state(FlowEntry::FROM_UPLINK), "new");
        assert_eq!(state(FlowEntry::REPLIED | FlowEntry::SNAT), "replied,masqueraded");
    }
}
