//! `lab request`: requests one after another from a number of threads, and a [`Report`] of who answered.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use super::Report;

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Protocol {
    /// HTTP over TCP, a connection per request.
    Tcp,
    /// HTTP over one kept TCP connection per thread.
    Keepalive,
    /// A datagram and its answer, from a connected socket per request.
    Udp,
    /// A datagram and its answer, all from one unconnected socket per thread.
    UdpUnconnected,
}

/// What `lab request` is asked for.
#[derive(Clone, Debug, clap::Args)]
pub struct Request {
    /// Where to: address and port.
    #[arg(long)]
    pub to: SocketAddr,
    /// How.
    #[arg(long, value_enum, default_value = "tcp")]
    pub protocol: Protocol,
    /// Number of requests of each thread (with --source: of each source).
    #[arg(long, default_value_t = 1)]
    pub count: u64,
    /// Stop after this long, whatever the count; 0 is no limit.
    #[arg(long, default_value_t = 0)]
    pub duration_ms: u64,
    /// Pause between requests.
    #[arg(long, default_value_t = 0)]
    pub interval_ms: u64,
    /// Number of client threads.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Client addresses to bind to, one after another; the report tells them apart.
    #[arg(long, value_delimiter = ',')]
    pub source: Vec<IpAddr>,
    /// Give up on a connect or an answer after this long.
    #[arg(long, default_value_t = 3000)]
    pub timeout_ms: u64,
}

/// Runs the requests.
///
/// # Errors
/// If a client address can't be bound; failed requests are part of the report.
pub fn run(request: &Request) -> Result<Report> {
    let threads: Vec<_> = (0..request.threads)
        .map(|_| {
            let request = request.clone();
            std::thread::spawn(move || one_thread(&request))
        })
        .collect();
    let mut total = Report::default();
    for thread in threads {
        total.merge(
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a client thread panicked"))??,
        );
    }
    Ok(total)
}

fn one_thread(request: &Request) -> Result<Report> {
    let mut report = Report::default();
    let sources: Vec<Option<IpAddr>> = match request.source.as_slice() {
        [] => vec![None],
        some => some.iter().copied().map(Some).collect(),
    };
    let end = (request.duration_ms > 0).then(|| Instant::now() + Duration::from_millis(request.duration_ms));
    for source in sources {
        let mut session = Session::new(request, source);
        for _ in 0..request.count {
            if end.is_some_and(|end| Instant::now() > end) {
                return Ok(report);
            }
            let begin = Instant::now();
            match session.ask() {
                Ok(answer) => {
                    let mut fields = answer.split_whitespace();
                    let backend = fields.next().unwrap_or("");
                    report.answered(source, backend, fields.next().and_then(|peer| peer.parse().ok()));
                }
                Err(error) => {
                    report.error(describe(&error));
                    session.reset();
                }
            }
            let took = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
            report.slowest_us = report.slowest_us.max(took);
            if request.interval_ms > 0 {
                std::thread::sleep(Duration::from_millis(request.interval_ms));
            }
        }
    }
    Ok(report)
}

/// The names of errors that tests look for, else what the system says.
fn describe(error: &anyhow::Error) -> String {
    let kind = error
        .root_cause()
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind);
    match kind {
        Some(ErrorKind::ConnectionRefused) => "refused".into(),
        Some(ErrorKind::ConnectionReset) => "reset".into(),
        Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => "timeout".into(),
        Some(ErrorKind::HostUnreachable) => "host unreachable".into(),
        Some(ErrorKind::NetworkUnreachable) => "network unreachable".into(),
        _ => format!("{:#}", error.root_cause()),
    }
}

/// One source's way of asking, with the connection it may keep.
struct Session<'a> {
    request: &'a Request,
    source: Option<IpAddr>,
    kept: Option<BufReader<TcpStream>>,
    datagrams: Option<UdpSocket>,
}

impl<'a> Session<'a> {
    fn new(request: &'a Request, source: Option<IpAddr>) -> Self {
        Self {
            request,
            source,
            kept: None,
            datagrams: None,
        }
    }

    fn reset(&mut self) {
        self.kept = None;
        self.datagrams = None;
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.request.timeout_ms)
    }

    fn ask(&mut self) -> Result<String> {
        match self.request.protocol {
            Protocol::Tcp => http(&mut BufReader::new(self.tcp()?), false),
            Protocol::Keepalive => {
                let mut connection = match self.kept.take() {
                    Some(connection) => connection,
                    None => BufReader::new(self.tcp()?),
                };
                let answer = http(&mut connection, true)?;
                self.kept = Some(connection);
                Ok(answer)
            }
            Protocol::Udp => {
                let socket = self.udp()?;
                socket.connect(self.request.to)?;
                socket.send(b"who")?;
                let mut buffer = [0; 2048];
                let length = socket.recv(&mut buffer)?;
                Ok(String::from_utf8(buffer[..length].to_vec())?)
            }
            Protocol::UdpUnconnected => {
                let socket = match self.datagrams.take() {
                    Some(socket) => socket,
                    None => self.udp()?,
                };
                socket.send_to(b"who", self.request.to)?;
                let mut buffer = [0; 2048];
                let (length, from) = socket.recv_from(&mut buffer)?;
                if from != self.request.to {
                    bail!("the answer came from {from}, not from {}", self.request.to);
                }
                self.datagrams = Some(socket);
                Ok(String::from_utf8(buffer[..length].to_vec())?)
            }
        }
    }

    fn tcp(&self) -> Result<TcpStream> {
        let stream = match self.source {
            None => TcpStream::connect_timeout(&self.request.to, self.timeout())?,
            Some(source) => connect_from(source, self.request.to)?,
        };
        stream.set_read_timeout(Some(self.timeout()))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    fn udp(&self) -> Result<UdpSocket> {
        let unspecified: IpAddr = if self.request.to.is_ipv4() {
            [0, 0, 0, 0].into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        let socket = UdpSocket::bind((self.source.unwrap_or(unspecified), 0))?;
        socket.set_read_timeout(Some(self.timeout()))?;
        Ok(socket)
    }
}

/// A TCP connection from a given address; std can't bind before it connects.
fn connect_from(source: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd: OwnedFd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))
        .with_context(|| format!("can't bind to {source}"))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).map_err(std::io::Error::from)?;
    Ok(TcpStream::from(fd))
}

/// One HTTP/1.1 exchange; the answers of [`super::serve`] carry a Content-Length.
fn http(connection: &mut BufReader<TcpStream>, keep: bool) -> Result<String> {
    let close = if keep { "" } else { "Connection: close\r\n" };
    connection
        .get_mut()
        .write_all(format!("GET / HTTP/1.1\r\nHost: lab\r\n{close}\r\n").as_bytes())?;
    let mut length = 0;
    let mut line = String::new();
    loop {
        line.clear();
        if connection.read_line(&mut line)? == 0 {
            return Err(std::io::Error::from(ErrorKind::ConnectionReset)).context("closed before the answer");
        }
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.strip_prefix("content-length:") {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    Ok(String::from_utf8(body)?)
}
