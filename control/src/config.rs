//! The command line: what it accepts, checked and turned into types.
//!
//! Read by `main`; [`Serve`] goes to [`crate::run`], [`Kubeconfig`] to [`crate::pki`].

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

use crate::resources::Ranges;
use crate::resources::allocation::RangeError;

/// A small Kubernetes control plane in one process.
#[derive(Debug, Parser)]
#[command(name = "control", version, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `control` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the API server and the controllers.
    Serve(Serve),
    /// Write a kubeconfig with a client certificate of its own.
    Kubeconfig(Kubeconfig),
}

/// `control serve`
#[derive(Clone, Debug, Args)]
pub struct Serve {
    /// Directory of the store, the certificates and the kubeconfig; made if missing.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Address to listen on; may be given several times.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:6443")]
    pub bind: Vec<SocketAddr>,
    /// Address at which the cluster reaches this server [default: the bind address, or that of the default route].
    #[arg(long, value_name = "ADDR")]
    pub advertise: Option<IpAddr>,
    /// Range of cluster addresses, or one of each family separated by a comma; the first is the default family.
    #[arg(long, value_name = "CIDR[,CIDR]", default_value = "10.96.0.0/16")]
    pub service_cidr: String,
    /// Range of node ports.
    #[arg(long, value_name = "FROM-TO", default_value = "30000-32767")]
    pub node_port_range: String,
    /// Write the administrator's kubeconfig to this file too.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig_out: Option<PathBuf>,
    /// Server in the administrator's kubeconfig [default: the advertised address and the first bound port].
    #[arg(long, value_name = "URL")]
    pub kubeconfig_server: Option<String>,
    /// Further name or address in the server's certificate; may be given several times.
    #[arg(long = "tls-san", value_name = "NAME")]
    pub tls_sans: Vec<SubjectName>,
}

/// `control kubeconfig`
#[derive(Clone, Debug, Args)]
pub struct Kubeconfig {
    /// Data directory of the server that the kubeconfig is for.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Who the client is: the common name of the certificate, such as system:node-proxier:node-1.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub user: String,
    /// Group of the client: the organization of the certificate.
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Where the client reaches the server.
    #[arg(long, value_name = "URL")]
    pub server: String,
    /// Where to write it [default: standard output].
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// A name a certificate is good for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubjectName {
    /// An address.
    Ip(IpAddr),
    /// A DNS name, or a wildcard for one label.
    Dns(String),
}

/// A value on the command line that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Neither an address nor a DNS name.
    #[error("{0:?} is neither an IP address nor a DNS name")]
    NotAName(String),
    /// `--service-cidr` or `--node-port-range`.
    #[error("bad --service-cidr or --node-port-range")]
    Range(#[from] RangeError),
    /// No address to advertise.
    #[error("no address that other machines could reach this server at: name one with --advertise")]
    NoAddress,
    /// The advertised address stands for all addresses.
    #[error("--advertise {0} is no address of one machine")]
    Unspecified(IpAddr),
    /// Not a URL of an API server.
    #[error("{0:?} is not a server URL: write https://ADDR:PORT")]
    NotAUrl(String),
}

impl FromStr for SubjectName {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(SubjectName::Ip(address));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let name = text.strip_prefix("*.").unwrap_or(text);
        if text.len() <= 253 && name.split('.').all(label) {
            Ok(SubjectName::Dns(text.to_ascii_lowercase()))
        } else {
            Err(ConfigError::NotAName(text.into()))
        }
    }
}

impl Serve {
    /// The ranges that cluster addresses and node ports come from.
    ///
    /// # Errors
    /// Text that is no range, or two ranges of one family.
    pub fn ranges(&self) -> Result<Ranges, ConfigError> {
        Ok(Ranges::parse(&self.service_cidr, &self.node_port_range)?)
    }

    /// The address the cluster reaches this server at.
    ///
    /// # Errors
    /// None was named and none can be found out, or the one named stands for all.
    pub fn advertised(&self) -> Result<IpAddr, ConfigError> {
        match self.advertise {
            Some(address) if address.is_unspecified() => Err(ConfigError::Unspecified(address)),
            Some(address) => Ok(address),
            None => {
                let bound = self
                    .bind
                    .iter()
                    .map(SocketAddr::ip)
                    .find(|address| !address.is_unspecified());
                bound
                    .or_else(|| self.bind.iter().find_map(|bind| routed_source(bind.is_ipv6())))
                    .ok_or(ConfigError::NoAddress)
            }
        }
    }

