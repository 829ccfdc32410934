//! The wire and what is plugged into it: nodes with Pods, hosts outside the cluster.
//!
//! ```text
//!   outside 172.18.100.1..   control 172.18.0.2
//!        \______ wire: a bridge, 172.18.0.0/16, fd00:18::/64 ______/
//!         |                         |
//!   node-1 eth0 172.18.0.11   node-2 eth0 172.18.0.12      host-gw routes between them
//!     | veth<pod>               | veth<pod>                routed /32 and /128
//!   pod 10.244.1.10           pod 10.244.2.10
//! ```
//!
//! Offloads are set as XDP on veth needs them: senders compute checksums in full (`tx off`), and the far end of a device
//! that frames are redirected to has GRO on, so that its NAPI runs.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::ip;
use crate::netns::Netns;
use crate::process::Place;
use crate::scope::Scope;

/// The device every node, Pod and host has towards the rest.
pub const UPLINK: &str = "eth0";

/// What Pods' devices are called at the node's end.
pub const POD_DEVICES: &str = "veth*";

/// The bridge everything is plugged into.
#[derive(Debug)]
pub struct Wire {
    netns: Netns,
}

impl Wire {
    /// Makes the wire; 172.18.0.1 and fd00:18::1 are its own, as a router's that forwards nothing.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(scope: &Scope) -> Result<Self> {
        let netns = Netns::new(scope, "wire")?;
        let lines = [
            "link set lo up",
            "link add br0 type bridge forward_delay 0 mcast_snooping 0",
            "link set br0 up",
        ];
        let mut lines: Vec<String> = lines.map(String::from).to_vec();
        lines.push("addr add 172.18.0.1/16 dev br0".into());
        lines.push("addr add fd00:18::1/64 dev br0 nodad".into());
        ip::batch(&netns, &lines)?;
        Ok(Self { netns })
    }

    /// The wire's namespace, for captures.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Plugs a namespace in: its [`UPLINK`] gets the addresses and default routes.
    fn plug(&self, netns: &Netns, port: &str, addresses: &[IpAddr]) -> Result<()> {
        let far = [
            format!("link add {port} type veth peer name {UPLINK} netns {}", netns.name()),
            format!("link set {port} master br0 up"),
        ];
        ip::batch(&self.netns, &far)?;
        ip::offloads(&self.netns, port, &["gro", "on"])?;
        ip::offloads(netns, UPLINK, &["tx", "off"])?;
        let mut near = vec!["link set lo up".to_owned(), format!("link set {UPLINK} up")];
        for address in addresses {
            near.push(match address {
                IpAddr::V4(v4) => format!("addr add {v4}/16 dev {UPLINK}"),
                IpAddr::V6(v6) => format!("addr add {v6}/64 dev {UPLINK} nodad"),
            });
        }
        near.push(format!("route add default via 172.18.0.1 dev {UPLINK}"));
        near.push(format!("route add default via fd00:18::1 dev {UPLINK}"));
        ip::batch(netns, &near)
    }
}

/// A host on the wire that is no node: a client outside, the control plane's machine.
#[derive(Debug)]
pub struct Host {
    place: Place,
}

impl Host {
    /// Plugs a host in with the given addresses; the first of each family is its primary one.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(scope: &Scope, wire: &Wire, name: &str, addresses: &[IpAddr]) -> Result<Self> {
        let netns = Netns::new(scope, name)?;
        wire.plug(&netns, name, addresses)?;
        Ok(Self {
            place: Place {
                netns,
                cgroup: scope.cgroup().join(name),
            },
        })
    }

    /// Where its processes run.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Sends a network through a node, as a route to load-balancer addresses would.
    ///
    /// # Errors
    /// If the route can't be added.
    pub fn route(&self, network: &str, via: IpAddr) -> Result<()> {
        ip::batch(
            &self.place.netns,
            &[format!("route replace {network} via {via} dev {UPLINK}")],
        )
    }
}

/// A node: its own namespace, uplink, cgroup subtree and bpffs.
#[derive(Debug)]
pub struct Node {
    index: u8,
    netns: Netns,
    cgroup: PathBuf,
    bpffs: PathBuf,
}

