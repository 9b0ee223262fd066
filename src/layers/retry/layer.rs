use std::{
    fmt,
    sync::{
        Arc, Once,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;
use tower_layer::Layer;

use super::{
    Budget, Retry, RetryPolicy, Token, backoff,
    decision::{Again, Attempted, Course},
};
use crate::{
    Classify, Error, Monitor, Outcome, PolicyError,
    context::{self, Ended},
    lanes::PerLane,
    live::{Follow, IntoLive},
    monitor::{Kind, Observation, Observe, RetryView},
    outcome::{Pushback, Standard},
};

/// Makes a failed attempt again, where that is safe and the budget pays for it. See the [module](super).
pub struct RetryLayer<C = Standard> {
    shared: Arc<Shared<C>>,
}

pub(super) struct Shared<C> {
    settings: Arc<Settings>,
    budget: Budget,
    classify: Arc<C>,
    name: Arc<str>,
    monitor: Option<Monitor>,
    registered: Once,
    calls: PerLane<AtomicU64>,
    retries: AtomicU64,
    requeues: AtomicU64,
    refused: AtomicU64,
}

/// The policy as the calls read it.
#[derive(Debug, Default)]
struct Settings {
    max_attempts: AtomicU32,
    backoff_base: AtomicU64,
    backoff_max: AtomicU64,
    replay_limit: AtomicUsize,
}

/// A retry that is decided on and paid for.
pub(super) struct Plan {
    pub(super) start: Instant,
    pub(super) wait: Duration,
    pub(super) requeue: bool,
    pub(super) token: Token,
}

impl RetryLayer {
    /// Retries by `policy`, fixed or [`Live`](crate::Live), on a [`Budget`] of its own.
    pub fn new(policy: impl IntoLive<RetryPolicy>) -> Result<Self, PolicyError> {
        let settings = Arc::new(Settings::default());
        policy.into_live()?.follow(&settings);
        let shared = Shared {
            settings,
            budget: Budget::default(),
            classify: Arc::new(Standard),
            name: "retry".into(),
            monitor: None,
            registered: Once::new(),
            calls: PerLane::default(),
            retries: AtomicU64::default(),
            requeues: AtomicU64::default(),
            refused: AtomicU64::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl<C> RetryLayer<C> {
    /// Pays for retries from this budget: one per service, shared with its other layers.
    #[must_use]
    pub fn budget(self, budget: Budget) -> Self {
        self.rebuild(|shared| Shared { budget, ..shared })
    }

    /// Judges results by `classify`.
    #[must_use]
    pub fn classify<D>(self, classify: D) -> RetryLayer<D> {
        self.rebuild(|shared| shared.with_classify(Arc::new(classify)))
    }

    /// Its name in a monitor; `retry` by default.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.rebuild(|shared| Shared { name: name.into(), ..shared })
    }

    /// Shows its counts in `monitor`, from when it is first put round a service.
    #[must_use]
    pub fn monitor(self, monitor: &Monitor) -> Self {
        self.rebuild(|shared| Shared { monitor: Some(monitor.clone()), ..shared })
    }

    fn rebuild<D>(self, change: impl FnOnce(Shared<C>) -> Shared<D>) -> RetryLayer<D> {
        // A clone of this layer keeps its own counts and name; policy, budget and classifier are the same ones.
        let shared =
            Arc::try_unwrap(self.shared).unwrap_or_else(|shared| shared.with_classify(Arc::clone(&shared.classify)));
        RetryLayer { shared: Arc::new(change(shared)) }
    }
}

impl<S: Clone, C: Send + Sync + 'static> Layer<S> for RetryLayer<C> {
    type Service = Retry<S, C>;

    fn layer(&self, inner: S) -> Retry<S, C> {
        let shared = &self.shared;
        if let Some(monitor) = &shared.monitor {
            shared.registered.call_once(|| drop(monitor.register(&shared.name, shared)));
        }
        Retry::new(inner, shared)
    }
}

impl<C> Shared<C> {
    fn with_classify<D>(&self, classify: Arc<D>) -> Shared<D> {
        Shared {
            settings: Arc::clone(&self.settings),
            budget: self.budget.clone(),
            classify,
            name: Arc::clone(&self.name),
            monitor: self.monitor.clone(),
            registered: Once::new(),
            calls: PerLane::default(),
            retries: AtomicU64::default(),
            requeues: AtomicU64::default(),
            refused: AtomicU64::default(),
        }
    }

    /// A call begins, counted in this lane: how many attempts it may make.
    pub(super) fn begin(&self, lane: usize) -> u32 {
        self.calls[lane].fetch_add(1, Relaxed);
        self.settings.max_attempts.load(Relaxed)
    }

    pub(super) fn replay_limit(&self) -> usize {
        self.settings.replay_limit.load(Relaxed)
    }

    /// A further attempt is sent.
    pub(super) fn count_retry(&self, requeue: bool) {
        self.retries.fetch_add(1, Relaxed);
        if requeue {
            self.requeues.fetch_add(1, Relaxed);
        }
    }

    /// What follows an attempt that came to `result`: the next one, paid for, or the reason why there is none.
    pub(super) fn plan<Res>(&self, course: &mut Course, result: &Result<Res, Error>) -> Result<Plan, Ended>
    where
        C: Classify<Res>,
    {
        let attempted = self.judge(result);
        if attempted.outcome == Outcome::Success {
            self.budget.deposit();
        }
        let again = course.next(attempted)?;
        let wait = match again {
            Again::Requeue => Duration::ZERO,
            Again::After(wait) => wait,
            Again::Backoff => self.backoff(course.backoffs),
        };
        let now = context::now();
        let start = now.checked_add(wait).ok_or(Ended::DeadlineNear)?;
        if context::deadline().is_some_and(|deadline| start >= deadline) {
            return Err(Ended::DeadlineNear);
        }
        let Some(token) = self.budget.withdraw(context::nanos(now)) else {
            self.refused.fetch_add(1, Relaxed);
            return Err(Ended::BudgetExhausted);
        };
        match again {
            Again::Requeue => {}
            // The server chose a wait: our own sequence starts again.
            Again::After(_) => course.backoffs = 0,
            Again::Backoff => course.backoffs += 1,
        }
        if again != Again::Requeue {
            course.seen += 1;
        }
        Ok(Plan { start, wait, requeue: again == Again::Requeue, token })
    }

    fn judge<Res>(&self, result: &Result<Res, Error>) -> Attempted
    where
        C: Classify<Res>,
    {
        let outcome = self.classify.classify(result.as_ref());
        match result {
            Ok(response) => {
                let pushback = if outcome.is_bad() { self.classify.pushback(response) } else { None };
                Attempted { outcome, rejected: false, unsent: false, pushback }
            }
            Err(error) => Attempted {
                outcome,
                rejected: error.is_rejected(),
                unsent: error.is_unsent(),
                pushback: error.retry_after().map(Pushback::After),
            },
        }
    }

    fn backoff(&self, k: u32) -> Duration {
        let base = Duration::from_nanos(self.settings.backoff_base.load(Relaxed));
        let most = Duration::from_nanos(self.settings.backoff_max.load(Relaxed));
        backoff::full_jitter(base, most, k, fastrand::f64())
    }
}

impl Follow<RetryPolicy> for Settings {
    fn follow(&self, policy: &RetryPolicy) {
        let nanos = |wait: Duration| u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.max_attempts.store(policy.max_attempts, Relaxed);
        self.backoff_base.store(nanos(policy.backoff_base), Relaxed);
        self.backoff_max.store(nanos(policy.backoff_max), Relaxed);
        self.replay_limit.store(policy.replay_limit, Relaxed);
    }
}

impl<C: Send + Sync> Observe for Shared<C> {
    fn kind(&self) -> Kind {
        Kind::Retry
    }

    fn observe(&self, name: &str) -> Vec<Observation> {
        let calls = self.calls.iter().map(|calls| calls.load(Relaxed)).sum();
        vec![Observation::Retry(RetryView {
            name: name.to_owned(),
            calls,
            attempts: calls + self.retries.load(Relaxed),
            requeues: self.requeues.load(Relaxed),
            refused: self.refused.load(Relaxed),
            budget: self.budget.balance(context::now_nanos()),
        })]
    }
}

impl<C> Clone for RetryLayer<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<C> fmt::Debug for RetryLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RetryLayer").field(&self.shared).finish()
    }
}

impl<C> fmt::Debug for Shared<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .field("settings", &self.settings)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}
