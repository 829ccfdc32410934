//! The socket path: a process's call is pointed at a backend before there is a packet, and everything after it is free.
//!
//! The cgroup entry points in `bpf/socket.rs` call one function per hook:
//!
//! | hook | function | what happens |
//! | --- | --- | --- |
//! | connect4/6 | [`connect`] | choose a backend, remember and count it, replace the address |
//! | sendmsg4/6 (unconnected UDP) | [`send`] | the backend of this socket and address, or a new one |
//! | recvmsg4/6 | [`receive`] | the sender becomes the address the process sent to |
//! | getpeername4/6 | [`peer`] | the peer becomes the address the process connected to |
//! | sock_ops to CLOSE, sock_release | [`close`] | count the socket out, once |
//!
//! The kernel makes each of these calls with the socket locked, but for the last row; so the state needs no lock, and
//! the count, which two hooks may want to return, is exchanged atomically ([`Storage::exchange_counted`]).
//!
//! Each function ends with a [`Reason`]; [`refusal`] turns it into the error the process gets, if any. What is not for
//! us is left alone: a foreign address, another protocol than TCP and UDP, a namespace that opted out.

mod client;
mod close;
mod connect;
mod datagram;
mod route;

pub use close::close;
pub use connect::{connect, peer};
pub use datagram::{receive, send};

use crate::abi::{Addr, SocketState};
use crate::verdict::Reason;
use crate::wire::Be16;

/// An address and a port, as a socket call names them.
#[derive(Clone, Copy)]
#[cfg_attr(not(target_arch = "bpf"), derive(Debug))]
pub struct Endpoint {
    /// The address, IPv4 in mapped form.
    pub addr: Addr,
    /// The port.
    pub port: Be16,
}

/// One test, not five: each would fork what the verifier has to follow behind it, with other words known to be equal.
impl PartialEq for Endpoint {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let [a, b, c, d] = self.addr.words;
        let [e, f, g, h] = other.addr.words;
        let addrs = (a.raw() ^ e.raw()) | (b.raw() ^ f.raw()) | (c.raw() ^ g.raw()) | (d.raw() ^ h.raw());
        addrs | u32::from(self.port.raw() ^ other.port.raw()) == 0
    }
}

impl Eq for Endpoint {}

/// One call on a socket, as its hook shows it.
pub trait Call {
    /// Destination of a connect or a send, sender of a received datagram, peer of a connected socket.
    fn endpoint(&self) -> Endpoint;
    /// Whether such calls can name an address: an IPv4 socket's calls hold IPv4 addresses only. (An IPv6 socket's hold both,
    /// and the stack refuses what the socket can't reach.)
    fn holds(addr: &Addr) -> bool;
    /// Replaces that address and port; the address is one the call holds.
    fn rewrite(&mut self, to: Endpoint);
    /// [`PROTO_TCP`](crate::abi::PROTO_TCP), [`PROTO_UDP`](crate::abi::PROTO_UDP), or 0 for any other.
    fn proto(&self) -> u8;
    /// Cookie of the socket's network namespace: the socket has no source address yet.
    fn netns_cookie(&self) -> u64;
}

/// The state kept with the socket of a call.
pub trait Storage {
    /// The state, if the socket ever used a Service.
    fn get(&mut self) -> Option<&mut SocketState>;
    /// The state, made of zeros if there was none; `None` if the kernel has no memory for it.
    fn get_or_create(&mut self) -> Option<&mut SocketState>;
    /// Atomically replaces [`SocketState::counted`], returning what it was.
    fn exchange_counted(state: &mut SocketState, value: u32) -> u32;
}

/// `ECONNREFUSED`: nobody answers at this address, now.
const CONNECTION_REFUSED: i32 = 111;
/// `EHOSTUNREACH`: somebody would, but can't be reached from here.
const HOST_UNREACHABLE: i32 = 113;

/// The error number (positive) a call that ended with `reason` fails with; `None` lets it go on.
///
/// A Local policy without an endpoint on this node drops packets on the packet path, which a call can't imitate:
/// `EHOSTUNREACH` comes closest, tells it from a Service without endpoints, and counts as temporary with most clients.
#[must_use]
pub fn refusal(reason: Reason) -> Option<i32> {
    match reason {
        Reason::SOCKET_NO_ENDPOINTS | Reason::UNKNOWN_PORT => Some(CONNECTION_REFUSED),
        Reason::SOCKET_NO_LOCAL_ENDPOINTS | Reason::INCONSISTENT => Some(HOST_UNREACHABLE),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
