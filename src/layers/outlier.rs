//! Leaves out an endpoint that keeps failing, and probes it later.
//!
//! ```
//! use std::time::Duration;
//! use hopvine::layers::outlier::{OutlierDetectionLayer, OutlierPolicy};
//!
//! let layer = OutlierDetectionLayer::new(OutlierPolicy::default())?;
//! let layer = OutlierDetectionLayer::new(OutlierPolicy { consecutive: 3, base: Duration::from_secs(5), ..Default::default() })?;
//! # let _ = layer;
//! # Ok::<(), hopvine::PolicyError>(())
//! ```
//!
//! An endpoint that fails, or times out, [`consecutive`](OutlierPolicy::consecutive) times in a row is ejected: the balancer gives it no calls. After
//! its time one call goes there as a probe: a success brings it back, a failure ejects it for longer. It is a detector for the dead; one that
//! fails one call in five is caught by the balancer's failure penalty. (Envoy's consecutive failures; times as in gRFC A50, with jitter.)
//!
//! At most [`max_share`](OutlierPolicy::max_share) of a service's endpoints are ejected at once, one at least, and never the last one.
//!
//! **State.** In the endpoint's handle: it survives a removal and return of the endpoint, and all services of one stack share it. **Placement.** Per endpoint,
//! outside the attempt timeout, so that it sees timeouts. **Errors.** None of its own. **Cancellation.** A dropped call neither counts nor ends a run of failures,
//! unless a timer of ours dropped it: that is a timeout. What was sent before an ejection or return says nothing after it.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use serde::{Deserialize, Serialize};
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    Classify, EndpointHandle, Error, NewService, Outcome, Policy, PolicyError,
    context::{self, DropCause},
    live::{Follow, IntoLive, Ratio},
    outcome::Standard,
};

/// Settings of outlier detection.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutlierPolicy {
    /// Failures in a row that eject an endpoint; default 5.
    pub consecutive: u32,
    /// How long the first ejection lasts, 10 % more or less by chance; default 30 s. The second one in a row lasts twice as long, the third three times.
    #[serde(with = "humantime_serde")]
    pub base: Duration,
    /// How long one lasts at most; default 300 s. A smaller one than `base` counts as that.
    #[serde(with = "humantime_serde")]
    pub max: Duration,
    /// The share of a service's endpoints that may be ejected; default 0.33. One may always be, the last one never.
    pub max_share: Ratio,
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self { consecutive: 5, base: Duration::from_secs(30), max: Duration::from_secs(300), max_share: Ratio(0.33) }
    }
}

impl Policy for OutlierPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.consecutive == 0 {
            return Err(PolicyError::new("consecutive", self.consecutive, "must be at least 1"));
        }
        if self.base.is_zero() {
            return Err(PolicyError::new("base", self.base, "must be above zero"));
        }
        self.max_share.validate("max_share")
    }
}

/// Ejects endpoints that keep failing. See the [module](self).
#[derive(Debug)]
pub struct OutlierDetectionLayer<C = Standard> {
    settings: Arc<Settings>,
    classify: Arc<C>,
}

#[derive(Debug, Default)]
struct Settings {
    consecutive: AtomicU32,
    base: AtomicU64,
    max: AtomicU64,
    max_share: AtomicU64,
}

impl OutlierDetectionLayer {
    /// With these settings.
    pub fn new(policy: impl IntoLive<OutlierPolicy>) -> Result<Self, PolicyError> {
        let settings = Arc::new(Settings::default());
        policy.into_live()?.follow(&settings);
        Ok(Self { settings, classify: Arc::new(Standard) })
    }
}

impl<C> OutlierDetectionLayer<C> {
    /// By a classification of your own.
    pub fn classify<D>(self, classify: D) -> OutlierDetectionLayer<D> {
        OutlierDetectionLayer { settings: self.settings, classify: Arc::new(classify) }
    }
}

impl Follow<OutlierPolicy> for Settings {
    fn follow(&self, policy: &OutlierPolicy) {
        self.consecutive.store(policy.consecutive, Relaxed);
        self.base.store(policy.base.as_nanos() as u64, Relaxed);
        self.max.store(policy.max.as_nanos() as u64, Relaxed);
        self.max_share.store(policy.max_share.0.to_bits(), Relaxed);
    }
}

/// How many of `size` endpoints may be ejected at once (E8).
fn most_ejected(size: u32, max_share: f64) -> u32 {
    ((f64::from(size) * max_share) as u32).max(1).min(size.saturating_sub(1))
}

/// How many ejections in a row the next one is: each healthy `base` since the last return takes one off (E7).
fn next_ejection(before: u32, healthy: u64, base: u64) -> u32 {
    let intervals = u32::try_from(healthy / base.max(1)).unwrap_or(u32::MAX);
    before.saturating_sub(intervals).saturating_add(1)
}

/// How long the ejection that is the `nth` in a row lasts.
fn ejection_time(base: u64, max: u64, nth: u32, jitter: f64) -> u64 {
    (base.saturating_mul(u64::from(nth)).min(max.max(base)) as f64 * jitter) as u64
}

impl Settings {
    fn record(&self, endpoint: &EndpointHandle, generation: u32, outcome: Outcome) {
        let health = endpoint.health();
        if generation != health.generation() {
            return;
        }
        let now = context::nanos(context::now());
        match outcome {
            Outcome::Success if health.is_ejected() => {
                // Its probe, or a call of a panic: it answers, so it is back.
                health.returned.store(now, Relaxed);
                if endpoint.restore() {
                    let id = endpoint.endpoint();
                    tracing::info!(target: "hopvine::outlier", service = %endpoint.service(), endpoint = %id.id(), "restored");
                }
            }
            // Read first: an endpoint that is well is not written to.
            Outcome::Success if health.consecutive.load(Relaxed) != 0 => health.consecutive.store(0, Relaxed),
            Outcome::Failure(_) | Outcome::TimedOut => self.failed(endpoint, now),
            _ => {}
        }
    }

