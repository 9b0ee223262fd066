use std::{
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::{ResponseFuture, places::Places};
use crate::{
    Error, ErrorKind, Monitor, Policy, PolicyError, context,
    live::{Follow, IntoLive},
    monitor::{BulkheadView, Observation, Observe},
};

/// Settings of a bulkhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BulkheadPolicy {
    /// Calls in flight; default 256.
    pub limit: u32,
    /// How long a call waits for a place; default zero: it does not. Never longer than the call's deadline.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// How many calls wait at once; default 256.
    pub max_waiting: u32,
}

impl Default for BulkheadPolicy {
    fn default() -> Self {
        Self { limit: 256, max_wait: Duration::ZERO, max_waiting: 256 }
    }
}

impl Policy for BulkheadPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.limit == 0 {
            return Err(PolicyError::new("limit", self.limit, "must be at least 1"));
        }
        if !self.max_wait.is_zero() && self.max_waiting == 0 {
            return Err(PolicyError::new("max_waiting", 0, "must be at least 1 where max_wait is above zero"));
        }
        Ok(())
    }
}

/// Bounds the calls in flight. See the [module](super).
#[derive(Clone, Debug)]
pub struct BulkheadLayer {
    shared: Arc<Shared>,
    name: Arc<str>,
}

#[derive(Debug)]
struct Shared {
    places: Arc<Places>,
}

impl BulkheadLayer {
    /// With these settings.
    pub fn new(policy: impl IntoLive<BulkheadPolicy>) -> Result<Self, PolicyError> {
        let policy = policy.into_live()?;
        let shared = Arc::new(Shared { places: Arc::default() });
        policy.follow(&shared);
        Ok(Self { shared, name: "bulkhead".into() })
    }

    /// Its name, in errors and views; default `bulkhead`.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Where it can be watched, under the name it has now.
    #[must_use]
    pub fn monitor(self, monitor: &Monitor) -> Self {
        monitor.register(&self.name, &self.shared);
        self
    }
}

impl Follow<BulkheadPolicy> for Shared {
    fn follow(&self, policy: &BulkheadPolicy) {
        self.places.max_wait.store(policy.max_wait.as_nanos() as u64, Relaxed);
        self.places.max_waiting.store(policy.max_waiting, Relaxed);
        self.places.limit.store(policy.limit, Relaxed);
        self.places.wake();
    }
}

impl Observe for Shared {
    fn observe(&self, name: &str) -> Vec<Observation> {
        vec![Observation::Bulkhead(BulkheadView {
            name: name.to_owned(),
            limit: self.places.limit.load(Relaxed),
            in_flight: self.places.taken(),
            waiting: self.places.waiting(),
            rejected: self.places.rejected.load(Relaxed),
        })]
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = Bulkhead<S>;

    fn layer(&self, inner: S) -> Bulkhead<S> {
        Bulkhead { inner, shared: Arc::clone(&self.shared), name: Arc::clone(&self.name) }
    }
}

/// A service with a bound on its calls in flight. Made by [`BulkheadLayer`].
#[derive(Clone, Debug)]
pub struct Bulkhead<S> {
    inner: S,
    shared: Arc<Shared>,
    name: Arc<str>,
}

impl<S, Req> Service<Req> for Bulkhead<S>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, S::Future, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let places = &self.shared.places;
        if let Some(place) = places.take() {
            return ResponseFuture::calling(self.inner.call(request), place);
        }
        let max_wait = Duration::from_nanos(places.max_wait.load(Relaxed));
        let full = || Error::new(ErrorKind::BulkheadFull).with_layer("bulkhead").with_service(Arc::clone(&self.name));
        if max_wait.is_zero() {
            places.rejected.fetch_add(1, Relaxed);
            return ResponseFuture::refused(full());
        }
        let _clock = context::enter_clock();
        let own = context::now() + max_wait;
        let (end, error) = match context::deadline() {
            Some(deadline) if deadline < own => {
                (deadline, Error::new(ErrorKind::DeadlineExceeded).with_layer("bulkhead").unsent())
            }
            _ => (own, full()),
        };
        // The one that is ready is the one to call, later.
        let next = self.inner.clone();
        let ready = mem::replace(&mut self.inner, next);
        ResponseFuture::waiting(Arc::clone(places), end, ready, request, error)
    }
}
