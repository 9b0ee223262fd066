use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use libtest_mimic::Failed;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use super::free_port;

/// A way to a server for one client, which keeps what the client says, in lower case.
pub(crate) struct Tap {
    port: u16,
    server: u16,
    said: Arc<Mutex<String>>,
    /// The listener, and its connections with it.
    open: JoinSet<()>,
}

impl Tap {
    pub(crate) async fn open(server: u16) -> Result<Self, Failed> {
        let mut tap = Self { port: free_port()?, server, said: Arc::default(), open: JoinSet::new() };
        tap.reopen().await?;
        Ok(tap)
    }

    /// Refuses connections from now on.
    pub(crate) async fn close(&mut self) {
        self.open.shutdown().await;
    }

    pub(crate) async fn reopen(&mut self) -> Result<(), Failed> {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await?;
        self.open.spawn(listen(listener, self.server, Arc::clone(&self.said)));
        Ok(())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether the client has said this, in whatever case.
    pub(crate) fn heard(&self, text: &str) -> bool {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).contains(&text.to_lowercase())
    }
}

async fn listen(listener: TcpListener, server: u16, said: Arc<Mutex<String>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let said = Arc::clone(&said);
        connections.spawn(async move {
            let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
            let ((from_client, mut to_client), (mut from_server, to_server)) =
                (client.into_split(), server.into_split());
            tokio::select! {
                _ = forward(from_client, to_server, &said) => {}
                _ = copy(&mut from_server, &mut to_client) => {}
            }
        });
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, said: &Mutex<String>) -> io::Result<()> {
    let mut bytes = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&bytes[..read]).to_lowercase();
        said.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        to.write_all(&bytes[..read]).await?;
    }
}
