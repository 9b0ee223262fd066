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
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    Error, ErrorKind, Live, Policy, PolicyError, context,
    layers::timed::Timed,
    live::{Follow, IntoLive},
};

/// Settings of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadlinePolicy {
    /// How long a call may take, all attempts and waits together; default 2 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for DeadlinePolicy {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(2) }
    }
}

/// A time is all there is to it.
impl IntoLive<DeadlinePolicy> for Duration {
    fn into_live(self) -> Result<Live<DeadlinePolicy>, PolicyError> {
        Live::new(DeadlinePolicy { timeout: self })
    }
}

impl Policy for DeadlinePolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.timeout.is_zero() {
            return Err(PolicyError::new("timeout", self.timeout, "must be above zero"));
        }
        Ok(())
    }
}

/// Ends a call in time. See the [module](super).
#[derive(Clone, Debug)]
pub struct DeadlineLayer {
    timeout: Arc<Timeout>,
}

#[derive(Debug)]
struct Timeout(AtomicU64);

impl DeadlineLayer {
    /// After this time, or when the deadline outside ends.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout: Arc::new(Timeout(AtomicU64::new(timeout.as_nanos() as u64))) }
    }

    /// After the time this policy says, which may change.
    pub fn live(policy: &Live<DeadlinePolicy>) -> Self {
        let layer = Self::new(policy.get().timeout);
        policy.follow(&layer.timeout);
        layer
    }
}

impl Follow<DeadlinePolicy> for Timeout {
    fn follow(&self, policy: &DeadlinePolicy) {
        self.0.store(policy.timeout.as_nanos() as u64, Relaxed);
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, timeout: Arc::clone(&self.timeout) }
    }
}

/// A service whose calls end in time. Made by [`DeadlineLayer`].
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    timeout: Arc<Timeout>,
}

impl<S, Req> Service<Req> for Deadline<S>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let _clock = context::enter_clock();
        let now = context::now();
        let own = now + Duration::from_nanos(self.timeout.0.load(Relaxed));
        let end = context::deadline().map_or(own, |deadline| deadline.min(own));
        if end <= now {
            return ResponseFuture { state: State::Late };
        }
        let _deadline = context::enter_deadline(Some(end));
        ResponseFuture { state: State::Calling { call: Timed::new(self.inner.call(request), end), end } }
    }
}

pin_project! {
    /// Made by [`Deadline`].
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F> {
        Calling { #[pin] call: Timed<F>, end: Instant },
        // It had passed before the call.
        Late,
    }
}

impl<F, Res, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Res, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let exceeded = || Error::new(ErrorKind::DeadlineExceeded).with_layer("deadline");
        Poll::Ready(match self.project().state.project() {
            StateProjection::Calling { call, end } => {
                let _clock = context::enter_clock();
                let _deadline = context::enter_deadline(Some(*end));
                match ready!(call.poll(cx)) {
                    Ok(result) => result.map_err(Error::from_any),
                    Err(_) => Err(exceeded()),
                }
            }
            StateProjection::Late => Err(exceeded().unsent()),
        })
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("deadline::ResponseFuture").finish_non_exhaustive()
    }
}
