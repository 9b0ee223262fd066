use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Policy, PolicyError};

/// How a [`Registration`](super::Registration) lives and leaves.
///
/// | field | default | |
/// |---|---|---|
/// | `heartbeat_interval` | 30 s | |
/// | `lease_duration` | 90 s | how long the registry waits for a heartbeat; a Java server waits twice as long |
/// | `health_interval` | 10 s | how often the [health check](super::RegistrationBuilder::health) is asked |
/// | `health_timeout` | 5 s | how long it may take; longer is `DOWN` |
/// | `leave_wait` | 5 s | from telling that we are `DOWN` until we stop: how long callers have to notice |
/// | `drain_timeout` | 30 s | how long calls that are under way may take then |
/// | `hold` | `off` | `on`: hold a connection to a registry of ours, so that we are out within seconds when this process dies |
///
/// Callers that are pushed to notice within a fraction of a second, and 5 s is ample. Java callers need about 60 s with everything at its default: up to 30 s until the
/// server's response cache is refreshed, and up to 30 s until their next fetch (and 30 s more where Ribbon keeps a list of its own). Set `leave_wait` to what
/// your slowest callers are configured for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrationPolicy {
    /// How often we say that we live.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// How long the registry waits for that.
    #[serde(with = "humantime_serde")]
    pub lease_duration: Duration,
    /// How often the health check is asked.
    #[serde(with = "humantime_serde")]
    pub health_interval: Duration,
    /// How long it may take.
    #[serde(with = "humantime_serde")]
    pub health_timeout: Duration,
    /// How long callers have to notice that we leave.
    #[serde(with = "humantime_serde")]
    pub leave_wait: Duration,
    /// How long calls under way may take then.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// Whether a connection is held that shows that we live.
    pub hold: HoldMode,
}

/// Whether a connection is held that shows that we live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldMode {
    /// Only heartbeats show it.
    #[default]
    Off,
    /// When it breaks and is not made anew within a second, the registry takes us out. Java servers do not know it: then only heartbeats count.
    On,
}

impl Default for RegistrationPolicy {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(30),
            lease_duration: Duration::from_secs(90),
            health_interval: Duration::from_secs(10),
            health_timeout: Duration::from_secs(5),
            leave_wait: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(30),
            hold: HoldMode::default(),
        }
    }
}

impl Policy for RegistrationPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        for (field, duration) in [
            ("heartbeat_interval", self.heartbeat_interval),
            ("health_interval", self.health_interval),
            ("health_timeout", self.health_timeout),
        ] {
            if duration.is_zero() {
                return Err(PolicyError::new(field, duration, "must be above zero"));
            }
        }
        if self.lease_duration.as_secs() == 0 || self.lease_duration.as_secs() > i32::MAX as u64 {
            return Err(PolicyError::new("lease_duration", self.lease_duration, "must be at least a second"));
        }
        if self.lease_duration <= self.heartbeat_interval {
            return Err(PolicyError::new("lease_duration", self.lease_duration, "must be above heartbeat_interval"));
        }
        Ok(())
    }
}
