//! Packets of XDP and TC programs: bytes between two pointers the verifier watches, and the helpers that change more.
//!
//! The verifier accepts an access if the very register it uses was compared with the packet's end. The compiler likes to
//! compute that address anew in another way, so the pointer to a window is made by one instruction it can't see into,
//! compared, and then used with constant offsets, by instructions it can't see into either (the language has no unaligned
//! access on this target but byte by byte).

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::{
    bpf_csum_update, bpf_fib_lookup, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_adjust_room,
    bpf_skb_change_tail, bpf_skb_pull_data, bpf_xdp_adjust_head, bpf_xdp_adjust_tail,
};
use core::arch::asm;
use core::ffi::c_void;
use core::marker::PhantomData;
use proxy_ebpf::abi::{Addr, FlowKey};
use proxy_ebpf::packet::{Hop, Mac, Packet, Refused, Route, RouteRequest, TransportChange, Window};
use proxy_ebpf::wire::{Be16, Be32};

/// Offset of the checksum in a TCP header.
const TCP_CHECKSUM: usize = 16;
/// Offset of the checksum in a UDP header.
const UDP_CHECKSUM: usize = 6;
/// No offset in a packet is larger: keeps the verifier's idea of a pointer within what it allows.
const OFFSET_MASK: usize = 0x1fff;
/// How much of a packet TC programs need in one piece: Ethernet, IP with options or extension headers, TCP.
const HEADERS: u32 = 160;
/// EtherType of a tagged frame.
const TAGGED: Be16 = Be16::new(0x8100);

/// `N` bytes of a packet, checked to lie before its end.
#[derive(Clone, Copy)]
pub(super) struct Bytes<'a, const N: usize> {
    start: *mut u8,
    packet: PhantomData<&'a [u8; N]>,
}

/// `N` bytes from `data + at`, if they lie before `end`.
#[inline(always)]
fn window<'a, const N: usize>(data: usize, end: usize, at: usize) -> Option<Bytes<'a, N>> {
    let mut start = data;
    // SAFETY: adds two registers and touches no memory.
    unsafe {
        asm!("{start} += {at}", start = inout(reg) start, at = in(reg) at & OFFSET_MASK,
            options(pure, nomem, nostack, preserves_flags));
    }
    if start + N > end {
        return None;
    }
    Some(Bytes {
        start: start as *mut u8,
        packet: PhantomData,
    })
}

macro_rules! load {
    ($self:ident, $at:ident, $number:ident) => {{
        const { assert!($at + size_of::<$number>() <= N, "outside the window") };
        let value: u64;
        // SAFETY: `window` checked `N` bytes from `start`, the offset lies within them, and the packet outlives the window.
        unsafe {
            asm!(concat!("{value} = *(", stringify!($number), " *)({start} + {at})"), value = lateout(reg) value,
                start = in(reg) $self.start, at = const $at, options(readonly, nostack, preserves_flags));
        }
        value as $number
    }};
}

macro_rules! store {
    ($self:ident, $at:ident, $number:ident, $value:expr) => {{
        const { assert!($at + size_of::<$number>() <= N, "outside the window") };
        // SAFETY: as for loads; the program owns the packet while it runs.
        unsafe {
            asm!(concat!("*(", stringify!($number), " *)({start} + {at}) = {value}"), start = in(reg) $self.start, at = const $at,
                value = in(reg) u64::from($value), options(nostack, preserves_flags));
        }
    }};
}

impl<const N: usize> Window for Bytes<'_, N> {
    #[inline(always)]
    fn byte<const AT: usize>(&self) -> u8 {
        load!(self, AT, u8)
    }

    #[inline(always)]
    fn be16<const AT: usize>(&self) -> Be16 {
        Be16::from_raw(load!(self, AT, u16))
    }

    #[inline(always)]
    fn be32<const AT: usize>(&self) -> Be32 {
        Be32::from_raw(load!(self, AT, u32))
    }

    #[inline(always)]
    fn set_byte<const AT: usize>(&self, value: u8) {
        store!(self, AT, u8, value);
    }

    #[inline(always)]
    fn set_be16<const AT: usize>(&self, value: Be16) {
        store!(self, AT, u16, value.raw());
    }

    #[inline(always)]
    fn set_be32<const AT: usize>(&self, value: Be32) {
        store!(self, AT, u32, value.raw());
    }
}

