use std::{
    future::Future,
    pin::Pin,
    task::{self, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::layer::{LEAST, Settings};
use crate::{
    Error, context,
    layers::deadline::{Late, header, service::exceeded},
    request::{self, Carrier},
};

/// Tells the server how long a call may still take. Made by [`DeadlineHeaderLayer`](super::DeadlineHeaderLayer).
#[derive(Clone, Debug)]
pub struct DeadlineHeader<S> {
    inner: S,
    settings: Settings,
}

impl<S> DeadlineHeader<S> {
    pub(super) fn new(inner: S, settings: Settings) -> Self {
        Self { inner, settings }
    }
}

impl<S, Req> Service<Req> for DeadlineHeader<S>
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

    fn call(&mut self, mut request: Req) -> ResponseFuture<S::Future> {
        let _clock = context::enter_clock();
        let remaining = context::deadline().map(|deadline| deadline.saturating_duration_since(context::now()));
        if remaining.is_some_and(|remaining| remaining.is_zero()) {
            return ResponseFuture { inner: None };
        }
        if let Some(headers) = request.headers_mut() {
            self.settings.write(headers, remaining);
        }
        ResponseFuture { inner: Some(self.inner.call(request)) }
    }
}

impl Settings {
    fn write(&self, headers: &mut HeaderMap, remaining: Option<Duration>) {
        const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
        if self.withheld {
            headers.remove(&self.header);
            headers.remove(&GRPC_TIMEOUT);
            return;
        }
        let told = remaining.map(|remaining| remaining.saturating_sub(self.margin).max(LEAST));
        if request::is_grpc(headers) {
            headers.remove(&self.header);
            let Some(told) = told else { return };
            let own = headers.get(&GRPC_TIMEOUT).and_then(|value| header::parse_grpc(value.as_bytes()));
            if own.is_none_or(|own| own > told) {
                let mut buffer = [0; 9];
                let value = HeaderValue::from_bytes(header::format_grpc(told, &mut buffer)).expect("ASCII");
                headers.insert(GRPC_TIMEOUT, value);
            }
        } else if let Some(told) = told {
            headers.insert(self.header.clone(), HeaderValue::from(header::millis(told)));
        } else {
            headers.remove(&self.header);
        }
    }
}

pin_project! {
    /// The response of a [`DeadlineHeader`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        // None: nothing remained to send it with.
        #[pin]
        inner: Option<F>,
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Result<T, Error>> {
        match self.project().inner.as_pin_mut() {
            Some(inner) => inner.poll(cx).map_err(Error::from_any),
            None => Poll::Ready(Err(exceeded(Late::Before, "deadline_header"))),
        }
    }
}
