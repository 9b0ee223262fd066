use std::{fmt, sync::Arc};

use tower_layer::Layer;

use super::{Breaker, CircuitBreaker, CircuitBreakerPolicy, breaker::Shared};
use crate::{
    lanes::Lanes,
    live::{IntoLive, PolicyError},
    monitor::Monitor,
    outcome::Standard,
};

/// Puts one breaker round everything it is laid round. See the [module](super).
pub struct CircuitBreakerLayer<C = Standard> {
    shared: Arc<Shared>,
    classify: Arc<C>,
}

/// What a call holds.
pub(super) struct Parts<C> {
    pub(super) shared: Arc<Shared>,
    pub(super) classify: Arc<C>,
    pub(super) lane: usize,
}

impl CircuitBreakerLayer {
    /// A closed breaker for `command`, the name its calls are counted under.
    pub fn new(command: impl Into<Arc<str>>, policy: impl IntoLive<CircuitBreakerPolicy>) -> Result<Self, PolicyError> {
        let shared = Shared::new(command.into(), policy.into_live()?);
        Ok(Self { shared, classify: Arc::new(Standard) })
    }
}

impl<C> CircuitBreakerLayer<C> {
    /// Says what fails. The breaker stays the same one.
    pub fn classify<C2>(self, classify: C2) -> CircuitBreakerLayer<C2> {
        CircuitBreakerLayer { shared: self.shared, classify: Arc::new(classify) }
    }

    /// Shows it in `monitor` under the command's name, where operators can force it open or closed.
    pub fn monitor(self, monitor: &Monitor) -> Self {
        monitor.register(self.shared.name(), &self.shared);
        self
    }

    /// A handle to the breaker.
    pub fn breaker(&self) -> Breaker {
        Breaker(Arc::clone(&self.shared))
    }
}

impl<S, C> Layer<S> for CircuitBreakerLayer<C> {
    type Service = CircuitBreaker<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(
            inner,
            Lanes::new(|lane| Parts { shared: Arc::clone(&self.shared), classify: Arc::clone(&self.classify), lane }),
        )
    }
}

impl<C> Clone for CircuitBreakerLayer<C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), classify: Arc::clone(&self.classify) }
    }
}

impl<C> fmt::Debug for CircuitBreakerLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerLayer")
            .field("command", &self.shared.name())
            .field("state", &self.breaker().state())
            .field("policy", self.shared.policy())
            .finish_non_exhaustive()
    }
}
