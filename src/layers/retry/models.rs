//! Every interleaving of two threads at the budget.

use std::sync::Arc;

use super::{
    BudgetPolicy,
    tokens::{Origin, Tokens},
};
use crate::{
    live::Ratio,
    sync::{explore, race},
};

const SECOND: u64 = 1_000_000_000;

fn policy(ratio: f64, cap: u32, start: u32, refill_per_second: u32) -> BudgetPolicy {
    BudgetPolicy { ratio: Ratio(ratio), cap, start, refill_per_second }
}

fn tokens(ratio: f64, cap: u32, start: u32, refill_per_second: u32) -> Arc<Tokens> {
    Arc::new(Tokens::new(&policy(ratio, cap, start, refill_per_second), SECOND))
}

/// How many retries it pays for at this moment.
fn pays(tokens: &Tokens, now: u64) -> usize {
    std::iter::from_fn(|| tokens.withdraw(now)).count()
}

#[test]
fn one_token_pays_for_one_of_two_retries() {
    for (start, refill) in [(1, 0), (0, 1)] {
        explore(3, move || {
            let tokens = tokens(0.0, 10, start, refill);
            let withdraw = |tokens: &Arc<Tokens>| tokens.withdraw(2 * SECOND);
            let (one, other) = race(&tokens, withdraw, withdraw);
            assert_eq!([one, other].iter().flatten().count(), 1);
        });
    }
}

#[test]
fn a_token_of_time_and_an_earned_one_pay_for_two_retries() {
    explore(3, || {
        let tokens = tokens(0.0, 10, 1, 1);
        let withdraw = |tokens: &Arc<Tokens>| tokens.withdraw(2 * SECOND);
        let (one, other) = race(&tokens, withdraw, withdraw);
        let of_time = [one, other].map(|origin| origin.expect("paid")).map(|origin| origin != Origin::Earned);
        assert_eq!(of_time.iter().filter(|of_time| **of_time).count(), 1);
    });
}

#[test]
fn nothing_is_made_or_lost_while_tokens_are_paid_in_and_taken_back() {
    explore(3, || {
        let tokens = tokens(0.5, 10, 1, 0);
        race(
            &tokens,
            |tokens| {
                let origin = tokens.withdraw(SECOND).expect("there is one");
                tokens.deposit();
                tokens.refund(origin);
            },
            |tokens| tokens.deposit(),
        );
        assert!((tokens.balance(SECOND) - 2.0).abs() < 1e-9);
    });
}

#[test]
fn a_token_of_time_taken_back_is_paid_out_again_once() {
    explore(3, || {
        let tokens = tokens(0.0, 0, 0, 2);
        let now = 2 * SECOND;
        let (_, other) = race(
            &tokens,
            move |tokens| tokens.withdraw(now).map(|origin| tokens.refund(origin)),
            move |tokens| tokens.withdraw(now),
        );
        assert_eq!(other, Some(Origin::Trickle(SECOND / 2)));
        assert_eq!(pays(&tokens, now), 1, "of two");
    });
}

#[test]
fn neither_successes_nor_refunds_lift_it_above_its_cap() {
    explore(3, || {
        let tokens = tokens(0.7, 1, 1, 0);
        race(
            &tokens,
            |tokens| {
                let origin = tokens.withdraw(SECOND);
                tokens.deposit();
                if let Some(origin) = origin {
                    tokens.refund(origin);
                }
            },
            |tokens| tokens.deposit(),
        );
        assert_eq!(pays(&tokens, SECOND), 1);
    });
}

#[test]
fn a_cap_lowered_while_a_success_pays_in_holds() {
    explore(3, || {
        let tokens = tokens(1.0, 10, 1, 0);
        race(&tokens, |tokens| tokens.configure(&policy(1.0, 1, 0, 0)), |tokens| tokens.deposit());
        assert!(tokens.balance(SECOND) <= 1.0);
        assert_eq!(pays(&tokens, SECOND), 1);
    });
}
