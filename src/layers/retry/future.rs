use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower::BoxError;
use tower_service::Service;

use super::{
    budget::{Token, backoff},
    layer::Shared,
};
use crate::{
    Error, Outcome,
    context::{self, Attempt, CallFacts, Ended},
    outcome::{Classify, Failure, Pushback},
};

pin_project! {
    /// Made by [`Retry`](super::Retry).
    pub struct ResponseFuture<S, F, A, K, C> {
        #[pin]
        state: State<F>,
        // For the attempts after the first.
        service: S,
        kept: Option<K>,
        next: Option<(A, Token)>,
        idempotent: bool,
        attempt: Attempt,
        // Waits so far: an attempt that surely never ran is sent again without one.
        waits: u32,
        shared: Arc<Shared>,
        classify: Arc<C>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Calling { #[pin] call: F },
        Waiting { #[pin] wait: Sleep },
        Readying,
    }
}

/// What to do after an attempt.
enum Verdict {
    Done(Ended),
    /// It surely never ran.
    Requeue,
    /// After this wait, or the usual one.
    Retry(Option<Duration>),
}

impl<S, F, A, K, C> ResponseFuture<S, F, A, K, C> {
    pub(super) fn new(
        call: F,
        service: S,
        kept: Option<K>,
        idempotent: bool,
        attempt: Attempt,
        shared: Arc<Shared>,
        classify: Arc<C>,
    ) -> Self {
        let state = State::Calling { call };
        Self { state, service, kept, next: None, idempotent, attempt, waits: 0, shared, classify }
    }
}

impl<S, F, A, K, C> Future for ResponseFuture<S, F, A, K, C>
where
    S: Service<A, Future = F>,
    S::Error: Into<BoxError>,
    F: Future<Output = Result<S::Response, S::Error>>,
    K: Iterator<Item = A>,
    C: Classify<S::Response>,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _clock = context::enter_clock();
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Calling { call } => {
                    let result = {
                        let _attempt = context::enter_attempt(this.attempt);
                        ready!(call.poll(cx)).map_err(Error::from_any)
                    };
                    let outcome = this.classify.classify(result.as_ref());
                    if outcome == Outcome::Success {
                        this.shared.budget.deposit();
                    }
                    let verdict = judge(outcome, &result, *this.idempotent, &**this.classify);
                    let number = this.attempt.number();
                    let (request, token, wait) = match plan(&verdict, number, *this.waits, this.kept, this.shared) {
                        Ok(plan) => plan,
                        Err(ended) => return Poll::Ready(end(result, number, ended)),
                    };
                    // Its connection is free for the next attempt, before the wait.
                    drop(result);
                    this.attempt.next();
                    *this.next = Some((request, token));
                    if let Some(wait) = wait {
                        *this.waits += 1;
                        this.state.set(State::Waiting { wait: sleep_until(context::now() + wait) });
                    } else {
                        this.shared.requeues.fetch_add(1, Relaxed);
                        this.state.set(State::Readying);
                    }
                }
                StateProjection::Waiting { wait } => {
                    ready!(wait.poll(cx));
                    this.state.set(State::Readying);
                }
                StateProjection::Readying => {
                    // Time has passed since the last attempt.
                    context::refresh_clock();
                    let _attempt = context::enter_attempt(this.attempt);
                    if let Err(error) = ready!(this.service.poll_ready(cx)) {
                        drop(_attempt);
                        return Poll::Ready(end(Err(Error::from_any(error)), this.attempt.number(), Ended::Answered));
                    }
                    let (request, token) = this.next.take().expect("a wait has something to send");
                    token.spend();
                    this.shared.attempts.fetch_add(1, Relaxed);
                    let call = this.service.call(request);
                    this.state.set(State::Calling { call });
                    context::refresh_clock();
                }
            }
        }
    }
}

fn judge<Res>(
    outcome: Outcome,
    result: &Result<Res, Error>,
    idempotent: bool,
    classify: &impl Classify<Res>,
) -> Verdict {
    if let Err(error) = result
        && error.is_unsent()
        && !error.is_rejected()
        && !error.is_timeout()
    {
        return Verdict::Requeue;
    }
    let wait = match outcome {
        // The server cannot do this, and will not be able to the next time.
        Outcome::Success | Outcome::Cancelled | Outcome::Ignored | Outcome::Failure(Failure::Status(501 | 505)) => {
            return Verdict::Done(Ended::Answered);
        }
        Outcome::Failure(_) | Outcome::TimedOut => None,
        Outcome::Throttled(wait) => wait,
    };
    let pushback = result.as_ref().ok().and_then(|response| classify.pushback(response));
    match pushback {
        _ if !idempotent => Verdict::Done(Ended::NotIdempotent),
        Some(Pushback::Never) => Verdict::Done(Ended::PushedBack),
        Some(Pushback::After(wait)) => Verdict::Retry(Some(wait)),
        None => Verdict::Retry(wait),
    }
}

/// The next attempt, the token that pays for it, and the wait before it, if there is one. Or why there is none.
fn plan<A, K: Iterator<Item = A>>(
    verdict: &Verdict,
    attempts: u32,
    waits: u32,
    kept: &mut Option<K>,
    shared: &Shared,
) -> Result<(A, Token, Option<Duration>), Ended> {
    let wait = match *verdict {
        Verdict::Done(ended) => return Err(ended),
        Verdict::Requeue => None,
        Verdict::Retry(asked) => Some(asked.unwrap_or_else(|| {
            let nanos = |setting: &std::sync::atomic::AtomicU64| Duration::from_nanos(setting.load(Relaxed));
            backoff(nanos(&shared.backoff), nanos(&shared.backoff_max), waits, fastrand::f64())
        })),
    };
    if attempts >= shared.max_attempts.load(Relaxed) {
        return Err(Ended::AttemptsExhausted);
    }
    let begins = context::now() + wait.unwrap_or_default();
    if context::deadline().is_some_and(|deadline| begins >= deadline) {
        return Err(Ended::DeadlineNear);
    }
    let Some(token) = shared.budget.withdraw() else {
        shared.refused.fetch_add(1, Relaxed);
        return Err(Ended::BudgetExhausted);
    };
    // The token goes back if the request cannot be made again.
    let request = kept.as_mut().and_then(Iterator::next).ok_or(Ended::NotReplayable)?;
    Ok((request, token, wait))
}

fn end<Res>(result: Result<Res, Error>, attempts: u32, ended: Ended) -> Result<Res, Error> {
    context::set_last_call(CallFacts { attempts, ended });
    result.map_err(|error| error.with_attempts(attempts))
}

impl<S, F, A, K, C> fmt::Debug for ResponseFuture<S, F, A, K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("retry::ResponseFuture").field("attempt", &self.attempt.number()).finish_non_exhaustive()
    }
}
