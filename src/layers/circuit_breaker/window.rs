use std::{
    sync::atomic::{
        AtomicU64,
        Ordering::{AcqRel, Relaxed},
    },
    time::Duration,
};

/// A sliding window of ten buckets, each one word: which bucket of all time it is, calls, failures and slow calls.
///
/// No lock, no task: a recorder that finds a bucket of an older time begins it anew. A bucket that is full (32 767 calls) is
/// halved, which keeps its rates. Its time is counted modulo 2^19, so that with buckets of a second a window left alone for exactly six
/// days could show what it saw then.
#[derive(Debug)]
pub(super) struct Window {
    /// Of one bucket, in nanoseconds.
    width: AtomicU64,
    buckets: [AtomicU64; BUCKETS as usize],
}

const BUCKETS: u64 = 10;
const COUNT_BITS: u32 = 15;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const EPOCH_MASK: u64 = (1 << 19) - 1;

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) slow: u64,
}

impl Totals {
    /// The share that failed; 0 of none.
    pub(super) fn failure_rate(self) -> f64 {
        share(self.failures, self.calls)
    }

    /// The share that was slow; 0 of none.
    pub(super) fn slow_rate(self) -> f64 {
        share(self.slow, self.calls)
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        let window = Self { width: AtomicU64::new(1), buckets: Default::default() };
        window.set_length(length);
        window
    }

    /// Takes another length, and begins anew if it is one.
    pub(super) fn set_length(&self, length: Duration) {
        let width = (length.as_nanos() as u64 / BUCKETS).max(1);
        if self.width.swap(width, Relaxed) != width {
            self.clear();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
    }

    /// Counts one call.
    pub(super) fn record(&self, now: u64, failed: bool, slow: bool) {
        let epoch = now / self.width.load(Relaxed);
        let bucket = &self.buckets[(epoch % BUCKETS) as usize];
        let mut before = bucket.load(Relaxed);
        loop {
            let (at, mut totals) = unpack(before);
            if at != epoch & EPOCH_MASK {
                totals = Totals::default();
            } else if totals.calls == COUNT_MAX {
                totals = Totals { calls: totals.calls / 2, failures: totals.failures / 2, slow: totals.slow / 2 };
            }
            totals.calls += 1;
            totals.failures += u64::from(failed);
            totals.slow += u64::from(slow);
            match bucket.compare_exchange_weak(before, pack(epoch & EPOCH_MASK, totals), AcqRel, Relaxed) {
                Ok(_) => return,
                Err(now) => before = now,
            }
        }
    }

    /// The sum of the last ten buckets, the one under way included.
    pub(super) fn totals(&self, now: u64) -> Totals {
        let epoch = now / self.width.load(Relaxed);
        self.buckets
            .iter()
            .map(|bucket| unpack(bucket.load(Relaxed)))
            .filter(|(at, _)| epoch.wrapping_sub(*at) & EPOCH_MASK < BUCKETS)
            .fold(Totals::default(), |sum, (_, one)| Totals {
                calls: sum.calls + one.calls,
                failures: sum.failures + one.failures,
                slow: sum.slow + one.slow,
            })
    }
}

fn pack(epoch: u64, totals: Totals) -> u64 {
    epoch << (3 * COUNT_BITS) | totals.calls << (2 * COUNT_BITS) | totals.failures << COUNT_BITS | totals.slow
}

fn unpack(word: u64) -> (u64, Totals) {
    let totals = Totals {
        calls: word >> (2 * COUNT_BITS) & COUNT_MAX,
        failures: word >> COUNT_BITS & COUNT_MAX,
        slow: word & COUNT_MAX,
    };
    (word >> (3 * COUNT_BITS), totals)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_counts_what_a_list_of_all_calls_would(
            steps in prop::collection::vec((0u64..3_000, any::<bool>(), any::<bool>()), 0..400),
        ) {
            let window = Window::new(Duration::from_nanos(1_000));
            let mut calls = Vec::new();
            let mut now = 1_000_000;
            for (wait, failed, slow) in steps {
                now += wait / 10;
                window.record(now, failed, slow);
                calls.push((now / 100, failed, slow));
                let inside = calls.iter().filter(|(at, ..)| now / 100 - at < 10);
                let model = inside.fold(Totals::default(), |sum, (_, failed, slow)| Totals {
                    calls: sum.calls + 1,
                    failures: sum.failures + u64::from(*failed),
                    slow: sum.slow + u64::from(*slow),
                });
                prop_assert_eq!(window.totals(now), model);
            }
            prop_assert_eq!(window.totals(now + 1_000), Totals::default());
        }
    }

    #[test]
    fn a_full_bucket_keeps_its_rates() {
        let window = Window::new(Duration::from_secs(10));
        for call in 0..200_000u32 {
            window.record(5, call.is_multiple_of(4), false);
        }
        let totals = window.totals(5);
        assert!((totals.failure_rate() - 0.25).abs() < 0.01, "{totals:?}");
    }

    #[test]
    fn contended_recorders_lose_no_call() {
        let window = Window::new(Duration::from_secs(10));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5_000).for_each(|_| window.record(7, true, false)));
            }
        });
        assert_eq!(window.totals(7), Totals { calls: 20_000, failures: 20_000, slow: 0 });
    }
}
