use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::wire;
use crate::{Error, ErrorKind, context, layers::timed::Timed, request::Carrier};

/// Takes the deadline from an inbound request. See the [module](super).
///
/// The handler, and every call it makes and awaits, is held to it; spawned work carries it over by
/// [`Context::scope`](crate::Context::scope).
#[derive(Clone, Copy, Debug)]
pub struct ServerDeadlineLayer {
    max: Duration,
    trusted: bool,
}

impl Default for ServerDeadlineLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerDeadlineLayer {
    /// As the caller says, at most 30 s; 30 s where it says nothing.
    pub fn new() -> Self {
        Self { max: Duration::from_secs(30), trusted: true }
    }

    /// At most this long, and this long where the caller says nothing.
    #[must_use]
    pub fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// Whatever the caller says is taken out of the request and not believed.
    #[must_use]
    pub fn untrusted(mut self) -> Self {
        self.trusted = false;
        self
    }
}

impl<S> Layer<S> for ServerDeadlineLayer {
    type Service = ServerDeadline<S>;

    fn layer(&self, inner: S) -> ServerDeadline<S> {
        ServerDeadline { inner, layer: *self }
    }
}

/// A server's service with a deadline. Made by [`ServerDeadlineLayer`].
#[derive(Clone, Debug)]
pub struct ServerDeadline<S> {
    inner: S,
    layer: ServerDeadlineLayer,
}

impl<S, Req> Service<Req> for ServerDeadline<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    Req: Carrier,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ServerDeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let asked = if self.layer.trusted {
            request.headers().and_then(wire::read)
        } else {
            request.headers_mut().map(wire::remove);
            None
        };
        let now = context::now();
        let end = now + asked.map_or(self.layer.max, |asked| asked.min(self.layer.max));
        // A new chain of calls begins: what a caller in the same process had does not count.
        let _deadline = context::replace_deadline(Some(end));
        let _clock = context::leave_clock();
        ServerDeadlineFuture { call: Timed::new(self.inner.call(request), end), end }
    }
}

pin_project! {
    /// Made by [`ServerDeadline`].
    pub struct ServerDeadlineFuture<F> {
        #[pin]
        call: Timed<F>,
        end: Instant,
    }
}

impl<F, Res, E> Future for ServerDeadlineFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Res, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _deadline = context::replace_deadline(Some(*this.end));
        let _clock = context::leave_clock();
        Poll::Ready(match ready!(this.call.poll(cx)) {
            Ok(result) => result.map_err(Error::from_any),
            Err(_) => Err(Error::new(ErrorKind::DeadlineExceeded).with_layer("server_deadline")),
        })
    }
}

impl<F> fmt::Debug for ServerDeadlineFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerDeadlineFuture").finish_non_exhaustive()
    }
}
