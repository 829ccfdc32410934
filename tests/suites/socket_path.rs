//! The socket path by itself: real sockets, real backends, no agent. Maps are filled here, the cgroup programs are
//! attached to a cgroup of the test's own.
//!
//! Which programs see a socket is decided by the cgroup its process is in when it is made, and by no thread's: so each
//! test runs in a process of its own ([`alone`]), this binary again, in a new cgroup and a new network namespace where
//! only the loopback device is up. A call that the programs leave alone fails there at once: no route.

mod bench;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{setsockopt, sockopt};
use proxy_ebpf::abi::{Addr, Algorithm, BackendId, Frontend, NodeConfig, PodAddrs, StateGeneration};
use proxy_ebpf::verdict::Reason;

use self::bench::{Bench, Cgroup, mptcp_socket, netns_cookie};

/// Names the cgroup the process is to enter: set for the processes that run tests.
const CGROUP: &str = "WAGGLE_SOCKET_PATH_CGROUP";
/// Asks a process to connect to an address so many times, and to hold the connections: `<address> <count>`.
const HOLD: &str = "WAGGLE_SOCKET_PATH_HOLD";

const VIP4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10));
const VIP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x10));

fn vip4(port: u16) -> SocketAddr {
    SocketAddr::new(VIP4, port)
}

fn vip6(port: u16) -> SocketAddr {
    SocketAddr::new(VIP6, port)
}

/// The IPv4 address of an endpoint as an IPv6 socket sees it.
fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), addr.port()),
        IpAddr::V6(_) => addr,
    }
}

/// Runs a test body in a process, a cgroup and a network namespace of its own.
fn alone(test: &str, body: impl FnOnce(&mut Bench) -> Result<()>) -> Result<()> {
    if let Some(cgroup) = std::env::var_os(CGROUP) {
        let cgroup = PathBuf::from(cgroup);
        fs::write(cgroup.join("cgroup.procs"), "0").context("can't enter the cgroup")?;
        unshare(CloneFlags::CLONE_NEWNET).context("can't make a network namespace")?;
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status()
            .context("can't run ip")?;
        ensure!(up.success(), "can't bring the loopback device up");
        return body(&mut Bench::new(&cgroup)?);
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "attaching programs to a cgroup needs root"
    );
    let cgroup = Cgroup::new(test)?;
    let child = Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            &format!("socket_path::{test}"),
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CGROUP, &cgroup.0)
        .output()?;
    let output = format!(
        "{}{}",
        String::from_utf8_lossy(&child.stdout),
        String::from_utf8_lossy(&child.stderr)
    );
    ensure!(child.status.success(), "{output}");
    ensure!(output.contains("1 passed"), "no test of that name ran: {output}");
    Ok(())
}

/// A TCP server that writes its port to whoever connects, then hangs up or holds on.
fn tcp_server(addr: &str, hold: bool) -> Result<SocketAddr> {
    let listener = TcpListener::bind(addr)?;
    let local = listener.local_addr()?;
    thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming().flatten() {
            let mut stream: TcpStream = stream;
            let written = stream.write_all(&local.port().to_be_bytes());
            if hold && written.is_ok() {
                held.push(stream);
            }
        }
    });
    Ok(local)
}

/// A UDP server that answers each datagram with its port.
fn udp_server(addr: &str) -> Result<SocketAddr> {
    let socket = UdpSocket::bind(addr)?;
    let local = socket.local_addr()?;
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            if socket.send_to(&local.port().to_be_bytes(), from).is_err() {
                break;
            }
        }
    });
    Ok(local)
}

/// Connects; returns the stream and which server answered.
fn ask(vip: SocketAddr) -> Result<(TcpStream, u16)> {
    let mut stream = TcpStream::connect(vip).with_context(|| format!("connect to {vip}"))?;
    let mut answer = [0; 2];
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.read_exact(&mut answer)?;
    Ok((stream, u16::from_be_bytes(answer)))
}

