//! The contexts of the cgroup hooks as [`Call`] and [`Storage`]. Made by the entry points in `entries_socket`.
//!
//! Reasons the `unsafe` blocks refer to:
//! (a) the context pointer is the kernel's, valid and exclusively ours for the run of the program; the verifier checks
//!     each access, and wants it whole and at a constant offset: hence volatile, word by word;
//! (b) a pointer into socket storage stays valid for the run of the program (RCU), and is the only one: the socket is
//!     locked, see `paths::socket`; `counted`, which others may touch, goes through one atomic instruction.

use core::ffi::c_void;
use core::ptr::{null_mut, read_volatile, write_volatile};

use aya_ebpf::bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock, bpf_sock_addr, bpf_sock_ops};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_set_retval, bpf_sk_storage_get, bpf_sock_ops_cb_flags_set,
};
use proxy_ebpf::abi::{Addr, PROTO_TCP, PROTO_UDP, SocketState};
use proxy_ebpf::paths::socket::{Call, Endpoint, Storage};
use proxy_ebpf::wire::{Be16, Be32};

use super::atomic;
use super::socket_storage::SOCKETS;

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const IPPROTO_MPTCP: u32 = 262;

/// Which of the context's address fields a hook may touch: a program for one family is refused if it reads the other's.
pub(super) trait Family {
    fn holds(addr: &Addr) -> bool;
    fn read(ctx: *mut bpf_sock_addr) -> Addr;
    fn write(ctx: *mut bpf_sock_addr, addr: Addr);
}

/// The hooks whose names end in 4.
pub(super) struct V4;

/// The hooks whose names end in 6; their addresses may be mapped IPv4.
pub(super) struct V6;

impl Family for V4 {
    #[inline(always)]
    fn holds(addr: &Addr) -> bool {
        addr.is_v4()
    }

    #[inline(always)]
    fn read(ctx: *mut bpf_sock_addr) -> Addr {
        // SAFETY: (a).
        Addr::v4(Be32::from_raw(unsafe { read_volatile(&raw const (*ctx).user_ip4) }))
    }

    #[inline(always)]
    fn write(ctx: *mut bpf_sock_addr, addr: Addr) {
        // SAFETY: (a).
        unsafe { write_volatile(&raw mut (*ctx).user_ip4, addr.v4_word().raw()) };
    }
}

impl Family for V6 {
    #[inline(always)]
    fn holds(_: &Addr) -> bool {
        true
    }

    #[inline(always)]
    fn read(ctx: *mut bpf_sock_addr) -> Addr {
        // SAFETY: (a).
        let words = unsafe {
            [
                read_volatile(&raw const (*ctx).user_ip6[0]),
                read_volatile(&raw const (*ctx).user_ip6[1]),
                read_volatile(&raw const (*ctx).user_ip6[2]),
                read_volatile(&raw const (*ctx).user_ip6[3]),
            ]
        };
        Addr {
            words: words.map(Be32::from_raw),
        }
    }

    #[inline(always)]
    fn write(ctx: *mut bpf_sock_addr, addr: Addr) {
        let [a, b, c, d] = addr.words;
        // SAFETY: (a).
        unsafe {
            write_volatile(&raw mut (*ctx).user_ip6[0], a.raw());
            write_volatile(&raw mut (*ctx).user_ip6[1], b.raw());
            write_volatile(&raw mut (*ctx).user_ip6[2], c.raw());
            write_volatile(&raw mut (*ctx).user_ip6[3], d.raw());
        }
    }
}

/// A call seen by one of the `sock_addr` hooks.
pub(super) struct SockAddr<F> {
    ctx: *mut bpf_sock_addr,
    family: core::marker::PhantomData<F>,
}

impl<F: Family> SockAddr<F> {
    /// Of a program's context.
    #[inline(always)]
    pub(super) fn new(ctx: *mut bpf_sock_addr) -> Self {
        Self {
            ctx,
            family: core::marker::PhantomData,
        }
    }

    /// The storage of the call's socket.
    #[inline(always)]
    pub(super) fn storage(&self) -> SocketStorage {
        // SAFETY: (a).
        let socket = unsafe { read_volatile(&raw const (*self.ctx).__bindgen_anon_1.sk) };
        SocketStorage { socket: socket.cast() }
    }
}

impl<F: Family> Call for SockAddr<F> {
    #[inline(always)]
    fn endpoint(&self) -> Endpoint {
        // SAFETY: (a).
        let port = unsafe { read_volatile(&raw const (*self.ctx).user_port) };
        Endpoint {
            addr: F::read(self.ctx),
            port: Be16::from_raw(port as u16),
        }
    }

    #[inline(always)]
    fn holds(addr: &Addr) -> bool {
        F::holds(addr)
    }

