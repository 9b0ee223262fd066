//! Ends one attempt in time, so that there is time for another.
//!
//! Counts to the head of the response, and never longer than the call's deadline leaves.
//!
//! ```
//! use std::time::Duration;
//! use hopvine::{Live, connect::per_endpoint, layers::attempt_timeout::{AttemptTimeoutLayer, AttemptTimeoutPolicy}};
//!
//! let layer = per_endpoint(|_| AttemptTimeoutLayer::new(Duration::from_millis(300)));
//!
//! // One that can be changed while calls run.
//! let live = Live::new(AttemptTimeoutPolicy { timeout: Duration::from_millis(300) })?;
//! let follows = AttemptTimeoutLayer::live(&live);
//! let layer = per_endpoint(move |_| follows.clone());
//! # let _ = layer;
//! # Ok::<(), hopvine::PolicyError>(())
//! ```
//!
//! **State.** None but the policy. **Placement.** Per endpoint, innermost, lifted by [`per_endpoint`](crate::connect::per_endpoint): those who count
//! timeouts stand outside and see one as an error. **Errors.** [`ErrorKind::AttemptTimeout`](crate::ErrorKind), or `DeadlineExceeded` where the call's deadline came
//! first. **Cancellation.** The attempt is dropped when its time is over, and its guards are told why.

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
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::timed::Timed;
use crate::{
    Error, ErrorKind, Live, Policy, PolicyError, context,
    live::{Follow, IntoLive},
};

/// Settings of an attempt timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttemptTimeoutPolicy {
    /// How long an attempt may take to the head of its response; default 1 s.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for AttemptTimeoutPolicy {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(1) }
    }
}

/// A time is all there is to it.
impl IntoLive<AttemptTimeoutPolicy> for Duration {
    fn into_live(self) -> Result<Live<AttemptTimeoutPolicy>, PolicyError> {
        Live::new(AttemptTimeoutPolicy { timeout: self })
    }
}

impl Policy for AttemptTimeoutPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.timeout.is_zero() {
            return Err(PolicyError::new("timeout", self.timeout, "must be above zero"));
        }
        Ok(())
    }
}

/// Ends an attempt in time. See the [module](self).
#[derive(Clone, Debug)]
pub struct AttemptTimeoutLayer {
    timeout: Arc<Timeout>,
}

#[derive(Debug)]
struct Timeout(AtomicU64);

impl AttemptTimeoutLayer {
    /// After this time.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout: Arc::new(Timeout(AtomicU64::new(timeout.as_nanos() as u64))) }
    }

    /// After the time this policy says, which may change.
    pub fn live(policy: &Live<AttemptTimeoutPolicy>) -> Self {
        let layer = Self::new(policy.get().timeout);
        policy.follow(&layer.timeout);
        layer
    }
}

impl Follow<AttemptTimeoutPolicy> for Timeout {
    fn follow(&self, policy: &AttemptTimeoutPolicy) {
        self.0.store(policy.timeout.as_nanos() as u64, Relaxed);
    }
}

impl<S> Layer<S> for AttemptTimeoutLayer {
    type Service = AttemptTimeout<S>;

    fn layer(&self, inner: S) -> AttemptTimeout<S> {
        AttemptTimeout { inner, timeout: Arc::clone(&self.timeout) }
    }
}

/// A service whose attempts end in time. Made by [`AttemptTimeoutLayer`].
#[derive(Clone, Debug)]
pub struct AttemptTimeout<S> {
    inner: S,
    timeout: Arc<Timeout>,
}

impl<S, Req> Service<Req> for AttemptTimeout<S>
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
        let own = context::now() + Duration::from_nanos(self.timeout.0.load(Relaxed));
        let (end, kind) = match context::deadline() {
            Some(deadline) if deadline < own => (deadline, ErrorKind::DeadlineExceeded),
            _ => (own, ErrorKind::AttemptTimeout),
        };
        ResponseFuture { call: Timed::new(self.inner.call(request), end), kind }
    }
}

pin_project! {
    /// Made by [`AttemptTimeout`].
    pub struct ResponseFuture<F> {
        #[pin]
        call: Timed<F>,
        kind: ErrorKind,
    }
}

impl<F, Res, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Res, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        Poll::Ready(match ready!(this.call.poll(cx)) {
            Ok(result) => result.map_err(Error::from_any),
            Err(_) => Err(Error::new(*this.kind).with_layer("attempt_timeout")),
        })
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("attempt_timeout::ResponseFuture").finish_non_exhaustive()
    }
}