fn udp_client(any: &str) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}

/// Sends a datagram; returns who the answer shows as its sender, and which server it was.
fn exchange(socket: &UdpSocket, vip: SocketAddr) -> Result<(SocketAddr, u16)> {
    socket.send_to(b"?", vip).with_context(|| format!("send to {vip}"))?;
    let mut answer = [0; 2];
    let (_, from) = socket.recv_from(&mut answer)?;
    Ok((from, u16::from_be_bytes(answer)))
}

#[test]
fn kernel_matrix_tcp_connects_to_a_backend_and_shows_the_virtual_address() -> Result<()> {
    alone(
        "kernel_matrix_tcp_connects_to_a_backend_and_shows_the_virtual_address",
        |bench| {
            let four = tcp_server("127.0.0.2:0", false)?;
            let six = tcp_server("[::1]:0", false)?;
            let ids4 = bench.service(1, Algorithm::ROUND_ROBIN, &[four])?;
            let ids6 = bench.service(2, Algorithm::ROUND_ROBIN, &[six])?;
            bench.frontend(vip4(80), 1, 0)?;
            bench.frontend(vip6(80), 2, 0)?;
            for (vip, server) in [(vip4(80), four), (vip6(80), six), (mapped(vip4(80)), four)] {
                let (stream, answer) = ask(vip)?;
                assert_eq!(answer, server.port());
                assert_eq!(stream.peer_addr()?, vip, "getpeername");
            }
            assert_eq!(
                bench.reason(Reason::CONNECTED)?,
                6,
                "three connects, three times asked for the peer"
            );
            bench.settled(&[ids4[0], ids6[0]], &[0, 0])?;
            assert_eq!((bench.opened(ids4[0])?, bench.opened(ids6[0])?), (2, 1));
            // An address that is no frontend is left alone.
            let direct = TcpStream::connect(four)?;
            assert_eq!(direct.peer_addr()?, four);
            assert_eq!(bench.opened(ids4[0])?, 2);
            Ok(())
        },
    )
}

#[test]
fn kernel_matrix_round_robin_is_exact_over_a_thousand_connects() -> Result<()> {
    alone("kernel_matrix_round_robin_is_exact_over_a_thousand_connects", |bench| {
        let servers = (1..=4)
            .map(|i| tcp_server(&format!("127.0.1.{i}:0"), false))
            .collect::<Result<Vec<_>>>()?;
        let ids = bench.service(1, Algorithm::ROUND_ROBIN, &servers)?;
        bench.frontend(vip4(80), 1, 0)?;
        let mut answers: BTreeMap<u16, u32> = BTreeMap::new();
        for _ in 0..1000 {
            *answers.entry(ask(vip4(80))?.1).or_default() += 1;
        }
        assert_eq!(answers.values().copied().collect::<Vec<_>>(), [250; 4]);
        bench.settled(&ids, &[0; 4])
    })
}

#[test]
fn kernel_matrix_least_connections_avoids_backends_with_held_connections() -> Result<()> {
    alone(
        "kernel_matrix_least_connections_avoids_backends_with_held_connections",
        |bench| {
            let servers = (1..=3)
                .map(|i| tcp_server(&format!("127.0.1.{i}:0"), true))
                .collect::<Result<Vec<_>>>()?;
            let ids = bench.service(1, Algorithm::LEAST_CONN, &servers)?;
            bench.frontend(vip4(80), 1, 0)?;
            let mut held = (0..30).map(|_| ask(vip4(80))).collect::<Result<Vec<_>>>()?;
            bench.settled(&ids, &[10; 3])?;
            let counts: BTreeMap<u32, u64> = ids.iter().map(|id| (id.0, 10)).collect();
            assert_eq!(bench.recount()?, counts, "the iterator agrees with the counters");
            // All connections of the first server end: the next ten are its.
            held.retain(|(_, server)| *server != servers[0].port());
            bench.settled(&ids, &[0, 10, 10])?;
            for _ in 0..10 {
                let next = ask(vip4(80))?;
                assert_eq!(next.1, servers[0].port());
                held.push(next);
            }
            bench.settled(&ids, &[10; 3])?;
            drop(held);
            bench.settled(&ids, &[0; 3])?;
            assert_eq!(bench.recount()?, BTreeMap::new());
            Ok(())
        },
    )
}

