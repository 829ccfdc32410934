//! [`HostPacket`]: a packet in a byte vector, which notes what the helpers of a hook would have been told. It behaves like
//! a packet of an XDP program with complete checksums, but resolves neighbours if the test says so.

use core::cell::Cell;

use crate::packet::{Hop, Packet, Refused, Route, RouteRequest, TransportChange, Window};
use crate::wire::{Be16, Be32};

/// A packet for tests.
pub(crate) struct HostPacket {
    bytes: Vec<Cell<u8>>,
    /// What the routing table answers.
    pub(crate) hop: Hop,
    /// The device the packet is sent out of.
    pub(crate) redirected: Option<u32>,
}

impl HostPacket {
    /// The device it came in by.
    pub(crate) const IFINDEX: u32 = 7;

    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mac = |last| [Be16::new(0x0200), Be16::ZERO, Be16::new(last)];
        let hop = Hop {
            route: Route::Found,
            ifindex: 9,
            source: mac(3),
            destination: mac(4),
        };
        Self {
            bytes: bytes.iter().copied().map(Cell::new).collect(),
            hop,
            redirected: None,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes.iter().map(Cell::get).collect()
    }
}

/// Bytes of a packet.
#[derive(Clone, Copy)]
pub(crate) struct HostWindow<'a, const N: usize>(&'a [Cell<u8>; N]);

impl<const N: usize> Window for HostWindow<'_, N> {
    fn byte<const AT: usize>(&self) -> u8 {
        self.0[AT].get()
    }

    fn be16<const AT: usize>(&self) -> Be16 {
        Be16::from_bytes([0, 1].map(|i| self.0[AT + i].get()))
    }

    fn be32<const AT: usize>(&self) -> Be32 {
        Be32::from_bytes([0, 1, 2, 3].map(|i| self.0[AT + i].get()))
    }

    fn set_byte<const AT: usize>(&self, value: u8) {
        self.0[AT].set(value);
    }

    fn set_be16<const AT: usize>(&self, value: Be16) {
        for (i, byte) in value.to_bytes().into_iter().enumerate() {
            self.0[AT + i].set(byte);
        }
    }

    fn set_be32<const AT: usize>(&self, value: Be32) {
        for (i, byte) in value.to_bytes().into_iter().enumerate() {
            self.0[AT + i].set(byte);
        }
    }
}

impl Packet for HostPacket {
    const RESOLVES_NEIGHBOURS: bool = false;

    type Window<'a, const N: usize> = HostWindow<'a, N>;

    fn window<const N: usize>(&self, at: usize) -> Option<HostWindow<'_, N>> {
        self.bytes.get(at..)?.first_chunk::<N>().map(HostWindow)
    }

    fn ethertype(&self) -> Option<Be16> {
        self.window::<14>(0).map(|ethernet| ethernet.be16::<12>())
    }

    fn ifindex(&self) -> u32 {
        Self::IFINDEX
    }

    fn fix_transport(&mut self, change: &TransportChange) -> Result<(), Refused> {
        let sum = change.addresses.plus(change.ports);
        if change.udp {
            let header = self.window::<8>(change.at).ok_or(Refused)?;
            header.set_be16::<6>(sum.update_udp(header.be16::<6>()));
        } else {
            let header = self.window::<20>(change.at).ok_or(Refused)?;
            header.set_be16::<16>(sum.update(header.be16::<16>()));
        }
        Ok(())
    }

    fn has_partial_checksum(&mut self, _transport: usize) -> Result<bool, Refused> {
        Ok(false)
    }

    fn shorten(&mut self, to: usize) -> Result<(), Refused> {
        self.bytes.truncate(to);
        Ok(())
    }

    fn make_room(&mut self, bytes: usize) -> Result<(), Refused> {
        self.bytes.splice(14..14, std::iter::repeat_n(Cell::new(0), bytes));
        Ok(())
    }

    fn route(&mut self, _request: &RouteRequest<'_>) -> Hop {
        self.hop
    }

    fn redirect(&mut self, ifindex: u32) -> Result<(), Refused> {
        self.redirected = Some(ifindex);
        Ok(())
    }

    fn redirect_to_neighbour(&mut self, _ifindex: u32) -> Result<(), Refused> {
        Err(Refused)
    }
}
