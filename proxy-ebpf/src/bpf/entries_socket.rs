//! The entry points of the socket path: context in, one function of `paths::socket`, verdict out. The agent attaches
//! them to the root cgroup of the node; their names are part of the interface to it.

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_TCP_CLOSE,
};
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, sock_ops};
use aya_ebpf::programs::{SockAddrContext, SockContext, SockOpsContext};
use proxy_ebpf::maps::Maps;
use proxy_ebpf::paths::socket::{self, Storage};
use proxy_ebpf::verdict::Reason;

use super::maps::KernelMaps;
use super::socket::{Family, SockAddr, SockOps, SocketStorage, V4, V6, allow, fail_with};

/// connect to an IPv4 address.
#[cgroup_sock_addr(connect4)]
fn socket_connect4(ctx: SockAddrContext) -> i32 {
    connect::<V4>(&ctx)
}

/// connect to an IPv6 or mapped address.
#[cgroup_sock_addr(connect6)]
fn socket_connect6(ctx: SockAddrContext) -> i32 {
    connect::<V6>(&ctx)
}

/// sendto an IPv4 or mapped address on a UDP socket.
#[cgroup_sock_addr(sendmsg4)]
fn socket_sendmsg4(ctx: SockAddrContext) -> i32 {
    send::<V4>(&ctx)
}

/// sendto an IPv6 address on a UDP socket.
#[cgroup_sock_addr(sendmsg6)]
fn socket_sendmsg6(ctx: SockAddrContext) -> i32 {
    send::<V6>(&ctx)
}

/// recvfrom on an IPv4 UDP socket.
#[cgroup_sock_addr(recvmsg4)]
fn socket_recvmsg4(ctx: SockAddrContext) -> i32 {
    receive::<V4>(&ctx)
}

/// recvfrom on an IPv6 UDP socket; the sender may be mapped.
#[cgroup_sock_addr(recvmsg6)]
fn socket_recvmsg6(ctx: SockAddrContext) -> i32 {
    receive::<V6>(&ctx)
}

/// getpeername on an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
fn socket_getpeername4(ctx: SockAddrContext) -> i32 {
    peer::<V4>(&ctx)
}

/// getpeername on an IPv6 socket; the peer may be mapped.
#[cgroup_sock_addr(getpeername6)]
fn socket_getpeername6(ctx: SockAddrContext) -> i32 {
    peer::<V6>(&ctx)
}

/// The last reference of a process to a socket is gone.
#[cgroup_sock(sock_release)]
fn socket_release(ctx: SockContext) -> i32 {
    socket::close(&mut SocketStorage::of_release(ctx.sock), &KernelMaps);
    1
}

/// A TCP socket starts to connect, or changes its state.
#[sock_ops]
fn socket_ops(ctx: SockOpsContext) -> u32 {
    let event = SockOps::new(ctx.ops);
    match event.operation() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => {
            if event.storage().get().is_some() {
                event.follow_state(BPF_SOCK_OPS_STATE_CB_FLAG);
            }
        }
        BPF_SOCK_OPS_STATE_CB if event.new_state() == BPF_TCP_CLOSE => {
            socket::close(&mut event.storage(), &KernelMaps);
        }
        _ => {}
    }
    1
}

#[inline(always)]
fn connect<F: Family>(ctx: &SockAddrContext) -> i32 {
    let mut call = SockAddr::<F>::new(ctx.sock_addr);
    let mut storage = call.storage();
    answer(socket::connect(&mut call, &mut storage, &KernelMaps))
}

#[inline(always)]
fn send<F: Family>(ctx: &SockAddrContext) -> i32 {
    let mut call = SockAddr::<F>::new(ctx.sock_addr);
    let mut storage = call.storage();
    answer(socket::send(&mut call, &mut storage, &KernelMaps))
}

/// This hook and the next can't refuse: the kernel takes 1 only.
#[inline(always)]
fn receive<F: Family>(ctx: &SockAddrContext) -> i32 {
    let mut call = SockAddr::<F>::new(ctx.sock_addr);
    let mut storage = call.storage();
    KernelMaps.count_reason(socket::receive(&mut call, &mut storage));
    1
}

#[inline(always)]
fn peer<F: Family>(ctx: &SockAddrContext) -> i32 {
    let mut call = SockAddr::<F>::new(ctx.sock_addr);
    let mut storage = call.storage();
    KernelMaps.count_reason(socket::peer(&mut call, &mut storage));
    1
}

/// Counts the reason, and lets the call go on or fail.
#[inline(always)]
fn answer(reason: Reason) -> i32 {
    KernelMaps.count_reason(reason);
    match socket::refusal(reason) {
        Some(errno) => {
            fail_with(errno);
            allow(false)
        }
        None => allow(true),
    }
}
