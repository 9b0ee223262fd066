use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::wire;
use crate::{EndpointHandle, Error, ErrorKind, NewService, context, request::Carrier};

/// What the way to the server may take: the server is told that much less.
const MARGIN: Duration = Duration::from_millis(1);

/// Tells the server, in a header of each attempt, how long it still has. See the [module](super).
///
/// Per endpoint. Without a deadline nothing is written, and what stands there goes on.
#[derive(Clone, Copy, Debug, Default)]
pub struct DeadlineHeaderLayer;

impl DeadlineHeaderLayer {
    /// Writes `grpc-timeout` on gRPC requests, `x-request-timeout-ms` on others.
    pub fn new() -> Self {
        Self
    }
}

impl<N> Layer<N> for DeadlineHeaderLayer {
    type Service = NewDeadlineHeader<N>;

    fn layer(&self, inner: N) -> NewDeadlineHeader<N> {
        NewDeadlineHeader { inner }
    }
}

/// Makes a [`DeadlineHeader`] for each endpoint.
#[derive(Clone, Debug)]
pub struct NewDeadlineHeader<N> {
    inner: N,
}

impl<N: NewService<EndpointHandle>> NewService<EndpointHandle> for NewDeadlineHeader<N> {
    type Service = DeadlineHeader<N::Service>;

    fn new_service(&self, endpoint: &EndpointHandle) -> Self::Service {
        DeadlineHeader { inner: self.inner.new_service(endpoint) }
    }
}

/// A service whose requests say how long they are waited for. Made by [`DeadlineHeaderLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineHeader<S> {
    inner: S,
}

impl<S, Req> Service<Req> for DeadlineHeader<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    Req: Carrier,
{
    type Response = S::Response;
    type Error = Error;
    type Future = DeadlineHeaderFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let _clock = context::enter_clock();
        if let Some(deadline) = context::deadline() {
            let remaining = deadline.saturating_duration_since(context::now());
            if remaining.is_zero() {
                return DeadlineHeaderFuture::Late;
            }
            if let Some(headers) = request.headers_mut() {
                wire::write(headers, remaining.saturating_sub(MARGIN).max(MARGIN));
            }
        }
        DeadlineHeaderFuture::Calling { call: self.inner.call(request) }
    }
}

pin_project! {
    /// Made by [`DeadlineHeader`].
    #[project = FutureProjection]
    pub enum DeadlineHeaderFuture<F> {
        #[doc(hidden)]
        Calling { #[pin] call: F },
        #[doc(hidden)]
        Late,
    }
}

impl<F, Res, E> Future for DeadlineHeaderFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Res, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            FutureProjection::Calling { call } => call.poll(cx).map_err(Error::from_any),
            FutureProjection::Late => {
                Poll::Ready(Err(Error::new(ErrorKind::DeadlineExceeded).with_layer("deadline_header").unsent()))
            }
        }
    }
}

impl<F> fmt::Debug for DeadlineHeaderFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineHeaderFuture").finish_non_exhaustive()
    }
}
