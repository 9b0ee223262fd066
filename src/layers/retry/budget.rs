use std::{
    fmt,
    sync::{
        Arc,
        atomic::{
            AtomicI64, AtomicU64,
            Ordering::{AcqRel, Relaxed},
        },
    },
    time::Duration,
};

use crate::context;

/// What retries are paid from: a share of every success, and a trickle. Clones share it: give the same one to all stacks that
/// call one service.
///
/// Never more than `start + ratio * successes + a_second * seconds` retries, exactly: tokens are counted in thousandths. While nothing succeeds, only the trickle
/// comes in; a budget funded by requests would go on paying in the middle of a collapse.
#[derive(Clone)]
pub struct Budget(Arc<Tokens>);

struct Tokens {
    /// In thousandths.
    balance: AtomicI64,
    cap: i64,
    ratio: i64,
    /// Nanoseconds a token takes; 0 if there is no trickle.
    token_every: u64,
    /// Up to when the trickle has been paid; 0 before the first look.
    paid_until: AtomicU64,
}

const TOKEN: i64 = 1000;

impl Default for Budget {
    /// A fifth of the successes and 10 a second, 10 to begin with, at most 20 at hand.
    ///
    /// The cap is what an outage can cost at once: a client of 100 calls a second that has saved up 20 tokens makes a fifth of a second's calls twice.
    fn default() -> Self {
        Self::new(0.2, 10.0, 20.0, 10.0)
    }
}

impl Budget {
    /// `ratio` tokens a success, `a_second` tokens a second, at most `cap` at hand, `start` to begin with. A retry costs one.
    /// Anything below zero, or no number, is zero.
    pub fn new(ratio: f64, a_second: f64, cap: f64, start: f64) -> Self {
        // A cast of a float saturates, and makes NaN zero.
        let thousandths = |tokens: f64| (tokens.max(0.0) * TOKEN as f64).round() as i64;
        let token_every = if a_second > 0.0 { (1e9 / a_second) as u64 } else { 0 };
        Self(Arc::new(Tokens {
            balance: AtomicI64::new(thousandths(start).min(thousandths(cap))),
            cap: thousandths(cap),
            ratio: thousandths(ratio),
            token_every,
            paid_until: AtomicU64::new(0),
        }))
    }

    /// Tokens at hand.
    pub fn balance(&self) -> f64 {
        self.0.balance.load(Relaxed) as f64 / TOKEN as f64
    }

    /// A success pays in.
    pub(super) fn deposit(&self) {
        self.0.add(self.0.ratio);
    }

    /// Takes one token, or none.
    pub(super) fn withdraw(&self) -> Option<Token> {
        self.0.trickle(context::nanos(context::now()));
        let less = |balance: i64| (balance >= TOKEN).then_some(balance - TOKEN);
        self.0.balance.fetch_update(AcqRel, Relaxed, less).ok()?;
        Some(Token(Some(Arc::clone(&self.0))))
    }
}

impl Tokens {
    fn add(&self, thousandths: i64) {
        // Read first: a full budget, as most are, is not written to.
        if self.balance.load(Relaxed) < self.cap {
            let more = |balance: i64| Some(balance.saturating_add(thousandths).min(self.cap));
            let _ = self.balance.fetch_update(AcqRel, Relaxed, more);
        }
    }

    fn trickle(&self, now: u64) {
        if self.token_every == 0 {
            return;
        }
        let until = self.paid_until.load(Relaxed);
        let whole = if until == 0 { 0 } else { now.saturating_sub(until) / self.token_every };
        let next = if until == 0 { now } else { until + whole * self.token_every };
        if next != until && self.paid_until.compare_exchange(until, next, AcqRel, Relaxed).is_ok() {
            self.add(i64::try_from(whole).unwrap_or(i64::MAX).saturating_mul(TOKEN));
        }
    }
}

/// A token taken; given back when dropped before it was spent.
pub(super) struct Token(Option<Arc<Tokens>>);

impl Token {
    pub(super) fn spend(mut self) {
        self.0 = None;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(tokens) = self.0.take() {
            tokens.add(TOKEN);
        }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("balance", &self.balance()).finish_non_exhaustive()
    }
}

/// The wait before the retry after `retries` others: `share` (0 to 1, drawn by chance) of a ceiling that doubles from `base` to `max`.
///
/// Full jitter, which needs the fewest calls of the schemes that AWS compared.
pub(super) fn backoff(base: Duration, max: Duration, retries: u32, share: f64) -> Duration {
    base.saturating_mul(1 << retries.min(20)).min(max).mul_f64(share.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_pays_for_exactly_what_came_in(ratio in 0.0f64..1.0, start in 0u32..20, steps in prop::collection::vec(any::<bool>(), 0..500)) {
            let budget = Budget::new(ratio, 0.0, 1e9, f64::from(start));
            let ratio = (ratio * 1000.0).round() as u64;
            let (mut income, mut spent) = (u64::from(start) * 1000, 0u64);
            for success in steps {
                if success {
                    budget.deposit();
                    income += ratio;
                } else {
                    let token = budget.withdraw();
                    prop_assert_eq!(token.is_some(), income - spent >= 1000);
                    if let Some(token) = token {
                        token.spend();
                        spent += 1000;
                    }
                }
            }
        }

        #[test]
        fn a_wait_is_within_its_ceiling(retries in 0u32..40, share in 0.0f64..=1.0) {
            let (base, max) = (Duration::from_millis(25), Duration::from_millis(250));
            let wait = backoff(base, max, retries, share);
            prop_assert!(wait <= max && wait <= base.saturating_mul(1 << retries.min(20)));
            prop_assert_eq!(backoff(base, Duration::MAX, retries, 1.0), base * (1 << retries.min(20)));
        }
    }

    #[test]
    fn threads_together_never_overdraw_it() {
        let budget = Budget::new(0.2, 0.0, 1e6, 10.0);
        let spent = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        budget.deposit();
                        if let Some(token) = budget.withdraw() {
                            token.spend();
                            spent.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(spent.into_inner() as f64 + budget.balance(), 10.0 + 0.2 * 40_000.0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_trickle_is_what_it_says_whole_tokens_only() {
        let budget = Budget::new(0.0, 10.0, 20.0, 0.0);
        assert!(budget.withdraw().is_none());
        tokio::time::advance(Duration::from_millis(99)).await;
        assert!(budget.withdraw().is_none());
        tokio::time::advance(Duration::from_millis(1)).await;
        budget.withdraw().unwrap().spend();
        assert!(budget.withdraw().is_none());
        tokio::time::advance(Duration::from_secs(3600)).await;
        drop(budget.withdraw().unwrap());
        assert_eq!(budget.balance(), 20.0, "the cap, and a token unspent comes back");
    }
}