    /// The server in the administrator's kubeconfig.
    ///
    /// # Errors
    /// Not an https URL.
    pub fn server_url(&self, advertised: IpAddr, port: u16) -> Result<String, ConfigError> {
        match &self.kubeconfig_server {
            Some(url) => check_url(url),
            None => Ok(format!("https://{}", SocketAddr::new(advertised, port))),
        }
    }

    /// Every name the server's certificate must be good for.
    pub fn subject_names(&self, advertised: IpAddr, ranges: &Ranges) -> BTreeSet<SubjectName> {
        let dns = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ];
        let local = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            advertised,
        ];
        let bound = self
            .bind
            .iter()
            .map(SocketAddr::ip)
            .filter(|address| !address.is_unspecified());
        let cluster = ranges.cluster_ips.iter().map(|range| range.nth(1));
        let addresses = local.into_iter().chain(bound).chain(cluster).map(SubjectName::Ip);
        let names = dns.into_iter().map(|name| SubjectName::Dns(name.into()));
        addresses
            .chain(names)
            .chain(host_name())
            .chain(self.tls_sans.iter().cloned())
            .collect()
    }
}

/// The URL, if it is one a client can use.
///
/// # Errors
/// Anything but `https://` and a host.
pub fn check_url(url: &str) -> Result<String, ConfigError> {
    let parsed = url.parse::<http::Uri>().ok();
    match parsed.filter(|parsed| parsed.scheme_str() == Some("https") && parsed.host().is_some()) {
        Some(_) => Ok(url.trim_end_matches('/').into()),
        None => Err(ConfigError::NotAUrl(url.into())),
    }
}

/// The address that packets to the world leave from, by the routing table alone: nothing is sent.
fn routed_source(ipv6: bool) -> Option<IpAddr> {
    let (any, documentation): (SocketAddr, SocketAddr) = if ipv6 {
        (
            (Ipv6Addr::UNSPECIFIED, 0).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
        )
    } else {
        (
            (Ipv4Addr::UNSPECIFIED, 0).into(),
            (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        )
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(documentation).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_unspecified())
}

fn host_name() -> Option<SubjectName> {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(arguments: &str) -> Result<Serve, clap::Error> {
        let words = ["control", "serve", "--data-dir", "d"]
            .into_iter()
            .chain(arguments.split_whitespace());
        match Cli::try_parse_from(words)?.command {
            Command::Serve(serve) => Ok(serve),
            Command::Kubeconfig(_) => unreachable!("asked for serve"),
        }
    }

    #[test]
    fn bind_and_san_may_be_repeated() {
        let serve = serve("--bind 127.0.0.1:1 --bind [::1]:2 --tls-san a.example --tls-san 10.0.0.9").unwrap();
        assert_eq!(serve.bind, ["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()]);
        let names = serve.subject_names(serve.advertised().unwrap(), &serve.ranges().unwrap());
        for name in [
            "10.96.0.1",
            "127.0.0.1",
            "::1",
            "kubernetes.default.svc",
            "a.example",
            "10.0.0.9",
        ] {
            assert!(names.contains(&name.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn the_advertised_address_is_the_flag_then_the_bound_one() {
        assert_eq!(
            serve("--bind 10.1.2.3:1 --advertise fd00::1")
                .unwrap()
                .advertised()
                .unwrap()
                .to_string(),
            "fd00::1"
        );
        assert_eq!(
            serve("--bind 10.1.2.3:1").unwrap().advertised().unwrap().to_string(),
            "10.1.2.3"
        );
        assert!(matches!(
            serve("--advertise 0.0.0.0").unwrap().advertised(),
            Err(ConfigError::Unspecified(_))
        ));
    }

    #[test]
    fn a_server_url_has_brackets_for_ipv6_and_is_checked() {
        let url = |arguments| serve(arguments).unwrap().server_url("fd00::1".parse().unwrap(), 6443);
        assert_eq!(url("").unwrap(), "https://[fd00::1]:6443");
        assert_eq!(
            url("--kubeconfig-server https://a.example:1/").unwrap(),
            "https://a.example:1"
        );
        assert!(matches!(
            url("--kubeconfig-server 10.0.0.1:6443"),
            Err(ConfigError::NotAUrl(_))
        ));
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        assert!(serve("--bind here").unwrap_err().to_string().contains("--bind"));
        assert!(
            serve("--tls-san a_b")
                .unwrap_err()
                .to_string()
                .contains("neither an IP address nor a DNS name")
        );
        assert!(matches!(
            serve("--service-cidr 10.96.0.0").unwrap().ranges(),
            Err(ConfigError::Range(_))
        ));
    }
}
