use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::{
    CircuitBreakerPolicy,
    policy::{Rules, Settings},
    state::{Change, Machine, Pass, Refusal, State},
};
use crate::{
    Error, ErrorKind, Outcome, context,
    live::{Follow, Live},
    monitor::{Act, BreakerView, Kind, Observation, Observe},
};

/// A handle to a layer's breaker, for operators and tests. Clones are handles to the same one.
#[derive(Clone)]
pub struct Breaker(pub(super) Arc<Shared>);

/// What all services of a layer share: the machine, with a clock, dice and a voice.
pub(super) struct Shared {
    name: Arc<str>,
    policy: Live<CircuitBreakerPolicy>,
    settings: Settings,
    machine: Machine,
    rejected: AtomicU64,
    opened: AtomicU64,
}

impl Breaker {
    /// What it does with calls. Once the open time is over it still says `Open` until a call has come.
    pub fn state(&self) -> State {
        self.0.machine.state()
    }

    /// Refuses every call until [`release`](Self::release).
    pub fn force_open(&self) {
        self.0.force(State::ForcedOpen);
    }

    /// Lets every call through until [`release`](Self::release), whatever the results, which are still counted.
    pub fn force_closed(&self) {
        self.0.force(State::ForcedClosed);
    }

    /// Lets it decide for itself again: closed, with nothing counted yet. Does nothing where it was not forced.
    pub fn release(&self) {
        self.0.force(State::Closed);
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breaker").field("command", &self.0.name).field("state", &self.state()).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(name: Arc<str>, policy: Live<CircuitBreakerPolicy>) -> Arc<Self> {
        let settings = Settings::new(&Rules::of(&policy.get()));
        let (rejected, opened) = Default::default();
        let shared = Arc::new(Self { name, policy, settings, machine: Machine::default(), rejected, opened });
        shared.policy.follow(&shared);
        shared
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn policy(&self) -> &Live<CircuitBreakerPolicy> {
        &self.policy
    }

    /// The start of a call (in [`context::nanos`]), if anybody will ask how long it took.
    #[inline]
    pub(super) fn start(&self) -> Option<u64> {
        self.settings.measures().then(context::now_nanos)
    }

    #[inline]
    pub(super) fn admit(&self) -> Result<Pass, Error> {
        match self.machine.pass() {
            Some(pass) => Ok(pass),
            None => self.admit_perhaps(),
        }
    }

    /// Lets a call in that has failed before it asked, so that its failure counts. If not, it was not refused: it has its own error.
    #[cold]
    pub(super) fn admit_failed(&self) -> Option<Pass> {
        self.machine.pass().or_else(|| self.ask().ok())
    }

    fn ask(&self) -> Result<Pass, Refusal> {
        let (pass, change) = self.machine.admit(context::now_nanos(), &self.settings.rules())?;
        self.tell(change);
        Ok(pass)
    }

    #[cold]
    fn admit_perhaps(&self) -> Result<Pass, Error> {
        match self.ask() {
            Ok(pass) => Ok(pass),
            Err(refusal) => {
                self.rejected.fetch_add(1, Relaxed);
                let error = Error::new(ErrorKind::CircuitOpen)
                    .with_layer("circuit_breaker")
                    .with_service(Arc::clone(&self.name));
                Err(match refusal.wait {
                    Some(wait) => error.with_retry_after(Duration::from_nanos(wait)),
                    None => error,
                })
            }
        }
    }

    /// Ends a call, counted in this lane.
    pub(super) fn report(&self, pass: Pass, start: Option<u64>, outcome: Outcome, lane: usize) {
        // Nothing to count and no lease to give back: spare the clock.
        if start.is_none() && matches!(outcome, Outcome::Cancelled | Outcome::Ignored) && !pass.is_probe() {
            return;
        }
        let now = context::now_nanos();
        let elapsed = start.map_or(0, |start| now.saturating_sub(start));
        let rules = self.settings.rules();
        let verdict = rules.verdict(outcome, elapsed);
        let change = self.machine.report(pass, verdict, now, lane, &rules, || 0.9 + 0.2 * fastrand::f64());
        self.tell(change);
    }

    fn force(&self, to: State) {
        self.tell(self.machine.force(to, context::now_nanos()));
    }

    /// Tells a transition, once: the machine hands it to one thread only.
    fn tell(&self, change: Option<Change>) {
        let Some(Change { from, to, sums, stays }) = change else { return };
        let (command, from) = (&*self.name, from.name());
        match to {
            State::Open => {
                self.opened.fetch_add(1, Relaxed);
                tracing::warn!(
                    target: "hopvine::circuit_breaker",
                    command,
                    from,
                    to = to.name(),
                    calls = sums.calls,
                    failure_rate = sums.failure_rate(),
                    slow_rate = sums.slow_rate(),
                    open_for = ?Duration::from_nanos(stays),
                    "circuit breaker opened"
                );
            }
            State::ForcedOpen => tracing::warn!(
                target: "hopvine::circuit_breaker",
                command,
                from,
                to = to.name(),
                "circuit breaker forced open"
            ),
            State::HalfOpen if from == to.name() => tracing::info!(
                target: "hopvine::circuit_breaker",
                command,
                from,
                to = to.name(),
                "circuit breaker's probes got lost, others are let through"
            ),
            State::Closed | State::HalfOpen | State::ForcedClosed => tracing::info!(
                target: "hopvine::circuit_breaker",
                command,
                from,
                to = to.name(),
                "circuit breaker changed"
            ),
        }
    }
}

impl Follow<CircuitBreakerPolicy> for Shared {
    fn follow(&self, policy: &CircuitBreakerPolicy) {
        if self.settings.replace(&Rules::of(policy)) {
            self.machine.clear_window();
        }
    }
}

impl Observe for Shared {
    fn kind(&self) -> Kind {
        Kind::Breaker
    }

    fn observe(&self, name: &str) -> Vec<Observation> {
        let look = self.machine.look(context::now_nanos(), &self.settings.rules());
        vec![Observation::Breaker(BreakerView {
            name: name.to_owned(),
            state: look.state.name(),
            calls: look.sums.calls,
            failure_rate: look.sums.failure_rate(),
            slow_rate: look.sums.slow_rate(),
            rejected: self.rejected.load(Relaxed),
            opened: self.opened.load(Relaxed),
            open_for: look.wait.map(Duration::from_nanos),
            probes: look.leased,
        })]
    }

    fn act(&self, act: &Act) -> bool {
        match act {
            Act::ForceOpen => self.force(State::ForcedOpen),
            Act::ForceClosed => self.force(State::ForcedClosed),
            Act::Release => self.force(State::Closed),
            _ => return false,
        }
        true
    }
}
