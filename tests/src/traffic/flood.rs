//! A bounded flood: TCP SYNs from made-up sources, each seen once, through a raw socket of the calling thread's namespace.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use etherparse::PacketBuilder;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};

/// Sends `count` SYNs, each from another source address and port of 198.18.0.0/15 (RFC 2544), as fast as the socket
/// takes them; returns how many it took.
///
/// # Errors
/// Without CAP_NET_RAW.
pub fn syn_flood(to: SocketAddrV4, count: u32) -> Result<u32> {
    // A socket of protocol RAW takes packets with their IP header (raw(7)).
    let raw = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Raw,
    )
    .context("a flood needs a raw socket")?;
    let destination = SockaddrIn::from(to);
    let mut sent = 0;
    let mut packet = Vec::with_capacity(40);
    for number in 0..count {
        let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number % 0x2_0000);
        let port = u16::try_from(1024 + number % 60_000).unwrap_or(1024);
        packet.clear();
        PacketBuilder::ipv4(source.octets(), to.ip().octets(), 64)
            .tcp(port, to.port(), number, 64_240)
            .syn()
            .write(&mut packet, &[])?;
        if sendto(raw.as_raw_fd(), &packet, &destination, MsgFlags::empty()).is_ok() {
            sent += 1;
        }
    }
    Ok(sent)
}