/// A packet of an XDP program.
#[derive(Clone, Copy)]
pub(super) struct XdpPacket {
    context: *mut xdp_md,
}

impl XdpPacket {
    #[inline(always)]
    pub(super) fn new(context: *mut xdp_md) -> Self {
        Self { context }
    }
}

impl Packet for XdpPacket {
    const RESOLVES_NEIGHBOURS: bool = false;

    type Window<'a, const N: usize> = Bytes<'a, N>;

    #[inline(always)]
    fn window<const N: usize>(&self, at: usize) -> Option<Bytes<'_, N>> {
        // SAFETY: the context is valid while the program runs; volatile, because helpers change what the fields hold.
        let (data, end) = unsafe {
            (
                (&raw const (*self.context).data).read_volatile(),
                (&raw const (*self.context).data_end).read_volatile(),
            )
        };
        window(data as usize, end as usize, at)
    }

    #[inline(always)]
    fn ethertype(&self) -> Option<Be16> {
        self.window::<14>(0).map(|ethernet| ethernet.be16::<12>())
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: as in `window`.
        unsafe { (&raw const (*self.context).ingress_ifindex).read_volatile() }
    }

    #[inline(always)]
    fn fix_transport(&mut self, change: &TransportChange) -> Result<(), Refused> {
        let sum = change.addresses.plus(change.ports);
        if change.udp {
            let header = self.window::<8>(change.at).ok_or(Refused)?;
            header.set_be16::<UDP_CHECKSUM>(sum.update_udp(header.be16::<UDP_CHECKSUM>()));
        } else {
            let header = self.window::<20>(change.at).ok_or(Refused)?;
            header.set_be16::<TCP_CHECKSUM>(sum.update(header.be16::<TCP_CHECKSUM>()));
        }
        Ok(())
    }

    #[inline(always)]
    fn has_partial_checksum(&mut self, _transport: usize) -> Result<bool, Refused> {
        // Nothing tells; what comes from a wire has none.
        Ok(false)
    }

    #[inline(always)]
    fn shorten(&mut self, to: usize) -> Result<(), Refused> {
        // SAFETY: as in `window`.
        let (data, end) = unsafe {
            (
                (&raw const (*self.context).data).read_volatile(),
                (&raw const (*self.context).data_end).read_volatile(),
            )
        };
        let mut len = end as usize;
        // SAFETY: subtracts two registers and touches no memory; the compiler would do it with half of them, which the
        // verifier doesn't allow for pointers.
        unsafe {
            asm!("{len} -= {data}", len = inout(reg) len, data = in(reg) data as usize,
                options(pure, nomem, nostack, preserves_flags));
        }
        let delta = to as i32 - len as i32;
        // SAFETY: the context is the program's own.
        if unsafe { bpf_xdp_adjust_tail(self.context, delta) } == 0 {
            Ok(())
        } else {
            Err(Refused)
        }
    }

    #[inline(always)]
    fn make_room(&mut self, bytes: usize) -> Result<(), Refused> {
        // SAFETY: the context is the program's own.
        if unsafe { bpf_xdp_adjust_head(self.context, -(bytes as i32)) } != 0 {
            return Err(Refused);
        }
        let from = self.window::<14>(bytes).ok_or(Refused)?;
        let to = self.window::<14>(0).ok_or(Refused)?;
        to.set_be32::<0>(from.be32::<0>());
        to.set_be32::<4>(from.be32::<4>());
        to.set_be32::<8>(from.be32::<8>());
        to.set_be16::<12>(from.be16::<12>());
        Ok(())
    }

    #[inline(always)]
    fn route(&mut self, request: &RouteRequest<'_>) -> Hop {
        route(self.context.cast(), self.ifindex(), request)
    }

    #[inline(always)]
    fn redirect(&mut self, ifindex: u32) -> Result<(), Refused> {
        // SAFETY: the helper takes numbers only.
        let action = unsafe { bpf_redirect(ifindex, 0) };
        if action as u32 == proxy_ebpf::verdict::XDP_REDIRECT {
            Ok(())
        } else {
            Err(Refused)
        }
    }

    #[inline(always)]
    fn redirect_to_neighbour(&mut self, _ifindex: u32) -> Result<(), Refused> {
        Err(Refused)
    }
}