#[test]
fn kernel_matrix_unconnected_udp_keeps_its_backend_and_sees_the_virtual_address() -> Result<()> {
    alone(
        "kernel_matrix_unconnected_udp_keeps_its_backend_and_sees_the_virtual_address",
        |bench| {
            let servers = (1..=3)
                .map(|i| udp_server(&format!("127.0.2.{i}:0")))
                .collect::<Result<Vec<_>>>()?;
            let sixes = (1..=3).map(|_| udp_server("[::1]:0")).collect::<Result<Vec<_>>>()?;
            bench.service(1, Algorithm::ROUND_ROBIN, &servers)?;
            bench.service(2, Algorithm::ROUND_ROBIN, &sixes)?;
            bench.frontend(vip4(53), 1, 0)?;
            bench.frontend(vip6(53), 2, 0)?;
            for (any, vip) in [
                ("0.0.0.0:0", vip4(53)),
                ("[::]:0", vip6(53)),
                ("[::]:0", mapped(vip4(53))),
            ] {
                let socket = udp_client(any)?;
                let first = exchange(&socket, vip)?;
                assert_eq!(first.0, vip, "recvfrom");
                for _ in 0..10 {
                    assert_eq!(exchange(&socket, vip)?, first, "one backend per socket");
                }
                let other = exchange(&udp_client(any)?, vip)?;
                assert_eq!(other.0, vip);
                assert_ne!(other.1, first.1, "the next socket gets the next backend");
            }
            Ok(())
        },
    )
}

#[test]
fn kernel_matrix_a_dead_backend_of_an_unconnected_socket_is_replaced() -> Result<()> {
    alone(
        "kernel_matrix_a_dead_backend_of_an_unconnected_socket_is_replaced",
        |bench| {
            let servers = (1..=2)
                .map(|i| udp_server(&format!("127.0.2.{i}:0")))
                .collect::<Result<Vec<_>>>()?;
            let ids = bench.service(1, Algorithm::ROUND_ROBIN, &servers)?;
            bench.frontend(vip4(53), 1, 0)?;
            let socket = udp_client("0.0.0.0:0")?;
            let (_, first) = exchange(&socket, vip4(53))?;
            let used = servers
                .iter()
                .position(|server| server.port() == first)
                .context("an unknown server")?;
            bench.set_state(ids[used], StateGeneration::DEAD, 1)?;
            for _ in 0..3 {
                assert_eq!(exchange(&socket, vip4(53))?, (vip4(53), servers[1 - used].port()));
            }
            assert_eq!(bench.reason(Reason::BACKEND_MOVED)?, 1);
            // The id of the second goes to another endpoint: its generation says so, though it is alive.
            bench.set_state(ids[used], StateGeneration::ACTIVE, 2)?;
            bench.set_state(ids[1 - used], StateGeneration::ACTIVE, 2)?;
            exchange(&socket, vip4(53))?;
            assert_eq!(bench.reason(Reason::BACKEND_MOVED)?, 2);
            // Nobody is left.
            bench.run_of(1, Algorithm::ROUND_ROBIN, &[])?;
            bench.set_state(ids[0], StateGeneration::DEAD, 2)?;
            bench.set_state(ids[1], StateGeneration::DEAD, 2)?;
            let error = socket.send_to(b"?", vip4(53)).expect_err("no backend is left");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            Ok(())
        },
    )
}

