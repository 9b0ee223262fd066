use std::{sync::Arc, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Connection, Ticks,
    connection::{Noticed, Over},
};
use crate::registry::http::Desk;

/// The most that hyper keeps of a request's head, and of an answer that is not read, in bytes. (With `pipeline_flush` it would keep any amount of answers.)
const HEAD: usize = 64 * 1024;

/// How long a listener that cannot accept waits.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until it is told to stop.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) desk: Arc<Desk>,
    pub(super) ticks: Arc<Ticks>,
    pub(super) places: Arc<Semaphore>,
    pub(super) connections: TaskTracker,
    /// Connections end after what is under way.
    pub(super) stopping: CancellationToken,
    /// Connections end.
    pub(super) ended: CancellationToken,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<tokio_rustls::TlsAcceptor>,
}

impl Listener {
    pub(super) async fn run(self) {
        let stopping = self.stopping.clone();
        tokio::select! {
            () = stopping.cancelled() => {}
            () = self.accept() => {}
        }
    }

    async fn accept(&self) {
        loop {
            if self.places.available_permits() == 0 {
                self.desk.store.counters().refused_connections.add();
            }
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            let stream = match self.socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(target: "hopvine::registry", %error, "cannot accept a connection");
                    tokio::time::sleep_until(Instant::now() + PAUSE).await;
                    continue;
                }
            };
            let (desk, stopping) = (Arc::clone(&self.desk), self.stopping.clone());
            let connection = Connection::new(Arc::clone(&self.ticks), &self.ended);
            #[cfg(feature = "tls")]
            let tls = self.tls.clone();
            self.connections.spawn(async move {
                // Answers are small and whole.
                let _ = stream.set_nodelay(true);
                #[cfg(feature = "tls")]
                if let Some(tls) = tls {
                    let most = desk.store.policy().get().limits.head_time;
                    if let Ok(Ok(stream)) = tokio::time::timeout(most, tls.accept(stream)).await {
                        serve(stream, desk, connection, stopping).await;
                    }
                    drop(place);
                    return;
                }
                serve::<TcpStream>(stream, desk, connection, stopping).await;
                drop(place);
            });
        }
    }
}

/// Serves one connection to its end, or ours.
async fn serve<I>(stream: I, desk: Arc<Desk>, connection: Arc<Connection>, stopping: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = TokioIo::new(Noticed { stream, connection: Arc::clone(&connection) });
    let service = service_fn(|request: http::Request<Incoming>| {
        connection.request();
        desk.answer(request, &connection)
    });
    let http = http1::Builder::new().max_buf_size(HEAD).serve_connection(io, service);
    tokio::pin!(http);
    let interval = |desk: &Desk| desk.store.policy().get().limits.head_time / 4;
    let check = tokio::time::sleep_until(Instant::now() + interval(&desk));
    tokio::pin!(check);
    let mut is_ending = false;
    loop {
        tokio::select! {
            biased;
            _ = &mut http => return,
            () = connection.closed() => return,
            () = stopping.cancelled(), if !is_ending => {
                is_ending = true;
                http.as_mut().graceful_shutdown();
            }
            () = &mut check => {
                match connection.is_over(&desk.store.policy().get().limits) {
                    Some(Over::Head) => {
                        desk.store.counters().refused_heads.add();
                        return;
                    }
                    Some(Over::Idle) => return,
                    None => check.as_mut().reset(Instant::now() + interval(&desk)),
                }
            }
        }
    }
}
