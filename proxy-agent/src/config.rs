//! The command line, parsed once into typed values. `main` calls [`Cli::parse`](clap::Parser::parse); everything behind
//! it takes the types of this module and never a string.

mod values;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use proxy_ebpf::abi::{Algorithm, maps as specs};

pub use values::{Cidr, DevicePattern, NodePortAddresses, PortRange, algorithm_name, parse_algorithm, parse_duration};

/// `proxy-agent`.
#[derive(Debug, Parser)]
#[command(
    name = "proxy-agent",
    version,
    about = "Carries connections to Kubernetes Services to their Pods, in eBPF"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load and attach the data path, and keep it in step with the API server
    Run(Box<RunArgs>),
    /// Say what this kernel and this node offer, what would be used, and what is missing
    Check(CheckArgs),
    /// Show whether programs and maps are in place, and how full the maps are
    Status(ShowArgs),
    /// List the service ports in the maps
    Services(ShowArgs),
    /// List the backends in the maps, with their open flows
    Backends(ShowArgs),
    /// List the tracked flows
    Flows(crate::commands::flows::FlowsArgs),
    /// Detach every program and remove every map
    Cleanup(CleanupArgs),
}

/// Where the data path of this node lives.
#[derive(Clone, Debug, Args)]
pub struct PlaceArgs {
    /// Directory on a BPF file system; programs, links and maps are pinned in a directory of the layout's version below
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// Directory of the cgroup v2 whose processes the socket path serves; by default where /proc/mounts has it
    #[arg(long, value_name = "DIR", default_value_os_t = default_cgroup())]
    pub cgroup: PathBuf,
    /// Directory for files the agent keeps between starts
    #[arg(long, value_name = "DIR", default_value = "/run/waggle")]
    pub state_dir: PathBuf,
}

fn default_cgroup() -> PathBuf {
    crate::datapath::netns::cgroup2_mount().unwrap_or_else(|| "/sys/fs/cgroup".into())
}

/// Which doors the data path uses.
#[derive(Clone, Debug, Args)]
pub struct DeviceArgs {
    /// The BPF object to load, in place of the installed one
    #[arg(long, value_name = "PATH", env = "WAGGLE_OBJECT")]
    pub object: Option<PathBuf>,
    /// Interface that traffic from outside comes in by (may be repeated)
    #[arg(long = "uplink", value_name = "INTERFACE")]
    pub uplinks: Vec<String>,
    /// Pattern of the host's interfaces to Pods, as 'veth*' (may be repeated; none: socket path only)
    #[arg(long, value_name = "PATTERN")]
    pub pod_devices: Vec<DevicePattern>,
    /// How to attach XDP to uplinks; the TC program behind it is always attached
    #[arg(long, value_enum, default_value_t = XdpMode::Native)]
    pub xdp: XdpMode,
    /// Leave sockets alone: everything goes through the packet path
    #[arg(long)]
    pub no_socket_path: bool,
}

/// How XDP is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum XdpMode {
    /// In the driver; where it has no XDP, TC alone does the work
    Native,
    /// In the network core, for drivers without XDP
    Generic,
    /// Not at all
    Off,
}

/// Sizes of the maps, in entries.
#[derive(Clone, Debug, Args)]
pub struct SizeArgs {
    /// Frontends: addresses and ports of all Services
    #[arg(long, value_name = "N", default_value_t = specs::FRONTENDS.max_entries, value_parser = size())]
    pub max_frontends: u32,
    /// Addresses that only Services use
    #[arg(long, value_name = "N", default_value_t = specs::OWNED_ADDRS.max_entries, value_parser = size())]
    pub max_owned_addresses: u32,
    /// Service ports, counted per address family
    #[arg(long, value_name = "N", default_value_t = specs::SERVICES.max_entries, value_parser = size())]
    pub max_services: u32,
    /// Slots: one per endpoint and service port, or a whole table where the algorithm hashes
    #[arg(long, value_name = "N", default_value_t = specs::SLOTS.max_entries, value_parser = size())]
    pub max_slots: u32,
    /// Endpoints: distinct address, port and protocol
    #[arg(long, value_name = "N", default_value_t = specs::BACKENDS.max_entries, value_parser = size())]
    pub max_endpoints: u32,
    /// Entries of tracked flows, two per flow
    #[arg(long, value_name = "N", default_value_t = specs::CONNTRACK.max_entries, value_parser = size())]
    pub max_flows: u32,
    /// Entries of half-open TCP flows from outside
    #[arg(long, value_name = "N", default_value_t = specs::HALF_OPEN.max_entries, value_parser = size())]
    pub max_half_open: u32,
    /// Clients remembered for session affinity
    #[arg(long, value_name = "N", default_value_t = specs::AFFINITY.max_entries, value_parser = size())]
    pub max_affinity: u32,
    /// Pods on this node
    #[arg(long, value_name = "N", default_value_t = specs::POD_ADDRS.max_entries, value_parser = size())]
    pub max_pods: u32,
}

fn size() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(2..=1 << 30)
}

impl SizeArgs {
    /// The size asked for a map of [`specs::ALL`], by name; `None` for a map whose size is not for flags.
    pub fn of(&self, map: &str) -> Option<u32> {
        Some(match map {
            "FRONTENDS" => self.max_frontends,
            "OWNED_ADDRS" => self.max_owned_addresses,
            "SERVICES" | "CURSORS" | "SERVICE_COUNTERS" => self.max_services,
            "SLOTS" => self.max_slots,
            "BACKENDS" | "BACKEND_LOADS" | "BACKEND_EXPIRED" => self.max_endpoints,
            "CONNTRACK" => self.max_flows,
            "HALF_OPEN" => self.max_half_open,
            "AFFINITY" => self.max_affinity,
            "POD_ADDRS" => self.max_pods,
            _ => return None,
        })
    }
}

