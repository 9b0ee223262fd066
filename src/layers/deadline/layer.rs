use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_layer::Layer;

use super::{Deadline, Limit};
use crate::{Live, Policy, PolicyError, live::IntoLive};

/// Says when each call must have ended, and ends it then.
///
/// The deadline is the earlier of the caller's and now plus this layer's own time. It is in force for everything inside:
/// retries do not start what cannot end, attempts are cut at it, servers are told what remains of it.
///
/// ```
/// use std::time::Duration;
/// use hopvine::layers::deadline::DeadlineLayer;
/// use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let mut slow = ServiceBuilder::new().layer(DeadlineLayer::new(Duration::from_millis(100))).service(service_fn(
///     async |()| {
///         tokio::time::sleep(Duration::from_secs(1)).await;
///         Ok::<_, hopvine::Error>("late")
///     },
/// ));
/// let error = slow.ready().await.unwrap().call(()).await.unwrap_err();
/// assert_eq!(error.kind(), hopvine::ErrorKind::DeadlineExceeded);
/// # }
/// ```
///
/// One that follows a live policy:
///
/// ```
/// use std::time::Duration;
/// use hopvine::{Live, layers::deadline::{DeadlineLayer, DeadlinePolicy}};
///
/// let live = Live::new(DeadlinePolicy::default())?;
/// let layer = DeadlineLayer::live(live.clone());
/// live.set(DeadlinePolicy { timeout: Duration::from_millis(800) })?; // for calls made from now on
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
/// Per call: inside the circuit breaker and the bulkhead, which must see the error as a value, and outside the retry, whose
/// attempts and waits it bounds together. It covers the time until the response head; a body is the caller's to bound.
///
/// # Errors
///
/// [`ErrorKind::DeadlineExceeded`](crate::ErrorKind). A call whose deadline has passed already fails at once with the same
/// kind, [unsent](crate::Error::is_unsent), and the inner service is not called.
///
/// # Cancellation
///
/// Dropping the response future drops the call inside. When the deadline passes, this layer drops it itself, and the guards
/// inside see [`DropCause::TimedOut`](crate::context::DropCause).
#[derive(Clone, Debug)]
pub struct DeadlineLayer {
    limit: Limit<DeadlinePolicy>,
}

/// Settings of a [`DeadlineLayer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadlinePolicy {
    /// How long a call may take, retries and waits included. Above zero; 2 s by default.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
}

impl Default for DeadlinePolicy {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(2) }
    }
}

/// A time is all there is to it.
impl IntoLive<DeadlinePolicy> for Duration {
    fn into_live(self) -> Result<Live<DeadlinePolicy>, PolicyError> {
        Live::new(DeadlinePolicy { timeout: self })
    }
}

impl Policy for DeadlinePolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.timeout.is_zero() {
            return Err(PolicyError::new("timeout", self.timeout, "must be above zero"));
        }
        Ok(())
    }
}

impl AsRef<Duration> for DeadlinePolicy {
    fn as_ref(&self) -> &Duration {
        &self.timeout
    }
}

impl DeadlineLayer {
    /// Calls may take this long. With zero, none can be made.
    pub fn new(timeout: Duration) -> Self {
        Self { limit: Limit::Fixed(timeout) }
    }

    /// Calls may take as long as this policy says when they begin.
    pub fn live(policy: Live<DeadlinePolicy>) -> Self {
        Self { limit: Limit::live(policy) }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline::new(inner, self.limit.clone())
    }
}