#[test]
fn kernel_matrix_two_virtual_addresses_over_one_backend_each_see_their_own() -> Result<()> {
    alone(
        "kernel_matrix_two_virtual_addresses_over_one_backend_each_see_their_own",
        |bench| {
            let server = udp_server("127.0.2.1:0")?;
            bench.service(1, Algorithm::ROUND_ROBIN, &[server])?;
            bench.service(2, Algorithm::ROUND_ROBIN, &[server])?;
            let vips = [vip4(53), vip4(5353)];
            bench.frontend(vips[0], 1, 0)?;
            bench.frontend(vips[1], 2, 0)?;
            let socket = udp_client("0.0.0.0:0")?;
            for vip in [vips[0], vips[1], vips[1], vips[0], vips[1]] {
                assert_eq!(exchange(&socket, vip)?.0, vip, "the address used last");
            }
            // Talking to the backend by its own address shows that address.
            assert_eq!(exchange(&socket, server)?.0, server);
            // More virtual addresses than a socket has room for: the oldest gives way, each exchange is still right.
            for port in 6000..6010 {
                bench.frontend(vip4(port), 1, 0)?;
                assert_eq!(exchange(&socket, vip4(port))?.0, vip4(port));
            }
            assert_eq!(exchange(&socket, vips[0])?.0, vips[0]);
            Ok(())
        },
    )
}

#[test]
fn kernel_matrix_connected_udp_is_counted_and_sees_the_virtual_address() -> Result<()> {
    alone(
        "kernel_matrix_connected_udp_is_counted_and_sees_the_virtual_address",
        |bench| {
            let servers = (1..=2)
                .map(|i| udp_server(&format!("127.0.2.{i}:0")))
                .collect::<Result<Vec<_>>>()?;
            let ids = bench.service(1, Algorithm::ROUND_ROBIN, &servers)?;
            bench.frontend(vip4(53), 1, 0)?;
            for (any, vip) in [("0.0.0.0:0", vip4(53)), ("[::]:0", mapped(vip4(53)))] {
                let socket = udp_client(any)?;
                socket.connect(vip)?;
                assert_eq!(socket.peer_addr()?, vip, "getpeername");
                socket.send(b"?")?;
                let mut answer = [0; 2];
                assert_eq!(socket.recv_from(&mut answer)?.1, vip, "recvfrom");
                assert_eq!(ids.iter().map(|id| bench.open(*id)).sum::<Result<u64>>()?, 1);
                // Connected again it is counted once, elsewhere.
                socket.connect(vip)?;
                assert_eq!(ids.iter().map(|id| bench.open(*id)).sum::<Result<u64>>()?, 1);
                // Connected to an address that is no frontend it isn't counted, and its peer is what it is.
                socket.connect(mapped_like(servers[0], vip))?;
                assert_eq!(socket.peer_addr()?, mapped_like(servers[0], vip));
                bench.settled(&ids, &[0, 0])?;
                socket.connect(vip)?;
                drop(socket);
                bench.settled(&ids, &[0, 0])?;
            }
            Ok(())
        },
    )
}

fn mapped_like(addr: SocketAddr, like: SocketAddr) -> SocketAddr {
    if like.is_ipv6() { mapped(addr) } else { addr }
}

