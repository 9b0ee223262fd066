use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use super::wanted;
use crate::{
    Classify, EndpointHandle, Error, NewService, context,
    outcome::Standard,
    request::Carrier,
    trace::{self, Propagation, TraceContext},
};

/// A span of each attempt, and the headers that tell the server. See the [module](super).
#[derive(Debug)]
pub struct AttemptTraceLayer<C = Standard> {
    propagation: Option<Propagation>,
    classify: Arc<C>,
}

impl Default for AttemptTraceLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl AttemptTraceLayer {
    /// Writes W3C headers.
    pub fn new() -> Self {
        Self { propagation: Some(Propagation::default()), classify: Arc::new(Standard) }
    }
}

impl<C> AttemptTraceLayer<C> {
    /// Writes the formats of this propagation.
    #[must_use]
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = Some(propagation);
        self
    }

    /// Writes nothing, and takes out what is there, `baggage` included: for servers of others, who need not know our traces.
    #[must_use]
    pub fn no_headers(mut self) -> Self {
        self.propagation = None;
        self
    }

    /// By a classification of your own.
    pub fn classify<D>(self, classify: D) -> AttemptTraceLayer<D> {
        AttemptTraceLayer { propagation: self.propagation, classify: Arc::new(classify) }
    }
}

impl<C> Clone for AttemptTraceLayer<C> {
    fn clone(&self) -> Self {
        Self { propagation: self.propagation, classify: Arc::clone(&self.classify) }
    }
}

impl<N, C> Layer<N> for AttemptTraceLayer<C> {
    type Service = NewAttemptTrace<N, C>;

    fn layer(&self, inner: N) -> NewAttemptTrace<N, C> {
        NewAttemptTrace { inner, layer: self.clone() }
    }
}

/// Makes an [`AttemptTrace`] for each endpoint.
#[derive(Clone, Debug)]
pub struct NewAttemptTrace<N, C = Standard> {
    inner: N,
    layer: AttemptTraceLayer<C>,
}

impl<N, C> NewService<EndpointHandle> for NewAttemptTrace<N, C>
where
    N: NewService<EndpointHandle>,
{
    type Service = AttemptTrace<N::Service, C>;

    fn new_service(&self, endpoint: &EndpointHandle) -> Self::Service {
        let inner = self.inner.new_service(endpoint);
        AttemptTrace { inner, parts: Arc::new(Parts { endpoint: endpoint.clone(), layer: self.layer.clone() }) }
    }
}

/// An endpoint's service whose attempts are followed. Made by [`AttemptTraceLayer`].
#[derive(Debug)]
pub struct AttemptTrace<S, C = Standard> {
    inner: S,
    parts: Arc<Parts<C>>,
}

#[derive(Debug)]
struct Parts<C> {
    endpoint: EndpointHandle,
    layer: AttemptTraceLayer<C>,
}

impl<S: Clone, C> Clone for AttemptTrace<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), parts: Arc::clone(&self.parts) }
    }
}

impl<S, C, Req> Service<Req> for AttemptTrace<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
    Req: Carrier,
{
    type Response = S::Response;
    type Error = Error;
    type Future = AttemptFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, mut request: Req) -> Self::Future {
        let Parts { endpoint, layer } = &*self.parts;
        let span = tracing::debug_span!(target: "hopvine::attempt", "attempt", service = &**endpoint.service(),
            endpoint = tracing::field::Empty, attempt = context::attempt().number(), span_id = tracing::field::Empty,
            outcome = tracing::field::Empty);
        let mut trace = Some(context::with_trace(|trace| trace.map_or_else(TraceContext::root, TraceContext::child)));
        let span = wanted(span);
        if let (Some(span), Some(trace)) = (&span, &trace) {
            span.record("endpoint", endpoint.endpoint().id().as_str());
            span.record("span_id", tracing::field::display(trace.span_id()));
        }
        if let (Some(headers), Some(trace)) = (request.headers_mut(), &trace) {
            if let Some(propagation) = layer.propagation {
                propagation.inject(trace, headers);
            } else {
                trace::remove(headers);
                headers.remove("baggage");
            }
        }
        AttemptFuture {
            call: {
                let _trace = context::enter_trace(&mut trace);
                let _span = span.as_ref().map(|span| span.enter());
                self.inner.call(request)
            },
            trace,
            recorded: span.map(|span| (span, Arc::clone(&layer.classify))),
        }
    }
}

pin_project! {
    /// Made by [`AttemptTrace`].
    pub struct AttemptFuture<F, C> {
        #[pin]
        call: F,
        trace: Option<TraceContext>,
        recorded: Option<(Box<Span>, Arc<C>)>,
    }
}

impl<F, C, Res, E> Future for AttemptFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    C: Classify<Res>,
{
    type Output = Result<Res, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let _span = this.recorded.as_ref().map(|(span, _)| span.enter());
        let _trace = context::enter_trace(this.trace);
        let result = ready!(this.call.poll(cx)).map_err(Error::from_any);
        if let Some((span, classify)) = &*this.recorded {
            span.record("outcome", classify.classify(result.as_ref()).name());
        }
        Poll::Ready(result)
    }
}

impl<F, C> fmt::Debug for AttemptFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptFuture").field("trace", &self.trace).finish_non_exhaustive()
    }
}
