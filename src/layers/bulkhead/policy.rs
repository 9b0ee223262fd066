use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::live::{Policy, PolicyError};

/// How many calls may run at once, and what becomes of the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BulkheadPolicy {
    /// Calls that may run at once. At least 1, by default 256.
    pub limit: u32,
    /// How long a call waits for a place, at most until its deadline. Zero, the default: not at all.
    #[serde(with = "humantime_serde")]
    pub max_wait: Duration,
    /// Calls that may wait at once; it matters only with a `max_wait`. By default 256.
    pub max_waiting: u32,
}

impl Default for BulkheadPolicy {
    fn default() -> Self {
        Self { limit: 256, max_wait: Duration::ZERO, max_waiting: 256 }
    }
}

impl Policy for BulkheadPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.limit == 0 {
            return Err(PolicyError::new("limit", self.limit, "must be above zero"));
        }
        if self.max_wait > Duration::from_secs(3600) {
            return Err(PolicyError::new("max_wait", self.max_wait, "must be at most an hour"));
        }
        Ok(())
    }
}
