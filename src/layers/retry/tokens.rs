//! The arithmetic of the budget (R3). `now` is in nanoseconds, as of [`context::nanos`](crate::context::nanos).
//!
//! Two words, each changed by one compare-and-swap, so that a withdrawal is all or nothing:
//!
//! * *earned*: thousandths of a token, paid in by successes, up to a cap. In a collapse there are no successes, so it
//!   dries up just when retries would make things worse.
//! * *trickle*: the moment up to which time is spent. A token costs `interval` of it; time older than `depth` (one
//!   second) is forfeited, so that an idle hour does not pay for a storm. (The virtual scheduling of GCRA.)

use super::BudgetPolicy;
use crate::{
    lanes::Line,
    sync::{AtomicI64, AtomicU64, Relaxed},
};

/// Thousandths in a token.
const TOKEN: i64 = 1000;
const SECOND: u64 = 1_000_000_000;

#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Successes write it, every call reads its neighbours.
    earned: Line<AtomicI64>,
    spent_until: AtomicU64,
    per_success: AtomicI64,
    cap: AtomicI64,
    interval: AtomicU64,
    depth: AtomicU64,
}

/// Where a token came from, and so where it goes back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Earned,
    /// It cost this much time.
    Trickle(u64),
}

impl Tokens {
    pub(super) fn new(policy: &BudgetPolicy, now: u64) -> Self {
        let tokens = Self::default();
        tokens.configure(policy);
        tokens.earned.0.store(i64::from(policy.start) * TOKEN, Relaxed);
        tokens.spent_until.store(now, Relaxed);
        tokens
    }

    pub(super) fn configure(&self, policy: &BudgetPolicy) {
        let cap = i64::from(policy.cap) * TOKEN;
        self.per_success.store(policy.per_success(), Relaxed);
        self.cap.store(cap, Relaxed);
        self.earned.0.fetch_min(cap, Relaxed);
        // Rounded up, so that time never pays more than it should.
        let interval = match u64::from(policy.refill_per_second) {
            0 => 0,
            refill => SECOND.div_ceil(refill),
        };
        self.depth.store(interval * u64::from(policy.refill_per_second), Relaxed);
        self.interval.store(interval, Relaxed);
    }

    /// A success pays in. A full budget is only read, not written.
    #[inline]
    pub(super) fn deposit(&self) {
        self.earn(self.per_success.load(Relaxed));
    }

    /// Takes one token: of time first, which would be forfeited, then of what was earned.
    pub(super) fn withdraw(&self, now: u64) -> Option<Origin> {
        self.withdraw_trickle(now).or_else(|| {
            // A success that read an earlier, higher cap may have paid in more than there can be now.
            let cap = self.cap.load(Relaxed);
            let less = |tokens: i64| Some(tokens.min(cap) - TOKEN).filter(|left| *left >= 0);
            self.earned.0.fetch_update(Relaxed, Relaxed, less).ok().map(|_| Origin::Earned)
        })
    }

    /// Takes back a token that was not spent.
    pub(super) fn refund(&self, origin: Origin) {
        match origin {
            Origin::Earned => self.earn(TOKEN),
            // Each withdrawal moved the word by at least its interval: it cannot fall below zero.
            Origin::Trickle(interval) => {
                self.spent_until.fetch_sub(interval, Relaxed);
            }
        }
    }

    /// Tokens there are now, in parts too.
    pub(super) fn balance(&self, now: u64) -> f64 {
        let earned = self.earned.0.load(Relaxed).min(self.cap.load(Relaxed)) as f64 / TOKEN as f64;
        let interval = self.interval.load(Relaxed);
        if interval == 0 {
            return earned;
        }
        let from = self.spent_until.load(Relaxed).max(now.saturating_sub(self.depth.load(Relaxed)));
        earned + now.saturating_sub(from) as f64 / interval as f64
    }

    #[inline]
    fn earn(&self, amount: i64) {
        let cap = self.cap.load(Relaxed);
        let more = |tokens: i64| (tokens < cap && amount > 0).then(|| (tokens + amount).min(cap));
        let _ = self.earned.0.fetch_update(Relaxed, Relaxed, more);
    }

    fn withdraw_trickle(&self, now: u64) -> Option<Origin> {
        let interval = self.interval.load(Relaxed);
        if interval == 0 {
            return None;
        }
        let oldest = now.saturating_sub(self.depth.load(Relaxed));
        let later = |until: u64| Some(until.max(oldest) + interval).filter(|until| *until <= now);
        self.spent_until.fetch_update(Relaxed, Relaxed, later).ok().map(|_| Origin::Trickle(interval))
    }
}

#[cfg(all(test, not(hopvine_loom)))]
mod tests {
    use std::{sync::Barrier, thread};

    use proptest::prelude::*;

    use super::*;
    use crate::{Policy, live::Ratio};

