//! The packets of the table: what is sent, what is expected, and between whom.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use etherparse::{Ipv4Header, Ipv4Options, PacketBuilder, PacketBuilderStep, UdpHeader};
use proxy_ebpf::abi::{Addr, FlowKey, PROTO_TCP, PROTO_UDP};
use proxy_ebpf::wire::Be16;

/// Ethernet addresses of packets that come in: sender, this node.
pub(super) const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(super) const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The device that leads to everybody, and the neighbour everybody is behind.
pub(super) const OUT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
pub(super) const GATEWAY_MAC: [u8; 6] = [2, 0, 0, 0, 0, 4];

/// A packet to build.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    pub(super) macs: ([u8; 6], [u8; 6]),
    pub(super) src: SocketAddr,
    pub(super) dst: SocketAddr,
    pub(super) ttl: u8,
    /// TCP flags by letter; `None` is UDP.
    pub(super) tcp: Option<&'static str>,
    pub(super) sequence: u32,
    pub(super) payload: Vec<u8>,
    pub(super) options: bool,
}

impl Spec {
    pub(super) fn tcp(src: SocketAddr, dst: SocketAddr, flags: &'static str) -> Self {
        Self {
            tcp: Some(flags),
            payload: Vec::new(),
            ..Self::udp(src, dst)
        }
    }

    pub(super) fn udp(src: SocketAddr, dst: SocketAddr) -> Self {
        let macs = (SENDER_MAC, NODE_MAC);
        Self {
            macs,
            src,
            dst,
            ttl: 64,
            tcp: None,
            sequence: 1000,
            payload: b"a question".to_vec(),
            options: false,
        }
    }

    /// The same packet between other endpoints.
    pub(super) fn between(&self, src: SocketAddr, dst: SocketAddr) -> Self {
        Self {
            src,
            dst,
            ..self.clone()
        }
    }

    /// The same packet as it is sent on by a router.
    pub(super) fn routed(&self) -> Self {
        Self {
            macs: (OUT_MAC, GATEWAY_MAC),
            ttl: self.ttl - 1,
            ..self.clone()
        }
    }

    pub(super) fn turned(&self) -> Self {
        Self {
            macs: (self.macs.1, self.macs.0),
            ..self.clone()
        }
    }

    pub(super) fn build(&self) -> Vec<u8> {
        let ethernet = PacketBuilder::ethernet2(self.macs.0, self.macs.1);
        let ip = match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) if self.options => {
                let options = Ipv4Options::try_from(&[1_u8, 1, 1, 1][..]).expect("four NOPs are options");
                let source = src.octets();
                let mut header = Ipv4Header::new(0, self.ttl, etherparse::IpNumber::UDP, source, dst.octets())
                    .expect("a length of 0 fits");
                header.options = options;
                ethernet.ip(etherparse::IpHeaders::Ipv4(
                    header,
                    etherparse::Ipv4Extensions::default(),
                ))
            }
            (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), self.ttl),
            (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), self.ttl),
            _ => panic!("two families in one packet"),
        };
        let mut bytes = Vec::new();
        match self.tcp {
            None => {
                let udp: PacketBuilderStep<UdpHeader> = ip.udp(self.src.port(), self.dst.port());
                udp.write(&mut bytes, &self.payload).expect("a vector takes it");
            }
            Some(flags) => {
                let mut tcp = ip.tcp(self.src.port(), self.dst.port(), self.sequence, 4096);
                for flag in flags.chars() {
                    tcp = match flag {
                        'S' => tcp.syn(),
                        'A' => tcp.ack(7000),
                        'F' => tcp.fin(),
                        'R' => tcp.rst(),
                        other => panic!("no flag {other}"),
                    };
                }
                tcp.write(&mut bytes, &self.payload).expect("a vector takes it");
            }
        }
        bytes
    }
}

