use std::{fmt, sync::Arc};

use super::{
    BudgetPolicy,
    tokens::{Origin, Tokens},
};
use crate::{
    PolicyError, context,
    live::{Follow, IntoLive},
};

/// How many retries the successes of a service pay for. Clones share it.
///
/// One budget per service (and client): hand the same one to each retry layer in front of it, and to hedging. Each
/// *success* pays in a fraction of a token, each retry costs a whole one. A budget paid in by requests instead lets
/// retries go on while a service is down, and can keep it down; this one dries up. For any run of calls
///
/// `retries <= start + ratio * successes + refill_per_second * seconds since it was made`
///
/// holds exactly, and the last term pays for at most one second's worth at once, however long it was idle. Over `n`
/// layers that retry one below the other, a call becomes at most `(1 + ratio)^n` where each retries by a budget of its
/// own (and `(1 + retries)^n` without), so let one layer retry.
///
/// ```
/// use hopvine::layers::retry::{Budget, BudgetPolicy, RetryLayer, RetryPolicy};
///
/// let catalog = Budget::new(BudgetPolicy { start: 2, ..BudgetPolicy::default() })?;
/// let read = RetryLayer::new(RetryPolicy::default())?.budget(catalog.clone());
/// let write = RetryLayer::new(RetryPolicy { max_attempts: 2, ..Default::default() })?.budget(catalog);
/// # let _ = (read, write);
/// # Ok::<(), hopvine::PolicyError>(())
/// ```
#[derive(Clone)]
pub struct Budget(Arc<Tokens>);

impl Budget {
    /// A new one, with `start` tokens in it.
    pub fn new(policy: impl IntoLive<BudgetPolicy>) -> Result<Self, PolicyError> {
        let live = policy.into_live()?;
        let tokens = Arc::new(Tokens::new(&live.get(), context::now_nanos()));
        live.follow(&tokens);
        Ok(Self(tokens))
    }

    /// A success pays in.
    #[inline]
    pub fn deposit(&self) {
        self.0.deposit();
    }

    /// Takes the token that one retry costs, if there is one (`now` as of [`context::nanos`]).
    pub fn withdraw(&self, now: u64) -> Option<Token> {
        self.0.withdraw(now).map(|origin| Token { budget: Some(self.clone()), origin })
    }

    /// Tokens there are now, in parts too (`now` as of [`context::nanos`]).
    pub fn balance(&self, now: u64) -> f64 {
        self.0.balance(now)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Tokens::new(&BudgetPolicy::default(), context::now_nanos())))
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("balance", &self.balance(context::now_nanos())).finish_non_exhaustive()
    }
}

impl Follow<BudgetPolicy> for Tokens {
    fn follow(&self, policy: &BudgetPolicy) {
        self.configure(policy);
    }
}

/// One retry, paid for. Goes back to its budget if dropped before it is [spent](Self::spend).
#[derive(Debug)]
#[must_use = "a token that is dropped goes back to its budget"]
pub struct Token {
    budget: Option<Budget>,
    origin: Origin,
}

impl Token {
    /// The retry was sent.
    pub fn spend(self) {
        drop(self.sent());
    }

    pub(super) fn sent(mut self) -> Spent {
        Spent { budget: self.budget.take(), origin: self.origin }
    }
}

/// A token whose retry is under way. Gone when dropped.
#[derive(Debug)]
pub(super) struct Spent {
    budget: Option<Budget>,
    origin: Origin,
}

impl Spent {
    /// It turned out that nothing left this side.
    pub(super) fn refund(self) {
        if let Some(budget) = self.budget {
            budget.0.refund(self.origin);
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.0.refund(self.origin);
        }
    }
}