    #[inline(always)]
    fn rewrite(&mut self, to: Endpoint) {
        F::write(self.ctx, to.addr);
        // SAFETY: (a).
        unsafe { write_volatile(&raw mut (*self.ctx).user_port, u32::from(to.port.raw())) };
    }

    #[inline(always)]
    fn proto(&self) -> u8 {
        // SAFETY: (a).
        let (kind, protocol) = unsafe {
            (
                read_volatile(&raw const (*self.ctx).type_),
                read_volatile(&raw const (*self.ctx).protocol),
            )
        };
        if kind == SOCK_STREAM && (protocol == u32::from(PROTO_TCP) || protocol == IPPROTO_MPTCP) {
            PROTO_TCP
        } else if kind == SOCK_DGRAM && protocol == u32::from(PROTO_UDP) {
            PROTO_UDP
        } else {
            0
        }
    }

    #[inline(always)]
    fn netns_cookie(&self) -> u64 {
        // SAFETY: (a); the helper takes the context itself.
        unsafe { bpf_get_netns_cookie(self.ctx.cast()) }
    }
}

/// The value of `SOCKETS` of one socket.
pub(super) struct SocketStorage {
    /// What the helper takes for the socket: a `bpf_sock` read from a context, or in `sock_release` the context.
    socket: *mut c_void,
}

impl SocketStorage {
    /// Of the context of `sock_release`.
    #[inline(always)]
    pub(super) fn of_release(ctx: *mut bpf_sock) -> Self {
        Self { socket: ctx.cast() }
    }

    #[inline(always)]
    fn lookup(&mut self, flags: u64) -> Option<&mut SocketState> {
        if self.socket.is_null() {
            return None;
        }
        // SAFETY: the map and the socket are what the helper wants, as the verifier checks; without an initial value
        // it makes one of zeros.
        let state =
            unsafe { bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), self.socket, null_mut(), flags) };
        // SAFETY: (b).
        unsafe { state.cast::<SocketState>().as_mut() }
    }
}

impl Storage for SocketStorage {
    #[inline(always)]
    fn get(&mut self) -> Option<&mut SocketState> {
        self.lookup(0)
    }

    #[inline(always)]
    fn get_or_create(&mut self) -> Option<&mut SocketState> {
        self.lookup(u64::from(BPF_SK_STORAGE_GET_F_CREATE))
    }

    #[inline(always)]
    fn exchange_counted(state: &mut SocketState, value: u32) -> u32 {
        // SAFETY: (b).
        unsafe { atomic::exchange(&raw mut state.counted, value) }
    }
}

/// An event of a TCP socket, as `sock_ops` sees it.
pub(super) struct SockOps {
    ctx: *mut bpf_sock_ops,
}

impl SockOps {
    /// Of a program's context.
    #[inline(always)]
    pub(super) fn new(ctx: *mut bpf_sock_ops) -> Self {
        Self { ctx }
    }

    /// One of the `BPF_SOCK_OPS_*_CB` numbers.
    #[inline(always)]
    pub(super) fn operation(&self) -> u32 {
        // SAFETY: (a).
        unsafe { read_volatile(&raw const (*self.ctx).op) }
    }

    /// With `BPF_SOCK_OPS_STATE_CB`: the state the socket goes to.
    #[inline(always)]
    pub(super) fn new_state(&self) -> u32 {
        // SAFETY: (a).
        unsafe { read_volatile(&raw const (*self.ctx).__bindgen_anon_1.args[1]) }
    }

    /// Asks for `BPF_SOCK_OPS_STATE_CB` from now on, beside what others asked for.
    #[inline(always)]
    pub(super) fn follow_state(&self, flag: u32) {
        // SAFETY: (a); the helper only sets flags of this socket.
        unsafe {
            let flags = read_volatile(&raw const (*self.ctx).bpf_sock_ops_cb_flags);
            bpf_sock_ops_cb_flags_set(self.ctx, (flags | flag) as i32);
        }
    }

    /// The storage of the event's socket.
    #[inline(always)]
    pub(super) fn storage(&self) -> SocketStorage {
        // SAFETY: (a).
        let socket = unsafe { read_volatile(&raw const (*self.ctx).__bindgen_anon_2.sk) };
        SocketStorage { socket: socket.cast() }
    }
}

/// Makes the call fail with an error number (positive), once the program returns 0.
#[inline(always)]
pub(super) fn fail_with(errno: i32) {
    // SAFETY: the helper only stores the number in the context of the run.
    unsafe { bpf_set_retval(-errno) };
}

/// The verifier wants to see that a program returns 0 or 1, and loses sight of it when the compiler computes with the
/// flag; a volatile read keeps it from doing so.
#[inline(always)]
pub(super) fn allow(allowed: bool) -> i32 {
    let flag = u32::from(allowed);
    // SAFETY: it reads a local variable.
    (unsafe { read_volatile(&raw const flag) } & 1) as i32
}
