use std::sync::Arc;

use tower_layer::Identity;

use crate::{
    Live, Monitor, PolicyError, ServiceHandle,
    layers::{
        attempt_timeout::AttemptTimeoutPolicy,
        bulkhead::BulkheadPolicy,
        circuit_breaker::CircuitBreakerPolicy,
        deadline::DeadlinePolicy,
        outlier::OutlierPolicy,
        retry::{Budget, RetryPolicy},
    },
    live::IntoLive,
    trace::Propagation,
};

/// One hop's name, service and settings. Whatever is not set has the default of its stack.
///
/// ```
/// use hopvine::{Directory, Live, Monitor, stacks::Hop, layers::circuit_breaker::CircuitBreakerPolicy};
///
/// let directory = Directory::fixed([("catalog", ["http://127.0.0.1:8081".parse()?])]);
/// let breaker = Live::new(CircuitBreakerPolicy::default())?; // can be changed while calls run
/// let hop = Hop::new("catalog.item", directory.service("catalog"))
///     .monitor(&Monitor::new())
///     .deadline(std::time::Duration::from_millis(500))?
///     .circuit_breaker(breaker.clone())?;
/// # let _ = hop;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Hop<F = Identity> {
    pub(super) command: Arc<str>,
    pub(super) service: ServiceHandle,
    pub(super) fallback: F,
    pub(super) settings: Settings,
}

/// What may be set; `None` is the stack's default.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) monitor: Option<Monitor>,
    pub(super) deadline: Option<Live<DeadlinePolicy>>,
    pub(super) attempt_timeout: Option<Live<AttemptTimeoutPolicy>>,
    pub(super) circuit_breaker: Option<Live<CircuitBreakerPolicy>>,
    pub(super) bulkhead: Option<Live<BulkheadPolicy>>,
    pub(super) retry: Option<Live<RetryPolicy>>,
    pub(super) budget: Option<Budget>,
    pub(super) outlier_detection: Option<Live<OutlierPolicy>>,
    pub(super) propagation: Propagation,
    pub(super) trusted: bool,
}

impl Hop {
    /// Calls of this command name to this service.
    pub fn new(command: &str, service: ServiceHandle) -> Self {
        Self { command: command.into(), service, fallback: Identity::new(), settings: Settings::default() }
    }
}

impl<F> Hop<F> {
    /// A fallback: a [`FallbackLayer`](crate::layers::fallback::FallbackLayer), set up as you need it.
    pub fn fallback<L>(self, fallback: L) -> Hop<L> {
        Hop { command: self.command, service: self.service, fallback, settings: self.settings }
    }

    /// Where it can be watched; by default the directory's monitor.
    #[must_use]
    pub fn monitor(mut self, monitor: &Monitor) -> Self {
        self.settings.monitor = Some(monitor.clone());
        self
    }

    /// How long a call may take, all attempts together.
    pub fn deadline(mut self, policy: impl IntoLive<DeadlinePolicy>) -> Result<Self, PolicyError> {
        self.settings.deadline = Some(policy.into_live()?);
        Ok(self)
    }

    /// How long one attempt may take to the head of its response.
    pub fn attempt_timeout(mut self, policy: impl IntoLive<AttemptTimeoutPolicy>) -> Result<Self, PolicyError> {
        self.settings.attempt_timeout = Some(policy.into_live()?);
        Ok(self)
    }

    /// When the breaker opens, and for how long.
    pub fn circuit_breaker(mut self, policy: impl IntoLive<CircuitBreakerPolicy>) -> Result<Self, PolicyError> {
        self.settings.circuit_breaker = Some(policy.into_live()?);
        Ok(self)
    }

    /// How many calls may be in flight.
    pub fn bulkhead(mut self, policy: impl IntoLive<BulkheadPolicy>) -> Result<Self, PolicyError> {
        self.settings.bulkhead = Some(policy.into_live()?);
        Ok(self)
    }

    /// How often, and after what wait, a call is tried again.
    pub fn retry(mut self, policy: impl IntoLive<RetryPolicy>) -> Result<Self, PolicyError> {
        self.settings.retry = Some(policy.into_live()?);
        Ok(self)
    }

    /// A retry budget shared with other hops to the same service.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.settings.budget = Some(budget);
        self
    }

    /// When an endpoint is ejected, and for how long.
    pub fn outlier_detection(mut self, policy: impl IntoLive<OutlierPolicy>) -> Result<Self, PolicyError> {
        self.settings.outlier_detection = Some(policy.into_live()?);
        Ok(self)
    }

    /// In which formats the trace is read and written; by default read in all, written as W3C.
    #[must_use]
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.settings.propagation = propagation;
        self
    }

    /// The other side of the boundary is trusted: [`legacy_to_server`](super::legacy_to_server) then believes the trace
    /// and the deadline of its callers, and [`external`](super::external) sends its own out.
    #[must_use]
    pub fn trusted(mut self) -> Self {
        self.settings.trusted = true;
        self
    }
}