/// A packet of a TC program.
#[derive(Clone, Copy)]
pub(super) struct TcPacket {
    context: *mut __sk_buff,
}

impl TcPacket {
    /// The packet of a context, with its headers in one piece.
    #[inline(always)]
    pub(super) fn new(context: *mut __sk_buff) -> Self {
        let packet = Self { context };
        let (data, end) = packet.bounds();
        if data + HEADERS as usize > end {
            packet.pull();
        }
        packet
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the context is valid while the program runs; volatile, because helpers change what the fields hold.
        let (data, end) = unsafe {
            (
                (&raw const (*self.context).data).read_volatile(),
                (&raw const (*self.context).data_end).read_volatile(),
            )
        };
        (data as usize, end as usize)
    }

    /// Brings the headers into the packet's linear part, if they are not. A refusal shows as a packet that is too short.
    #[inline(always)]
    fn pull(&self) {
        // SAFETY: as in `bounds`.
        let len = unsafe { (&raw const (*self.context).len).read_volatile() };
        let (data, end) = self.bounds();
        let wanted = if len < HEADERS { len } else { HEADERS };
        if data + wanted as usize > end {
            // SAFETY: the context is the program's own.
            unsafe { bpf_skb_pull_data(self.context, wanted) };
        }
    }
}

/// Room between the Ethernet header and what follows.
const BPF_ADJ_ROOM_MAC: u32 = 1;
const BPF_F_PSEUDO_HDR: u64 = 1 << 4;
const BPF_F_MARK_MANGLED_0: u64 = 1 << 5;

impl Packet for TcPacket {
    const RESOLVES_NEIGHBOURS: bool = true;

    type Window<'a, const N: usize> = Bytes<'a, N>;

    #[inline(always)]
    fn window<const N: usize>(&self, at: usize) -> Option<Bytes<'_, N>> {
        let (data, end) = self.bounds();
        window(data, end, at)
    }

    #[inline(always)]
    fn ethertype(&self) -> Option<Be16> {
        // SAFETY: as in `bounds`.
        if unsafe { (&raw const (*self.context).vlan_present).read_volatile() } != 0 {
            return Some(TAGGED);
        }
        self.window::<14>(0).map(|ethernet| ethernet.be16::<12>())
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: as in `bounds`.
        unsafe { (&raw const (*self.context).ifindex).read_volatile() }
    }

    /// By the kernel's helper, which knows whether the checksum is complete or only that of the pseudo-header. With a
    /// difference instead of two values one call does for all ports, and one for all addresses.
    #[inline(always)]
    fn fix_transport(&mut self, change: &TransportChange) -> Result<(), Refused> {
        let (offset, zero) = if change.udp {
            (UDP_CHECKSUM, BPF_F_MARK_MANGLED_0)
        } else {
            (TCP_CHECKSUM, 0)
        };
        let at = (change.at + offset) as u32;
        let addresses = change.addresses.folded32();
        // SAFETY: the context is the program's own, and the helper checks the offset.
        let done = unsafe {
            bpf_l4_csum_replace(self.context, at, 0, addresses.into(), zero | BPF_F_PSEUDO_HDR) == 0
                && bpf_l4_csum_replace(self.context, at, 0, change.ports.folded32().into(), zero) == 0
        };
        if !done {
            return Err(Refused);
        }
        if !change.v4 {
            // The helper takes the difference out of a checksum the device computed over the whole packet. Over IPv4 that is
            // right, because the IP header's own checksum hides the addresses; over IPv6 it has to be put back. On
            // packets without such a checksum this is refused and does nothing.
            // SAFETY: the context is the program's own.
            unsafe { bpf_csum_update(self.context, addresses) };
        }
        Ok(())
    }

    /// Without the flag for pseudo-headers the helper changes complete checksums only: so it is told to, and looked at.
    #[inline(always)]
    fn has_partial_checksum(&mut self, transport: usize) -> Result<bool, Refused> {
        let before = self.window::<20>(transport).ok_or(Refused)?.be16::<TCP_CHECKSUM>();
        // SAFETY: the context is the program's own, and the helper checks the offset.
        if unsafe { bpf_l4_csum_replace(self.context, (transport + TCP_CHECKSUM) as u32, 0, 1, 2) } != 0 {
            return Err(Refused);
        }
        Ok(self.window::<20>(transport).ok_or(Refused)?.be16::<TCP_CHECKSUM>() == before)
    }

    #[inline(always)]
    fn shorten(&mut self, to: usize) -> Result<(), Refused> {
        // SAFETY: the context is the program's own.
        if unsafe { bpf_skb_change_tail(self.context, to as u32, 0) } == 0 {
            Ok(())
        } else {
            Err(Refused)
        }
    }

    #[inline(always)]
    fn make_room(&mut self, bytes: usize) -> Result<(), Refused> {
        // SAFETY: the context is the program's own.
        if unsafe { bpf_skb_adjust_room(self.context, bytes as i32, BPF_ADJ_ROOM_MAC, 0) } == 0 {
            Ok(())
        } else {
            Err(Refused)
        }
    }

    #[inline(always)]
    fn route(&mut self, request: &RouteRequest<'_>) -> Hop {
        route(self.context.cast(), self.ifindex(), request)
    }

    #[inline(always)]
    fn redirect(&mut self, ifindex: u32) -> Result<(), Refused> {
        // SAFETY: the helper takes numbers only.
        let action = unsafe { bpf_redirect(ifindex, 0) };
        if action as i32 == proxy_ebpf::verdict::TC_REDIRECT {
            Ok(())
        } else {
            Err(Refused)
        }
    }

    #[inline(always)]
    fn redirect_to_neighbour(&mut self, ifindex: u32) -> Result<(), Refused> {
        // SAFETY: a null pointer of length 0 is how the helper is told to ask the routing table.
        let action = unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) };
        if action as i32 == proxy_ebpf::verdict::TC_REDIRECT {
            Ok(())
        } else {
            Err(Refused)
        }
    }
}

