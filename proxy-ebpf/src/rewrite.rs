//! Step 5: a packet gets the addresses and ports of its translated tuple, and all its checksums stay right.
//!
//! Called by [`forward`](crate::forward). DNAT, SNAT and their reverse are the same step: the flow's entry holds the tuple
//! the packet leaves with.

use crate::abi::{FlowKey, PROTO_UDP};
use crate::csum::Sum;
use crate::family::Family;
use crate::packet::{Packet, TransportChange, Window};
use crate::parse::{Headers, UDP};
use crate::verdict::Reason;

/// Rewrites a packet to `to`; with `hop` it also takes one from the time to live, as whoever sends a packet on must.
///
/// Returns [`Reason::FORWARDED`], or why not: [`Reason::TTL`] and [`Reason::MALFORMED`] leave the packet as it was, after
/// [`Reason::REWRITE`] it must be dropped. A function of its own, for the kernel's small stack.
#[inline(never)]
pub fn rewrite<F: Family, P: Packet>(packet: &mut P, headers: &Headers, to: &FlowKey, hop: bool) -> Reason {
    // Before the first write: the IP header is checked by the family, the ports here.
    let Some(transport) = packet.window::<UDP>(headers.transport) else {
        return Reason::MALFORMED;
    };
    let addresses = match F::rewrite(packet, &headers.key, to, hop) {
        Ok(addresses) => addresses,
        Err(reason) => return reason,
    };
    let ports = Sum::ZERO
        .replace16(headers.key.sport, to.sport)
        .replace16(headers.key.dport, to.dport);
    transport.set_be16::<0>(to.sport);
    transport.set_be16::<2>(to.dport);
    let udp = headers.key.proto == PROTO_UDP;
    let change = TransportChange {
        at: headers.transport,
        udp,
        v4: F::V4,
        addresses,
        ports,
    };
    match packet.fix_transport(&change) {
        Ok(()) => Reason::FORWARDED,
        Err(_) => Reason::REWRITE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{V4, V6};
    use crate::host::HostPacket;
    use crate::parse::parse;
    use crate::wire::Be16;
    use core::net::{IpAddr, SocketAddr};
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn build(src: SocketAddr, dst: SocketAddr, ttl: u8, tcp: bool, payload: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = match (src.ip(), dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), ttl),
            (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), ttl),
            _ => panic!("two families in one packet"),
        };
        let mut bytes = Vec::new();
        if tcp {
            ip.tcp(src.port(), dst.port(), 7, 8)
                .syn()
                .write(&mut bytes, payload)
                .expect("a vector takes it");
        } else {
            ip.udp(src.port(), dst.port())
                .write(&mut bytes, payload)
                .expect("a vector takes it");
        }
        bytes
    }

    fn key(src: SocketAddr, dst: SocketAddr, tcp: bool) -> FlowKey {
        FlowKey {
            src: src.ip().into(),
            dst: dst.ip().into(),
            sport: Be16::new(src.port()),
            dport: Be16::new(dst.port()),
            proto: if tcp { 6 } else { 17 },
            pad: [0; 3],
        }
    }

    fn rewritten<F: Family>(bytes: &[u8], to: &FlowKey, hop: bool) -> (Reason, Vec<u8>) {
        let mut packet = HostPacket::new(bytes);
        let mut headers = Headers::default();
        parse::<F, _>(&packet, &mut headers).expect("the packet is whole");
        (rewrite::<F, _>(&mut packet, &headers, to, hop), packet.bytes())
    }

    fn endpoint(v4: bool) -> BoxedStrategy<SocketAddr> {
        if v4 {
            (any::<[u8; 4]>(), any::<u16>())
                .prop_map(|(ip, port)| (ip, port).into())
                .boxed()
        } else {
            // No mapped addresses: those are IPv4 here.
            (any::<[u8; 16]>(), any::<u16>())
                .prop_map(|(mut ip, port)| {
                    ip[0] |= 0x20;
                    (ip, port).into()
                })
                .boxed()
        }
    }

    fn endpoints() -> impl Strategy<Value = (bool, [SocketAddr; 4])> {
        any::<bool>().prop_flat_map(|v4| (Just(v4), std::array::from_fn::<_, 4, _>(|_| endpoint(v4))))
    }

    proptest! {
        #[test]
        fn a_rewritten_packet_is_the_one_that_would_have_been_built(
            (v4, [a, b, c, d]) in endpoints(),
            tcp: bool,
            hop: bool,
            payload in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let bytes = build(a, b, 64, tcp, &payload);
            let expected = build(c, d, if hop { 63 } else { 64 }, tcp, &payload);
            let to = key(c, d, tcp);
            let (reason, out) = if v4 { rewritten::<V4>(&bytes, &to, hop) } else { rewritten::<V6>(&bytes, &to, hop) };
            prop_assert_eq!(reason, Reason::FORWARDED);
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn there_and_back_is_the_same_packet((v4, [a, b, c, d]) in endpoints(), tcp: bool) {
            let bytes = build(a, b, 64, tcp, b"payload");
            let (to, back) = (key(c, d, tcp), key(a, b, tcp));
            let out = if v4 {
                rewritten::<V4>(&rewritten::<V4>(&bytes, &to, false).1, &back, false)
            } else {
                rewritten::<V6>(&rewritten::<V6>(&bytes, &to, false).1, &back, false)
            };
            prop_assert_eq!(out.1, bytes);
        }
    }

    #[test]
    fn the_last_hop_leaves_the_packet_as_it_was() {
        let (a, b): (SocketAddr, SocketAddr) = (([10, 0, 0, 1], 1).into(), ([10, 0, 0, 2], 2).into());
        let bytes = build(a, b, 1, true, b"");
        assert_eq!(rewritten::<V4>(&bytes, &key(b, a, true), true), (Reason::TTL, bytes));
    }
}
