use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tower_layer::Layer;

use super::{
    CircuitBreaker,
    state::{Admitted, Machine, Report, State, Transition},
};
use crate::{
    Error, ErrorKind, Live, Monitor, Policy, PolicyError, context,
    live::{Follow, IntoLive, Ratio},
    monitor::{Act, BreakerView, Observation, Observe},
    outcome::Standard,
};

/// Settings of a circuit breaker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreakerPolicy {
    /// How far back it looks; default 10 s. In ten steps.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// With fewer calls in the window it does not open; default 20.
    pub minimum_calls: u32,
    /// It opens when this share of the calls failed; default 0.5.
    pub failure_rate: Ratio,
    /// A call that takes longer is slow, whatever its result; default none.
    #[serde(with = "humantime_serde")]
    pub slow_call: Option<Duration>,
    /// It opens when this share of the calls was slow; default 1.
    pub slow_rate: Ratio,
    /// How long it stays open the first time; default 5 s, 10 % more or less by chance.
    #[serde(with = "humantime_serde")]
    pub open_time: Duration,
    /// How long it stays open at most, doubling each time the probes fail; default 60 s. A smaller one than `open_time` counts as that.
    #[serde(with = "humantime_serde")]
    pub open_time_max: Duration,
    /// How many calls may probe, 1 to 255; default 5. It closes when 80 % of them have succeeded.
    pub probes: u32,
    /// When a probe that was not heard of counts as lost; default 10 s. Should be longer than a call may take.
    #[serde(with = "humantime_serde")]
    pub probe_lease: Duration,
}

impl Default for CircuitBreakerPolicy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            minimum_calls: 20,
            failure_rate: Ratio(0.5),
            slow_call: None,
            slow_rate: Ratio(1.0),
            open_time: Duration::from_secs(5),
            open_time_max: Duration::from_secs(60),
            probes: 5,
            probe_lease: Duration::from_secs(10),
        }
    }
}

impl Policy for CircuitBreakerPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        for (field, duration) in
            [("window", self.window), ("open_time", self.open_time), ("probe_lease", self.probe_lease)]
        {
            if duration.is_zero() {
                return Err(PolicyError::new(field, duration, "must be above zero"));
            }
        }
        if self.minimum_calls == 0 {
            return Err(PolicyError::new("minimum_calls", self.minimum_calls, "must be at least 1"));
        }
        if !(1..=255).contains(&self.probes) {
            return Err(PolicyError::new("probes", self.probes, "must be 1 to 255"));
        }
        self.failure_rate.validate("failure_rate")?;
        if self.failure_rate.0 == 0.0 {
            return Err(PolicyError::new("failure_rate", 0.0, "must be above zero, or every call would trip it"));
        }
        self.slow_rate.validate("slow_rate")
    }
}

/// Refuses calls while most of them fail. See the [module](super).
#[derive(Clone)]
pub struct CircuitBreakerLayer<C = Standard> {
    shared: Arc<Shared>,
    classify: Arc<C>,
}

pub(super) struct Shared {
    command: Arc<str>,
    pub(super) machine: Machine,
    rejected: AtomicU64,
    opened: AtomicU64,
    policy: Live<CircuitBreakerPolicy>,
}

impl CircuitBreakerLayer {
    /// A breaker for calls of this command name.
    pub fn new(command: &str, policy: impl IntoLive<CircuitBreakerPolicy>) -> Result<Self, PolicyError> {
        let policy = policy.into_live()?;
        let shared = Arc::new(Shared {
            command: command.into(),
            machine: Machine::new(&policy.get()),
            rejected: AtomicU64::new(0),
            opened: AtomicU64::new(0),
            policy: policy.clone(),
        });
        policy.follow(&shared);
        Ok(Self { shared, classify: Arc::new(Standard) })
    }
}

impl<C> CircuitBreakerLayer<C> {
    /// By a classification of your own.
    pub fn classify<D>(self, classify: D) -> CircuitBreakerLayer<D> {
        CircuitBreakerLayer { shared: self.shared, classify: Arc::new(classify) }
    }

    /// Where it can be watched, and forced open or closed.
    #[must_use]
    pub fn monitor(self, monitor: &Monitor) -> Self {
        monitor.register(&self.shared.command, &self.shared);
        self
    }

    /// A hand on the breaker.
    pub fn breaker(&self) -> Breaker {
        Breaker { shared: Arc::clone(&self.shared) }
    }
}

