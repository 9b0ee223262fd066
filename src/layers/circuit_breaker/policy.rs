use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::window::{BUCKETS, Sums, Verdict};
use crate::{
    live::{Policy, PolicyError, Ratio},
    outcome::Outcome,
};

/// When a breaker opens, for how long, and what closes it.
///
/// ```
/// use hopvine::layers::circuit_breaker::CircuitBreakerPolicy;
/// let policy: CircuitBreakerPolicy = serde_json::from_str(r#"{"window": "30s", "slow_call": "400ms"}"#)?;
/// assert_eq!(policy.minimum_calls, 20);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreakerPolicy {
    /// How far back results count; it moves in tenths. 100 ms to 1 day, by default 10 s.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Fewer calls in the window than this say nothing. At least 1, by default 20.
    pub minimum_calls: u32,
    /// Opens when this share of the calls in the window failed, or more. Above 0, by default 50 %.
    pub failure_rate: Ratio,
    /// A call that takes longer to its response's head is slow, whatever its result. At least 1 ms; by default none is slow.
    #[serde(with = "humantime_serde")]
    pub slow_call: Option<Duration>,
    /// Opens when this share of the calls in the window was slow, or more. Above 0, by default 100 %. A slow probe is
    /// a failed one.
    pub slow_rate: Ratio,
    /// How long it stays open the first time. Each time that probes fail, or that it opens again within one `window` of
    /// having closed, this doubles; after a `window` without, it starts from here. Jittered by 10 % either way, so that
    /// many clients do not come back at once. 1 ms to 1 day, by default 5 s.
    #[serde(with = "humantime_serde")]
    pub open_time: Duration,
    /// Where the doubling stops; at or below `open_time`, nothing doubles. At most 1 day, by default 60 s.
    #[serde(with = "humantime_serde")]
    pub open_time_max: Duration,
    /// Calls let through while half open. It closes once 80 % of them succeeded, rounded up, and opens once that cannot be
    /// reached any more: of 5, by the fourth success or the second failure. 1 to 100, by default 5.
    pub probes: u32,
    /// How long to wait for a probe that gives no sign, before others are let through instead: well above the longest
    /// that a call may take. At least 1 ms, by default 10 s.
    #[serde(with = "humantime_serde")]
    pub probe_lease: Duration,
}

impl Default for CircuitBreakerPolicy {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(10),
            minimum_calls: 20,
            failure_rate: Ratio(0.5),
            slow_call: None,
            slow_rate: Ratio(1.0),
            open_time: Duration::from_secs(5),
            open_time_max: Duration::from_secs(60),
            probes: 5,
            probe_lease: Duration::from_secs(10),
        }
    }
}

const MILLISECOND: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Policy for CircuitBreakerPolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        if !(100 * MILLISECOND..=DAY).contains(&self.window) {
            return Err(PolicyError::new("window", self.window, "must be between 100 ms and 1 day"));
        }
        if self.minimum_calls == 0 {
            return Err(PolicyError::new("minimum_calls", self.minimum_calls, "must be above zero"));
        }
        for (field, rate) in [("failure_rate", self.failure_rate), ("slow_rate", self.slow_rate)] {
            rate.validate(field)?;
            if rate.0 <= 0.0 {
                return Err(PolicyError::new(field, rate.0, "must be above 0, or it opens without cause"));
            }
        }
        if let Some(slow) = self.slow_call.filter(|slow| *slow < MILLISECOND) {
            return Err(PolicyError::new("slow_call", slow, "must be at least 1 ms"));
        }
        if !(MILLISECOND..=DAY).contains(&self.open_time) {
            return Err(PolicyError::new("open_time", self.open_time, "must be between 1 ms and 1 day"));
        }
        if self.open_time_max > DAY {
            return Err(PolicyError::new("open_time_max", self.open_time_max, "must be at most 1 day"));
        }
        if !(1..=100).contains(&self.probes) {
            return Err(PolicyError::new("probes", self.probes, "must be between 1 and 100"));
        }
        if !(MILLISECOND..=DAY).contains(&self.probe_lease) {
            return Err(PolicyError::new("probe_lease", self.probe_lease, "must be between 1 ms and 1 day"));
        }
        Ok(())
    }
}