#[test]
fn kernel_matrix_without_endpoints_a_connect_is_refused() -> Result<()> {
    alone("kernel_matrix_without_endpoints_a_connect_is_refused", |bench| {
        bench.service(1, Algorithm::ROUND_ROBIN, &[])?;
        bench.frontend(vip4(80), 1, 0)?;
        bench.frontend(vip6(80), 1, 0)?;
        for vip in [vip4(80), vip6(80), mapped(vip4(80))] {
            let error = TcpStream::connect(vip).expect_err("there is no endpoint");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{vip}");
        }
        assert_eq!(bench.reason(Reason::SOCKET_NO_ENDPOINTS)?, 3);
        // A port nobody serves on an address of a Service.
        let error = TcpStream::connect(vip4(81)).expect_err("nobody serves the port");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(bench.reason(Reason::UNKNOWN_PORT)?, 1);
        // A Local policy and none here.
        let server = tcp_server("127.0.0.2:0", false)?;
        bench.service(2, Algorithm::ROUND_ROBIN, &[server])?;
        bench.frontend(vip4(82), 2, Frontend::INTERNAL_LOCAL)?;
        let error = TcpStream::connect(vip4(82)).expect_err("no endpoint is local");
        assert_eq!(error.kind(), ErrorKind::HostUnreachable);
        // An endpoint appears: the same address works at once.
        bench.run_of(1, Algorithm::ROUND_ROBIN, &[BackendId(1)])?;
        assert_eq!(ask(vip4(80))?.1, server.port());
        Ok(())
    })
}

#[test]
fn kernel_matrix_the_client_is_known_by_its_network_namespace() -> Result<()> {
    alone("kernel_matrix_the_client_is_known_by_its_network_namespace", |bench| {
        let servers = (1..=4)
            .map(|i| tcp_server(&format!("127.0.1.{i}:0"), false))
            .collect::<Result<Vec<_>>>()?;
        bench.service(1, Algorithm::SOURCE_HASH, &servers)?;
        bench.frontend(vip4(80), 1, 0)?;
        bench.frontend(SocketAddr::from(([127, 0, 0, 1], 30080)), 1, Frontend::HOST_ONLY)?;
        let cookie = netns_cookie()?;
        // One client, one backend; another address, eventually another.
        let mut answers = BTreeSet::new();
        for host in 1..=32 {
            let v4 = Addr::from(IpAddr::from([10, 0, 0, host]));
            bench.pods.insert(
                cookie,
                PodAddrs {
                    v4,
                    ..PodAddrs::default()
                },
                0,
            )?;
            let first = ask(vip4(80))?.1;
            assert_eq!((ask(vip4(80))?.1, ask(vip4(80))?.1), (first, first));
            answers.insert(first);
        }
        assert_eq!(answers.len(), 4, "32 clients find all four backends");
        // Loopback node ports are for the host's namespace only.
        let loopback = SocketAddr::from(([127, 0, 0, 1], 30080));
        assert!(TcpStream::connect(loopback).is_err());
        bench.node.set(
            0,
            NodeConfig {
                host_netns_cookie: cookie,
                ..NodeConfig::default()
            },
            0,
        )?;
        assert_eq!(ask(loopback)?.0.peer_addr()?, loopback);
        // A namespace that opted out is left alone: there is no route to the address.
        bench.pods.insert(
            cookie,
            PodAddrs {
                flags: PodAddrs::OPT_OUT,
                ..PodAddrs::default()
            },
            0,
        )?;
        let error = TcpStream::connect(vip4(80)).expect_err("left alone");
        assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
        assert_eq!(bench.reason(Reason::SOCKET_OPT_OUT)?, 1);
        Ok(())
    })
}

#[test]
fn kernel_matrix_loads_return_to_zero_after_a_storm() -> Result<()> {
    if let Some(work) = std::env::var_os(HOLD) {
        return hold(&work.into_string().unwrap_or_default());
    }
    alone("kernel_matrix_loads_return_to_zero_after_a_storm", |bench| {
        let mut endpoints = (1..=3)
            .map(|i| tcp_server(&format!("127.0.1.{i}:0"), false))
            .collect::<Result<Vec<_>>>()?;
        // Nobody listens there: refused by the backend itself.
        endpoints.push(SocketAddr::from(([127, 0, 1, 4], 9)));
        let ids = bench.service(1, Algorithm::ROUND_ROBIN, &endpoints)?;
        bench.frontend(vip4(80), 1, 0)?;
        let mut threads = Vec::new();
        for kind in [Storm::Polite, Storm::Reset, Storm::Abandoned] {
            threads.push(thread::spawn(move || storm(kind, 1000)));
        }
        for _ in 0..5 {
            let mut victim = holder(vip4(80), 20)?;
            victim.kill()?;
            victim.wait()?;
        }
        for thread in threads {
            thread.join().expect("a storm panicked")?;
        }
        bench.settled(&ids, &[0; 4])?;
        let opened = ids.iter().map(|id| bench.opened(*id)).sum::<Result<u64>>()?;
        assert_eq!(opened, 3000 + 5 * 20, "every connect was counted");
        assert_eq!(bench.recount()?, BTreeMap::new());
        Ok(())
    })
}

