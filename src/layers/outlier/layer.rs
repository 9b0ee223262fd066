use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tower_layer::Layer;

use super::{OutlierDetection, verdict::Target};
use crate::{
    EndpointHandle, Live, NewService, Policy, PolicyError,
    live::{IntoLive, Ratio},
    outcome::Standard,
};

/// Ejects an endpoint that fails several times in a row, and lets it back in when it answers again.
///
/// An endpoint that fails [`OutlierPolicy::consecutive_failures`] attempts in a row gets no calls for a while: 30 s, then
/// 60 s, ... if it fails on. When that time is over, the balancer sends it one call, the probe. If that succeeds, the
/// endpoint is back; if it fails, it is ejected again, for longer; if it is cancelled, the next call probes. It is a detector
/// for what is dead, not for what is flaky: at an error rate of 20 % five in a row take some 3 900 calls.
///
/// ```
/// use hopvine::layers::outlier::{OutlierDetectionLayer, OutlierPolicy};
/// let layer = OutlierDetectionLayer::new(OutlierPolicy::default())?;
/// # let _ = layer;
/// # Ok::<(), hopvine::PolicyError>(())
/// ```
///
/// Sooner and shorter, and with an opinion of its own on what is a failure:
///
/// ```
/// use std::time::Duration;
/// use hopvine::{Classify, Error, Outcome, outcome::{Failure, Standard}};
/// use hopvine::layers::outlier::{OutlierDetectionLayer, OutlierPolicy};
///
/// let policy = OutlierPolicy { consecutive_failures: 3, base: Duration::from_secs(5), ..Default::default() };
/// let layer = OutlierDetectionLayer::new(policy)?.classify(|result: Result<&http::Response<()>, &Error>| match result {
///     Ok(response) if response.status() == http::StatusCode::LOCKED => Outcome::Failure(Failure::Status(423)),
///     result => Standard.classify(result),
/// });
/// # let _ = layer;
/// # Ok::<(), hopvine::PolicyError>(())
/// ```
///
/// # What counts
///
/// A failure and a timeout count; a success ends the run. Throttled, ignored and cancelled do neither. A dropped attempt
/// counts as a timeout if a timer of ours dropped it. A result of before an ejection or a return says nothing after it.
///
/// With too few endpoints left, a balancer uses ejected ones too. Until its time is over, what such a call shows changes
/// nothing: in a panic everybody fails, and one lucky answer is no cure. Later calls are as good as the probe, beside which
/// they were sent. An answer to the probe that asks for fewer calls is no verdict; the next probe is sent when its lease ends.
///
/// # State
///
/// In the [`EndpointHandle`]'s [`Health`](crate::endpoint::Health): shared by all services of this endpoint in this stack, it
/// survives that the endpoint is removed and comes back, and goes with it. The layer value holds the policy.
///
/// # Placement
///
/// Per endpoint, between the balancer and the attempt timeout, whose error it must see.
///
/// # Errors
///
/// None of its own. At most [`OutlierPolicy::max_ejected`] of a service's endpoints are ejected, and never the last.
///
/// # Cancellation
///
/// A dropped attempt says nothing about the endpoint, unless it is dropped by a timer. A dropped probe gives its lease back.
pub struct OutlierDetectionLayer<C = Standard> {
    policy: Live<OutlierPolicy>,
    classify: Arc<C>,
}

/// Settings of an [`OutlierDetectionLayer`]. The names and times are those of Envoy and gRFC A50.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OutlierPolicy {
    /// So many failures in a row eject. At least 1; 5 by default.
    pub consecutive_failures: u32,
    /// How long the first ejection lasts; the n-th in a row lasts n times as long. Above zero; 30 s by default.
    #[serde(with = "humantime_serde")]
    pub base: Duration,
    /// The longest an ejection lasts, unless `base` is longer. 300 s by default.
    #[serde(with = "humantime_serde")]
    pub max: Duration,
    /// For each such time without an ejection one in a row is forgiven. Above zero; 10 s by default.
    #[serde(with = "humantime_serde")]
    pub healthy_interval: Duration,
    /// The share of a service's endpoints that may be ejected at once, 0 to 1, rounded down; one may always be, the last
    /// never. 0.33 by default.
    pub max_ejected: Ratio,
    /// Each ejection is longer or shorter by up to this share, 0 to 1. 0.1 by default.
    pub jitter: Ratio,
}

impl Default for OutlierPolicy {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            base: Duration::from_secs(30),
            max: Duration::from_secs(300),
            healthy_interval: Duration::from_secs(10),
            max_ejected: Ratio(0.33),
            jitter: Ratio(0.1),
        }
    }
}

impl Policy for OutlierPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.consecutive_failures == 0 {
            return Err(PolicyError::new("consecutive_failures", self.consecutive_failures, "must be at least 1"));
        }
        for (field, value) in [("base", self.base), ("healthy_interval", self.healthy_interval)] {
            if value.is_zero() {
                return Err(PolicyError::new(field, value, "must be above zero"));
            }
        }
        self.max_ejected.validate("max_ejected")?;
        self.jitter.validate("jitter")
    }
}

impl OutlierDetectionLayer {
    /// Under this policy, with the [`Standard`] classification.
    pub fn new(policy: impl IntoLive<OutlierPolicy>) -> Result<Self, PolicyError> {
        Ok(Self { policy: policy.into_live()?, classify: Arc::new(Standard) })
    }
}

impl<C> OutlierDetectionLayer<C> {
    /// With another [`Classify`](crate::Classify).
    #[must_use]
    pub fn classify<C2>(self, classify: C2) -> OutlierDetectionLayer<C2> {
        OutlierDetectionLayer { policy: self.policy, classify: Arc::new(classify) }
    }
}

impl<N, C> Layer<N> for OutlierDetectionLayer<C> {
    type Service = NewOutlierDetection<N, C>;

    fn layer(&self, inner: N) -> NewOutlierDetection<N, C> {
        NewOutlierDetection { inner, policy: self.policy.clone(), classify: Arc::clone(&self.classify) }
    }
}

/// A connector whose services eject their endpoint when it fails. Made by [`OutlierDetectionLayer`].
pub struct NewOutlierDetection<N, C = Standard> {
    inner: N,
    policy: Live<OutlierPolicy>,
    classify: Arc<C>,
}

impl<N, C> NewService<EndpointHandle> for NewOutlierDetection<N, C>
where
    N: NewService<EndpointHandle>,
{
    type Service = OutlierDetection<N::Service, C>;

    fn new_service(&self, handle: &EndpointHandle) -> OutlierDetection<N::Service, C> {
        let target = Target::new(handle.clone(), self.policy.clone(), Arc::clone(&self.classify));
        OutlierDetection::new(self.inner.new_service(handle), target)
    }
}

impl<C> Clone for OutlierDetectionLayer<C> {
    fn clone(&self) -> Self {
        Self { policy: self.policy.clone(), classify: Arc::clone(&self.classify) }
    }
}

impl<N: Clone, C> Clone for NewOutlierDetection<N, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), policy: self.policy.clone(), classify: Arc::clone(&self.classify) }
    }
}

impl<C> fmt::Debug for OutlierDetectionLayer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutlierDetectionLayer").field("policy", &self.policy).finish_non_exhaustive()
    }
}

impl<N: fmt::Debug, C> fmt::Debug for NewOutlierDetection<N, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewOutlierDetection")
            .field("inner", &self.inner)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
