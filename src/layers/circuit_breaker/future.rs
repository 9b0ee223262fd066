use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::BoxError;

use super::{
    layer::Shared,
    state::{Admitted, Report},
};
use crate::{
    Error,
    context::{self, DropCause},
    outcome::{Classify, Outcome},
};

pin_project! {
    /// Made by [`CircuitBreaker`](super::CircuitBreaker).
    pub struct ResponseFuture<F, C> {
        #[pin]
        state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, C> {
        Calling { guard: Option<Guard>, classify: Arc<C>, #[pin] call: F },
        Refused { error: Option<Error> },
    }
}

impl<F, C> ResponseFuture<F, C> {
    pub(super) fn calling(call: F, guard: Guard, classify: Arc<C>) -> Self {
        Self { state: State::Calling { guard: Some(guard), classify, call } }
    }

    pub(super) fn refused(error: Error) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }
}

impl<F, C, Res, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    C: Classify<Res>,
{
    type Output = Result<Res, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProjection::Calling { guard, classify, call } => {
                let _clock = context::enter_clock();
                let result = ready!(call.poll(cx)).map_err(Error::from_any);
                if let Some(mut guard) = guard.take() {
                    guard.report = Some(match classify.classify(result.as_ref()) {
                        Outcome::Success => Report::Success,
                        Outcome::Cancelled | Outcome::Ignored => Report::Nothing,
                        Outcome::Failure(_) | Outcome::Throttled(_) | Outcome::TimedOut => Report::Failure,
                    });
                }
                Poll::Ready(result)
            }
            StateProjection::Refused { error } => Poll::Ready(Err(error.take().expect("polled after it was ready"))),
        }
    }
}

/// A call let through; reports what became of it when dropped.
pub(super) struct Guard {
    shared: Arc<Shared>,
    admitted: Admitted,
    since: Instant,
    /// `None` while it is under way: dropped now, it was cancelled.
    report: Option<Report>,
}

impl Guard {
    pub(super) fn new(shared: Arc<Shared>, admitted: Admitted) -> Self {
        Self { shared, admitted, since: context::now(), report: None }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let report = self.report.unwrap_or(match context::drop_cause() {
            DropCause::Cancelled => Report::Nothing,
            DropCause::TimedOut => Report::Failure,
        });
        self.shared.report(self.admitted, report, context::now().saturating_duration_since(self.since));
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("circuit_breaker::ResponseFuture").finish_non_exhaustive()
    }
}
