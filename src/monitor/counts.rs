use std::{
    fmt,
    iter::Sum,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use histogram::AtomicHistogram;
use serde::Serialize;

use crate::Outcome;

/// Finished calls or attempts, by outcome, since the start.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Counts {
    failure: AtomicU64,
    throttled: AtomicU64,
    timed_out: AtomicU64,
    cancelled: AtomicU64,
    ignored: AtomicU64,
    /// Last, and so beside what an endpoint keeps for each call.
    success: AtomicU64,
}

impl Counts {
    /// Counts one.
    #[inline]
    pub fn record(&self, outcome: Outcome) {
        let counter = match outcome {
            Outcome::Success => &self.success,
            Outcome::Failure(_) => &self.failure,
            Outcome::Throttled(_) => &self.throttled,
            Outcome::TimedOut => &self.timed_out,
            Outcome::Cancelled => &self.cancelled,
            Outcome::Ignored => &self.ignored,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// The counts, as of now.
    pub fn view(&self) -> CountsView {
        CountsView {
            success: self.success.load(Relaxed),
            failure: self.failure.load(Relaxed),
            throttled: self.throttled.load(Relaxed),
            timed_out: self.timed_out.load(Relaxed),
            cancelled: self.cancelled.load(Relaxed),
            ignored: self.ignored.load(Relaxed),
        }
    }
}

/// [`Counts`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each is the outcome of its name")]
pub struct CountsView {
    pub success: u64,
    pub failure: u64,
    pub throttled: u64,
    pub timed_out: u64,
    pub cancelled: u64,
    pub ignored: u64,
}

impl CountsView {
    /// All of them together.
    pub fn total(&self) -> u64 {
        self.success + self.failure + self.throttled + self.timed_out + self.cancelled + self.ignored
    }
}

impl Sum for CountsView {
    fn sum<I: Iterator<Item = Self>>(views: I) -> Self {
        views.fold(Self::default(), |sum, view| Self {
            success: sum.success + view.success,
            failure: sum.failure + view.failure,
            throttled: sum.throttled + view.throttled,
            timed_out: sum.timed_out + view.timed_out,
            cancelled: sum.cancelled + view.cancelled,
            ignored: sum.ignored + view.ignored,
        })
    }
}

/// How long calls took, since the start, in a histogram of 3 % error up to 68 s.
pub struct Latency {
    histogram: AtomicHistogram,
}

/// The longest time it tells apart is 2^36 ns.
const POWER: u8 = 36;

impl Default for Latency {
    fn default() -> Self {
        let histogram = AtomicHistogram::new(5, POWER).expect("5 < 36 <= 64");
        Self { histogram }
    }
}

impl Latency {
    /// Adds one.
    pub fn record(&self, elapsed: Duration) {
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        // The only error is "too long", which the bound excludes.
        let _ = self.histogram.increment(nanoseconds.min((1 << POWER) - 1));
    }

    /// The percentiles, as of now.
    pub fn view(&self) -> LatencyView {
        let histogram = self.histogram.load();
        let at = |quantile| Some(Duration::from_nanos(histogram.quantile_bucket(quantile).ok().flatten()?.end()));
        LatencyView { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

/// [`Latency`] at one moment; `None` before the first call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each is the percentile of its name")]
pub struct LatencyView {
    pub p50: Option<Duration>,
    pub p90: Option<Duration>,
    pub p99: Option<Duration>,
    pub max: Option<Duration>,
}
