use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Pick, Picker};
use crate::{EndpointHandle, Outcome, Policy, PolicyError, outcome::Failure};

/// The one whose next answer would come sooner, of two endpoints drawn at random: the peak of a moving average of its latency times its
/// calls in flight, relative to its weight (Finagle's `PeakEwma`).
///
/// An endpoint that fails at once would look like the fastest of all; so a failure counts as an answer that took the
/// penalty (linkerd's load biaser). Only the first five refused connections in a row do not: they are requeued at no cost, and
/// show outlier detection that the endpoint is dead. A rejection of our own says nothing.
///
/// An endpoint whose ejection is over is preferred whatever it costs, by first attempts, until one has its probe's lease: else it
/// would stay ejected for as long as the failures that ejected it weigh, and keep its place in the cap from others.
#[derive(Clone, Copy, Debug, Default)]
pub struct P2cPeakEwma {
    policy: PeakEwmaPolicy,
}

/// How many refused connections in a row go without the penalty: as many as outlier detection wants to see.
const LEFT_TO_DETECTION: u32 = 5;

/// Settings of [`P2cPeakEwma`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeakEwmaPolicy {
    /// How long until an old latency counts 1/e; default 10 s.
    #[serde(with = "humantime_serde")]
    pub decay: Duration,
    /// What a failure counts as; default 5 s. A `Retry-After` counts as itself, if that is longer.
    #[serde(with = "humantime_serde")]
    pub penalty: Duration,
}

impl Default for PeakEwmaPolicy {
    fn default() -> Self {
        Self { decay: Duration::from_secs(10), penalty: Duration::from_secs(5) }
    }
}

impl Policy for PeakEwmaPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.decay.is_zero() {
            return Err(PolicyError::new("decay", self.decay, "must be above zero"));
        }
        Ok(())
    }
}

impl P2cPeakEwma {
    /// With these settings.
    pub fn new(policy: PeakEwmaPolicy) -> Result<Self, PolicyError> {
        policy.validate()?;
        Ok(Self { policy })
    }
}

impl Picker for P2cPeakEwma {
    fn pick<E: AsRef<EndpointHandle>>(&self, endpoints: &[E], pick: &Pick) -> Option<usize> {
        pick.cheaper_of_two(endpoints, |endpoint| {
            if pick.may_probe(endpoint) {
                return 0.0;
            }
            endpoint.load().cost(pick.now(), self.policy.decay) / endpoint.weight()
        })
    }

    fn observe(&self, endpoint: &EndpointHandle, outcome: Outcome, took: Duration, now: u64) {
        let PeakEwmaPolicy { decay, penalty } = self.policy;
        let load = endpoint.load();
        if outcome == Outcome::Failure(Failure::Connect) {
            // It cost nothing but a requeue. Left alone at once, it would never fail often enough for outlier detection to eject it.
            if load.refused() <= LEFT_TO_DETECTION {
                return;
            }
        } else {
            load.reached();
        }
        match outcome {
            Outcome::Success => load.observe(took, now, decay),
            Outcome::Throttled(wait) => load.at_least(penalty.max(wait.unwrap_or_default()), now, decay),
            Outcome::Failure(_) | Outcome::TimedOut => load.at_least(penalty.max(took), now, decay),
            Outcome::Cancelled => load.at_least(took, now, decay),
            Outcome::Ignored => {}
        }
    }
}
