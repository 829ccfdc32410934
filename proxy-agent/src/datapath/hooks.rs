//! The programs and where each attaches: the table that [`load`](super::load), [`links`](super::links) and
//! [`cleanup`](super::cleanup) share. Names are those of the BPF object.

use super::{bpf::attach, load::RECOUNT};

/// The XDP program of uplinks.
pub const XDP_UPLINK: &str = "xdp_uplink";

/// A program on a cgroup.
#[derive(Clone, Copy, Debug)]
pub struct CgroupHook {
    /// Name of the program and of the pin.
    pub program: &'static str,
    /// One of [`attach`].
    pub attach_type: u32,
}

const fn cgroup(program: &'static str, attach_type: u32) -> CgroupHook {
    CgroupHook { program, attach_type }
}

/// The socket path, in the order to attach: what counts out and what translates back comes first, so that no socket is
/// counted or translated before its end can be seen. Detached in reverse.
pub const SOCKET_PATH: [CgroupHook; 10] = [
    cgroup("socket_release", attach::SOCK_RELEASE),
    cgroup("socket_ops", attach::SOCK_OPS),
    cgroup("socket_getpeername4", attach::GETPEERNAME4),
    cgroup("socket_getpeername6", attach::GETPEERNAME6),
    cgroup("socket_recvmsg4", attach::RECVMSG4),
    cgroup("socket_recvmsg6", attach::RECVMSG6),
    cgroup("socket_connect4", attach::CONNECT4),
    cgroup("socket_connect6", attach::CONNECT6),
    cgroup("socket_sendmsg4", attach::SENDMSG4),
    cgroup("socket_sendmsg6", attach::SENDMSG6),
];

/// A direction of a device's TC hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Packets the device received.
    Ingress,
    /// Packets about to leave by the device.
    Egress,
}

/// A program on a device's TC hook.
#[derive(Clone, Copy, Debug)]
pub struct TcHook {
    /// Name of the program; the pin adds the device's index.
    pub program: &'static str,
    /// Which hook.
    pub direction: Direction,
}

/// The TC programs of an uplink. The reverse translation comes first, for the same reason as in [`SOCKET_PATH`].
pub const UPLINK: [TcHook; 2] = [
    TcHook {
        program: "tc_uplink_egress",
        direction: Direction::Egress,
    },
    TcHook {
        program: "tc_uplink_ingress",
        direction: Direction::Ingress,
    },
];

/// The TC programs of the host's end of a Pod's link.
pub const POD_DEVICE: [TcHook; 2] = [
    TcHook {
        program: "tc_pod_egress",
        direction: Direction::Egress,
    },
    TcHook {
        program: "tc_pod_ingress",
        direction: Direction::Ingress,
    },
];

/// What a device is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Traffic from outside comes in by it.
    Uplink,
    /// The host's end of a Pod's link.
    Pod,
}

impl Role {
    /// The TC programs of such a device, in the order to attach.
    pub const fn hooks(self) -> &'static [TcHook] {
        match self {
            Self::Uplink => &UPLINK,
            Self::Pod => &POD_DEVICE,
        }
    }
}

/// Every program that the given doors need.
pub fn programs(socket_path: bool, uplinks: bool, pods: bool, xdp: bool) -> Vec<&'static str> {
    let mut names = Vec::new();
    if socket_path {
        names.extend(SOCKET_PATH.iter().map(|hook| hook.program));
        names.push(RECOUNT);
    }
    if uplinks {
        names.extend(UPLINK.iter().map(|hook| hook.program));
    }
    if uplinks && xdp {
        names.push(XDP_UPLINK);
    }
    if pods {
        names.extend(POD_DEVICE.iter().map(|hook| hook.program));
    }
    names
}
