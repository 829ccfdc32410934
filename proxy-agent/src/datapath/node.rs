//! Writes `NODE_CONFIG`: what the programs must know of their node. Called by [`start`](super::start), before the Node
//! object is known, and by [`run`](crate::run) through [`Datapath::set_node`](super::Datapath::set_node) once it is.

use std::io;

use proxy_ebpf::abi::NodeConfig;
use tracing::warn;

use super::{
    bpf::{self, TypedMap},
    netns,
    pins::Pins,
};

/// Where the kernel says which ports it gives to sockets that ask for none.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Fills in the cookie of the agent's namespace, whose sockets may use node ports on 127.0.0.1; the rest stays as an
/// earlier run wrote it, so that a restart without an API server changes nothing.
///
/// # Errors
/// The kernel's.
pub fn ensure(pins: &Pins) -> io::Result<()> {
    let map = open(pins)?;
    let present = map.get(&0)?.unwrap_or_default();
    write(&map, present)
}

/// Replaces the configuration.
///
/// # Errors
/// The kernel's.
pub fn set(pins: &Pins, config: NodeConfig) -> io::Result<()> {
    warn_of_local_ports(config.snat_port_min, config.snat_port_max);
    write(&open(pins)?, config)
}

fn open(pins: &Pins) -> io::Result<TypedMap<u32, NodeConfig>> {
    TypedMap::new(bpf::open_pinned(&pins.map("NODE_CONFIG"))?)
}

fn write(map: &TypedMap<u32, NodeConfig>, config: NodeConfig) -> io::Result<()> {
    map.set(
        &0,
        &NodeConfig {
            host_netns_cookie: netns::cookie()?,
            ..config
        },
        bpf::ANY,
    )
}

/// A connection of the node's own and a masqueraded one may then share a tuple, and the replies of one go to the other.
fn warn_of_local_ports(first: u16, last: u16) {
    let Ok(text) = std::fs::read_to_string(LOCAL_PORTS) else {
        return;
    };
    if let Some((local_first, local_last)) = parse_range(&text)
        && first <= local_last
        && local_first <= last
    {
        warn!(
            masquerading = format!("{first}-{last}"),
            local = format!("{local_first}-{local_last}"),
            "masquerading uses source ports that the node's own connections use: set --snat-ports beside net.ipv4.ip_local_port_range"
        );
    }
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let mut ports = text.split_whitespace().map(str::parse);
    Some((ports.next()?.ok()?, ports.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_range_is_read() {
        assert_eq!(parse_range("32768\t60999\n"), Some((32768, 60999)));
        assert_eq!(parse_range(""), None);
    }
}
