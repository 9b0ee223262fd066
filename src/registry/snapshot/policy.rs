use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::PolicyError;

/// How a registry keeps itself on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnapshotPolicy {
    /// How often it is written at most; only if something has changed. By default 30 s.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// How old it may be to be used. By default 10 min: after that, most of what lives has another name, and what is dead would only be in the way.
    #[serde(with = "humantime_serde")]
    pub max_age: Duration,
    /// Bytes of it that are read. By default 256 MiB.
    pub max_bytes: usize,
}

impl Default for SnapshotPolicy {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), max_age: Duration::from_secs(600), max_bytes: 256 << 20 }
    }
}

impl SnapshotPolicy {
    /// The names are those of a [`RegistryPolicy`](crate::registry::RegistryPolicy) around it.
    pub(in crate::registry) fn validate(&self) -> Result<(), PolicyError> {
        for (field, duration) in [("snapshot.interval", self.interval), ("snapshot.max_age", self.max_age)] {
            if duration < Duration::from_millis(1) {
                return Err(PolicyError::new(field, duration, "must be at least a millisecond"));
            }
        }
        if self.max_bytes == 0 {
            return Err(PolicyError::new("snapshot.max_bytes", self.max_bytes, "must be above zero"));
        }
        Ok(())
    }
}