    fn policy(thousandths: u32, cap: u32, start: u32, refill_per_second: u32) -> BudgetPolicy {
        BudgetPolicy { ratio: Ratio(f64::from(thousandths) / 1000.0), cap, start: start.min(cap), refill_per_second }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Success,
        Retry,
        /// Withdrawn and never sent.
        Unsent,
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            Just(Step::Success),
            Just(Step::Retry),
            Just(Step::Unsent),
            (0..400_000_000u64).prop_map(Step::Pass),
        ];
        prop::collection::vec(step, 0..400)
    }

    /// Slow and obvious: whole thousandths, and the moment since when time is unspent.
    struct Model {
        earned: i64,
        since: u64,
        now: u64,
        policy: BudgetPolicy,
    }

    impl Model {
        fn withdraw(&mut self) -> bool {
            let refill = u64::from(self.policy.refill_per_second);
            if refill > 0 {
                let interval = SECOND.div_ceil(refill);
                self.since = self.since.max(self.now.saturating_sub(interval * refill));
                if self.now - self.since >= interval {
                    self.since += interval;
                    return true;
                }
            }
            let pays = self.earned >= 1000;
            if pays {
                self.earned -= 1000;
            }
            pays
        }
    }

    proptest! {
        #[test]
        fn pays_exactly_as_the_obvious_model_does(
            thousandths in 0..=1000u32, cap in 0..30u32, start in 0..30u32, refill in 0..40u32, steps in steps(),
        ) {
            let policy = policy(thousandths, cap, start, refill);
            policy.validate().unwrap();
            let begin = 5 * SECOND;
            let tokens = Tokens::new(&policy, begin);
            let mut model = Model { earned: i64::from(policy.start) * 1000, since: begin, now: begin, policy: policy.clone() };
            let (mut retries, mut successes) = (0u64, 0u64);
            for step in steps {
                match step {
                    Step::Success => {
                        successes += 1;
                        tokens.deposit();
                        model.earned = (model.earned + i64::from(thousandths)).min(i64::from(cap) * 1000);
                    }
                    Step::Retry => {
                        let paid = tokens.withdraw(model.now).is_some();
                        prop_assert_eq!(paid, model.withdraw());
                        retries += u64::from(paid);
                    }
                    Step::Unsent => {
                        let before = tokens.balance(model.now);
                        if let Some(origin) = tokens.withdraw(model.now) {
                            tokens.refund(origin);
                        }
                        prop_assert!((tokens.balance(model.now) - before).abs() < 1e-9);
                    }
                    Step::Pass(nanos) => model.now += nanos,
                }
                let bound = u64::from(policy.start) * 1000 + u64::from(thousandths) * successes;
                let elapsed = u128::from(model.now - begin) * u128::from(refill) / u128::from(SECOND);
                prop_assert!(u128::from(retries) <= u128::from(bound / 1000) + elapsed);
            }
        }
    }

    #[test]
    fn four_threads_never_overdraw_and_lose_nothing() {
        for round in 0..20 {
            let policy = policy(200, 1_000_000, 10, if round % 2 == 0 { 0 } else { 10_000 });
            let tokens = Tokens::new(&policy, SECOND);
            let barrier = Barrier::new(4);
            // Each thread's own counts: withdrawals of what was earned, of time, and successes.
            let run = |seed: u64| {
                let mut random = fastrand::Rng::with_seed(seed);
                let (mut earned, mut trickle, mut successes) = (0i64, 0u64, 0i64);
                barrier.wait();
                for step in 0..5_000u64 {
                    let now = SECOND + step * 10_000;
                    match random.u8(0..4) {
                        0 => match tokens.withdraw(now) {
                            Some(Origin::Earned) => earned += 1,
                            Some(Origin::Trickle(_)) => trickle += 1,
                            None => {}
                        },
                        1 => {
                            if let Some(origin) = tokens.withdraw(now) {
                                tokens.refund(origin);
                            }
                        }
                        _ => {
                            tokens.deposit();
                            successes += 1;
                        }
                    }
                }
                (earned, trickle, successes)
            };
            let (mut earned, mut trickle, mut successes) = (0, 0, 0);
            thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || run(round * 4 + n))).collect();
                for thread in threads {
                    let counts = thread.join().unwrap();
                    earned += counts.0;
                    trickle += counts.1;
                    successes += counts.2;
                }
            });
            let left = tokens.earned.0.load(Relaxed);
            assert_eq!(earned * 1000 + left, 10_000 + 200 * successes, "not a thousandth made or lost");
            assert!(left >= 0);
            // Time passed: 5 000 steps of 10 us; 10 000 tokens a second.
            assert!(trickle <= 500, "{trickle}");
        }
    }

    #[test]
    fn an_idle_hour_pays_for_no_more_than_one_second() {
        let tokens = Tokens::new(&policy(0, 0, 0, 3), SECOND);
        let later = 3600 * SECOND;
        assert_eq!((0..10).filter(|_| tokens.withdraw(later).is_some()).count(), 3);
        assert!(tokens.withdraw(later + SECOND / 4).is_none());
        assert!(tokens.withdraw(later + SECOND / 2).is_some());
    }

    #[test]
    fn the_balance_is_what_was_earned_and_the_time_unspent_in_parts() {
        let tokens = Tokens::new(&policy(500, 10, 3, 0), SECOND);
        tokens.deposit();
        assert!((tokens.balance(SECOND) - 3.5).abs() < 1e-9);
        let refilled = Tokens::new(&policy(500, 10, 3, 2), SECOND);
        refilled.deposit();
        assert!((refilled.balance(SECOND + SECOND / 4) - 4.0).abs() < 1e-9, "half a token of time");
        assert!((refilled.balance(9 * SECOND) - 5.5).abs() < 1e-9, "a second's worth, no more");
    }

    #[test]
    fn a_lower_cap_takes_effect_at_once() {
        let tokens = Tokens::new(&policy(0, 100, 100, 0), 0);
        tokens.configure(&policy(0, 2, 0, 0));
        assert_eq!((0..10).filter(|_| tokens.withdraw(0).is_some()).count(), 2);
    }
}