    fn failed(&self, endpoint: &EndpointHandle, now: u64) {
        let health = endpoint.health();
        let probed = health.is_ejected();
        let run = health.consecutive.fetch_add(1, Relaxed) + 1;
        if !probed && run < self.consecutive.load(Relaxed) {
            return;
        }
        let base = self.base.load(Relaxed);
        let healthy = if probed { 0 } else { now.saturating_sub(health.returned.load(Relaxed)) };
        let nth = next_ejection(health.ejections.load(Relaxed), healthy, base);
        let time = ejection_time(base, self.max.load(Relaxed), nth, 0.9 + 0.2 * fastrand::f64());
        let most = most_ejected(endpoint.group().size(), f64::from_bits(self.max_share.load(Relaxed)));
        let ejected = endpoint.eject(now.saturating_add(time), most);
        if !ejected && !probed {
            return;
        }
        health.ejections.store(nth, Relaxed);
        health.consecutive.store(0, Relaxed);
        let id = endpoint.endpoint();
        tracing::warn!(target: "hopvine::outlier", service = %endpoint.service(), endpoint = %id.id(),
            seconds = time / 1_000_000_000, nth, "ejected");
    }
}

impl<C> Clone for OutlierDetectionLayer<C> {
    fn clone(&self) -> Self {
        Self { settings: Arc::clone(&self.settings), classify: Arc::clone(&self.classify) }
    }
}

impl<N, C> Layer<N> for OutlierDetectionLayer<C> {
    type Service = NewOutlierDetection<N, C>;

    fn layer(&self, inner: N) -> NewOutlierDetection<N, C> {
        NewOutlierDetection { inner, layer: self.clone() }
    }
}

/// Makes an [`OutlierDetection`] for each endpoint.
#[derive(Clone, Debug)]
pub struct NewOutlierDetection<N, C = Standard> {
    inner: N,
    layer: OutlierDetectionLayer<C>,
}

impl<N, C> NewService<EndpointHandle> for NewOutlierDetection<N, C>
where
    N: NewService<EndpointHandle>,
{
    type Service = OutlierDetection<N::Service, C>;

    fn new_service(&self, endpoint: &EndpointHandle) -> Self::Service {
        let inner = self.inner.new_service(endpoint);
        OutlierDetection { inner, endpoint: endpoint.clone(), layer: self.layer.clone() }
    }
}

/// An endpoint's service that is watched. Made by [`OutlierDetectionLayer`].
#[derive(Debug)]
pub struct OutlierDetection<S, C = Standard> {
    inner: S,
    endpoint: EndpointHandle,
    layer: OutlierDetectionLayer<C>,
}

impl<S: Clone, C> Clone for OutlierDetection<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), endpoint: self.endpoint.clone(), layer: self.layer.clone() }
    }
}

impl<S, C, Req> Service<Req> for OutlierDetection<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let ready = ready!(self.inner.poll_ready(cx)).map_err(Error::from_any);
        if ready.is_err() {
            // An endpoint that cannot even be made ready has failed.
            let _clock = context::enter_clock();
            let outcome = Outcome::Failure(crate::outcome::Failure::Transport);
            self.layer.settings.record(&self.endpoint, self.endpoint.health().generation(), outcome);
        }
        Poll::Ready(ready)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let watch = Watch {
            settings: Arc::clone(&self.layer.settings),
            endpoint: self.endpoint.clone(),
            generation: self.endpoint.health().generation(),
            outcome: None,
        };
        ResponseFuture {
            call: self.inner.call(request),
            watch: Some(watch),
            classify: Arc::clone(&self.layer.classify),
        }
    }
}

pin_project! {
    /// Made by [`OutlierDetection`].
    pub struct ResponseFuture<F, C> {
        #[pin]
        call: F,
        watch: Option<Watch>,
        classify: Arc<C>,
    }
}

/// A call under way; told when dropped.
struct Watch {
    settings: Arc<Settings>,
    endpoint: EndpointHandle,
    generation: u32,
    outcome: Option<Outcome>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let dropped = match context::drop_cause() {
            DropCause::Cancelled => Outcome::Cancelled,
            DropCause::TimedOut => Outcome::TimedOut,
        };
        self.settings.record(&self.endpoint, self.generation, self.outcome.unwrap_or(dropped));
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
        let this = self.project();
        let result = ready!(this.call.poll(cx)).map_err(Error::from_any);
        if let Some(mut watch) = this.watch.take() {
            watch.outcome = Some(this.classify.classify(result.as_ref()));
        }
        Poll::Ready(result)
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("outlier::ResponseFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_may_always_be_ejected_and_the_last_one_never() {
        assert_eq!([0, 1, 2, 3, 6, 7, 20].map(|size| most_ejected(size, 0.33)), [0, 0, 1, 1, 1, 2, 6]);
        assert_eq!(most_ejected(4, 1.0), 3);
    }

    #[test]
    fn ejections_in_a_row_last_longer_and_healthy_times_forgive() {
        let nth = |before, healthy| next_ejection(before, healthy, 30);
        assert_eq!([nth(0, 900), nth(1, 0), nth(2, 0)], [1, 2, 3]);
        assert_eq!(nth(3, 60), 2, "two healthy intervals take two off");
        assert_eq!([1, 2, 3, 10, 11].map(|nth| ejection_time(30, 300, nth, 1.0)), [30, 60, 90, 300, 300]);
    }
}
