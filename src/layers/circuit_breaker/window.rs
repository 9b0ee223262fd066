//! What happened lately: a sliding time window without a lock. No clock, no randomness.
//!
//! A ring of buckets, each as wide as a tenth of the window. A bucket has counters of what was bad, and one of all calls per lane, one word
//! each:
//!
//! ```text
//!     period:8 | epoch:32 | count:24
//! ```
//!
//! *Epoch* is the time in bucket widths. Whoever counts in a bucket that still holds an older epoch starts it anew; whoever
//! reads skips what is older than the window. So nothing ticks, and an idle window needs no care. An epoch
//! comes again after 2^32 buckets: 136 years of one second, 497 days of the shortest, 10 ms.
//!
//! *Period* is the closed period of the breaker the counts belong to. A result of an earlier one finds a foreign period and
//! is dropped, however late it comes.

use crate::{
    lanes::PerLane,
    sync::{AtomicU64, Relaxed, SeqCst},
};

/// Buckets in a window; one where every interleaving is tried.
pub(super) const BUCKETS: u64 = if cfg!(all(test, hopvine_loom)) { 1 } else { 10 };

const EPOCH_SHIFT: u32 = 24;
const PERIOD_SHIFT: u32 = 56;
const COUNT: u64 = (1 << EPOCH_SHIFT) - 1;

/// The window. What every call counts is counted in the thread's lane, and what few do in one place.
#[derive(Debug, Default)]
pub(super) struct Window {
    calls: PerLane<[AtomicU64; BUCKETS as usize]>,
    bad: [Bad; BUCKETS as usize],
    /// When something bad was last counted: a success need not look at the sums long after that.
    last_bad: AtomicU64,
}

#[derive(Debug, Default)]
struct Bad {
    failures: AtomicU64,
    slow: AtomicU64,
    abandoned: AtomicU64,
}

/// What is known of a call that says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It ended.
    Ended { failed: bool, slow: bool },
    /// The caller left, but only after the slow threshold: slow, and neither a success nor a failure.
    Abandoned,
}

impl Verdict {
    pub(super) fn is_bad(self) -> bool {
        self != Self::Ended { failed: false, slow: false }
    }
}

/// The window's contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) slow: u64,
    pub(super) abandoned: u64,
}

impl Sums {
    /// The share of ended calls that failed.
    pub(super) fn failure_rate(&self) -> f64 {
        rate(self.failures, self.calls)
    }

    /// The share of calls, abandoned ones included, that were slow.
    pub(super) fn slow_rate(&self) -> f64 {
        rate(self.slow + self.abandoned, self.calls + self.abandoned)
    }
}

