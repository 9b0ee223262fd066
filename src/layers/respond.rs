//! Errors as responses, in one place: outermost round a server's routes.
//!
//! | error | HTTP | gRPC |
//! |---|---|---|
//! | `CircuitOpen`, `BulkheadFull`, `NoEndpoint`, `NoService`, `Connect` | 503 | `UNAVAILABLE` (14) |
//! | `RateLimited` | 429 | `RESOURCE_EXHAUSTED` (8) |
//! | `AttemptTimeout`, `DeadlineExceeded` | 504 | `DEADLINE_EXCEEDED` (4) |
//! | `Upstream`, and any error that is not ours | 502 | `UNAVAILABLE` (14) |
//!
//! With `Retry-After` in whole seconds, rounded up, or `grpc-retry-pushback-ms`, where the error knows. The body says what happened in a few words, and
//! names no host: that is for the log.
//!
//! ```
//! use axum::{Router, routing::get};
//! use hopvine::layers::{deadline::ServerDeadlineLayer, respond::RespondLayer};
//!
//! // axum calls the last layer first: `RespondLayer` is outermost.
//! let app: Router = Router::new()
//!     .route("/", get(async || "hello"))
//!     .layer(ServerDeadlineLayer::new())
//!     .layer(RespondLayer::new());
//! # let _ = app;
//! ```
//!
//! A handler that calls a stack answers with [`to_response`]:
//!
//! ```
//! use axum::{body::Body, response::Response};
//! use hopvine::{Error, ErrorKind, layers::respond::to_response};
//! # fn call() -> Result<Response, Error> { Err(Error::new(ErrorKind::CircuitOpen)) }
//! fn handler() -> Response {
//!     call().unwrap_or_else(|error| to_response(&error, false).map(Body::new))
//! }
//! assert_eq!(handler().status(), 503);
//! ```
//!
//! **State.** None. **Placement.** A server's outermost layer, outside [`ServerDeadlineLayer`](super::deadline::ServerDeadlineLayer) and
//! bulkhead. **Errors.** None: its error is [`Infallible`]. **Cancellation.** Nothing to give back.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::deadline::is_grpc;
use crate::{Error, ErrorKind, request::Carrier};

/// The response an error stands for; `grpc` as Trailers-Only with status 200.
pub fn to_response(error: &Error, grpc: bool) -> Response<Full<Bytes>> {
    let (status, code, text) = match error.kind() {
        ErrorKind::CircuitOpen => (503, "14", "circuit open"),
        ErrorKind::BulkheadFull => (503, "14", "too many calls in flight"),
        ErrorKind::RateLimited => (429, "8", "rate limited"),
        ErrorKind::NoService => (503, "14", "no such service"),
        ErrorKind::NoEndpoint => (503, "14", "no endpoint available"),
        ErrorKind::Connect => (503, "14", "connection failed"),
        ErrorKind::AttemptTimeout | ErrorKind::DeadlineExceeded => (504, "4", "deadline exceeded"),
        ErrorKind::Upstream => (502, "14", "upstream error"),
    };
    let body = if grpc { Full::default() } else { Full::from(text) };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    if grpc {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from_static(code));
        headers.insert("grpc-message", HeaderValue::from_static(text));
        if let Some(wait) = error.retry_after() {
            let milliseconds = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            headers.insert("grpc-retry-pushback-ms", HeaderValue::from(milliseconds));
        }
    } else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Some(wait) = error.retry_after() {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        *response.status_mut() = StatusCode::from_u16(status).expect("a status of the table above");
    }
    response
}

/// Turns errors into responses. See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct RespondLayer;

impl RespondLayer {
    /// By the table above.
    pub fn new() -> Self {
        Self
    }
}

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Respond<S> {
        Respond { inner, unready: None }
    }
}

/// A service without errors. Made by [`RespondLayer`].
#[derive(Debug)]
pub struct Respond<S> {
    inner: S,
    /// Why it is not ready: the answer to the call that follows.
    unready: Option<Error>,
}

impl<S: Clone> Clone for Respond<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), unready: None }
    }
}

impl<S, Req, B> Service<Req> for Respond<S>
where
    S: Service<Req, Response = Response<B>>,
    S::Error: Into<BoxError>,
    Req: Carrier,
{
    type Response = Response<RespondBody<B>>;
    type Error = Infallible;
    type Future = ResponseFuture<S::Future, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.unready = ready!(self.inner.poll_ready(cx)).err().map(Error::from_any);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let grpc = request.headers().is_some_and(is_grpc);
        let state = match self.unready.take() {
            None => State::Calling { call: self.inner.call(request) },
            Some(error) => State::Unready { error: Some(error) },
        };
        ResponseFuture { state, grpc, _error: PhantomData }
    }
}

pin_project! {
    /// Made by [`Respond`].
    pub struct ResponseFuture<F, E> {
        #[pin]
        state: State<F>,
        grpc: bool,
        _error: PhantomData<fn() -> E>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Calling { #[pin] call: F },
        Unready { error: Option<Error> },
    }
}

impl<F, B, E> Future for ResponseFuture<F, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<RespondBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.state.project() {
            StateProjection::Calling { call } => ready!(call.poll(cx)).map_err(Error::from_any),
            StateProjection::Unready { error } => Err(error.take().expect("polled after it was ready")),
        };
        Poll::Ready(Ok(match result {
            Ok(response) => response.map(|body| RespondBody { kind: Kind::Inner { body } }),
            Err(error) => {
                tracing::debug!(target: "hopvine::respond", %error, "answered with an error");
                to_response(&error, *this.grpc).map(|body| RespondBody { kind: Kind::Own { body } })
            }
        }))
    }
}

pin_project! {
    /// The body of a response, or of the one that stands for an error.
    pub struct RespondBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B> {
        Inner { #[pin] body: B },
        Own { #[pin] body: Full<Bytes> },
    }
}

impl<B: Body<Data = Bytes>> Body for RespondBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProjection::Inner { body } => body.poll_frame(cx),
            KindProjection::Own { body } => body.poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Own { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Own { body } => body.size_hint(),
        }
    }
}

impl<B> fmt::Debug for RespondBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RespondBody").finish_non_exhaustive()
    }
}

impl<F, E> fmt::Debug for ResponseFuture<F, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("respond::ResponseFuture").finish_non_exhaustive()
    }
}
