//! Who makes the call. Before it is bound a socket has no source address, so its network namespace stands for it: the
//! agent says in `POD_ADDRS` which Pod lives there. That way one client gets one backend on both paths, where the
//! algorithm or session affinity goes by the client's address. Called by `route`.

use crate::abi::{Addr, NodeConfig, PodAddrs};
use crate::maps::Maps;
use crate::wire::Be32;

/// The first word of the address that stands for a namespace nobody knows: a multicast prefix, so never a real client.
const UNKNOWN_NAMESPACE: Be32 = Be32::new(0xffff_ffff);

/// Who the sockets of a namespace are, towards a virtual address of the given family: the Pod there, the node, or for a
/// namespace nobody knows an address made of its cookie. `None`: the namespace opted out.
///
/// The Pod's addresses are used where they are found, and not carried around as an option: on kernel 6.18 the verifier
/// refuses the undefined words of a `None` that the compiler spills.
#[inline(always)]
pub(super) fn address<M: Maps>(maps: &M, cookie: u64, v4: bool) -> Option<Addr> {
    let mut addr = Addr::UNSPECIFIED;
    if let Some(pod) = maps.pod_addrs(cookie) {
        if pod.flags & PodAddrs::OPT_OUT != 0 {
            return None;
        }
        addr = if v4 { pod.v4 } else { pod.v6 };
    } else if let Some(node) = maps.node_config()
        && node.host_netns_cookie == cookie
    {
        addr = host(&node, v4);
    }
    Some(if addr.is_unspecified() { unknown(cookie) } else { addr })
}

/// Whether the socket path has to leave the sockets of a namespace alone.
#[inline(always)]
pub(super) fn opted_out<M: Maps>(maps: &M, cookie: u64) -> bool {
    maps.pod_addrs(cookie)
        .is_some_and(|pod| pod.flags & PodAddrs::OPT_OUT != 0)
}

/// Whether a namespace is the one the agent runs in.
#[inline(always)]
pub(super) fn is_host<M: Maps>(maps: &M, cookie: u64) -> bool {
    maps.node_config().is_some_and(|node| node.host_netns_cookie == cookie)
}

#[inline(always)]
fn host(node: &NodeConfig, v4: bool) -> Addr {
    if v4 { node.snat_v4 } else { node.snat_v6 }
}

#[inline(always)]
fn unknown(cookie: u64) -> Addr {
    let (high, low) = (Be32::new((cookie >> 32) as u32), Be32::new(cookie as u32));
    Addr {
        words: [UNKNOWN_NAMESPACE, low, high, low],
    }
}

#[cfg(test)]
mod tests {
    use super::unknown;

    #[test]
    fn unknown_namespaces_have_addresses_of_their_own() {
        assert_ne!(unknown(1), unknown(2));
        assert_ne!(unknown(1), unknown(1 << 32));
        assert!(!unknown(0xffff_0000_0000).is_v4());
    }
}
