//! Step 6, the other way out: a packet nobody will serve is answered, so that its sender needn't wait for a timeout. TCP
//! gets a reset (RFC 9293, 3.10.7.1), UDP a port unreachable (RFC 792, RFC 4443) that quotes its headers.
//!
//! Called by [`paths`](crate::paths). The answer is made out of the packet itself, which goes back by the device it came
//! in by, from the address it was sent to.

use crate::abi::{FlowKey, PROTO_ICMP, PROTO_ICMPV6, PROTO_TCP};
use crate::csum::Sum;
use crate::family::{Family, IpHeader};
use crate::forward::turn_around;
use crate::packet::{Packet, Refused, Window};
use crate::parse::{ETHERNET, Headers, TCP, TcpFlags, UDP};
use crate::verdict::{Reason, Verdict};
use crate::wire::{Be16, Be32};

/// Length of an ICMP header with its unused word, of both versions.
const ICMP: usize = 8;
/// The most that is quoted of a packet, in words: an IP header with all the options, or some extension headers, and the
/// ports.
const MAX_QUOTED: usize = 32;

/// Answers a packet; without one if it is a reset itself, or its headers are too long to quote.
#[inline(never)]
pub fn reject<F: Family, P: Packet>(packet: &mut P, headers: &Headers, reason: Reason) -> Verdict {
    let answered = if headers.key.proto == PROTO_TCP {
        if headers.tcp.any(TcpFlags::RST) {
            return Verdict::drop(reason);
        }
        reset::<F, P>(packet, headers)
    } else {
        if headers.transport + UDP - ETHERNET > MAX_QUOTED * 4 {
            return Verdict::drop(reason);
        }
        unreachable::<F, P>(packet, headers)
    };
    if answered.is_err() {
        return Verdict::drop(Reason::REWRITE);
    }
    turn_around(packet);
    match packet.redirect(packet.ifindex()) {
        Ok(()) => Verdict::redirect(reason),
        Err(_) => Verdict::drop(Reason::REWRITE),
    }
}

/// The packet becomes a reset. Its IP header keeps its length, because the device may still have to fill in a checksum at
/// the place the sender's stack noted.
#[inline(always)]
fn reset<F: Family, P: Packet>(packet: &mut P, headers: &Headers) -> Result<(), Refused> {
    let partial = packet.has_partial_checksum(headers.transport)?;
    let tcp = packet.window::<TCP>(headers.transport).ok_or(Refused)?;
    let key = &headers.key;
    let header = headers.transport - ETHERNET;
    let (mut sequence, mut acknowledged, mut flags) = (tcp.be32::<8>(), Be32::ZERO, TcpFlags::RST);
    if !headers.tcp.any(TcpFlags::ACK) {
        sequence = Be32::ZERO;
        acknowledged = Be32::new(tcp.be32::<4>().get().wrapping_add(occupied(headers, tcp.byte::<12>())));
        flags |= TcpFlags::ACK;
    }
    let offset_flags = Be16::new(((TCP as u16 / 4) << 12) | u16::from(flags));
    let pseudo = pseudo_header::<F>(key, PROTO_TCP, TCP);
    let sum = pseudo
        .add16(key.dport)
        .add16(key.sport)
        .add32(sequence)
        .add32(acknowledged)
        .add16(offset_flags);
    let checksum = if partial { pseudo.folded() } else { sum.checksum() };
    tcp.set_be16::<0>(key.dport);
    tcp.set_be16::<2>(key.sport);
    tcp.set_be32::<4>(sequence);
    tcp.set_be32::<8>(acknowledged);
    tcp.set_be16::<12>(offset_flags);
    tcp.set_be16::<14>(Be16::ZERO);
    tcp.set_be16::<16>(checksum);
    tcp.set_be16::<18>(Be16::ZERO);
    F::write(
        packet,
        &IpHeader {
            back: key,
            proto: PROTO_TCP,
            header,
            payload: TCP,
        },
    )?;
    packet.shorten(headers.transport + TCP)
}

/// How many sequence numbers a segment takes, by its data offset: SYN and FIN take one each.
#[inline(always)]
fn occupied(headers: &Headers, data_offset: u8) -> u32 {
    let header = (headers.transport - ETHERNET) as u32 + u32::from(data_offset >> 4) * 4;
    let flags = u32::from(headers.tcp.any(TcpFlags::SYN)) + u32::from(headers.tcp.any(TcpFlags::FIN));
    headers.bytes.saturating_sub(header) + flags
}

/// The packet becomes the quotation of an ICMP error.
#[inline(always)]
fn unreachable<F: Family, P: Packet>(packet: &mut P, headers: &Headers) -> Result<(), Refused> {
    let quoted = headers.transport + UDP - ETHERNET;
    let (proto, type_code) = if F::V4 {
        (PROTO_ICMP, Be16::new(0x0303))
    } else {
        (PROTO_ICMPV6, Be16::new(0x0104))
    };
    let mut sum = quotation(packet, quoted / 4).ok_or(Refused)?.add16(type_code);
    if !F::V4 {
        sum = sum.plus(pseudo_header::<F>(&headers.key, proto, ICMP + quoted));
    }
    packet.shorten(headers.transport + UDP)?;
    packet.make_room(F::HEADER + ICMP)?;
    let icmp = packet.window::<ICMP>(ETHERNET + F::HEADER).ok_or(Refused)?;
    icmp.set_be16::<0>(type_code);
    icmp.set_be16::<2>(sum.checksum());
    icmp.set_be32::<4>(Be32::ZERO);
    F::write(
        packet,
        &IpHeader {
            back: &headers.key,
            proto,
            header: F::HEADER,
            payload: ICMP + quoted,
        },
    )
}

/// The sum of what is quoted: that many words from the IP header on.
#[inline(always)]
fn quotation<P: Packet>(packet: &P, words: usize) -> Option<Sum> {
    let mut sum = Sum::ZERO;
    for i in 0..MAX_QUOTED {
        if i >= words {
            break;
        }
        sum = sum.add32(packet.window::<4>(ETHERNET + i * 4)?.be32::<0>());
    }
    Some(sum)
}

#[inline(always)]
fn pseudo_header<F: Family>(key: &FlowKey, proto: u8, length: usize) -> Sum {
    let sum = Sum::ZERO.add_addr(&key.src, F::V4).add_addr(&key.dst, F::V4);
    sum.add16(Be16::new(u16::from(proto))).add16(Be16::new(length as u16))
}
