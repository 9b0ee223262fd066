use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower::BoxError;
use tower_service::Service;

use super::{
    Picker,
    endpoints::{At, Picked},
    service::{self, Rule, Shared},
};
use crate::{
    EndpointHandle, Error, ErrorKind, Outcome,
    context::{self, DropCause},
    outcome::Classify,
};

pin_project! {
    /// Made by [`Balance`](super::Balance).
    pub struct ResponseFuture<S, F, Req, P: Picker, C> {
        request: Option<Req>,
        #[pin]
        state: State<S, F, Rule<P, C>>,
        // Dropped last: what is inside is over when it is counted out.
        call: Call<S, P, C>,
    }
}

/// The call, as what is counted knows it.
enum Call<S, P: Picker, C> {
    Waiting(Arc<Shared<S, P, C>>),
    InFlight(InFlight<S, P, C>),
    Over,
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F, R> {
        Waiting { wait: Wait<S, R> },
        Readying { service: S, timeout: Option<Pin<Box<Sleep>>> },
        Calling { #[pin] future: F },
    }
}

/// A call that has begun at an endpoint, and what it does there.
type Started<S, F, P, C> = (Call<S, P, C>, State<S, F, Rule<P, C>>);

/// Boxed, for it is rare, and would make the future of every call larger.
type Wait<S, R> = Pin<Box<dyn Future<Output = Result<Picked<S, R>, Error>> + Send>>;

impl<S, F, Req, P, C> ResponseFuture<S, F, Req, P, C>
where
    S: Clone + Send + Sync + 'static,
    P: Picker,
    C: Send + Sync + 'static,
{
    pub(super) fn new(shared: &Arc<Shared<S, P, C>>, request: Req) -> Self {
        let (call, state) = if let Some(picked) = shared.pick() {
            InFlight::start(shared, picked)
        } else {
            let wait = Box::pin(Arc::clone(shared).wait());
            (Call::Waiting(Arc::clone(shared)), State::Waiting { wait })
        };
        Self { request: Some(request), state, call }
    }
}

impl<S, F, Req, P, C> Future for ResponseFuture<S, F, Req, P, C>
where
    S: Service<Req, Future = F> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    F: Future<Output = Result<S::Response, S::Error>>,
    P: Picker,
    C: Classify<S::Response>,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _clock = context::enter_clock();
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Waiting { wait } => {
                    let picked = ready!(wait.as_mut().poll(cx));
                    let Call::Waiting(shared) = mem::replace(this.call, Call::Over) else { over() };
                    let (call, state) = InFlight::start(&shared, picked?);
                    *this.call = call;
                    this.state.set(state);
                }
                StateProjection::Readying { service, timeout } => {
                    let Call::InFlight(in_flight) = this.call else { over() };
                    match service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {
                            let request = this.request.take().expect("the request is there until the call");
                            // From here on outlier detection, further in, sees to the probe.
                            in_flight.probe = false;
                            let future = service.call(request);
                            this.state.set(State::Calling { future });
                        }
                        Poll::Ready(Err(error)) => {
                            in_flight.at.give_up();
                            let error = Error::from_any(error).unsent();
                            return Poll::Ready(finish(this.call, Err(error)));
                        }
                        Poll::Pending => {
                            let deadline = context::deadline();
                            let timeout = timeout.get_or_insert_with(|| {
                                let own = context::now() + in_flight.at.rule().max_wait;
                                Box::pin(tokio::time::sleep_until(deadline.map_or(own, |deadline| deadline.min(own))))
                            });
                            ready!(timeout.as_mut().poll(cx));
                            let kind = match deadline {
                                Some(deadline) if timeout.deadline() == deadline => ErrorKind::DeadlineExceeded,
                                _ => ErrorKind::NoEndpoint,
                            };
                            let error = service::error(kind, in_flight.handle().service()).unsent();
                            return Poll::Ready(finish(this.call, Err(error)));
                        }
                    }
                }
                StateProjection::Calling { future } => {
                    let result = ready!(future.poll(cx)).map_err(Error::from_any);
                    return Poll::Ready(finish(this.call, result));
                }
            }
        }
    }
}

fn over() -> ! {
    panic!("polled after it was ready")
}

/// Counts the call out, with its outcome.
fn finish<S, P, C, Res>(call: &mut Call<S, P, C>, result: Result<Res, Error>) -> Result<Res, Error>
where
    P: Picker,
    C: Classify<Res>,
{
    let Call::InFlight(mut in_flight) = mem::replace(call, Call::Over) else { over() };
    let result = result.map_err(|error| in_flight.name(error));
    in_flight.outcome = Some(in_flight.at.rule().classify.classify(result.as_ref()));
    result
}

/// A call under way at an endpoint; counted out, with its outcome, when dropped.
struct InFlight<S, P: Picker, C> {
    at: At<S, Rule<P, C>>,
    /// In [`context::nanos`]; 0 if nobody will ask.
    since: u64,
    /// Whether it has the endpoint's probe, and has not been sent yet.
    probe: bool,
    /// `None` while it has none: dropped now, it was cancelled.
    outcome: Option<Outcome>,
}

impl<S: Clone, P: Picker, C> InFlight<S, P, C> {
    #[inline]
    fn start<F>(shared: &Shared<S, P, C>, picked: Picked<S, Rule<P, C>>) -> Started<S, F, P, C> {
        let Picked { mut at, probe } = picked;
        // First, since a connector may panic.
        let service = shared.endpoints.service_of(&mut at);
        // Looked up once: each step on the way to it would be made again after each write.
        let handle = at.handle();
        let number = handle.number();
        handle.load().start();
        context::tried(number);
        let since = if at.rule().picker.measures() { context::now_nanos() } else { 0 };
        let in_flight = Self { at, since, probe, outcome: None };
        (Call::InFlight(in_flight), State::Readying { service, timeout: None })
    }
}

impl<S, P: Picker, C> InFlight<S, P, C> {
    fn handle(&self) -> &EndpointHandle {
        self.at.handle()
    }

    fn name(&self, error: Error) -> Error {
        let handle = self.handle();
        error.with_service(Arc::clone(handle.service())).with_endpoint(handle.endpoint().id().shared())
    }
}

impl<S, P: Picker, C> Drop for InFlight<S, P, C> {
    fn drop(&mut self) {
        let (handle, picker) = (self.at.handle(), &*self.at.rule().picker);
        let (load, counts) = (handle.load(), handle.counts());
        load.end();
        let outcome = self.outcome.unwrap_or(match context::drop_cause() {
            DropCause::Cancelled => Outcome::Cancelled,
            DropCause::TimedOut => Outcome::TimedOut,
        });
        counts.record(outcome);
        let now = if picker.measures() { context::now_nanos() } else { 0 };
        picker.observe(handle, outcome, Duration::from_nanos(now.saturating_sub(self.since)), now);
        if self.probe {
            // It never got there: the next call may probe.
            handle.health().end_probe();
        }
    }
}

impl<S, F, Req, P: Picker, C> fmt::Debug for ResponseFuture<S, F, Req, P, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("balance::ResponseFuture").finish_non_exhaustive()
    }
}
