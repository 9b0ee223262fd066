use std::{
    fmt, mem,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tower::BoxError;
use tower_layer::Layer;
use tower_service::Service;

use super::{Budget, ResponseFuture};
use crate::{
    Error, Live, Monitor, Policy, PolicyError,
    context::{self, Attempt},
    live::{Follow, IntoLive},
    monitor::{Observation, Observe, RetryView},
    outcome::{Classify, Standard},
    request::{Idempotent, Replay},
};

/// Settings of retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts of a call, the first included, 1 to 5; default 3.
    pub max_attempts: u32,
    /// The ceiling of the first wait, doubling with each; default 25 ms. The wait itself is drawn between zero and it.
    #[serde(with = "humantime_serde")]
    pub backoff: Duration,
    /// The highest ceiling; default 250 ms.
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
    /// Bytes of a body that are kept for another attempt; default 64 KiB.
    pub replay_limit: usize,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            replay_limit: 64 * 1024,
        }
    }
}

impl Policy for RetryPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        if !(1..=5).contains(&self.max_attempts) {
            return Err(PolicyError::new("max_attempts", self.max_attempts, "must be 1 to 5"));
        }
        if self.backoff_max < self.backoff {
            return Err(PolicyError::new("backoff_max", self.backoff_max, "must not be below backoff"));
        }
        Ok(())
    }
}

/// Tries again. See the [module](super).
pub struct RetryLayer<C = Standard> {
    shared: Arc<Shared>,
    policy: Live<RetryPolicy>,
    classify: Arc<C>,
    name: Arc<str>,
}

pub(super) struct Shared {
    pub(super) max_attempts: AtomicU32,
    pub(super) backoff: AtomicU64,
    pub(super) backoff_max: AtomicU64,
    replay_limit: AtomicUsize,
    pub(super) budget: Budget,
    calls: AtomicU64,
    pub(super) attempts: AtomicU64,
    pub(super) requeues: AtomicU64,
    pub(super) refused: AtomicU64,
}

impl RetryLayer {
    /// With these settings and a budget of its own.
    pub fn new(policy: impl IntoLive<RetryPolicy>) -> Result<Self, PolicyError> {
        let policy = policy.into_live()?;
        let shared = Shared::new(&policy, Budget::default());
        Ok(Self { shared, policy, classify: Arc::new(Standard), name: "retry".into() })
    }
}

impl<C> RetryLayer<C> {
    /// Pays from this budget. Comes before [`monitor`](Self::monitor).
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.shared = Shared::new(&self.policy, budget);
        self
    }

    /// By a classification of your own.
    pub fn classify<D>(self, classify: D) -> RetryLayer<D> {
        RetryLayer { shared: self.shared, policy: self.policy, classify: Arc::new(classify), name: self.name }
    }

    /// Its name, in views; default `retry`.
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

impl Shared {
    fn new(policy: &Live<RetryPolicy>, budget: Budget) -> Arc<Self> {
        let shared = Arc::new(Self {
            max_attempts: AtomicU32::new(1),
            backoff: AtomicU64::new(0),
            backoff_max: AtomicU64::new(0),
            replay_limit: AtomicUsize::new(0),
            budget,
            calls: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            requeues: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        policy.follow(&shared);
        shared
    }
}

impl Follow<RetryPolicy> for Shared {
    fn follow(&self, policy: &RetryPolicy) {
        self.max_attempts.store(policy.max_attempts, Relaxed);
        self.backoff.store(policy.backoff.as_nanos() as u64, Relaxed);
        self.backoff_max.store(policy.backoff_max.as_nanos() as u64, Relaxed);
        self.replay_limit.store(policy.replay_limit, Relaxed);
    }
}

impl Observe for Shared {
    fn observe(&self, name: &str) -> Vec<Observation> {
        vec![Observation::Retry(RetryView {
            name: name.to_owned(),
            calls: self.calls.load(Relaxed),
            attempts: self.attempts.load(Relaxed),
            requeues: self.requeues.load(Relaxed),
            refused: self.refused.load(Relaxed),
            budget: self.budget.balance(),
        })]
    }
}

impl<S, C> Layer<S> for RetryLayer<C> {
    type Service = Retry<S, C>;

    fn layer(&self, inner: S) -> Retry<S, C> {
        Retry { inner, shared: Arc::clone(&self.shared), classify: Arc::clone(&self.classify) }
    }
}

/// A service that is tried again. Made by [`RetryLayer`].
pub struct Retry<S, C = Standard> {
    inner: S,
    shared: Arc<Shared>,
    classify: Arc<C>,
}

impl<S, C, Req> Service<Req> for Retry<S, C>
where
    S: Service<Req::Attempt> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
    Req: Replay + Idempotent,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, S::Future, Req::Attempt, Req::Kept, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let _clock = context::enter_clock();
        self.shared.calls.fetch_add(1, Relaxed);
        self.shared.attempts.fetch_add(1, Relaxed);
        let idempotent = request.is_idempotent();
        let (attempt, kept) = if self.shared.max_attempts.load(Relaxed) > 1 {
            let (attempt, kept) = request.keep(self.shared.replay_limit.load(Relaxed));
            (attempt, Some(kept))
        } else {
            (request.once(), None)
        };
        let mut facts = Attempt::first();
        // The one that is ready is the one to call; its clone is for the attempts that follow.
        let next = self.inner.clone();
        let mut ready = mem::replace(&mut self.inner, next.clone());
        let call = {
            let _attempt = context::enter_attempt(&mut facts);
            ready.call(attempt)
        };
        ResponseFuture::new(call, next, kept, idempotent, facts, Arc::clone(&self.shared), Arc::clone(&self.classify))
    }
}

impl<C> Clone for RetryLayer<C> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            policy: self.policy.clone(),
            classify: Arc::clone(&self.classify),
            name: Arc::clone(&self.name),
        }
    }
}

impl<S: Clone, C> Clone for Retry<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared), classify: Arc::clone(&self.classify) }
    }
}

impl<C> fmt::Debug for RetryLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryLayer")
            .field("policy", &self.policy)
            .field("budget", &self.shared.budget)
            .finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Retry<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).finish_non_exhaustive()
    }
}