/// The connection of an MPTCP socket is counted on its subflow, which no process ever releases: it ends when both sides
/// have closed, or a minute after the client has.
#[test]
fn kernel_matrix_an_mptcp_connection_is_counted_out() -> Result<()> {
    alone("kernel_matrix_an_mptcp_connection_is_counted_out", |bench| {
        let server = tcp_server("127.0.1.1:0", false)?;
        let ids = bench.service(1, Algorithm::ROUND_ROBIN, &[server])?;
        bench.frontend(vip4(80), 1, 0)?;
        let Some(socket) = mptcp_socket()? else {
            eprintln!("this kernel speaks no MPTCP");
            return Ok(());
        };
        nix::sys::socket::connect(socket.as_raw_fd(), &nix::sys::socket::SockaddrStorage::from(vip4(80)))?;
        let mut stream = TcpStream::from(socket);
        let mut answer = [0; 2];
        stream.read_exact(&mut answer)?;
        assert_eq!(u16::from_be_bytes(answer), server.port());
        bench.settled(&ids, &[1])?;
        drop(stream);
        bench.settled(&ids, &[0])
    })
}

#[derive(Clone, Copy)]
enum Storm {
    /// Connect, read, close.
    Polite,
    /// Connect, and close with RST.
    Reset,
    /// Start to connect, and close without waiting.
    Abandoned,
}

/// Connects often; a quarter of the connects is refused by design.
fn storm(kind: Storm, times: usize) -> Result<()> {
    for _ in 0..times {
        match kind {
            Storm::Polite => drop(ask(vip4(80))),
            Storm::Reset => {
                if let Ok(stream) = TcpStream::connect(vip4(80)) {
                    setsockopt(
                        &stream,
                        sockopt::Linger,
                        &libc::linger {
                            l_onoff: 1,
                            l_linger: 0,
                        },
                    )?;
                }
            }
            Storm::Abandoned => abandon(vip4(80))?,
        }
    }
    Ok(())
}

fn abandon(vip: SocketAddr) -> Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket};
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None)?;
    // In progress, done or refused: all the same here.
    let _ = connect(socket.as_raw_fd(), &SockaddrStorage::from(vip));
    Ok(())
}

/// A process that holds connections; returns once it has them.
fn holder(vip: SocketAddr, count: usize) -> Result<Child> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "socket_path::kernel_matrix_loads_return_to_zero_after_a_storm",
            "--nocapture",
        ])
        .env(HOLD, format!("{vip} {count}"))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = child.stdout.take().context("no output")?;
    let mut text = String::new();
    let mut byte = [0];
    while !text.contains("holding") {
        ensure!(output.read(&mut byte)? == 1, "the process ended: {text}");
        text.push(byte[0] as char);
    }
    Ok(child)
}

fn hold(work: &str) -> Result<()> {
    let (vip, count) = work.split_once(' ').context("not `<address> <count>`")?;
    let (vip, count): (SocketAddr, usize) = (vip.parse()?, count.parse()?);
    let streams: Vec<_> = (0..count).map(|_| TcpStream::connect(vip)).collect();
    println!("holding {}", streams.len());
    std::io::stdout().flush()?;
    loop {
        thread::park();
    }
}
