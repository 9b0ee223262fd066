use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Policy, PolicyError, live::Ratio};

/// The settings of a [`RetryLayer`](super::RetryLayer).
///
/// | field | default | range | |
/// |---|---|---|---|
/// | `max_attempts` | 3 | 1 to 5 | attempts of one call, the first included; 1 switches retries off (gRFC A6 has the same ceiling) |
/// | `backoff_base` | 25 ms | up to `backoff_max` | most that the first retry waits; doubles with each further one |
/// | `backoff_max` | 250 ms | up to 1 h | most that any retry waits, unless the server asks for more |
/// | `replay_limit` | 64 KiB | any | bytes of a request body kept for another attempt; a longer body streams on and is sent once |
///
/// The wait is drawn evenly between zero and that most ("full jitter"), by [`fastrand`]'s generator of the thread, so
/// that `fastrand::seed` makes it repeatable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts of one call, the first included.
    pub max_attempts: u32,
    /// Most that the first retry waits.
    #[serde(with = "humantime_serde")]
    pub backoff_base: Duration,
    /// Most that any retry waits.
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
    /// Bytes of a request body kept for another attempt.
    pub replay_limit: usize,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff_base: Duration::from_millis(25),
            backoff_max: Duration::from_millis(250),
            replay_limit: 64 * 1024,
        }
    }
}

impl Policy for RetryPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        if !(1..=5).contains(&self.max_attempts) {
            return Err(PolicyError::new("max_attempts", self.max_attempts, "must be between 1 and 5"));
        }
        if self.backoff_max > Duration::from_secs(3600) {
            return Err(PolicyError::new("backoff_max", self.backoff_max, "must be at most one hour"));
        }
        if self.backoff_base > self.backoff_max {
            return Err(PolicyError::new("backoff_base", self.backoff_base, "must be at most backoff_max"));
        }
        Ok(())
    }
}

/// The settings of a [`Budget`](super::Budget).
///
/// | field | default | range | |
/// |---|---|---|---|
/// | `ratio` | 0.2 | 0 to 1, in thousandths | what one success pays in: 0.2 lets every fifth success pay for a retry |
/// | `cap` | 10 | any | most that successes can save up: what an outage can cost at once, before the breaker opens |
/// | `start` | 10 | up to `cap` | what a young client may spend before its first success |
/// | `refill_per_second` | 10 | up to 100 000 | what time pays in, beside the successes; 0 switches it off |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetPolicy {
    /// Tokens per success.
    pub ratio: Ratio,
    /// Most tokens that successes can save up.
    pub cap: u32,
    /// Tokens at the beginning.
    pub start: u32,
    /// Tokens that time pays in, a second.
    pub refill_per_second: u32,
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        Self { ratio: Ratio(0.2), cap: 10, start: 10, refill_per_second: 10 }
    }
}

impl BudgetPolicy {
    /// What one success pays in, in thousandths of a token.
    pub(super) fn per_success(&self) -> i64 {
        (self.ratio.0 * 1000.0).round() as i64
    }
}

impl Policy for BudgetPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        self.ratio.validate("ratio")?;
        if (self.ratio.0 * 1000.0 - self.per_success() as f64).abs() > 1e-6 {
            return Err(PolicyError::new("ratio", self.ratio.0, "must be a whole number of thousandths"));
        }
        if self.start > self.cap {
            return Err(PolicyError::new("start", self.start, "must be at most cap"));
        }
        if self.refill_per_second > 100_000 {
            return Err(PolicyError::new("refill_per_second", self.refill_per_second, "must be at most 100000"));
        }
        Ok(())
    }
}
