//! Entry points of the packet path. A program's name is what the agent loads it by.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use proxy_ebpf::paths::egress::egress;
use proxy_ebpf::paths::ingress::{Side, ingress};

use super::maps::KernelMaps;
use super::packet::{TcPacket, XdpPacket};

/// From outside, before the stack has seen the packet.
#[unsafe(no_mangle)]
#[unsafe(link_section = "xdp")]
extern "C" fn xdp_uplink(context: *mut xdp_md) -> u32 {
    ingress(&mut XdpPacket::new(context), &KernelMaps, Side::Uplink).xdp()
}

/// From outside, what XDP passed on, or everything where there is no XDP.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn tc_uplink_ingress(context: *mut __sk_buff) -> i32 {
    ingress(&mut TcPacket::new(context), &KernelMaps, Side::Uplink).tc()
}

/// To the outside: replies of this node's Pods.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn tc_uplink_egress(context: *mut __sk_buff) -> i32 {
    egress(&mut TcPacket::new(context), &KernelMaps, Side::Uplink).tc()
}

/// From a Pod of this node.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn tc_pod_ingress(context: *mut __sk_buff) -> i32 {
    ingress(&mut TcPacket::new(context), &KernelMaps, Side::Pod).tc()
}

/// To a Pod of this node: replies to what it asked.
#[unsafe(no_mangle)]
#[unsafe(link_section = "classifier")]
extern "C" fn tc_pod_egress(context: *mut __sk_buff) -> i32 {
    egress(&mut TcPacket::new(context), &KernelMaps, Side::Pod).tc()
}
