//! How many endpoints may be ejected, and for how long. No clock and no randomness here.

use std::time::Duration;

use super::OutlierPolicy;

/// E8: how many of `size` endpoints may be ejected at once: a share of them, rounded down, but one at least, and never
/// the last.
pub(super) fn most(policy: &OutlierPolicy, size: u32) -> u32 {
    let share = (policy.max_ejected.0 * f64::from(size)).floor() as u32;
    share.max(1).min(size.saturating_sub(1))
}

/// E7: which ejection in a row the next one is, after `before` of them and then `healthy` time without.
pub(super) fn in_a_row(policy: &OutlierPolicy, before: u32, healthy: Duration) -> u32 {
    let forgiven = healthy.as_nanos() / policy.healthy_interval.as_nanos().max(1);
    let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
    before.saturating_sub(forgiven).saturating_add(1).min(longest(policy))
}

/// E7: how long that one lasts. `random` in [0, 1) spreads it, so that a whole fleet does not return in one second.
pub(super) fn length(policy: &OutlierPolicy, in_a_row: u32, random: f64) -> Duration {
    let base = policy.base.saturating_mul(in_a_row).min(policy.max.max(policy.base));
    let factor = 1.0 + policy.jitter.0 * (2.0 * random - 1.0);
    Duration::try_from_secs_f64(base.as_secs_f64() * factor).unwrap_or(base)
}

/// From here on ejections grow no longer, and nothing further need be remembered, or be forgiven afterwards.
fn longest(policy: &OutlierPolicy) -> u32 {
    let steps = policy.max.as_nanos().div_ceil(policy.base.as_nanos().max(1));
    u32::try_from(steps).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::live::Ratio;

    fn seconds(policy: &OutlierPolicy, in_a_row: u32) -> u64 {
        length(policy, in_a_row, 0.5).as_secs()
    }

    #[test]
    fn ejections_grow_to_the_maximum_and_shrink_with_health() {
        let policy = OutlierPolicy::default();
        let mut row = 0;
        let mut lengths = Vec::new();
        for _ in 0..12 {
            row = in_a_row(&policy, row, Duration::ZERO);
            lengths.push(seconds(&policy, row));
        }
        assert_eq!(lengths, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);

        // 30, 60, 90, then two healthy intervals: 60.
        assert_eq!(seconds(&policy, in_a_row(&policy, 3, policy.healthy_interval * 2)), 60);
        assert_eq!(
            seconds(
                &policy,
                in_a_row(&policy, 3, (policy.healthy_interval * 2).saturating_sub(Duration::from_nanos(1)))
            ),
            90
        );
        assert_eq!(seconds(&policy, in_a_row(&policy, 3, Duration::from_secs(3600))), 30);
    }

    #[test]
    fn how_many_may_be_ejected() {
        let policy = OutlierPolicy::default();
        let table: Vec<u32> = [0, 1, 2, 3, 6, 7, 10, 20, 100].map(|size| most(&policy, size)).to_vec();
        assert_eq!(table, [0, 0, 1, 1, 1, 2, 3, 6, 33]);
        let all = OutlierPolicy { max_ejected: Ratio(1.0), ..policy };
        assert_eq!([1, 2, 5].map(|size| most(&all, size)), [0, 1, 4]);
    }

    proptest! {
        #[test]
        fn never_the_last_and_never_more_than_the_share(size in 0_u32..5_000, ratio in 0.0..=1.0_f64) {
            let policy = OutlierPolicy { max_ejected: Ratio(ratio), ..Default::default() };
            let most = most(&policy, size);
            prop_assert!(most < size.max(1));
            prop_assert!(f64::from(most) <= (ratio * f64::from(size)).max(1.0));
            // One more would be too many, or one is the least.
            prop_assert!(most + 1 >= size || most == 1 || f64::from(most + 1) > ratio * f64::from(size));
        }

        /// Against the sweep of A50: every interval looks at the endpoint, ejected or not.
        #[test]
        fn as_a_sweep_per_interval_would_have_it(script in prop::collection::vec(0_u32..6, 1..40)) {
            let policy = OutlierPolicy::default();
            let (mut row, mut swept) = (0, 0_u32);
            for healthy_intervals in script {
                for _ in 0..healthy_intervals {
                    swept = swept.saturating_sub(1);
                }
                swept = (swept + 1).min(10);
                row = in_a_row(&policy, row, policy.healthy_interval * healthy_intervals);
                prop_assert_eq!(row, swept);
                let sweep_length = (policy.base * swept).min(policy.max);
                prop_assert_eq!(length(&policy, row, 0.5), sweep_length);
            }
        }

        #[test]
        fn jitter_stays_within_its_share(row in 1_u32..20, random in 0.0..1.0_f64) {
            let policy = OutlierPolicy::default();
            let plain = length(&policy, row, 0.5);
            let spread = length(&policy, row, random);
            prop_assert!(spread >= plain.mul_f64(0.9 - 1e-9) && spread <= plain.mul_f64(1.1 + 1e-9));
        }
    }
}