/// The policy as the pure cores want it: times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rules {
    /// Of one bucket.
    pub(super) width: u64,
    pub(super) minimum_calls: u64,
    pub(super) failure_rate: f64,
    /// `u64::MAX`: none is slow.
    pub(super) slow_call: u64,
    pub(super) slow_rate: f64,
    pub(super) open_time: u64,
    pub(super) open_time_max: u64,
    pub(super) probes: u64,
    pub(super) probe_lease: u64,
}

impl Rules {
    pub(super) fn of(policy: &CircuitBreakerPolicy) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self {
            width: nanos(policy.window) / BUCKETS,
            minimum_calls: policy.minimum_calls.into(),
            failure_rate: policy.failure_rate.0,
            slow_call: policy.slow_call.map_or(u64::MAX, nanos),
            slow_rate: policy.slow_rate.0,
            open_time: nanos(policy.open_time),
            open_time_max: nanos(policy.open_time_max),
            probes: policy.probes.into(),
            probe_lease: nanos(policy.probe_lease),
        }
    }

    pub(super) fn window(&self) -> u64 {
        self.width * BUCKETS
    }

    /// Whether what the window holds is enough to open.
    pub(super) fn trips(&self, sums: &Sums) -> bool {
        let enough = |calls| calls >= self.minimum_calls;
        enough(sums.calls) && sums.failure_rate() >= self.failure_rate
            || self.slow_call != u64::MAX && enough(sums.calls + sums.abandoned) && sums.slow_rate() >= self.slow_rate
    }

    /// The open time after `streak` openings in a row.
    pub(super) fn open_time(&self, streak: u8) -> u64 {
        self.open_time.saturating_mul(1 << streak.min(63)).min(self.open_time_max.max(self.open_time))
    }

    /// The successes that close it: 80 % of the probes, rounded up.
    pub(super) fn successes_to_close(&self) -> u64 {
        (self.probes * 4).div_ceil(5)
    }

    /// The failures that open it again: one more than leaves those successes possible.
    pub(super) fn failures_to_open(&self) -> u64 {
        self.probes - self.successes_to_close() + 1
    }

    /// What a call that ended so, after `elapsed`, says; `None` if nothing.
    pub(super) fn verdict(&self, outcome: Outcome, elapsed: u64) -> Option<Verdict> {
        let slow = elapsed > self.slow_call;
        match outcome {
            Outcome::Ignored => None,
            Outcome::Cancelled => slow.then_some(Verdict::Abandoned),
            Outcome::Success | Outcome::Failure(_) | Outcome::Throttled(_) | Outcome::TimedOut => {
                Some(Verdict::Ended { failed: outcome.is_bad(), slow })
            }
        }
    }
}

/// The rules, replaceable while calls read them.
#[derive(Debug)]
pub(super) struct Settings {
    width: AtomicU64,
    minimum_calls: AtomicU64,
    failure_rate: AtomicU64,
    slow_call: AtomicU64,
    slow_rate: AtomicU64,
    open_time: AtomicU64,
    open_time_max: AtomicU64,
    probes: AtomicU64,
    probe_lease: AtomicU64,
}

impl Settings {
    pub(super) fn new(rules: &Rules) -> Self {
        Self {
            width: rules.width.into(),
            minimum_calls: rules.minimum_calls.into(),
            failure_rate: rules.failure_rate.to_bits().into(),
            slow_call: rules.slow_call.into(),
            slow_rate: rules.slow_rate.to_bits().into(),
            open_time: rules.open_time.into(),
            open_time_max: rules.open_time_max.into(),
            probes: rules.probes.into(),
            probe_lease: rules.probe_lease.into(),
        }
    }

