//! Step 1: the bytes of a packet become [`Headers`]: the flow it belongs to, and where its transport header is.
//!
//! Called by the packet paths for every packet; [`conntrack`](crate::conntrack) comes next. Everything that is not
//! balanced (another protocol, a fragment, a tagged frame) and everything malformed ends here, and is passed on untouched.

use crate::abi::{FlowKey, PROTO_TCP, PROTO_UDP};
use crate::family::Family;
use crate::packet::{Packet, Window};
use crate::verdict::Reason;

/// Length of an Ethernet header, and so the offset of the IP header.
pub const ETHERNET: usize = 14;
/// Length of a TCP header without options.
pub const TCP: usize = 20;
/// Length of a UDP header.
pub const UDP: usize = 8;

/// TCP's flags; 0 for UDP.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug))]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// The first packet of either side.
    pub const SYN: u8 = 1 << 1;
    /// The connection is gone.
    pub const RST: u8 = 1 << 2;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 1 << 4;

    /// Whether any of some flags is set.
    #[inline(always)]
    #[must_use]
    pub const fn any(self, flags: u8) -> bool {
        self.0 & flags != 0
    }

    /// Whether this begins a connection: SYN, and none of the flags that contradict it.
    #[inline(always)]
    #[must_use]
    pub const fn begins(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::RST | Self::FIN) == Self::SYN
    }

    /// Whether a server may send this before the client's second packet: SYN and ACK, or RST.
    #[inline(always)]
    #[must_use]
    pub const fn answers(self) -> bool {
        self.0 & (Self::SYN | Self::ACK) == Self::SYN | Self::ACK || self.any(Self::RST)
    }
}

/// What is known of a packet that may be balanced.
#[derive(Clone, Copy, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, PartialEq, Eq))]
pub struct Headers {
    /// The flow it belongs to.
    pub key: FlowKey,
    /// Offset of the transport header.
    pub transport: usize,
    /// Length from the IP header on, as the header says.
    pub bytes: u32,
    /// TCP's flags.
    pub tcp: TcpFlags,
    /// Type of service, or traffic class.
    pub tos: u8,
}