/// `struct bpf_fib_lookup`, with its unions resolved to what is used of them.
#[repr(C)]
struct FibLookup {
    family: u8,
    proto: u8,
    sport: u16,
    dport: u16,
    tot_len: u16,
    ifindex: u32,
    tos: u32,
    src: Addr,
    dst: Addr,
    /// Input for VLAN devices, which are not asked for; the Ethernet addresses follow.
    vlan: u32,
    source: Mac,
    destination: Mac,
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const BPF_FIB_LKUP_RET_SUCCESS: i64 = 0;
const BPF_FIB_LKUP_RET_NO_NEIGH: i64 = 7;

/// A function of its own: its parameter block takes a good part of the stack.
#[inline(never)]
fn route(context: *mut c_void, ifindex: u32, request: &RouteRequest<'_>) -> Hop {
    let FlowKey { src, dst, proto, .. } = request.to;
    let mut lookup = FibLookup {
        family: if request.v4 { AF_INET } else { AF_INET6 },
        proto: *proto,
        sport: 0,
        dport: 0,
        tot_len: 0,
        ifindex,
        // IPv4 takes the byte, IPv6 the whole word of version, class and label in network order.
        tos: if request.v4 {
            u32::from(request.tos)
        } else {
            Be32::new(u32::from(request.tos) << 20).raw()
        },
        src: *src,
        dst: *dst,
        vlan: 0,
        source: [Be16::ZERO; 3],
        destination: [Be16::ZERO; 3],
    };
    if request.v4 {
        // IPv4 addresses are in the first word.
        lookup.src.words[0] = src.v4_word();
        lookup.dst.words[0] = dst.v4_word();
    }
    // SAFETY: the context is the program's own; the structure has the size and layout the kernel reads and writes.
    let found = unsafe {
        bpf_fib_lookup(
            context,
            (&raw mut lookup).cast(),
            core::mem::size_of::<FibLookup>() as i32,
            0,
        )
    };
    let route = match found {
        BPF_FIB_LKUP_RET_SUCCESS => Route::Found,
        BPF_FIB_LKUP_RET_NO_NEIGH => Route::NoNeighbour,
        _ => Route::None,
    };
    Hop {
        route,
        ifindex: lookup.ifindex,
        source: lookup.source,
        destination: lookup.destination,
    }
}
