use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::{RespondBody, to_response};
use crate::{Error, request};

/// A service whose errors are responses. Made by [`RespondLayer`](super::RespondLayer).
#[derive(Clone, Debug)]
pub struct Respond<S> {
    inner: S,
    /// Why the inner service will never be ready. It must not be polled again.
    failed: Option<Arc<Error>>,
}

impl<S> Respond<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, failed: None }
    }
}

impl<S, B, R> Service<Request<B>> for Respond<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<RespondBody<R>>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        if self.failed.is_none()
            && let Err(error) = ready!(self.inner.poll_ready(cx))
        {
            self.failed = Some(Arc::new(Error::from_any(error)));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture<S::Future> {
        let grpc = request::is_grpc(request.headers());
        let state = match &self.failed {
            Some(error) => State::Failed { error: Arc::clone(error) },
            None => State::Called { inner: self.inner.call(request) },
        };
        ResponseFuture { state, grpc }
    }
}

pin_project! {
    /// The response of a [`Respond`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
        grpc: bool,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Called { #[pin] inner: F },
        Failed { error: Arc<Error> },
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<RespondBody<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.state.project() {
            StateProj::Called { inner } => match ready!(inner.poll(cx)) {
                Ok(response) => response.map(RespondBody::inner),
                Err(error) => respond(&Error::from_any(error), *this.grpc),
            },
            StateProj::Failed { error } => respond(error, *this.grpc),
        };
        Poll::Ready(Ok(response))
    }
}

fn respond<R>(error: &Error, grpc: bool) -> Response<RespondBody<R>> {
    tracing::debug!(target: "hopvine::respond", ?error, "error answered with a response");
    to_response(error, grpc).map(RespondBody::error)
}