impl<S, C> Layer<S> for CircuitBreakerLayer<C> {
    type Service = CircuitBreaker<S, C>;

    fn layer(&self, inner: S) -> CircuitBreaker<S, C> {
        CircuitBreaker::new(inner, Arc::clone(&self.shared), Arc::clone(&self.classify))
    }
}

/// A hand on a breaker: look at it, force it, release it.
#[derive(Clone, Debug)]
pub struct Breaker {
    shared: Arc<Shared>,
}

impl Breaker {
    /// What it does with calls now.
    pub fn state(&self) -> State {
        self.shared.machine.state()
    }

    /// Refuses every call until released.
    pub fn force_open(&self) {
        self.shared.force(State::ForcedOpen);
    }

    /// Lets every call through until released.
    pub fn force_closed(&self) {
        self.shared.force(State::ForcedClosed);
    }

    /// Decides for itself again, beginning closed.
    pub fn release(&self) {
        self.shared.force(State::Closed);
    }

    /// The policy it follows.
    pub fn policy(&self) -> &Live<CircuitBreakerPolicy> {
        &self.shared.policy
    }
}

impl Shared {
    pub(super) fn admit(&self) -> Result<Admitted, Error> {
        let now = context::nanos(context::now());
        let (admitted, transition) = self.machine.admit(now);
        self.tell(transition);
        admitted.ok_or_else(|| {
            self.rejected.fetch_add(1, Relaxed);
            let error = Error::new(ErrorKind::CircuitOpen).with_layer("circuit_breaker");
            let error = error.with_service(Arc::clone(&self.command));
            match self.machine.open_for(now) {
                Some(left) if !left.is_zero() => error.with_retry_after(left),
                _ => error,
            }
        })
    }

    pub(super) fn report(&self, admitted: Admitted, report: Report, took: Duration) {
        let now = context::nanos(context::now());
        let slow = self.machine.is_slow(took);
        // Drawn only where it may be needed: a success neither opens nor grows.
        let jitter = if report == Report::Success && !slow { 1.0 } else { 0.9 + 0.2 * fastrand::f64() };
        self.tell(self.machine.report(admitted, report, slow, now, jitter));
    }

    fn force(&self, state: State) -> bool {
        let changed = self.machine.force(state, context::nanos(context::now()));
        if changed {
            tracing::info!(target: "hopvine::circuit_breaker", command = %self.command, state = state.name(), "forced");
        }
        changed
    }

    fn tell(&self, transition: Option<Transition>) {
        let Some(Transition { to, totals, open_for }) = transition else { return };
        let command = &*self.command;
        if let Some(open_for) = open_for {
            self.opened.fetch_add(1, Relaxed);
            tracing::warn!(target: "hopvine::circuit_breaker", command, ?open_for, calls = totals.calls,
                failure_rate = totals.failure_rate(), slow_rate = totals.slow_rate(), "opened");
        } else {
            tracing::info!(target: "hopvine::circuit_breaker", command, state = to.name(), "changed");
        }
    }
}

impl Follow<CircuitBreakerPolicy> for Shared {
    fn follow(&self, policy: &CircuitBreakerPolicy) {
        self.machine.set_policy(policy);
    }
}

impl Observe for Shared {
    fn observe(&self, name: &str) -> Vec<Observation> {
        let now = context::nanos(context::now());
        let totals = self.machine.totals(now);
        vec![Observation::Breaker(BreakerView {
            name: name.to_owned(),
            state: self.machine.state().name(),
            calls: totals.calls,
            failure_rate: totals.failure_rate(),
            slow_rate: totals.slow_rate(),
            rejected: self.rejected.load(Relaxed),
            opened: self.opened.load(Relaxed),
            open_for: self.machine.open_for(now),
            probes: self.machine.probes(),
        })]
    }

    fn act(&self, act: &Act) -> bool {
        match act {
            Act::ForceOpen => self.force(State::ForcedOpen),
            Act::ForceClosed => self.force(State::ForcedClosed),
            Act::Release => self.force(State::Closed),
            _ => false,
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker")
            .field("command", &self.command)
            .field("state", &self.machine.state())
            .finish_non_exhaustive()
    }
}

impl<C> fmt::Debug for CircuitBreakerLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CircuitBreakerLayer").field(&self.shared).finish()
    }
}
