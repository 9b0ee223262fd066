//! A server that answers as it should until it is told to commit a fault, and again when it is healed.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use hopvine::{Endpoint, connect::http::Version, endpoint::Scheme};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Notify,
    task::JoinSet,
    time::Instant,
};
use tokio_util::either::Either;

use super::{
    authority::{Authority, NAME},
    fault::{Fault, pause},
    peer::{Io, Peer},
    wait::eventually,
};

pub(crate) struct Server {
    pub(crate) version: Version,
    pub(crate) address: SocketAddr,
    pub(crate) authority: Option<Arc<Authority>>,
    pub(crate) shared: Arc<Shared>,
    /// Bound, and not listening.
    closed: Mutex<Option<TcpSocket>>,
    /// Listening, with nobody who accepts, and the connections that fill the queue.
    full: Mutex<Option<(TcpListener, Vec<TcpStream>)>>,
    /// Dropped, they end, and every connection with them.
    tasks: Mutex<JoinSet<()>>,
}

/// What a server's tasks know, and what it saw.
#[derive(Default)]
pub(crate) struct Shared {
    fault: Mutex<Option<Fault>>,
    /// Connections accepted so far, and open now.
    accepted: AtomicUsize,
    open: AtomicUsize,
    /// Requests that were read to their end, and those of them that were worked at.
    read: AtomicUsize,
    ran: AtomicUsize,
    /// Ends the connections.
    hang_up: Notify,
}

impl Shared {
    pub(crate) fn fault(&self) -> Option<Fault> {
        *self.fault.lock().unwrap()
    }

    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.fault() == Some(fault)
    }

    /// Waits until this fault is over.
    pub(crate) async fn last(&self, fault: Fault) {
        while self.has(fault) {
            pause().await;
        }
    }

    pub(crate) fn run(&self) {
        self.ran.fetch_add(1, SeqCst);
    }
}

impl Server {
    pub(crate) async fn start(version: Version) -> Self {
        Self::start_with(version, None, None).await
    }

    /// A server at a door of this fault, and behind TLS where there is an authority.
    pub(crate) async fn start_with(version: Version, fault: Option<Fault>, authority: Option<Arc<Authority>>) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self::start_on(socket, version, fault, authority).await
    }

    pub(crate) async fn start_on(
        socket: TcpSocket,
        version: Version,
        fault: Option<Fault>,
        authority: Option<Arc<Authority>>,
    ) -> Self {
        let server = Self {
            version,
            address: socket.local_addr().unwrap(),
            authority,
            shared: Arc::default(),
            closed: Mutex::default(),
            full: Mutex::default(),
            tasks: Mutex::default(),
        };
        *server.shared.fault.lock().unwrap() = fault;
        match fault {
            Some(Fault::Refuses) => *server.closed.lock().unwrap() = Some(socket),
            Some(Fault::BacklogFull) => {
                let listener = socket.listen(1).unwrap();
                let held = fill(server.address).await;
                *server.full.lock().unwrap() = Some((listener, held));
            }
            _ => server.accept(socket.listen(128).unwrap()),
        }
        server
    }

    fn accept(&self, listener: TcpListener) {
        let (version, authority, shared) = (self.version, self.authority.clone(), Arc::clone(&self.shared));
        self.tasks.lock().unwrap().spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (authority, shared) = (authority.clone(), Arc::clone(&shared));
                let open = Open::new(&shared);
                connections.spawn(async move {
                    let _open = open;
                    // Small writes follow each other here.
                    let _ = socket.set_nodelay(true);
                    let hang_up = Arc::clone(&shared);
                    tokio::select! {
                        () = hang_up.hang_up.notified() => {}
                        // How it ended is the client's to see.
                        _ = connection(socket, version, authority, shared) => {}
                    }
                });
            }
        });
    }

    pub(crate) fn endpoint(&self, id: &str) -> Endpoint {
        let endpoint = Endpoint::from(self.address).with_id(id);
        match self.authority {
            None => endpoint,
            Some(_) => endpoint.with_scheme(Scheme::Https).with_server_name(NAME),
        }
    }

    /// Commits this fault from the next request on.
    pub(crate) fn commit(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = Some(fault);
    }

    /// Does from now on what it should.
    pub(crate) fn heal(&self) {
        *self.shared.fault.lock().unwrap() = None;
        if let Some(socket) = self.closed.lock().unwrap().take() {
            self.accept(socket.listen(128).unwrap());
        }
        if let Some((listener, held)) = self.full.lock().unwrap().take() {
            drop(held);
            self.accept(listener);
        }
    }

    /// Closes every connection.
    pub(crate) async fn hang_up(&self) {
        eventually("connections are closed", || {
            self.shared.hang_up.notify_waiters();
            self.open() == 0
        })
        .await;
    }

    /// Connections so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(SeqCst)
    }

    /// Connections now.
    pub(crate) fn open(&self) -> usize {
        self.shared.open.load(SeqCst)
    }

    /// Requests it read to their end.
    pub(crate) fn read(&self) -> usize {
        self.shared.read.load(SeqCst)
    }

    /// Requests it worked at.
    pub(crate) fn ran(&self) -> usize {
        self.shared.ran.load(SeqCst)
    }
}

/// A connection, counted.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.accepted.fetch_add(1, SeqCst);
        shared.open.fetch_add(1, SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, SeqCst);
    }
}

async fn connection(
    mut socket: TcpStream,
    version: Version,
    authority: Option<Arc<Authority>>,
    shared: Arc<Shared>,
) -> io::Result<()> {
    let mut peer = match (authority, shared.fault()) {
        (_, Some(Fault::ResetsAtOnce)) => return socket.set_zero_linger(),
        (Some(_), Some(Fault::SilentHandshake)) => {
            let mut sink = Vec::new();
            return socket.read_to_end(&mut sink).await.map(drop);
        }
        (Some(_), Some(Fault::PlainText)) => {
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await?;
            let mut sink = Vec::new();
            return socket.read_to_end(&mut sink).await.map(drop);
        }
        (Some(authority), fault) => {
            let stream = authority.acceptor(fault, version).accept(socket).await?;
            Peer::new(Io::Right(stream), version).await?
        }
        (None, _) => Peer::new(Either::Left(socket), version).await?,
    };
    loop {
        let (stream, rest) = peer.request_head().await?;
        if !shared.fault().is_some_and(Fault::leaves_unread) {
            peer.rest(rest).await?;
        }
        shared.read.fetch_add(1, SeqCst);
        match shared.fault() {
            None => {
                shared.run();
                peer.answer(stream, "good").await?;
            }
            Some(fault) => {
                if !fault.commit(&mut peer, stream, &shared).await? {
                    return Ok(());
                }
            }
        }
    }
}

/// Makes connections until the kernel takes no more of them.
async fn fill(address: SocketAddr) -> Vec<TcpStream> {
    let mut held = Vec::new();
    // A queue of one holds two at most; one more is asked for to see that it waits.
    for _ in 0..4 {
        let end = Instant::now() + Duration::from_millis(100);
        match tokio::time::timeout_at(end, TcpStream::connect(address)).await {
            Ok(stream) => held.push(stream.unwrap()),
            Err(_) => return held,
        }
    }
    panic!("the queue never filled");
}
