use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll},
};

use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::AttemptTimeoutPolicy;
use crate::{
    Error, ErrorKind, context,
    layers::deadline::{Late, Limit, Timed, exceeded},
};

/// Bounds each attempt. Made by [`AttemptTimeoutLayer`](super::AttemptTimeoutLayer).
#[derive(Clone, Debug)]
pub struct AttemptTimeout<S> {
    inner: S,
    limit: Limit<AttemptTimeoutPolicy>,
}

impl<S> AttemptTimeout<S> {
    pub(super) fn new(inner: S, limit: Limit<AttemptTimeoutPolicy>) -> Self {
        Self { inner, limit }
    }
}

impl<S, Req> Service<Req> for AttemptTimeout<S>
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
        let deadline = context::deadline();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return ResponseFuture { timed: Timed::late(), whose: Whose::Call };
        }
        let own = self.limit.ends(now);
        let (at, whose) = match (own, deadline) {
            (Some(own), Some(deadline)) if deadline <= own => (Some(deadline), Whose::Call),
            (None, Some(deadline)) => (Some(deadline), Whose::Call),
            (own, _) => (own, Whose::Attempt),
        };
        ResponseFuture { timed: Timed::new(self.inner.call(request), at), whose }
    }
}

/// Whose time runs out first.
#[derive(Clone, Copy, Debug)]
enum Whose {
    Attempt,
    Call,
}

pin_project! {
    /// The response of an [`AttemptTimeout`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        timed: Timed<F>,
        whose: Whose,
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Result<T, Error>> {
        const LAYER: &str = "attempt_timeout";
        let this = self.project();
        this.timed.poll_by(cx, |inner: Pin<&mut F>, cx| inner.poll(cx)).map(|ended| match (ended, *this.whose) {
            (Ok(result), _) => result.map_err(Error::from_any),
            (Err(Late::Now { unwritten }), Whose::Attempt) => {
                let error = Error::new(ErrorKind::AttemptTimeout).with_layer(LAYER);
                Err(if unwritten { error.unsent() } else { error })
            }
            (Err(late), _) => Err(exceeded(late, LAYER)),
        })
    }
}
