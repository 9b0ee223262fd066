use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_layer::Layer;

use super::AttemptTimeout;
use crate::{Live, Policy, PolicyError, layers::deadline::Limit, live::IntoLive};

/// Ends an attempt whose response head does not come in time: in this layer's own, or in what remains of the call's.
///
/// ```
/// use std::time::Duration;
/// use hopvine::{connect::per_endpoint, layers::attempt_timeout::AttemptTimeoutLayer};
///
/// let layer = per_endpoint(|_| AttemptTimeoutLayer::new(Duration::from_millis(300)));
/// # let _ = layer;
/// ```
///
/// One that follows a live policy, made once and cloned for each endpoint:
///
/// ```
/// use std::time::Duration;
/// use hopvine::{Live, connect::per_endpoint};
/// use hopvine::layers::attempt_timeout::{AttemptTimeoutLayer, AttemptTimeoutPolicy};
///
/// let live = Live::new(AttemptTimeoutPolicy::default())?;
/// let timeout = AttemptTimeoutLayer::live(live.clone());
/// let layer = per_endpoint(move |_| timeout.clone());
/// live.set(AttemptTimeoutPolicy { timeout: Duration::from_millis(250) })?; // for attempts made from now on
/// # let _ = layer;
/// # Ok::<(), hopvine::PolicyError>(())
/// ```
///
/// # State
///
/// None but the policy, which clones and the services of each `layer()` share.
///
/// # Placement
///
/// Per endpoint, innermost, so that outlier detection, load and trace see a timeout as an error, and the balancer and the
/// retry can go elsewhere. It covers the wait for a connection and for the response head, not the body.
///
/// It does not shorten the [deadline](crate::context::deadline) that holds inside: that is the call's, and what a
/// [`DeadlineHeaderLayer`](crate::layers::deadline::DeadlineHeaderLayer) tells the server.
///
/// # Errors
///
/// [`ErrorKind::AttemptTimeout`](crate::ErrorKind) if its own time is the shorter, [unsent](crate::Error::is_unsent) if it ended the wait for a
/// connection and the connector [told so](crate::context::tell_written); `DeadlineExceeded` if the call's is.
/// Where the call's has passed already, `DeadlineExceeded` at once, [unsent](crate::Error::is_unsent).
///
/// # Cancellation
///
/// Dropping the response future drops the attempt inside. When the time has passed, this layer drops it itself, and the
/// guards inside see [`DropCause::TimedOut`](crate::context::DropCause).
#[derive(Clone, Debug)]
pub struct AttemptTimeoutLayer {
    limit: Limit<AttemptTimeoutPolicy>,
}

/// Settings of an [`AttemptTimeoutLayer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttemptTimeoutPolicy {
    /// How long an attempt may take until its response head. Above zero; 1 s by default.
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

impl AsRef<Duration> for AttemptTimeoutPolicy {
    fn as_ref(&self) -> &Duration {
        &self.timeout
    }
}

impl AttemptTimeoutLayer {
    /// Attempts may take this long. With zero, only one that is answered at once succeeds.
    pub fn new(timeout: Duration) -> Self {
        Self { limit: Limit::Fixed(timeout) }
    }

    /// Attempts may take as long as this policy says when they begin.
    pub fn live(policy: Live<AttemptTimeoutPolicy>) -> Self {
        Self { limit: Limit::live(policy) }
    }
}

impl<S> Layer<S> for AttemptTimeoutLayer {
    type Service = AttemptTimeout<S>;

    fn layer(&self, inner: S) -> AttemptTimeout<S> {
        AttemptTimeout::new(inner, self.limit.clone())
    }
}
