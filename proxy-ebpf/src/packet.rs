//! How the steps see a packet: [`Packet`], implemented for XDP and TC by the programs and over a byte vector by the tests.
//!
//! Headers are read and written through windows: one check that all their bytes are there, then any number of accesses,
//! whose offsets the compiler checks. So nothing is written unless all of it can be.

use crate::abi::FlowKey;
use crate::csum::Sum;
use crate::wire::{Be16, Be32};

/// Some bytes of a packet that are there, at a known place. Offsets are constants within it.
pub trait Window {
    /// A byte.
    fn byte<const AT: usize>(&self) -> u8;
    /// Two bytes.
    fn be16<const AT: usize>(&self) -> Be16;
    /// Four bytes.
    fn be32<const AT: usize>(&self) -> Be32;
    /// Writes a byte.
    fn set_byte<const AT: usize>(&self, value: u8);
    /// Writes two bytes.
    fn set_be16<const AT: usize>(&self, value: Be16);
    /// Writes four bytes.
    fn set_be32<const AT: usize>(&self, value: Be32);
}

/// An Ethernet address.
pub type Mac = [Be16; 3];

/// How much the routing table knows.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug))]
pub enum Route {
    /// The whole hop.
    Found,
    /// The device to leave by, but not the neighbour's address.
    NoNeighbour,
    /// No way there for this packet.
    None,
}

/// The next hop towards a destination.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug))]
pub struct Hop {
    /// How much of it is known.
    pub route: Route,
    /// The device to leave by.
    pub ifindex: u32,
    /// That device's address.
    pub source: Mac,
    /// The neighbour's address.
    pub destination: Mac,
}

/// What the routing table is asked.
#[derive(Clone, Copy)]
pub struct RouteRequest<'a> {
    /// The tuple the packet leaves with.
    pub to: &'a FlowKey,
    /// Type of service, or traffic class.
    pub tos: u8,
    /// Whether it is IPv4.
    pub v4: bool,
}

/// Which transport checksum changes how.
#[derive(Clone, Copy)]
pub struct TransportChange {
    /// Offset of the transport header in the packet.
    pub at: usize,
    /// Whether it is UDP, else TCP.
    pub udp: bool,
    /// Whether it is over IPv4.
    pub v4: bool,
    /// What changed in the pseudo-header.
    pub addresses: Sum,
    /// What changed in the transport header.
    pub ports: Sum,
}

/// The kernel refused a change.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug))]
pub struct Refused;

/// A packet, from its Ethernet header on.
pub trait Packet {
    /// Whether this hook can send to a neighbour whose address is not known yet. One that can't passes the packet to one
    /// that can.
    const RESOLVES_NEIGHBOURS: bool;

    /// Bytes of the packet.
    type Window<'a, const N: usize>: Window + Copy
    where
        Self: 'a;

    /// The `N` bytes from offset `at` on, if all of them are there.
    fn window<const N: usize>(&self, at: usize) -> Option<Self::Window<'_, N>>;
    /// The EtherType; that of a tag if the frame has one, even if the device took it off.
    fn ethertype(&self) -> Option<Be16>;
    /// The device the packet came in by (or, on egress, leaves by).
    fn ifindex(&self) -> u32;
    /// Brings the checksum of TCP or UDP in line with what was rewritten. Comes after all writes through windows.
    ///
    /// # Errors
    /// The kernel refused, and the packet is not fit to be sent.
    fn fix_transport(&mut self, change: &TransportChange) -> Result<(), Refused>;
    /// Whether the TCP header at this offset has the checksum of its pseudo-header only, which a device completes later.
    /// Destroys the checksum.
    ///
    /// # Errors
    /// The kernel refused.
    fn has_partial_checksum(&mut self, transport: usize) -> Result<bool, Refused>;
    /// Cuts the packet off behind some bytes.
    ///
    /// # Errors
    /// The kernel refused.
    fn shorten(&mut self, to: usize) -> Result<(), Refused>;
    /// Makes room behind the Ethernet header.
    ///
    /// # Errors
    /// The kernel refused.
    fn make_room(&mut self, bytes: usize) -> Result<(), Refused>;
    /// Asks the routing table.
    fn route(&mut self, request: &RouteRequest<'_>) -> Hop;
    /// Has the packet sent out of a device, as it is, when the program ends.
    ///
    /// # Errors
    /// The kernel refused.
    fn redirect(&mut self, ifindex: u32) -> Result<(), Refused>;
    /// Has the packet sent out of a device, to whatever neighbour its destination needs, when the program ends.
    ///
    /// # Errors
    /// The kernel refused, or this hook can't.
    fn redirect_to_neighbour(&mut self, ifindex: u32) -> Result<(), Refused>;
}