impl Node {
    /// Makes node `index` (from 1) and plugs it in. Routes to other nodes' Pods are added by [`connect`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn new(scope: &Scope, wire: &Wire, index: u8) -> Result<Self> {
        let name = format!("node-{index}");
        let netns = Netns::new(scope, &name)?;
        netns.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv6/conf/default/accept_dad", "0"),
            ("ipv4/conf/all/rp_filter", "1"),
            ("ipv4/conf/default/rp_filter", "1"),
            ("ipv4/conf/all/send_redirects", "0"),
            ("ipv4/conf/default/send_redirects", "0"),
            ("ipv4/ip_unprivileged_port_start", "0"),
        ])?;
        let cgroup = scope.cgroup().join(&name);
        fs::create_dir_all(&cgroup)?;
        let bpffs = scope.dir().join(&name).join("bpf");
        fs::create_dir_all(&bpffs)?;
        mount(Some("bpf"), &bpffs, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("can't mount a bpffs at {}", bpffs.display()))?;
        let node = Self {
            index,
            netns,
            cgroup,
            bpffs,
        };
        wire.plug(&node.netns, &name, &[node.ipv4().into(), node.ipv6().into()])?;
        Ok(node)
    }

    /// Name of the Node object.
    #[must_use]
    pub fn name(&self) -> String {
        format!("node-{}", self.index)
    }

    /// The node's address.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(172, 18, 0, 10 + self.index)
    }

    /// The node's IPv6 address.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x18, 0, 0, 0, 0, 0, u16::from(0x10 + self.index))
    }

    /// The node's Pod networks.
    #[must_use]
    pub fn pod_cidrs(&self) -> [String; 2] {
        [
            format!("10.244.{}.0/24", self.index),
            format!("fd00:244:{}::/64", self.index),
        ]
    }

    /// Its namespace.
    #[must_use]
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The root of its cgroup subtree: what the agent attaches to.
    #[must_use]
    pub fn cgroup(&self) -> &PathBuf {
        &self.cgroup
    }

    /// Its bpffs.
    #[must_use]
    pub fn bpffs(&self) -> &PathBuf {
        &self.bpffs
    }

    /// Where the node's own processes run.
    #[must_use]
    pub fn place(&self) -> Place {
        Place {
            netns: self.netns.clone(),
            cgroup: self.cgroup.join("host"),
        }
    }

    /// Makes a Pod's namespace and cgroup on this node, without any device yet: what a container runtime does first.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn sandbox(&self, scope: &Scope, name: &str) -> Result<Place> {
        let netns = Netns::new(scope, &format!("n{}-{name}", self.index))?;
        let place = Place {
            netns,
            cgroup: self.cgroup.join("pods").join(name),
        };
        fs::create_dir_all(&place.cgroup)?;
        Ok(place)
    }

    /// A sandbox with a device: [`Node::sandbox`], then [`Node::attach`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn pod(&self, scope: &Scope, name: &str, number: u8) -> Result<Pod> {
        self.attach(self.sandbox(scope, name)?, name, number)
    }

    /// Gives a sandbox its device and addresses, as a CNI does; `number` (2 to 254) is its place in the Pod networks.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn attach(&self, place: Place, name: &str, number: u8) -> Result<Pod> {
        let netns = &place.netns;
        let ipv4 = Ipv4Addr::new(10, 244, self.index, number);
        let ipv6 = Ipv6Addr::new(0xfd00, 0x244, u16::from(self.index), 0, 0, 0, 0, u16::from(number));
        let device = format!("veth{number}");
        ip::batch(
            &self.netns,
            &[
                format!("link add {device} type veth peer name {UPLINK} netns {}", netns.name()),
                format!("addr add 169.254.1.1/32 dev {device}"),
                format!("link set {device} up"),
                format!("addr add fe80::1/64 dev {device} nodad"),
                format!("route add {ipv4}/32 dev {device} src {}", self.ipv4()),
                format!("route add {ipv6}/128 dev {device} src {}", self.ipv6()),
            ],
        )?;
        ip::batch(
            netns,
            &[
                "link set lo up".to_owned(),
                format!("link set {UPLINK} up"),
                format!("addr add {ipv4}/32 dev {UPLINK}"),
                format!("addr add {ipv6}/128 dev {UPLINK} nodad"),
                format!("route add 169.254.1.1 dev {UPLINK} scope link"),
                format!("route add default via 169.254.1.1 dev {UPLINK} src {ipv4}"),
                format!("route add default via fe80::1 dev {UPLINK} src {ipv6}"),
            ],
        )?;
        ip::offloads(netns, UPLINK, &["tx", "off"])?;
        Ok(Pod {
            name: name.to_owned(),
            node: self.name(),
            number,
            device,
            ipv4,
            ipv6,
            place,
        })
    }

    /// Removes a Pod's device, as a CNI does when the Pod ends.
    ///
    /// # Errors
    /// If it is gone already.
    pub fn unplug(&self, pod: &Pod) -> Result<()> {
        ip::batch(&self.netns, &[format!("link del {}", pod.device)])
    }
}

/// Adds the host-gw routes: every node to every other node's Pods.
///
/// # Errors
/// If a route can't be added.
pub fn connect(nodes: &[Node]) -> Result<()> {
    for node in nodes {
        let mut lines = Vec::new();
        for other in nodes.iter().filter(|other| other.index != node.index) {
            let [v4, v6] = other.pod_cidrs();
            lines.push(format!("route add {v4} via {} dev {UPLINK}", other.ipv4()));
            lines.push(format!("route add {v6} via {} dev {UPLINK}", other.ipv6()));
        }
        ip::batch(&node.netns, &lines)?;
    }
    Ok(())
}

/// A Pod: a namespace behind a veth of a node.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Name of the Pod object.
    pub name: String,
    /// Name of its node.
    pub node: String,
    /// Its number in the node's Pod networks.
    pub number: u8,
    /// The node's end of its veth.
    pub device: String,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Where its processes run.
    pub place: Place,
}
