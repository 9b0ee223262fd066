//! The load: connections that send the next request when the last one is answered, on plain sockets.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use crate::instances::Lease;

pub(crate) const CONNECTIONS: usize = 8;

/// What each connection asks, again and again.
#[derive(Clone, Copy)]
pub(crate) enum Ask<'a> {
    Heartbeat,
    Register,
    Get(&'a [u8]),
}

/// Asks for so long, each connection for instances of its own; counts what was answered.
pub(crate) fn run(server: SocketAddr, leases: &mut [Lease], ask: Ask<'_>, time: Duration) -> io::Result<u64> {
    let share = leases.len().div_ceil(CONNECTIONS);
    thread::scope(|scope| {
        let threads: Vec<_> = leases
            .chunks_mut(share)
            .map(|leases| {
                scope.spawn(move || {
                    let (mut connection, mut count) = (Connection::new(server), 0);
                    let end = Instant::now() + time;
                    for turn in (0..leases.len()).cycle() {
                        if Instant::now() >= end {
                            break;
                        }
                        let lease = &mut leases[turn];
                        match ask {
                            Ask::Heartbeat => connection.ask(lease.heartbeat(), 200)?,
                            Ask::Get(request) => connection.ask(request, 200)?,
                            Ask::Register => {
                                lease.touch();
                                connection.ask(lease.register(), 204)?;
                            }
                        }
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        let counts = threads.into_iter().map(|thread| thread.join().expect("a loader does not panic"));
        counts.sum()
    })
}

/// Registers each once.
pub(crate) fn register(server: SocketAddr, leases: &[Lease]) -> io::Result<()> {
    let mut connection = Connection::new(server);
    leases.iter().try_for_each(|lease| connection.ask(lease.register(), 204))
}

/// One connection, dialled again when the server has closed it: Tomcat does so after 100 requests.
pub(crate) struct Connection {
    server: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
    line: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(server: SocketAddr) -> Self {
        Self { server, stream: None, line: Vec::new(), body: Vec::new() }
    }

    fn dial(&self) -> io::Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect(self.server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(BufReader::with_capacity(64 * 1024, stream))
    }

    /// Sends a request and reads its answer, which must be this.
    pub(crate) fn ask(&mut self, request: &[u8], expected: u16) -> io::Result<()> {
        let mut stream = self.stream.take().map_or_else(|| self.dial(), Ok)?;
        stream.get_mut().write_all(request)?;
        let (mut status, mut length, mut chunked, mut close) = (0, 0, false, false);
        for number in 0.. {
            let line = line(&mut stream, &mut self.line)?.to_ascii_lowercase();
            if number == 0 {
                status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
            } else if line.is_empty() {
                break;
            } else if let Some((name, value)) = line.split_once(':') {
                match (name, value.trim()) {
                    ("content-length", value) => length = value.parse().map_err(io::Error::other)?,
                    ("transfer-encoding", _) => chunked = true,
                    ("connection", value) => close = value == "close",
                    _ => {}
                }
            }
        }
        self.body.clear();
        loop {
            if chunked {
                let size = line(&mut stream, &mut self.line)?;
                length = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            }
            let at = self.body.len();
            self.body.resize(at + length, 0);
            stream.read_exact(&mut self.body[at..])?;
            if chunked {
                line(&mut stream, &mut self.line)?;
            }
            if !chunked || length == 0 {
                break;
            }
        }
        if status != expected {
            let body = String::from_utf8_lossy(&self.body);
            return Err(io::Error::other(format!("answered {status} instead of {expected}: {body}")));
        }
        self.stream = (!close).then_some(stream);
        Ok(())
    }
}

fn line<'a>(stream: &mut BufReader<TcpStream>, line: &'a mut Vec<u8>) -> io::Result<&'a str> {
    line.clear();
    if stream.read_until(b'\n', line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    str::from_utf8(line.trim_ascii_end()).map_err(io::Error::other)
}
