//! How long a retry waits (R2): full jitter, after "Exponential Backoff And Jitter" of the AWS Architecture Blog. Among
//! contending clients it needs the fewest calls and ends the soonest.

use std::time::Duration;

/// Doublings beyond this one change nothing that a wait of seconds would notice; it keeps the shift in bounds.
const DOUBLINGS: u32 = 20;

/// Most that retry `k` waits, the first being 0: `min(most, base * 2^k)`, without overflow for any `k`.
pub(super) fn ceiling(base: Duration, most: Duration, k: u32) -> Duration {
    base.saturating_mul(1 << k.min(DOUBLINGS)).min(most)
}

/// What retry `k` waits: a share `u` (0 included, 1 excluded) of its [`ceiling`].
pub(super) fn full_jitter(base: Duration, most: Duration, k: u32, u: f64) -> Duration {
    ceiling(base, most, k).mul_f64(u)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_waits_double_up_to_the_most() {
        let (base, most) = (Duration::from_millis(25), Duration::from_millis(250));
        let ceilings: Vec<_> = (0..6).map(|k| ceiling(base, most, k).as_millis()).collect();
        assert_eq!(ceilings, [25, 50, 100, 200, 250, 250]);
    }

    #[test]
    fn no_retry_number_overflows_and_the_waits_fill_their_range_evenly() {
        let (base, most) = (Duration::from_millis(25), Duration::from_secs(3600));
        let mut random = fastrand::Rng::with_seed(7);
        for k in 0..=40 {
            let ceiling = ceiling(base, most, k);
            let obvious = 25u128.saturating_mul(1 << k.min(20)).min(3_600_000);
            assert_eq!(ceiling.as_millis(), obvious);
            let mut tenths = [0u32; 10];
            for _ in 0..10_000 {
                let wait = full_jitter(base, most, k, random.f64());
                assert!(wait <= ceiling);
                tenths[((wait.as_secs_f64() / ceiling.as_secs_f64() * 10.0) as usize).min(9)] += 1;
            }
            // 1 000 expected in each; five standard deviations are 150.
            assert!(tenths.iter().all(|count| (850..1150).contains(count)), "retry {k}: {tenths:?}");
        }
    }

    proptest! {
        /// Against doubling step by step, in whole nanoseconds.
        #[test]
        fn each_retry_s_ceiling_is_twice_the_one_before_up_to_the_most(
            base in 0..=10_000_000_000_u64, most in 0..=3_600_000_000_000_u64, k in 0..200_u32,
        ) {
            let mut obvious = u128::from(base);
            // A doubling more would go beyond 2^20 times the base, which no setting asks for.
            for _ in 0..k.min(DOUBLINGS) {
                obvious *= 2;
            }
            let obvious = obvious.min(u128::from(most));
            prop_assert_eq!(ceiling(Duration::from_nanos(base), Duration::from_nanos(most), k).as_nanos(), obvious);
        }

        #[test]
        fn never_above_the_most_nor_a_panic(
            base in any::<Duration>(), most in 0..=3600u64, k in any::<u32>(), u in 0.0..1.0,
        ) {
            let most = Duration::from_secs(most);
            prop_assert!(full_jitter(base, most, k, u) <= most);
        }
    }
}
