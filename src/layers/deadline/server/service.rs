use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::layer::{Settings, Shared};
use crate::{
    Error, context,
    layers::deadline::{Timed, service::exceeded},
    request::Carrier,
};

/// A handler that runs under its caller's deadline. Made by [`ServerDeadlineLayer`](super::ServerDeadlineLayer).
#[derive(Clone, Debug)]
pub struct ServerDeadline<S> {
    inner: S,
    shared: Arc<Shared>,
    settings: Settings,
}

impl<S> ServerDeadline<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>, settings: Settings) -> Self {
        Self { inner, shared, settings }
    }
}

impl<S, Req> Service<Req> for ServerDeadline<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    Req: Carrier,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, request: Req) -> ResponseFuture<S::Future> {
        let _clock = context::enter_clock();
        let now = context::now();
        let own = now.checked_add(self.settings.allowed(&self.shared, &request));
        // A deadline that holds here already, of a caller in the same process, is not extended.
        let _deadline = context::enter_deadline(own);
        let deadline = context::deadline();
        let timed = if deadline.is_some_and(|deadline| deadline <= now) {
            Timed::late()
        } else {
            let _foreign = context::leave_clock();
            Timed::new(self.inner.call(request), deadline)
        };
        ResponseFuture { timed }
    }
}

pin_project! {
    /// The response of a [`ServerDeadline`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        timed: Timed<F>,
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Result<T, Error>> {
        let timed = self.project().timed;
        let deadline = timed.at();
        let poll = |inner: Pin<&mut F>, cx: &mut task::Context<'_>| {
            let _deadline = context::enter_deadline(deadline);
            // A handler may take long between two of its calls within one poll.
            let _foreign = context::leave_clock();
            inner.poll(cx)
        };
        timed.poll_by(cx, poll).map(|ended| match ended {
            Ok(result) => result.map_err(Error::from_any),
            Err(late) => Err(exceeded(late, "server_deadline")),
        })
    }
}
