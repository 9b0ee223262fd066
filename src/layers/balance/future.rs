use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};
use tower::BoxError;
use tower_service::Service;

use super::{Picker, endpoints::Picked, service::Shared};
use crate::{
    EndpointHandle, Error, ErrorKind, Outcome,
    context::{self, DropCause},
    outcome::Classify,
};

pin_project! {
    /// Made by [`Balance`](super::Balance).
    pub struct ResponseFuture<S, F, Req, P: Picker, C> {
        shared: Arc<Shared<S, P, C>>,
        request: Option<Req>,
        in_flight: Option<InFlight<P>>,
        #[pin]
        state: State<S, F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F> {
        Waiting { wait: Wait<S> },
        Readying { service: S, timeout: Option<Pin<Box<Sleep>>> },
        Calling { #[pin] future: F },
    }
}

/// Boxed, for it is rare, and would make the future of every call larger.
type Wait<S> = Pin<Box<dyn Future<Output = Result<Picked<S>, Error>> + Send>>;

impl<S, F, Req, P, C> ResponseFuture<S, F, Req, P, C>
where
    S: Clone + Send + Sync + 'static,
    P: Picker,
    C: Send + Sync + 'static,
{
    pub(super) fn new(shared: Arc<Shared<S, P, C>>, request: Req) -> Self {
        let (in_flight, state) = match shared.pick() {
            Some(picked) => InFlight::start(&shared, picked),
            None => (None, State::Waiting { wait: Box::pin(Arc::clone(&shared).wait()) }),
        };
        Self { shared, request: Some(request), in_flight, state }
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
                    let picked = ready!(wait.as_mut().poll(cx))?;
                    let (in_flight, state) = InFlight::start(this.shared, picked);
                    *this.in_flight = in_flight;
                    this.state.set(state);
                }
                StateProjection::Readying { service, timeout } => {
                    let Some(in_flight) = this.in_flight.as_mut() else { unreachable!("polled after it was ready") };
                    match service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => {
                            let request = this.request.take().expect("the request is there until the call");
                            // From here on outlier detection, further in, sees to the probe.
                            in_flight.probe = false;
                            let future = service.call(request);
                            this.state.set(State::Calling { future });
                        }
                        Poll::Ready(Err(error)) => {
                            // Another one is made for the next call: this one may be broken for good.
                            this.shared.endpoints.renew(&in_flight.handle);
                            let error = in_flight.name(Error::from_any(error).unsent());
                            return Poll::Ready(finish(this.in_flight, &**this.shared, Err(error)));
                        }
                        Poll::Pending => {
                            let own = in_flight.since + this.shared.max_wait;
                            let end = context::deadline().map_or(own, |deadline| deadline.min(own));
                            let timeout = timeout.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
                            ready!(timeout.as_mut().poll(cx));
                            let kind = if end < own { ErrorKind::DeadlineExceeded } else { ErrorKind::NoEndpoint };
                            let error = in_flight.name(this.shared.error(kind).unsent());
                            return Poll::Ready(finish(this.in_flight, &**this.shared, Err(error)));
                        }
                    }
                }
                StateProjection::Calling { future } => {
                    let result = ready!(future.poll(cx));
                    let Some(in_flight) = this.in_flight.as_ref() else { unreachable!("polled after it was ready") };
                    let result = result.map_err(|error| in_flight.name(Error::from_any(error)));
                    return Poll::Ready(finish(this.in_flight, &**this.shared, result));
                }
            }
        }
    }
}

fn finish<S, P, C, Res>(
    in_flight: &mut Option<InFlight<P>>,
    shared: &Shared<S, P, C>,
    result: Result<Res, Error>,
) -> Result<Res, Error>
where
    P: Picker,
    C: Classify<Res>,
{
    if let Some(mut in_flight) = in_flight.take() {
        in_flight.outcome = Some(shared.classify.classify(result.as_ref()));
    }
    result
}

/// A call under way at an endpoint; counted out, with its outcome, when dropped.
struct InFlight<P: Picker> {
    handle: EndpointHandle,
    picker: Arc<P>,
    since: Instant,
    /// Whether it has the endpoint's probe, and has not been sent yet.
    probe: bool,
    /// `None` while it has none: dropped now, it was cancelled.
    outcome: Option<Outcome>,
}

impl<P: Picker> InFlight<P> {
    fn start<S, F, C>(shared: &Shared<S, P, C>, picked: Picked<S>) -> (Option<Self>, State<S, F>) {
        let Picked { handle, service, probe } = picked;
        handle.load().start();
        context::tried(handle.number());
        let in_flight =
            Self { handle, picker: Arc::clone(&shared.picker), since: context::now(), probe, outcome: None };
        (Some(in_flight), State::Readying { service, timeout: None })
    }

    fn name(&self, error: Error) -> Error {
        error.with_service(Arc::clone(self.handle.service())).with_endpoint(self.handle.endpoint().id().shared())
    }
}

impl<P: Picker> Drop for InFlight<P> {
    fn drop(&mut self) {
        let handle = &self.handle;
        handle.load().end();
        let outcome = self.outcome.unwrap_or(match context::drop_cause() {
            DropCause::Cancelled => Outcome::Cancelled,
            DropCause::TimedOut => Outcome::TimedOut,
        });
        handle.counts().record(outcome);
        let now = context::now();
        self.picker.observe(handle, outcome, now.saturating_duration_since(self.since), context::nanos(now));
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
