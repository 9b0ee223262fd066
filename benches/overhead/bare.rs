//! The service inside: it answers at once, or pends once. And its requests.

use std::{
    cell::Cell,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use hopvine::{
    EndpointHandle, NewService,
    outcome::Classified,
    request::{Carrier, Idempotent, Replay},
};
use http::{HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body_util::Full;
use tower::Service;

/// A request that is a plain value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain(pub(crate) u64);

/// Its response.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "it is made, moved and dropped")]
pub(crate) struct Reply(pub(crate) u64);

impl Carrier for Plain {}

impl Classified for Reply {}

impl Idempotent for Plain {
    fn is_idempotent(&self) -> bool {
        true
    }
}

impl Replay for Plain {
    type Attempt = Self;
    type Kept = Self;

    fn once(self) -> Self {
        self
    }

    fn split(self, _limit: usize) -> (Self, Self) {
        (self, self)
    }

    fn again(kept: &mut Self, _earlier: u32) -> Option<Self> {
        Some(*kept)
    }
}

pub(crate) fn plain() -> Plain {
    Plain(7)
}

/// A GET with eight headers, made as a handler makes it.
pub(crate) fn get() -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = Uri::from_static("/items/7");
    let headers = request.headers_mut();
    headers.reserve(8);
    headers.insert(header::HOST, HeaderValue::from_static("catalog"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(header::ACCEPT_LANGUAGE, HeaderValue::from_static("en"));
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer 0123456789abcdef"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("shop/1.0"));
    headers
        .insert(HeaderName::from_static("x-request-id"), HeaderValue::from_static("0af7651916cd43dd8448eb211c80319c"));
    headers.insert(HeaderName::from_static("x-tenant"), HeaderValue::from_static("north"));
    request
}

/// Whether it pends once before it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pends {
    Never,
    Once,
}

/// What is under the layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bare(pub(crate) Pends);

/// A failure that never happens.
#[derive(Clone, Debug)]
pub(crate) struct Fault;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fault")
    }
}

impl std::error::Error for Fault {}

thread_local! {
    static PENDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the bare service has just pended.
pub(crate) fn pended() -> bool {
    PENDED.replace(false)
}

/// Its answer.
pub(crate) struct Answer<T> {
    answer: Option<T>,
    pends: bool,
}

impl<T: Unpin> Future for Answer<T> {
    type Output = Result<T, Fault>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.pends) {
            PENDED.set(true);
            return Poll::Pending;
        }
        Poll::Ready(Ok(self.answer.take().expect("polled after it was ready")))
    }
}

impl Service<Plain> for Bare {
    type Response = Reply;
    type Error = Fault;
    type Future = Answer<Reply>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Plain) -> Answer<Reply> {
        Answer { answer: Some(Reply(request.0 + 1)), pends: self.0 == Pends::Once }
    }
}

impl<B> Service<Request<B>> for Bare {
    type Response = Response<()>;
    type Error = Fault;
    type Future = Answer<Response<()>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Answer<Response<()>> {
        Answer { answer: Some(Response::new(())), pends: self.0 == Pends::Once }
    }
}

/// As a connector: every endpoint is such a service.
impl NewService<EndpointHandle> for Bare {
    type Service = Self;

    fn new_service(&self, _: &EndpointHandle) -> Self {
        *self
    }
}
