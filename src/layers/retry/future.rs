use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};
use tower::BoxError;
use tower_service::Service;

use super::{
    budget::{Spent, Token},
    decision::Course,
    layer::Plan,
    service::Parts,
};
use crate::{
    Classify, Error,
    context::{self, Attempt, CallFacts, Ended},
    lanes::Lane,
    request::Replay,
};

pin_project! {
    /// The response of a [`Retry`](super::Retry).
    ///
    /// Bounded, against our custom, since it holds the attempt under way and what makes the next one.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, C>
    where
        S: Service<Req::Attempt>,
        Req: Replay,
    {
        parts: Arc<Lane<Parts<S, C>>>,
        course: Course,
        attempt: Attempt,
        // What later attempts are made from. Gone once there will be none.
        again: Option<Req::Kept>,
        #[pin]
        state: State<S, S::Future, Req::Attempt>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F, A> {
        Attempting {
            #[pin]
            future: F,
            // What this attempt cost, until its result is known: our own rejection costs nothing.
            spent: Option<Spent>,
        },
        Waiting {
            // In a box: what few calls have must not make the futures of all of them larger.
            sleep: Pin<Box<Sleep>>,
            next: Option<Next<A>>,
        },
        Readying {
            service: S,
            next: Option<Next<A>>,
        },
    }
}

/// The attempt to come. Dropped before it is sent, it gives its token back.
struct Next<A> {
    request: A,
    requeue: bool,
    token: Token,
}

impl<S, Req, C> ResponseFuture<S, Req, C>
where
    S: Service<Req::Attempt>,
    Req: Replay,
{
    pub(super) fn new(
        parts: Arc<Lane<Parts<S, C>>>,
        course: Course,
        attempt: Attempt,
        again: Option<Req::Kept>,
        future: S::Future,
    ) -> Self {
        Self { parts, course, attempt, again, state: State::Attempting { future, spent: None } }
    }
}

impl<S, Req, C> Future for ResponseFuture<S, Req, C>
where
    S: Service<Req::Attempt> + Clone,
    S::Error: Into<BoxError>,
    Req: Replay,
    C: Classify<S::Response>,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _clock = context::enter_clock();
        let mut this = self.project();
        loop {
            let state = match this.state.as_mut().project() {
                StateProj::Attempting { future, spent } => {
                    let polled = {
                        let _attempt = context::enter_attempt(this.attempt);
                        future.poll(cx)
                    };
                    let result = ready!(polled).map_err(Error::from_any);
                    if let (Some(spent), Err(error)) = (spent.take(), &result)
                        && error.is_rejected()
                    {
                        spent.refund();
                    }
                    let planned = this.parts.shared.plan(this.course, &result).and_then(|plan| {
                        let kept = this.again.as_mut().ok_or(Ended::AttemptsExhausted)?;
                        // Before the response goes: if nothing is left to send, it is the answer.
                        let request = Req::again(kept, this.course.seen).ok_or(Ended::NotReplayable)?;
                        Ok((plan, request))
                    });
                    let (Plan { start, wait, requeue, token }, request) = match planned {
                        Ok(planned) => planned,
                        Err(ended) => {
                            *this.again = None;
                            return Poll::Ready(finish(this.course, result, ended));
                        }
                    };
                    tracing::debug!(
                        target: "hopvine::retry",
                        attempt = this.course.attempts,
                        error = result.as_ref().err().map(tracing::field::display),
                        ?wait,
                        requeue,
                        "attempt failed, trying again"
                    );
                    // The connection of a response that nobody will read is free before the wait, not after.
                    drop(result);
                    this.attempt.next();
                    let next = Some(Next { request, requeue, token });
                    if wait.is_zero() {
                        State::Readying { service: this.parts.service(), next }
                    } else {
                        State::Waiting { sleep: Box::pin(sleep_until(start)), next }
                    }
                }
                StateProj::Waiting { sleep, next } => {
                    ready!(sleep.as_mut().poll(cx));
                    State::Readying { service: this.parts.service(), next: next.take() }
                }
                StateProj::Readying { service, next } => {
                    // Time has passed since this poll began: in the attempt before, or asleep.
                    context::refresh_clock();
                    let _attempt = context::enter_attempt(this.attempt);
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        // Never sent: its token goes back.
                        *next = None;
                        *this.again = None;
                        return Poll::Ready(finish(this.course, Err(Error::from_any(error)), Ended::Answered));
                    }
                    let Next { request, requeue, token } = next.take().expect("left as soon as it is sent");
                    let spent = Some(token.sent());
                    this.parts.shared.count_retry(requeue);
                    this.course.attempts += 1;
                    let future = service.call(request);
                    if this.course.attempts >= this.course.max_attempts {
                        // The last one: nothing needs to be kept beside it.
                        *this.again = None;
                    }
                    State::Attempting { future, spent }
                }
            };
            this.state.set(state);
        }
    }
}

/// Tells how the call ended, beside its result.
fn finish<Res>(course: &Course, result: Result<Res, Error>, ended: Ended) -> Result<Res, Error> {
    context::set_last_call(CallFacts { attempts: course.attempts, ended });
    result.map_err(|error| error.with_attempts(course.attempts))
}

impl<S, Req, C> fmt::Debug for ResponseFuture<S, Req, C>
where
    S: Service<Req::Attempt>,
    Req: Replay,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("course", &self.course).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http_body_util::Empty;
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::{
        ErrorKind,
        layers::retry::{ReplayBody, RetryLayer, RetryPolicy},
    };

    /// Stands for a balancer, which adds its pick in `call`, or in `poll` if it had to wait.
    #[tokio::test(start_paused = true)]
    async fn the_next_attempt_knows_the_endpoints_that_were_tried() {
        type Request<B> = http::Request<ReplayBody<B>>;
        let known = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&known);
        let balancer = service_fn(move |_: Request<Empty<bytes::Bytes>>| {
            let attempt = context::attempt();
            let number = attempt.number();
            log.lock().unwrap().push([1, 2, 3].map(|endpoint| attempt.has_tried(endpoint)));
            if number == 1 {
                context::tried(number);
            }
            async move {
                tokio::task::yield_now().await;
                if number > 1 {
                    context::tried(number);
                }
                Err::<http::Response<()>, _>(Error::new(ErrorKind::Upstream))
            }
        });
        let request = http::Request::get("/").body(Empty::new()).unwrap();
        RetryLayer::new(RetryPolicy::default()).unwrap().layer(balancer).oneshot(request).await.unwrap_err();
        assert_eq!(*known.lock().unwrap(), [[false, false, false], [true, false, false], [true, true, false]]);
        assert!(context::attempt().is_fresh(), "the caller's own facts are untouched");
    }
}