/// The reset that answers a TCP packet: from whom it was for, to who sent it.
pub(super) fn reset(packet: &Spec) -> Vec<u8> {
    let flags = packet.tcp.expect("a TCP packet");
    let mut answer = Vec::new();
    let ethernet = PacketBuilder::ethernet2(packet.macs.1, packet.macs.0);
    let ip = match (packet.dst.ip(), packet.src.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => ethernet.ipv4(src.octets(), dst.octets(), 64),
        (IpAddr::V6(src), IpAddr::V6(dst)) => ethernet.ipv6(src.octets(), dst.octets(), 64),
        _ => panic!("two families in one packet"),
    };
    let tcp = if flags.contains('A') {
        ip.tcp(packet.dst.port(), packet.src.port(), 7000, 0).rst()
    } else {
        let taken = packet.payload.len() + flags.matches(['S', 'F']).count();
        ip.tcp(packet.dst.port(), packet.src.port(), 0, 0)
            .rst()
            .ack(packet.sequence + taken as u32)
    };
    tcp.write(&mut answer, &[]).expect("a vector takes it");
    answer
}

/// The port unreachable that answers a UDP packet.
pub(super) fn unreachable(packet: &Spec) -> Vec<u8> {
    let sent = packet.build();
    let header = if packet.src.is_ipv4() { 20 } else { 40 };
    let quoted = &sent[14..14 + header + 8];
    let mut answer = Vec::new();
    let ethernet = PacketBuilder::ethernet2(packet.macs.1, packet.macs.0);
    match (packet.dst.ip(), packet.src.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let ip = ethernet.ipv4(src.octets(), dst.octets(), 64);
            ip.icmpv4_raw(3, 3, [0; 4])
                .write(&mut answer, quoted)
                .expect("a vector takes it");
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            let ip = ethernet.ipv6(src.octets(), dst.octets(), 64);
            ip.icmpv6_raw(1, 4, [0; 4])
                .write(&mut answer, quoted)
                .expect("a vector takes it");
        }
        _ => panic!("two families in one packet"),
    }
    answer
}

/// An IPv6 packet with hop-by-hop and destination options before its transport header.
pub(super) fn extended(packet: &Spec) -> Vec<u8> {
    let mut bytes = packet.build();
    let transport = std::mem::replace(&mut bytes[20], 0);
    let mut extensions = vec![60, 0, 1, 4, 0, 0, 0, 0];
    extensions.extend([transport, 1, 1, 12]);
    extensions.extend([0; 12]);
    let length = u16::from_be_bytes([bytes[18], bytes[19]]) + extensions.len() as u16;
    bytes[18..20].copy_from_slice(&length.to_be_bytes());
    bytes.splice(54..54, extensions);
    bytes
}

pub(super) const NODE4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(super) const NODE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
pub(super) const HAIRPIN4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
pub(super) const HAIRPIN6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xffff, 0, 0, 0, 0, 0, 1));

pub(super) fn addr(ip: IpAddr) -> Addr {
    Addr::from(ip)
}

pub(super) fn key(spec: &Spec) -> FlowKey {
    FlowKey {
        src: addr(spec.src.ip()),
        dst: addr(spec.dst.ip()),
        sport: Be16::new(spec.src.port()),
        dport: Be16::new(spec.dst.port()),
        proto: if spec.tcp.is_some() { PROTO_TCP } else { PROTO_UDP },
        pad: [0; 3],
    }
}

/// The addresses of one case, in one family.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) v4: bool,
    pub(super) case: u8,
}

impl Place {
    pub(super) fn ip(self, net: u8, host: u8) -> IpAddr {
        if self.v4 {
            Ipv4Addr::new(10, net, self.case, host).into()
        } else {
            Ipv6Addr::new(0xfd00, net.into(), self.case.into(), 0, 0, 0, 0, host.into()).into()
        }
    }

    pub(super) fn client(self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(1, 9), port)
    }

    pub(super) fn vip(self) -> SocketAddr {
        SocketAddr::new(self.ip(96, 10), 80)
    }

    pub(super) fn pod(self, host: u8) -> SocketAddr {
        SocketAddr::new(self.ip(244, host), 8080)
    }

    pub(super) fn node(self, port: u16) -> SocketAddr {
        SocketAddr::new(if self.v4 { NODE4 } else { NODE6 }, port)
    }

    pub(super) fn hairpin(self, port: u16) -> SocketAddr {
        SocketAddr::new(if self.v4 { HAIRPIN4 } else { HAIRPIN6 }, port)
    }
}