/// Reads the headers of a packet whose EtherType says family `F` into `headers`, which was empty: field by field, because
/// a result of this size would take twice its room of the kernel's small stack.
///
/// # Errors
/// Why the packet is none to balance: [`Reason::NOT_BALANCED`] or [`Reason::MALFORMED`].
#[inline(always)]
pub fn parse<F: Family, P: Packet>(packet: &P, headers: &mut Headers) -> Result<(), Reason> {
    F::parse(packet, headers)?;
    match headers.key.proto {
        PROTO_TCP => {
            let tcp = packet.window::<TCP>(headers.transport).ok_or(Reason::MALFORMED)?;
            headers.key.sport = tcp.be16::<0>();
            headers.key.dport = tcp.be16::<2>();
            headers.tcp = TcpFlags(tcp.byte::<13>());
        }
        PROTO_UDP => {
            let udp = packet.window::<UDP>(headers.transport).ok_or(Reason::MALFORMED)?;
            headers.key.sport = udp.be16::<0>();
            headers.key.dport = udp.be16::<2>();
        }
        _ => return Err(Reason::NOT_BALANCED),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{V4, V6};
    use crate::host::HostPacket;
    use core::net::IpAddr;
    use etherparse::PacketBuilder;
    use proptest::prelude::*;

    fn parsed<F: Family>(bytes: &[u8]) -> Result<Headers, Reason> {
        let mut headers = Headers::default();
        parse::<F, _>(&HostPacket::new(bytes), &mut headers).map(|()| headers)
    }

    fn udp(v4: bool, payload: &[u8]) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let ip = if v4 {
            ethernet.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        } else {
            ethernet.ipv6([0xfd; 16], [0xfc; 16], 64)
        };
        let mut bytes = Vec::new();
        ip.udp(1000, 53).write(&mut bytes, payload).expect("a vector takes it");
        bytes
    }

    fn expected(v4: bool, payload: usize) -> Headers {
        let (src, dst): (IpAddr, IpAddr) = if v4 {
            ([10, 0, 0, 1].into(), [10, 0, 0, 2].into())
        } else {
            ([0xfd; 16].into(), [0xfc; 16].into())
        };
        let (sport, dport) = (crate::wire::Be16::new(1000), crate::wire::Be16::new(53));
        let ip = if v4 { 20 } else { 40 };
        Headers {
            key: FlowKey {
                src: src.into(),
                dst: dst.into(),
                sport,
                dport,
                proto: PROTO_UDP,
                pad: [0; 3],
            },
            transport: 14 + ip,
            bytes: (ip + 8 + payload) as u32,
            ..Headers::default()
        }
    }

    #[test]
    fn headers_of_both_families_are_read() {
        assert_eq!(parsed::<V4>(&udp(true, b"abc")), Ok(expected(true, 3)));
        assert_eq!(parsed::<V6>(&udp(false, b"abc")), Ok(expected(false, 3)));
    }

    #[test]
    fn options_and_extension_headers_are_skipped_up_to_a_bound() {
        let mut options = udp(true, b"");
        options[14] = 0x46;
        options.splice(34..34, [1; 4]);
        assert_eq!(
            parsed::<V4>(&options),
            Ok(Headers {
                transport: 38,
                ..expected(true, 0)
            })
        );
        for (extensions, balanced) in [(1, true), (4, true), (5, false)] {
            let mut bytes = udp(false, b"");
            bytes[20] = 0;
            for n in 0..extensions {
                bytes.splice(54..54, [if n == 0 { PROTO_UDP } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
            }
            let read = parsed::<V6>(&bytes).map(|headers| headers.transport);
            assert_eq!(
                read,
                if balanced {
                    Ok(54 + extensions * 8)
                } else {
                    Err(Reason::NOT_BALANCED)
                }
            );
        }
    }

    #[test]
    fn what_is_not_balanced_says_so() {
        let mut fragment = udp(true, b"");
        fragment[20] = 0x20;
        assert_eq!(parsed::<V4>(&fragment), Err(Reason::NOT_BALANCED));
        fragment[20..22].copy_from_slice(&[0, 1]);
        assert_eq!(parsed::<V4>(&fragment), Err(Reason::NOT_BALANCED));
        let mut fragment = udp(false, b"");
        fragment[20] = 44;
        assert_eq!(parsed::<V6>(&fragment), Err(Reason::NOT_BALANCED));
        assert_eq!(
            parsed::<V6>(&udp(true, b"a payload to be long enough")),
            Err(Reason::MALFORMED)
        );
        assert_eq!(parsed::<V4>(&udp(false, b"")), Err(Reason::MALFORMED));
    }

    #[test]
    fn only_a_lone_syn_begins_a_connection() {
        assert!(TcpFlags(TcpFlags::SYN).begins());
        for other in [TcpFlags::ACK, TcpFlags::RST, TcpFlags::FIN] {
            assert!(!TcpFlags(TcpFlags::SYN | other).begins());
        }
        assert!(TcpFlags(TcpFlags::SYN | TcpFlags::ACK).answers() && TcpFlags(TcpFlags::RST).answers());
        assert!(!TcpFlags(TcpFlags::SYN).answers() && !TcpFlags(TcpFlags::ACK).answers());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = (parsed::<V4>(&bytes), parsed::<V6>(&bytes));
        }

        #[test]
        fn a_packet_cut_in_its_headers_is_malformed(v4: bool, cut in 0_usize..62) {
            let bytes = udp(v4, b"");
            let cut = cut.min(bytes.len() - 1);
            let read = if v4 { parsed::<V4>(&bytes[..cut]) } else { parsed::<V6>(&bytes[..cut]) };
            prop_assert_eq!(read, Err(Reason::MALFORMED));
        }
    }
}
