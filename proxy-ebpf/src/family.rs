//! IPv4 and IPv6: what the steps need to know of an IP header. Each step is written once over [`Family`] and compiled
//! for both.

use crate::abi::{Addr, FlowKey};
use crate::csum::Sum;
use crate::packet::{Packet, Refused, Window};
use crate::parse::{ETHERNET, Headers};
use crate::verdict::Reason;
use crate::wire::{Be16, Be32};

/// IPv6 hop-by-hop options.
const HOP_BY_HOP: u8 = 0;
/// IPv6 destination options.
const DESTINATION_OPTIONS: u8 = 60;
/// How many IPv6 extension headers are skipped before a packet counts as not balanced.
const MAX_EXTENSIONS: usize = 4;

/// An IP header to write for an answer.
pub struct IpHeader<'a> {
    /// The tuple of the packet that is answered: the answer goes back.
    pub back: &'a FlowKey,
    /// IANA protocol number of the payload.
    pub proto: u8,
    /// Length of the header with options or extension headers. Options are blanked; extension headers stay, and with them
    /// the protocol number.
    pub header: usize,
    /// Length of what follows.
    pub payload: usize,
}

/// Time to live of answers.
const TTL: u8 = 64;
/// The most words of options an IPv4 header holds.
const MAX_OPTIONS: usize = 10;

/// An IP version.
pub trait Family {
    /// Whether this is IPv4.
    const V4: bool;
    /// Length of the header without options, which is checked before any of it is used.
    const HEADER: usize;

    /// Reads the IP header, which begins behind the Ethernet header: everything in `headers` but ports and flags.
    ///
    /// # Errors
    /// [`Reason::NOT_BALANCED`] or [`Reason::MALFORMED`].
    fn parse<P: Packet>(packet: &P, headers: &mut Headers) -> Result<(), Reason>;

    /// Writes the addresses of `to` over those of `from`, and if asked takes one from the time to live, and mends the header's own checksum. Returns
    /// what that means for the transport checksum.
    ///
    /// # Errors
    /// [`Reason::TTL`] if there was none left; [`Reason::MALFORMED`] if there is no whole header. Then nothing has been
    /// written.
    fn rewrite<P: Packet>(packet: &P, from: &FlowKey, to: &FlowKey, hop: bool) -> Result<Sum, Reason>;

    /// Writes the header of an answer.
    ///
    /// # Errors
    /// There is no room for it.
    fn write<P: Packet>(packet: &P, answer: &IpHeader<'_>) -> Result<(), Refused>;
}

/// IPv4.
pub struct V4;

impl Family for V4 {
    const V4: bool = true;
    const HEADER: usize = 20;

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, headers: &mut Headers) -> Result<(), Reason> {
        let header = packet.window::<20>(ETHERNET).ok_or(Reason::MALFORMED)?;
        let version_length = header.byte::<0>();
        if version_length >> 4 != 4 || version_length & 0xf < 5 {
            return Err(Reason::MALFORMED);
        }
        // More fragments to come, or not the first.
        if header.be16::<6>().raw() & Be16::new(0x3fff).raw() != 0 {
            return Err(Reason::NOT_BALANCED);
        }
        headers.key.src = Addr::v4(header.be32::<12>());
        headers.key.dst = Addr::v4(header.be32::<16>());
        headers.key.proto = header.byte::<9>();
        headers.transport = ETHERNET + ((version_length & 0xf) as usize) * 4;
        headers.bytes = u32::from(header.be16::<2>().get());
        headers.tos = header.byte::<1>();
        Ok(())
    }

    #[inline(always)]
    fn rewrite<P: Packet>(packet: &P, from: &FlowKey, to: &FlowKey, hop: bool) -> Result<Sum, Reason> {
        let header = packet.window::<20>(ETHERNET).ok_or(Reason::MALFORMED)?;
        let addresses = Sum::ZERO
            .replace32(from.src.v4_word(), to.src.v4_word())
            .replace32(from.dst.v4_word(), to.dst.v4_word());
        let mut difference = addresses;
        if hop {
            let ttl = header.byte::<8>();
            if ttl <= 1 {
                return Err(Reason::TTL);
            }
            let old = header.be16::<8>();
            header.set_byte::<8>(ttl - 1);
            difference = difference.replace16(old, header.be16::<8>());
        }
        header.set_be16::<10>(difference.update(header.be16::<10>()));
        header.set_be32::<12>(to.src.v4_word());
        header.set_be32::<16>(to.dst.v4_word());
        Ok(addresses)
    }