    /// Whether any call is slow: else nobody needs to know when it started.
    pub(super) fn measures(&self) -> bool {
        self.slow_call.load(Relaxed) != u64::MAX
    }

    pub(super) fn rules(&self) -> Rules {
        Rules {
            width: self.width.load(Relaxed),
            minimum_calls: self.minimum_calls.load(Relaxed),
            failure_rate: f64::from_bits(self.failure_rate.load(Relaxed)),
            slow_call: self.slow_call.load(Relaxed),
            slow_rate: f64::from_bits(self.slow_rate.load(Relaxed)),
            open_time: self.open_time.load(Relaxed),
            open_time_max: self.open_time_max.load(Relaxed),
            probes: self.probes.load(Relaxed),
            probe_lease: self.probe_lease.load(Relaxed),
        }
    }

    /// Takes over new rules; `true` if the window has another length.
    pub(super) fn replace(&self, rules: &Rules) -> bool {
        self.minimum_calls.store(rules.minimum_calls, Relaxed);
        self.failure_rate.store(rules.failure_rate.to_bits(), Relaxed);
        self.slow_call.store(rules.slow_call, Relaxed);
        self.slow_rate.store(rules.slow_rate.to_bits(), Relaxed);
        self.open_time.store(rules.open_time, Relaxed);
        self.open_time_max.store(rules.open_time_max, Relaxed);
        self.probes.store(rules.probes, Relaxed);
        self.probe_lease.store(rules.probe_lease, Relaxed);
        self.width.swap(rules.width, Relaxed) != rules.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_buckets_are_the_window() {
        let rules = Rules::of(&CircuitBreakerPolicy { window: Duration::from_secs(30), ..Default::default() });
        assert_eq!((rules.width, rules.window()), (3_000_000_000, 30_000_000_000));
    }

    #[test]
    fn of_any_number_of_probes_it_closes_or_opens_before_they_are_used_up() {
        for probes in 1..=100 {
            let rules = Rules::of(&CircuitBreakerPolicy { probes, ..Default::default() });
            let (close, open) = (rules.successes_to_close(), rules.failures_to_open());
            assert!(close * 5 >= u64::from(probes) * 4 && (close - 1) * 5 < u64::from(probes) * 4, "80 % of {probes}");
            assert_eq!(close + open, u64::from(probes) + 1, "one of the two comes with the last");
        }
    }

    #[test]
    fn a_call_is_slow_only_beyond_the_threshold_and_says_nothing_if_refused_or_cancelled_before() {
        let rules = Rules::of(&CircuitBreakerPolicy { slow_call: Some(MILLISECOND), ..Default::default() });
        let ended = |failed, slow| Some(Verdict::Ended { failed, slow });
        assert_eq!(rules.verdict(Outcome::Success, 1_000_000), ended(false, false));
        assert_eq!(rules.verdict(Outcome::Success, 1_000_001), ended(false, true));
        assert_eq!(rules.verdict(Outcome::TimedOut, 0), ended(true, false));
        assert_eq!(rules.verdict(Outcome::Cancelled, 1_000_000), None);
        assert_eq!(rules.verdict(Outcome::Cancelled, 1_000_001), Some(Verdict::Abandoned));
        assert_eq!(rules.verdict(Outcome::Ignored, 1_000_001), None);
    }

    #[test]
    fn a_new_policy_is_taken_over_whole_and_a_new_window_is_told() {
        let policy = CircuitBreakerPolicy { slow_call: Some(MILLISECOND), probes: 7, ..Default::default() };
        let settings = Settings::new(&Rules::of(&CircuitBreakerPolicy::default()));
        assert!(!settings.measures());
        assert!(!settings.replace(&Rules::of(&policy)), "the same window");
        assert!(settings.measures());
        let wider = Rules::of(&CircuitBreakerPolicy { window: Duration::from_secs(20), ..policy });
        assert!(settings.replace(&wider));
        assert_eq!(settings.rules(), wider);
    }
}
