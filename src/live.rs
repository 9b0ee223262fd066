//! Settings that may change while calls run.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use arc_swap::ArcSwap;

/// The plain settings of a layer.
pub trait Policy: Clone + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// Whether a layer can work with these, and else which field is wrong.
    fn validate(&self) -> Result<(), PolicyError>;
}

/// A setting no layer can work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError {
    field: &'static str,
    value: String,
    reason: &'static str,
}

impl PolicyError {
    /// `field` holds `value`, and `reason` is what it should be instead: "must be above zero".
    pub fn new(field: &'static str, value: impl fmt::Debug, reason: &'static str) -> Self {
        Self { field, value: format!("{value:?}"), reason }
    }

    /// The field's name.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: {}", self.field, self.value, self.reason)
    }
}

impl std::error::Error for PolicyError {}

/// A policy and the layers that follow it. Clones share it.
///
/// ```
/// use std::time::Duration;
/// use hopvine::{Live, layers::circuit_breaker::{CircuitBreakerLayer, CircuitBreakerPolicy}};
///
/// let live = Live::new(CircuitBreakerPolicy::default())?;
/// let layer = CircuitBreakerLayer::new("catalog.item", live.clone())?;
/// live.set(CircuitBreakerPolicy { window: Duration::from_secs(2), ..Default::default() })?; // the layer follows
///
/// let refused = live.set(CircuitBreakerPolicy { window: Duration::ZERO, ..Default::default() });
/// assert_eq!(refused.unwrap_err().field(), "window");
/// assert_eq!(live.get().window, Duration::from_secs(2)); // the last good one stays
/// # let _ = layer;
/// # Ok::<(), hopvine::PolicyError>(())
/// ```
pub struct Live<P>(Arc<Shared<P>>);

struct Shared<P> {
    current: ArcSwap<P>,
    state: Mutex<State<P>>,
}

struct State<P> {
    followers: Vec<Weak<dyn Follow<P>>>,
    refused: Option<PolicyError>,
}

/// Whoever keeps a policy in a form of its own, in atomics that its hot path reads.
pub trait Follow<P>: Send + Sync {
    /// Takes over a new policy, already validated.
    fn follow(&self, policy: &P);
}

impl<P: Policy> Live<P> {
    /// Starts with this policy.
    pub fn new(policy: P) -> Result<Self, PolicyError> {
        policy.validate()?;
        Ok(Self(Arc::new(Shared {
            current: ArcSwap::from_pointee(policy),
            state: Mutex::new(State { followers: Vec::new(), refused: None }),
        })))
    }

    /// The policy in force.
    pub fn get(&self) -> Arc<P> {
        self.0.current.load_full()
    }

    /// Puts a new policy into force, in every layer that follows; a bad one is refused and the last good one stays.
    pub fn set(&self, policy: P) -> Result<(), PolicyError> {
        let mut state = self.state();
        if let Err(error) = policy.validate() {
            state.refused = Some(error.clone());
            return Err(error);
        }
        state.refused = None;
        state.followers.retain(|follower| follower.upgrade().inspect(|follower| follower.follow(&policy)).is_some());
        self.0.current.store(Arc::new(policy));
        Ok(())
    }

    /// The error of the newest policy, if that was refused.
    pub fn refused(&self) -> Option<PolicyError> {
        self.state().refused.clone()
    }

    /// Tells `follower` the policy in force and each new one, until it is dropped.
    pub fn follow<F: Follow<P> + 'static>(&self, follower: &Arc<F>) {
        let mut state = self.state();
        follower.follow(&self.0.current.load());
        if state.followers.len() == state.followers.capacity() {
            // Before it grows: followers come and go with endpoints, and a policy may never be set again.
            state.followers.retain(|follower| follower.strong_count() > 0);
        }
        let follower: Weak<F> = Arc::downgrade(follower);
        state.followers.push(follower);
    }

    fn state(&self) -> MutexGuard<'_, State<P>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P> Clone for Live<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: fmt::Debug> fmt::Debug for Live<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&self.0.current.load()).finish()
    }
}

/// What a layer takes as its policy: a fixed one, or a [`Live`] one.
pub trait IntoLive<P> {
    /// The policy as a live one, if it is valid.
    fn into_live(self) -> Result<Live<P>, PolicyError>;
}

impl<P: Policy> IntoLive<P> for P {
    fn into_live(self) -> Result<Live<P>, PolicyError> {
        Live::new(self)
    }
}

impl<P> IntoLive<P> for Live<P> {
    fn into_live(self) -> Result<Live<P>, PolicyError> {
        Ok(self)
    }
}

/// A share of a whole, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Ratio(pub f64);

impl Ratio {
    /// An error naming `field` unless this lies between 0 and 1.
    pub fn validate(self, field: &'static str) -> Result<(), PolicyError> {
        if (0.0..=1.0).contains(&self.0) {
            Ok(())
        } else {
            Err(PolicyError::new(field, self.0, "must be between 0 and 1"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Policy for u32 {
        fn validate(&self) -> Result<(), PolicyError> {
            Ok(())
        }
    }

    struct Follower;

    impl Follow<u32> for Follower {
        fn follow(&self, _: &u32) {}
    }

    #[test]
    fn followers_that_are_gone_are_forgotten_though_the_policy_is_never_set() {
        let live = Live::new(1).expect("valid");
        let kept = Arc::new(Follower);
        live.follow(&kept);
        for _ in 0..10_000 {
            live.follow(&Arc::new(Follower));
        }
        assert!(live.state().followers.len() <= 8);
        assert!(live.state().followers.iter().any(|follower| follower.strong_count() > 0));
    }
}
