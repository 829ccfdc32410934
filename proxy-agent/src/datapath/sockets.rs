//! Ends UDP sockets that are connected to a backend that is gone. On the socket path such a socket talks to its backend
//! directly, for as long as the application keeps it; ended, it sees ECONNABORTED, and its next connect chooses anew.
//!
//! Called by [`pods`](super::pods) inside of each namespace. The kernel's side is netlink's `sock_diag`
//! (include/uapi/linux/{sock_diag,inet_diag}.h): list the sockets, then destroy by cookie, so that a socket that was
//! connected elsewhere meanwhile is not hit.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
};

use bytemuck::{Pod, Zeroable};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
            sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike},
    },
};
use proxy_ebpf::{abi::Addr, wire::Be16};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const PROTO_UDP: u8 = 17;
/// State of a connected UDP socket: `TCP_ESTABLISHED`.
const CONNECTED: u32 = 1 << 1;

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Header {
    len: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct inet_diag_sockid`. An IPv4 address is in the first word.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct SocketId {
    sport: Be16,
    dport: Be16,
    src: Addr,
    dst: Addr,
    interface: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Request {
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_msg`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Found {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
    expires: u32,
    receive_queue: u32,
    send_queue: u32,
    uid: u32,
    inode: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Message {
    header: Header,
    request: Request,
}

/// Ends the UDP sockets of the calling thread's namespace that are connected to one of `backends`, IPv4-mapped ones
/// included. Returns how many were ended.
///
/// # Errors
/// The kernel has no `udp_diag` or no `SOCK_DESTROY`, or CAP_NET_ADMIN is missing in that namespace.
pub fn end_connected_udp(backends: &[SocketAddr]) -> io::Result<usize> {
    let netlink = open()?;
    let mut ended = 0;
    for family in [AF_INET, AF_INET6] {
        for id in connected(&netlink, family)?
            .into_iter()
            .filter(|id| is_to(family, id, backends))
        {
            ended += usize::from(destroy(&netlink, family, id)?);
        }
    }
    Ok(ended)
}

fn is_to(family: u8, id: &SocketId, backends: &[SocketAddr]) -> bool {
    let address: IpAddr = if family == AF_INET {
        Addr::v4(id.dst.words[0]).into()
    } else {
        id.dst.into()
    };
    backends.contains(&SocketAddr::new(address, id.dport.get()))
}

fn open() -> io::Result<OwnedFd> {
    let netlink = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    setsockopt(&netlink, ReceiveTimeout, &TimeVal::seconds(2))?;
    Ok(netlink)
}

fn ask(netlink: &OwnedFd, kind: u16, flags: u16, request: Request) -> io::Result<()> {
    let len = u32::try_from(size_of::<Message>()).expect("a few dozen bytes");
    let header = Header {
        len,
        kind,
        flags: NLM_F_REQUEST | flags,
        ..Header::default()
    };
    send(
        netlink.as_raw_fd(),
        bytemuck::bytes_of(&Message { header, request }),
        MsgFlags::empty(),
    )?;
    Ok(())
}

fn connected(netlink: &OwnedFd, family: u8) -> io::Result<Vec<SocketId>> {
    let request = Request {
        family,
        protocol: PROTO_UDP,
        states: CONNECTED,
        ..Request::default()
    };
    ask(netlink, SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, request)?;
    let mut found = Vec::new();
    loop {
        let mut buffer = vec![0; 64 * 1024];
        let read = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, body) in Messages(&buffer[..read]) {
            match kind {
                SOCK_DIAG_BY_FAMILY => found.extend(head::<Found>(body).map(|message| message.id)),
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return Err(refusal(body).unwrap_or_else(|| io::ErrorKind::InvalidData.into())),
                _ => {}
            }
        }
    }
}

/// `false` if the socket was closed or connected elsewhere meanwhile.
fn destroy(netlink: &OwnedFd, family: u8, id: SocketId) -> io::Result<bool> {
    let request = Request {
        family,
        protocol: PROTO_UDP,
        states: CONNECTED,
        id,
        ..Request::default()
    };
    ask(netlink, SOCK_DESTROY, NLM_F_ACK, request)?;
    let mut buffer = vec![0; 4096];
    let read = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let answer = Messages(&buffer[..read]).find(|(kind, _)| *kind == NLMSG_ERROR);
    match answer.and_then(|(_, body)| refusal(body)) {
        None => Ok(true),
        Some(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => Ok(false),
        Some(error) => Err(error),
    }
}

/// What an acknowledgement refuses with; `None` if it says that all is well.
fn refusal(body: &[u8]) -> Option<io::Error> {
    let code: i32 = head(body)?;
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

fn head<T: Pod>(bytes: &[u8]) -> Option<T> {
    bytes.get(..size_of::<T>()).map(bytemuck::pod_read_unaligned)
}

/// The netlink messages of one datagram: kind and body.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header: Header = head(self.0)?;
        let len = header.len as usize;
        let body = self.0.get(size_of::<Header>()..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((header.kind, body))
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn only_sockets_to_the_dead_backend_are_recognised() {
        let dead: SocketAddr = "192.0.2.7:53".parse().unwrap();
        let to = |text: &str, port| match text.parse().unwrap() {
            IpAddr::V4(v4) => {
                let mut dst = Addr::UNSPECIFIED;
                dst.words[0] = Addr::from(IpAddr::V4(v4)).v4_word();
                SocketId {
                    dst,
                    dport: Be16::new(port),
                    ..SocketId::default()
                }
            }
            v6 => SocketId {
                dst: v6.into(),
                dport: Be16::new(port),
                ..SocketId::default()
            },
        };
        assert!(is_to(AF_INET, &to("192.0.2.7", 53), &[dead]));
        assert!(is_to(AF_INET6, &to("::ffff:192.0.2.7", 53), &[dead]));
        assert!(!is_to(AF_INET, &to("192.0.2.7", 54), &[dead]));
        assert!(!is_to(AF_INET, &to("192.0.2.8", 53), &[dead]));
    }

    #[test]
    fn the_kernel_lists_a_connected_socket() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        let found = connected(&open().unwrap(), AF_INET).unwrap();
        assert!(
            found
                .iter()
                .any(|id| is_to(AF_INET, id, &[server.local_addr().unwrap()]))
        );
    }
}
