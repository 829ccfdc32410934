//! What a socket remembers: the value of the socket storage `SOCKETS`.

use super::{Addr, BackendId, ServiceId, shared};
use crate::wire::Be16;

/// What an unconnected UDP socket was told for one virtual address.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, bytemuck::Pod, bytemuck::Zeroable))]
pub struct UdpSlot {
    /// The address the process sends to.
    pub vip: Addr,
    /// The address its datagrams go to.
    pub addr: Addr,
    /// The port the process sends to.
    pub vport: Be16,
    /// The port its datagrams go to.
    pub port: Be16,
    /// The service the virtual address belonged to.
    pub service: ServiceId,
    /// The backend at that address.
    pub backend: BackendId,
    /// The backend's generation when it was chosen.
    pub generation: u32,
    /// Number of the send that used the slot last; 0 is a free slot.
    pub sequence: u32,
}

/// Value of `SOCKETS`, one per socket that ever used a Service.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug, bytemuck::Pod, bytemuck::Zeroable))]
pub struct SocketState {
    /// The virtual address the process connected to, while `connected_at` isn't 0.
    pub vip: Addr,
    /// The backend's address.
    pub addr: Addr,
    /// The virtual port.
    pub vport: Be16,
    /// The backend's port.
    pub port: Be16,
    /// The service.
    pub service: ServiceId,
    /// The backend.
    pub backend: BackendId,
    /// The backend's generation at connect.
    pub generation: u32,
    /// 1 while the socket holds a count in `BACKEND_LOADS`; whoever exchanges it for 0 counts it out.
    pub counted: u32,
    /// IANA protocol number.
    pub proto: u32,
    /// Number of the last connect or unconnected send; never 0 once there was one.
    pub sequence: u32,
    /// Number of the connect that set `vip`; 0 is not connected through us.
    pub connected_at: u32,
    /// Unconnected sends, by virtual address.
    pub udp: [UdpSlot; SocketState::UDP_SLOTS],
}

impl SocketState {
    /// How many virtual addresses one unconnected UDP socket can talk to and still see each reply come from the
    /// address it sent to; the oldest gives way to a fifth.
    pub const UDP_SLOTS: usize = 4;

    /// Counts a connect or a send, and gives its number: never 0, also after a wrap.
    #[inline(always)]
    pub const fn next_sequence(&mut self) -> u32 {
        self.sequence = match self.sequence.wrapping_add(1) {
            0 => 1,
            next => next,
        };
        self.sequence
    }
}

shared!(UdpSlot, 52);
shared!(SocketState, 272);
