use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower::BoxError;

use super::{layer::Parts, state::Pass};
use crate::{
    Error, Outcome,
    context::{self, DropCause},
    lanes::Lane,
    outcome::Classify,
};

pin_project! {
    /// A call behind a breaker, or its refusal. Made by [`CircuitBreaker`](super::CircuitBreaker).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C> {
        #[pin]
        pub(super) state: State<F, C>,
    }
}

pin_project! {
    #[project = StateProjection]
    pub(super) enum State<F, C> {
        Calling {
            #[pin]
            inner: F,
            guard: Guard<C>,
        },
        Refused {
            error: Option<Error>,
        },
    }
}

/// A pass that is handed back: with a result, or by `Drop` without one.
pub(super) struct Guard<C> {
    parts: Arc<Lane<Parts<C>>>,
    pass: Option<Pass>,
    start: Option<u64>,
}

impl<F, C> ResponseFuture<F, C> {
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
        let _clock = context::enter_clock();
        match self.project().state.project() {
            StateProjection::Calling { inner, guard } => {
                let _probe = context::enter_probe(guard.pass.is_some_and(Pass::is_probe));
                let result = ready!(inner.poll(cx)).map_err(Error::from_any);
                let outcome = guard.parts.classify.classify(result.as_ref());
                guard.finish(outcome);
                Poll::Ready(result)
            }
            StateProjection::Refused { error } => Poll::Ready(Err(error.take().expect("polled after it was ready"))),
        }
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture")
            .field("refused", &matches!(self.state, State::Refused { .. }))
            .finish_non_exhaustive()
    }
}

impl<C> Guard<C> {
    pub(super) fn new(parts: Arc<Lane<Parts<C>>>, pass: Pass) -> Self {
        let start = parts.shared.start();
        Self { parts, pass: Some(pass), start }
    }

    fn finish(&mut self, outcome: Outcome) {
        if let Some(pass) = self.pass.take() {
            self.parts.shared.report(pass, self.start, outcome, self.parts.lane);
        }
    }
}

impl<C> Drop for Guard<C> {
    fn drop(&mut self) {
        self.finish(match context::drop_cause() {
            DropCause::TimedOut => Outcome::TimedOut,
            DropCause::Cancelled => Outcome::Cancelled,
        });
    }
}
