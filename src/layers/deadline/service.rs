use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll},
};

use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::{DeadlinePolicy, Late, Limit, Timed};
use crate::{Error, ErrorKind, context};

/// Gives each call a deadline. Made by [`DeadlineLayer`](super::DeadlineLayer).
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    limit: Limit<DeadlinePolicy>,
}

impl<S> Deadline<S> {
    pub(super) fn new(inner: S, limit: Limit<DeadlinePolicy>) -> Self {
        Self { inner, limit }
    }
}

impl<S, Req> Service<Req> for Deadline<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
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
        let _deadline = context::enter_deadline(self.limit.ends(now));
        let deadline = context::deadline();
        let timed = if deadline.is_some_and(|deadline| deadline <= now) {
            Timed::late()
        } else {
            Timed::new(self.inner.call(request), deadline)
        };
        ResponseFuture { timed }
    }
}

pin_project! {
    /// The response of a [`Deadline`].
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
            inner.poll(cx)
        };
        timed.poll_by(cx, poll).map(|ended| match ended {
            Ok(result) => result.map_err(Error::from_any),
            Err(late) => Err(exceeded(late, "deadline")),
        })
    }
}

/// The error of a call whose deadline has passed, before anything was sent or while it was under way.
pub(crate) fn exceeded(late: Late, layer: &'static str) -> Error {
    let error = Error::new(ErrorKind::DeadlineExceeded).with_layer(layer);
    match late {
        Late::Before => error.unsent(),
        Late::Now { .. } => error,
    }
}