    #[inline(always)]
    fn write<P: Packet>(packet: &P, answer: &IpHeader<'_>) -> Result<(), Refused> {
        let header = packet.window::<20>(ETHERNET).ok_or(Refused)?;
        let words = answer.header / 4;
        for i in 0..MAX_OPTIONS {
            if i + 5 >= words {
                break;
            }
            packet
                .window::<4>(ETHERNET + 20 + i * 4)
                .ok_or(Refused)?
                .set_be32::<0>(Be32::ZERO);
        }
        let version = Be16::new(0x4000 | (words as u16) << 8);
        let length = Be16::new((answer.header + answer.payload) as u16);
        let dont_fragment = Be16::new(0x4000);
        let ttl_proto = Be16::new(u16::from(TTL) << 8 | u16::from(answer.proto));
        let (src, dst) = (answer.back.dst.v4_word(), answer.back.src.v4_word());
        let sum = Sum::ZERO
            .add16(version)
            .add16(length)
            .add16(dont_fragment)
            .add16(ttl_proto)
            .add32(src)
            .add32(dst);
        header.set_be16::<0>(version);
        header.set_be16::<2>(length);
        header.set_be16::<4>(Be16::ZERO);
        header.set_be16::<6>(dont_fragment);
        header.set_be16::<8>(ttl_proto);
        header.set_be16::<10>(sum.checksum());
        header.set_be32::<12>(src);
        header.set_be32::<16>(dst);
        Ok(())
    }
}

/// IPv6.
pub struct V6;

impl Family for V6 {
    const V4: bool = false;
    const HEADER: usize = 40;

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, headers: &mut Headers) -> Result<(), Reason> {
        let header = packet.window::<40>(ETHERNET).ok_or(Reason::MALFORMED)?;
        let first = header.be16::<0>().get();
        if first >> 12 != 6 {
            return Err(Reason::MALFORMED);
        }
        headers.key.src.words = [
            header.be32::<8>(),
            header.be32::<12>(),
            header.be32::<16>(),
            header.be32::<20>(),
        ];
        headers.key.dst.words = [
            header.be32::<24>(),
            header.be32::<28>(),
            header.be32::<32>(),
            header.be32::<36>(),
        ];
        headers.bytes = u32::from(header.be16::<4>().get()) + 40;
        headers.tos = (first >> 4) as u8;
        headers.key.proto = header.byte::<6>();
        headers.transport = ETHERNET + 40;
        if is_extension(headers.key.proto) {
            (headers.key.proto, headers.transport) = skip_extensions(packet)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn rewrite<P: Packet>(packet: &P, from: &FlowKey, to: &FlowKey, hop: bool) -> Result<Sum, Reason> {
        let header = packet.window::<40>(ETHERNET).ok_or(Reason::MALFORMED)?;
        if hop {
            let limit = header.byte::<7>();
            if limit <= 1 {
                return Err(Reason::TTL);
            }
            header.set_byte::<7>(limit - 1);
        }
        set_addresses(&header, &to.src, &to.dst);
        // After the writes, so that the words needn't be kept meanwhile.
        Ok(difference(&from.src, &to.src).plus(difference(&from.dst, &to.dst)))
    }

    #[inline(always)]
    fn write<P: Packet>(packet: &P, answer: &IpHeader<'_>) -> Result<(), Refused> {
        let header = packet.window::<40>(ETHERNET).ok_or(Refused)?;
        header.set_be32::<0>(Be32::new(0x6000_0000));
        header.set_be16::<4>(Be16::new((answer.header - Self::HEADER + answer.payload) as u16));
        if answer.header == Self::HEADER {
            header.set_byte::<6>(answer.proto);
        }
        header.set_byte::<7>(TTL);
        set_addresses(&header, &answer.back.dst, &answer.back.src);
        Ok(())
    }
}

#[inline(always)]
fn set_addresses<W: Window>(header: &W, src: &Addr, dst: &Addr) {
    let [a, b, c, d] = src.words;
    header.set_be32::<8>(a);
    header.set_be32::<12>(b);
    header.set_be32::<16>(c);
    header.set_be32::<20>(d);
    let [a, b, c, d] = dst.words;
    header.set_be32::<24>(a);
    header.set_be32::<28>(b);
    header.set_be32::<32>(c);
    header.set_be32::<36>(d);
}

#[inline(always)]
fn difference(old: &Addr, new: &Addr) -> Sum {
    let [a, b, c, d] = old.words;
    let [e, f, g, h] = new.words;
    Sum::ZERO
        .replace32(a, e)
        .replace32(b, f)
        .replace32(c, g)
        .replace32(d, h)
}

#[inline(always)]
fn is_extension(proto: u8) -> bool {
    proto == HOP_BY_HOP || proto == DESTINATION_OPTIONS
}

/// The transport's protocol number and offset behind some extension headers.
#[inline(always)]
fn skip_extensions<P: Packet>(packet: &P) -> Result<(u8, usize), Reason> {
    let mut at = ETHERNET + 40;
    for _ in 0..MAX_EXTENSIONS {
        let extension = packet.window::<8>(at).ok_or(Reason::MALFORMED)?;
        let proto = extension.byte::<0>();
        at += (extension.byte::<1>() as usize + 1) * 8;
        if !is_extension(proto) {
            return Ok((proto, at));
        }
    }
    Err(Reason::NOT_BALANCED)
}