/// How long a tracked flow may be silent.
#[derive(Clone, Debug, Args)]
pub struct TimeoutArgs {
    /// Established TCP
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration)]
    pub tcp_established_timeout: Duration,
    /// TCP that the client has not confirmed
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub tcp_half_open_timeout: Duration,
    /// TCP that one side has closed
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = parse_duration)]
    pub tcp_close_wait_timeout: Duration,
    /// UDP that nobody answered
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_duration)]
    pub udp_timeout: Duration,
    /// UDP that was answered
    #[arg(long, value_name = "DURATION", default_value = "180s", value_parser = parse_duration)]
    pub udp_stream_timeout: Duration,
}

/// How to reach the API server.
#[derive(Clone, Debug, Args)]
pub struct KubeArgs {
    /// File with the API server's address and credentials; default: what a Pod is given
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Address of the API server, instead of the kubeconfig's
    #[arg(long, value_name = "URL", value_parser = parse_url)]
    pub master: Option<String>,
}

fn parse_url(text: &str) -> Result<String, String> {
    let wrong = || format!("'{text}' is not an address like https://192.0.2.1:6443");
    let config = kube::Config::new(text.parse().map_err(|_| wrong())?);
    match config.cluster_url.scheme_str() {
        Some("http" | "https") if config.cluster_url.host().is_some() => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
}

/// `proxy-agent run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Name of this node's Node object
    #[arg(long, alias = "hostname-override", value_name = "NAME", env = "NODE_NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub node_name: String,
    /// The API server.
    #[command(flatten)]
    pub kube: KubeArgs,
    /// Where things live.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Doors of the data path.
    #[command(flatten)]
    pub devices: DeviceArgs,
    /// Sizes of maps.
    #[command(flatten)]
    pub sizes: SizeArgs,
    /// Timeouts of flows.
    #[command(flatten)]
    pub timeouts: TimeoutArgs,
    /// Algorithm of Services without the annotation waggle.dev/algorithm: rr, lc, sh, dh, maglev or random
    #[arg(long, value_name = "NAME", default_value = "rr", value_parser = parse_algorithm)]
    pub algorithm: Algorithm,
    /// Addresses that answer on node ports: ranges with commas between, or 'primary'
    #[arg(long, value_name = "RANGES", default_value = "primary")]
    pub node_port_addresses: NodePortAddresses,
    /// Masquerade all traffic from outside, also where the client's address could be kept
    #[arg(long)]
    pub masquerade_all: bool,
    /// Source ports for masquerading; best those that the node's own connections do not use
    #[arg(long, value_name = "FIRST-LAST", default_value = "1024-29999")]
    pub snat_ports: PortRange,
    /// Source a Pod sees when it reaches itself through a Service, IPv4
    #[arg(long, value_name = "ADDRESS", default_value = "169.254.33.1")]
    pub hairpin_v4: std::net::Ipv4Addr,
    /// Source a Pod sees when it reaches itself through a Service, IPv6
    #[arg(long, value_name = "ADDRESS", default_value = "fd8d:7761:6767::1")]
    pub hairpin_v6: std::net::Ipv6Addr,
    /// Where /healthz and /livez are served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:10256")]
    pub healthz_bind_address: SocketAddr,
    /// Where /metrics is served
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10249")]
    pub metrics_bind_address: SocketAddr,
    /// How often all maps are compared with what they should hold, and mended; 0 is never
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration)]
    pub compare_period: Duration,
    /// Value of the label service.kubernetes.io/service-proxy-name of the Services to serve; default: those without it
    #[arg(long, value_name = "NAME")]
    pub service_proxy_name: Option<String>,
}

/// `proxy-agent check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Where things would live.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Doors to try.
    #[command(flatten)]
    pub devices: DeviceArgs,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// `proxy-agent status`, `services`, `backends` and `flows`.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Where things live.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Form of the answer
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// `proxy-agent cleanup`.
#[derive(Clone, Debug, Args)]
pub struct CleanupArgs {
    /// Where things live.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns for people
    Table,
    /// JSON for programs
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(args: &[&str]) -> String {
        let line = [&["proxy-agent", "run", "--node-name", "n"], args].concat();
        Cli::try_parse_from(line).expect_err("accepted").to_string()
    }

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_wrong_value_is_refused_with_the_name_of_its_flag() {
        for (flag, value, hint) in [
            ("--algorithm", "wlc", "rr, lc, sh"),
            ("--node-port-addresses", "10.0.0.0/99", "primary"),
            ("--max-services", "0", "2.."),
            ("--master", "not a url", "https://"),
            ("--compare-period", "5", "30s"),
            ("--pod-devices", "a/b", "veth*"),
            ("--snat-ports", "9-1", "1024-29999"),
            ("--healthz-bind-address", "here", "invalid"),
        ] {
            let message = message(&[flag, value]);
            assert!(message.contains(flag) && message.contains(hint), "{message}");
        }
    }

    #[test]
    fn every_map_but_the_fixed_ones_has_a_size_from_its_flag() {
        let Command::Run(args) = Cli::parse_from(["proxy-agent", "run", "--node-name", "n"]).command else {
            panic!("not run");
        };
        for spec in specs::ALL {
            match args.sizes.of(spec.name) {
                Some(size) => assert_eq!(size, spec.max_entries, "{}", spec.name),
                None => assert!(
                    ["SOCKETS", "NODE_CONFIG", "REASON_COUNTERS"].contains(&spec.name),
                    "{}",
                    spec.name
                ),
            }
        }
    }
}
