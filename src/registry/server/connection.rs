use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::CancellationToken;

use crate::registry::{Moment, RegistryLimits};

/// What is known of a connection: whether it waits for the rest of a head, and since when it is idle. Times are those of the last [`Ticks`], so that a
/// request reads no clock for it.
#[derive(Debug)]
pub(in crate::registry) struct Connection {
    ticks: Arc<Ticks>,
    /// When the first byte came that no request is made of yet; 0 if there is none.
    head_since: AtomicU64,
    /// When the last request began.
    request_at: AtomicU64,
    watching: AtomicBool,
    closed: CancellationToken,
}

/// A clock that is set now and then.
#[derive(Debug, Default)]
pub(in crate::registry) struct Ticks(AtomicU64);

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Head,
    Idle,
}

impl Ticks {
    pub(super) fn set(&self, now: Moment) {
        self.0.store(now.0, Relaxed);
    }

    fn now(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Connection {
    /// One that is closed at the latest when `ended` is.
    pub(super) fn new(ticks: Arc<Ticks>, ended: &CancellationToken) -> Arc<Self> {
        let now = ticks.now();
        Arc::new(Self {
            ticks,
            head_since: AtomicU64::new(now),
            request_at: AtomicU64::new(now),
            watching: AtomicBool::new(false),
            closed: ended.child_token(),
        })
    }

    /// A head is complete.
    pub(super) fn request(&self) {
        self.head_since.store(0, Relaxed);
        self.request_at.store(self.ticks.now(), Relaxed);
    }

    /// The bytes that came were a body's.
    pub(in crate::registry) fn body_is_read(&self) {
        self.head_since.store(0, Relaxed);
    }

    /// It stays open as long as somebody watches.
    pub(in crate::registry) fn watching(&self) {
        self.watching.store(true, Relaxed);
    }

    /// Closes it, whatever it is doing.
    pub(in crate::registry) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Whether it took too long, and for what.
    pub(super) fn is_over(&self, limits: &RegistryLimits) -> Option<Over> {
        let now = Moment(self.ticks.now());
        let since = |then: &AtomicU64| now.since(Moment(then.load(Relaxed)));
        if self.watching.load(Relaxed) {
            None
        } else if self.head_since.load(Relaxed) > 0 && since(&self.head_since) > limits.head_time {
            Some(Over::Head)
        } else {
            (since(&self.request_at) > limits.idle_time).then_some(Over::Idle)
        }
    }
}

/// A stream that says when bytes come.
pub(super) struct Noticed<I> {
    pub(super) stream: I,
    pub(super) connection: Arc<Connection>,
}

impl<I: AsyncRead + Unpin> AsyncRead for Noticed<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let connection = &self.connection;
        if buffer.filled().len() > before && connection.head_since.load(Relaxed) == 0 {
            connection.head_since.store(connection.ticks.now(), Relaxed);
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Noticed<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
