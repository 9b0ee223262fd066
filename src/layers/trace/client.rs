use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;
use tracing::Span;

use super::wanted;
use crate::{
    Classify, Error, Monitor, Outcome,
    context::{self, DropCause},
    lanes::{Lane, Lanes, PerLane},
    monitor::{CommandView, Counts, CountsView, Kind, Latency, Observation, Observe},
    outcome::Standard,
    request::Carrier,
    trace::TraceContext,
};

/// A span and statistics of each call. See the [module](super).
pub struct ClientTraceLayer<C = Standard> {
    lanes: Lanes<Parts<C>>,
}

/// What the calls of one lane hold.
struct Parts<C> {
    command: Arc<Command>,
    classify: Arc<C>,
    lane: usize,
}

#[derive(Debug)]
struct Command {
    name: Arc<str>,
    calls: PerLane<Calls>,
    /// Of all lanes: each has a thousand words, and calls that end at once seldom took equally long.
    latency: Latency,
}

#[derive(Debug, Default)]
struct Calls {
    started: AtomicU64,
    counts: Counts,
}

impl ClientTraceLayer {
    /// For calls of this command name.
    pub fn new(command: &str) -> Self {
        let command = Command { name: command.into(), calls: PerLane::default(), latency: Latency::default() };
        Self::of(&Arc::new(command), Standard)
    }
}

impl<C> ClientTraceLayer<C> {
    fn of(command: &Arc<Command>, classify: C) -> Self {
        let classify = Arc::new(classify);
        let parts = |lane| Parts { command: Arc::clone(command), classify: Arc::clone(&classify), lane };
        Self { lanes: Lanes::new(parts) }
    }

    /// By a classification of your own.
    pub fn classify<D>(self, classify: D) -> ClientTraceLayer<D> {
        ClientTraceLayer::of(&self.lanes.here().command, classify)
    }

    /// Where the statistics can be read.
    #[must_use]
    pub fn monitor(self, monitor: &Monitor) -> Self {
        let command = &self.lanes.here().command;
        monitor.register(&command.name, command);
        self
    }
}

impl Observe for Command {
    fn kind(&self) -> Kind {
        Kind::Command
    }

    fn observe(&self, name: &str) -> Vec<Observation> {
        // In this order: a call that ends in between is counted as under way, never as fewer than none.
        let counts: CountsView = self.calls.iter().map(|calls| calls.counts.view()).sum();
        let started: u64 = self.calls.iter().map(|calls| calls.started.load(Relaxed)).sum();
        vec![Observation::Command(CommandView {
            name: name.to_owned(),
            in_flight: started.saturating_sub(counts.total()),
            counts,
            latency: self.latency.view(),
        })]
    }
}

impl<C> Clone for ClientTraceLayer<C> {
    fn clone(&self) -> Self {
        Self { lanes: self.lanes.clone() }
    }
}

impl<C: fmt::Debug> fmt::Debug for ClientTraceLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parts { command, classify, .. } = &***self.lanes.here();
        f.debug_struct("ClientTraceLayer").field("command", command).field("classify", classify).finish()
    }
}

impl<S, C> Layer<S> for ClientTraceLayer<C> {
    type Service = ClientTrace<S, C>;

    fn layer(&self, inner: S) -> ClientTrace<S, C> {
        ClientTrace { inner, layer: self.clone() }
    }
}

/// A service whose calls are followed. Made by [`ClientTraceLayer`].
#[derive(Debug)]
pub struct ClientTrace<S, C = Standard> {
    inner: S,
    layer: ClientTraceLayer<C>,
}

impl<S: Clone, C> Clone for ClientTrace<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<S, C, Req> Service<Req> for ClientTrace<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
    Req: Carrier,
{
    type Response = S::Response;
    type Error = Error;
    type Future = CallFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let _clock = context::enter_clock();
        let parts = self.layer.lanes.here();
        let command = &parts.command;
        let span = tracing::debug_span!(target: "hopvine::call", "call", command = &*command.name,
            operation = request.operation(), trace_id = tracing::field::Empty, outcome = tracing::field::Empty,
            attempts = tracing::field::Empty);
        let mut trace = Some(context::with_trace(|trace| trace.map_or_else(TraceContext::root, TraceContext::child)));
        let span = wanted(span);
        if let (Some(span), Some(trace)) = (&span, &trace) {
            span.record("trace_id", tracing::field::display(trace.trace_id()));
        }
        let watch = Watch::start(Arc::clone(parts));
        // In place: what is named first is moved once more.
        CallFuture {
            call: {
                let _trace = context::enter_trace(&mut trace);
                let _attempt = context::leave_attempt();
                let _span = span.as_ref().map(|span| span.enter());
                self.inner.call(request)
            },
            watch: Some(watch),
            trace,
            span,
        }
    }
}

pin_project! {
    /// Made by [`ClientTrace`].
    pub struct CallFuture<F, C> {
        #[pin]
        call: F,
        watch: Option<Watch<C>>,
        trace: Option<TraceContext>,
        span: Option<Box<Span>>,
    }
}

impl<F, C, Res, E> Future for CallFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    C: Classify<Res>,
{
    type Output = Result<Res, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _clock = context::enter_clock();
        let this = self.project();
        let _span = this.span.as_ref().map(|span| span.enter());
        let result = {
            let _trace = context::enter_trace(this.trace);
            let _attempt = context::leave_attempt();
            ready!(this.call.poll(cx)).map_err(Error::from_any)
        };
        if let Some(mut watch) = this.watch.take() {
            let outcome = watch.parts.classify.classify(result.as_ref());
            if let Some(span) = &*this.span {
                span.record("outcome", outcome.name());
                span.record("attempts", context::last_call().attempts);
            }
            watch.outcome = Some(outcome);
        }
        Poll::Ready(result)
    }
}

/// A call under way; counted out, with its outcome, when dropped.
struct Watch<C> {
    parts: Arc<Lane<Parts<C>>>,
    /// In [`context::nanos`].
    since: u64,
    outcome: Option<Outcome>,
}

impl<C> Watch<C> {
    fn start(parts: Arc<Lane<Parts<C>>>) -> Self {
        parts.command.calls[parts.lane].started.fetch_add(1, Relaxed);
        // A call that nobody tries again has made no attempts that were counted.
        context::set_last_call(context::CallFacts::default());
        Self { parts, since: context::now_nanos(), outcome: None }
    }
}

impl<C> Drop for Watch<C> {
    fn drop(&mut self) {
        let dropped = match context::drop_cause() {
            DropCause::Cancelled => Outcome::Cancelled,
            DropCause::TimedOut => Outcome::TimedOut,
        };
        let Parts { command, lane, .. } = &**self.parts;
        command.calls[*lane].counts.record(self.outcome.unwrap_or(dropped));
        command.latency.record(Duration::from_nanos(context::now_nanos().saturating_sub(self.since)));
    }
}

impl<F, C> fmt::Debug for CallFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallFuture").field("trace", &self.trace).finish_non_exhaustive()
    }
}