fn rate(part: u64, whole: u64) -> f64 {
    // The quotient, not `part >= rate * whole`: 3 of 30 is exactly the number that is written 0.1.
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Window {
    /// Counts, in `lane`, a call of closed period `period` that ended at `now`.
    pub(super) fn record(&self, lane: usize, period: u8, now: u64, width: u64, verdict: Verdict) {
        let epoch = now / width;
        let bucket = (epoch % BUCKETS) as usize;
        let bad = &self.bad[bucket];
        let add = |counter| add(counter, period, epoch as u32);
        if verdict.is_bad() {
            // Before the counters, so that whoever sees those does not skip the sums.
            let _ = self.last_bad.fetch_update(SeqCst, SeqCst, |last| (last < now).then_some(now));
        }
        match verdict {
            Verdict::Abandoned => {
                add(&bad.abandoned);
            }
            // The call before what is wrong with it, which a reader reads the other way round: one in between sees too low
            // a rate, never one above 1.
            Verdict::Ended { failed, slow } => {
                if add(&self.calls[lane][bucket]) {
                    let _ = failed && add(&bad.failures);
                    let _ = slow && add(&bad.slow);
                }
            }
        }
    }

    /// What the window that ends at `now` holds.
    pub(super) fn sums(&self, period: u8, now: u64, width: u64) -> Sums {
        let epoch = (now / width) as u32;
        let count = |counter: &AtomicU64| {
            let word = counter.load(SeqCst);
            // A bucket may be ahead of us, if another thread read the clock later.
            let distance = epoch.wrapping_sub(epoch_of(word)).cast_signed().unsigned_abs();
            if period_of(word) == period && u64::from(distance) < BUCKETS { word & COUNT } else { 0 }
        };
        let bad = self.bad.iter().fold(Sums::default(), |sums, bucket| Sums {
            failures: sums.failures + count(&bucket.failures),
            slow: sums.slow + count(&bucket.slow),
            abandoned: sums.abandoned + count(&bucket.abandoned),
            ..sums
        });
        // Last: see `record`.
        Sums { calls: self.calls.iter().flatten().map(count).sum(), ..bad }
    }

    /// Whether nothing bad can be in the window that ends at `now`.
    pub(super) fn is_clean(&self, now: u64, width: u64) -> bool {
        now.saturating_sub(self.last_bad.load(SeqCst)) > width * BUCKETS
    }

    /// Starts closed period `period`, empty. Does nothing where it has started already: several may try, and one that
    /// comes too late does no harm.
    pub(super) fn start(&self, period: u8) {
        for counter in self.counters() {
            let _ = counter.fetch_update(Relaxed, Relaxed, |word| {
                (period.wrapping_sub(period_of(word)).cast_signed() > 0).then_some(u64::from(period) << PERIOD_SHIFT)
            });
        }
    }

    /// Empties the window and stays in its period: the width has changed.
    pub(super) fn clear(&self) {
        for counter in self.counters() {
            let _ = counter.fetch_update(Relaxed, Relaxed, |word| Some(word >> PERIOD_SHIFT << PERIOD_SHIFT));
        }
    }

    fn counters(&self) -> impl Iterator<Item = &AtomicU64> {
        let bad = self.bad.iter().flat_map(|bucket| [&bucket.failures, &bucket.slow, &bucket.abandoned]);
        self.calls.iter().flatten().chain(bad)
    }
}

/// Adds one, unless the counter has gone on to a later epoch or another period, or is full.
fn add(counter: &AtomicU64, period: u8, epoch: u32) -> bool {
    // Whoever sees this count, as a reader or by adding to it, sees all that was counted before it. And of two who count in different
    // lanes at once and then look at the sums, at least one sees the other's.
    let added = counter.fetch_update(SeqCst, Relaxed, |word| {
        let ahead = u64::from(epoch_of(word).wrapping_sub(epoch));
        let late = (1..=2 * BUCKETS).contains(&ahead);
        let count = if ahead == 0 { word & COUNT } else { 0 };
        if late || period_of(word) != period || count == COUNT {
            return None;
        }
        Some(u64::from(period) << PERIOD_SHIFT | u64::from(epoch) << EPOCH_SHIFT | (count + 1))
    });
    added.is_ok()
}

fn epoch_of(word: u64) -> u32 {
    (word >> EPOCH_SHIFT) as u32
}

fn period_of(word: u64) -> u8 {
    (word >> PERIOD_SHIFT) as u8
}

#[cfg(all(test, not(hopvine_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lanes;

    const LANE: usize = 0;

    const OK: Verdict = Verdict::Ended { failed: false, slow: false };
    const FAILED: Verdict = Verdict::Ended { failed: true, slow: false };

    fn verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            4 => (any::<bool>(), any::<bool>()).prop_map(|(failed, slow)| Verdict::Ended { failed, slow }),
            1 => Just(Verdict::Abandoned),
        ]
    }

    proptest! {
        /// Against a list of everything that ever happened.
        #[test]
        fn the_sums_are_those_of_the_last_ten_buckets(
            width in 1_u64..5,
            steps in prop::collection::vec((prop_oneof![9 => 0_u64..4, 1 => 0_u64..200], verdict()), 1..200),
        ) {
            let window = Window::default();
            let mut all: Vec<(u64, Verdict)> = Vec::new();
            let mut now = 7;
            for (wait, verdict) in steps {
                now += wait;
                window.record(LANE, 0, now, width, verdict);
                all.push((now / width, verdict));
                let recent = all.iter().filter(|(epoch, _)| now / width - epoch < BUCKETS).map(|(_, verdict)| *verdict);
                let mut expected = Sums::default();
                for verdict in recent {
                    match verdict {
                        Verdict::Abandoned => expected.abandoned += 1,
                        Verdict::Ended { failed, slow } => {
                            expected.calls += 1;
                            expected.failures += u64::from(failed);
                            expected.slow += u64::from(slow);
                        }
                    }
                }
                prop_assert_eq!(window.sums(0, now, width), expected);
                let bad = expected.failures + expected.slow + expected.abandoned > 0;
                prop_assert!(!(bad && window.is_clean(now, width)), "a failure would be overlooked");
            }
        }
    }

    #[test]
    fn an_idle_window_is_empty_however_long_it_was_idle() {
        let window = Window::default();
        window.record(LANE, 0, 5, 1, FAILED);
        for idle in [10, 11, 1 << 20, 1 << 31, (1 << 31) + 9, (1 << 32) - 10] {
            assert_eq!(window.sums(0, 5 + idle, 1), Sums::default(), "after {idle} buckets");
        }
        let later = 5 + (1 << 31) + 5;
        window.record(LANE, 0, later, 1, OK);
        assert_eq!(window.sums(0, later, 1).calls, 1, "and counts again");
    }

    #[test]
    fn a_late_clock_reading_neither_wipes_nor_joins_a_newer_bucket() {
        let window = Window::default();
        window.record(LANE, 0, 25, 1, OK);
        window.record(LANE, 0, 15, 1, FAILED); // the same slot, ten buckets ago
        assert_eq!(window.sums(0, 25, 1), Sums { calls: 1, ..Sums::default() });
    }

    #[test]
    fn nor_does_one_that_is_two_windows_late() {
        let window = Window::default();
        window.record(LANE, 0, 35, 1, OK);
        window.record(LANE, 0, 15, 1, FAILED);
        assert_eq!(window.sums(0, 35, 1), Sums { calls: 1, ..Sums::default() });
    }

    #[test]
    fn a_window_of_another_width_starts_empty_in_its_period() {
        let window = Window::default();
        window.start(3);
        window.record(LANE, 3, 5, 1, FAILED);
        window.clear();
        assert_eq!(window.sums(3, 5, 1), Sums::default());
        window.record(LANE, 3, 5, 2, OK);
        window.record(LANE, 2, 5, 2, FAILED);
        assert_eq!(window.sums(3, 5, 2), Sums { calls: 1, ..Sums::default() });
    }

    #[test]
    fn abandoned_calls_count_among_the_slow_and_among_all() {
        let sums = Sums { calls: 3, slow: 1, abandoned: 1, ..Sums::default() };
        assert_eq!(sums.slow_rate().to_bits(), 0.5_f64.to_bits());
    }

    #[test]
    fn a_success_long_after_the_last_failure_need_not_add_up_the_window() {
        let window = Window::default();
        window.record(LANE, 0, 5, 1, FAILED);
        assert!(!window.is_clean(14, 1));
        assert!(window.is_clean(5 + BUCKETS + 1, 1) && window.is_clean(1_000, 1));
    }

    #[test]
    fn a_result_of_an_earlier_period_is_dropped() {
        let window = Window::default();
        window.record(LANE, 0, 5, 1, FAILED);
        window.start(1);
        assert_eq!(window.sums(1, 5, 1), Sums::default(), "a fresh window");
        window.record(LANE, 0, 5, 1, FAILED);
        window.record(LANE, 1, 5, 1, OK);
        window.start(1); // another thread that closed it too, and lost
        window.start(0); // one that was held up for a whole period
        assert_eq!(window.sums(1, 5, 1), Sums { calls: 1, ..Sums::default() });
    }

    #[test]
    fn periods_go_round_without_an_end() {
        let window = Window::default();
        for period in (0..=255_u8).chain(0..=255) {
            window.start(period);
            window.record(LANE, period, 5, 1, OK);
            assert_eq!(window.sums(period, 5, 1).calls, 1);
        }
    }

    #[test]
    fn a_rate_that_is_exactly_the_threshold_reaches_it() {
        for whole in 1..200_u32 {
            for part in 0..=whole {
                let sums = Sums { calls: whole.into(), failures: part.into(), ..Sums::default() };
                let written: f64 = format!("{}", f64::from(part) / f64::from(whole)).parse().expect("a number");
                assert!(sums.failure_rate() >= written);
            }
        }
        assert!(Sums { calls: 30, failures: 3, ..Sums::default() }.failure_rate() >= 0.1);
    }

    #[test]
    fn threads_lose_no_count() {
        let window = Window::default();
        std::thread::scope(|scope| {
            for lane in (0..4).map(|thread| thread % lanes::count()) {
                let window = &window;
                scope.spawn(move || (0..10_000).for_each(|call| window.record(lane, 0, call / 1_000, 1, FAILED)));
            }
        });
        assert_eq!(window.sums(0, 9, 1), Sums { calls: 40_000, failures: 40_000, ..Sums::default() });
    }
}
