use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use super::wanted;
use crate::{
    context,
    request::Carrier,
    trace::{self, Propagation, TraceContext},
};

/// Takes the trace from an inbound request. See the [module](super).
#[derive(Clone, Copy, Debug)]
pub struct ServerTraceLayer {
    propagation: Propagation,
    trusted: bool,
}

impl Default for ServerTraceLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerTraceLayer {
    /// Reads W3C, then B3; without either a new trace begins.
    pub fn new() -> Self {
        Self { propagation: Propagation::default(), trusted: true }
    }

    /// Reads the formats of this propagation.
    #[must_use]
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = propagation;
        self
    }

    /// Whatever the caller says of traces, and its `baggage`, is taken out of the request and not believed: for the edge.
    #[must_use]
    pub fn untrusted(mut self) -> Self {
        self.trusted = false;
        self
    }

    fn trace<Req: Carrier>(self, request: &mut Req) -> TraceContext {
        let caller = if self.trusted {
            request.headers().and_then(|headers| self.propagation.extract(headers))
        } else {
            if let Some(headers) = request.headers_mut() {
                trace::remove(headers);
                headers.remove("baggage");
            }
            None
        };
        caller.map_or_else(TraceContext::root, |caller| caller.child())
    }
}

impl<S> Layer<S> for ServerTraceLayer {
    type Service = ServerTrace<S>;

    fn layer(&self, inner: S) -> ServerTrace<S> {
        ServerTrace { inner, layer: *self }
    }
}

/// A server's service that is part of its callers' traces. Made by [`ServerTraceLayer`].
#[derive(Clone, Debug)]
pub struct ServerTrace<S> {
    inner: S,
    layer: ServerTraceLayer,
}

impl<S, Req> Service<Req> for ServerTrace<S>
where
    S: Service<Req>,
    Req: Carrier,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ServerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let trace = self.layer.trace(&mut request);
        let span = tracing::debug_span!(target: "hopvine::server", "request", operation = request.operation(),
            trace_id = tracing::field::Empty, span_id = tracing::field::Empty);
        let span = wanted(span);
        if let Some(span) = &span {
            span.record("trace_id", tracing::field::display(trace.trace_id()));
            span.record("span_id", tracing::field::display(trace.span_id()));
        }
        let mut trace = Some(trace);
        let call = {
            let _clock = context::leave_clock();
            let _trace = context::enter_trace(&mut trace);
            let _attempt = context::leave_attempt();
            let _span = span.as_ref().map(|span| span.enter());
            self.inner.call(request)
        };
        ServerFuture { call, trace, span }
    }
}

pin_project! {
    /// Made by [`ServerTrace`].
    pub struct ServerFuture<F> {
        #[pin]
        call: F,
        trace: Option<TraceContext>,
        span: Option<Box<Span>>,
    }
}

impl<F: Future> Future for ServerFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _clock = context::leave_clock();
        let _trace = context::enter_trace(this.trace);
        let _attempt = context::leave_attempt();
        let _span = this.span.as_ref().map(|span| span.enter());
        this.call.poll(cx)
    }
}

impl<F> fmt::Debug for ServerFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerFuture").field("trace", &self.trace).finish_non_exhaustive()
    }
}
