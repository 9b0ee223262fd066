use std::{fmt, time::Duration};

use crate::{monitor::RegistryView, registry::RegistryPolicy};

/// How self-preservation stands, in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Protection {
    /// A word for the look of it: `off`, `watching` or `protecting`.
    pub(super) state: &'static str,
    pub(super) heading: &'static str,
    pub(super) sentences: Vec<String>,
}

impl Protection {
    pub(super) fn new(view: &RegistryView, policy: &RegistryPolicy, uptime: Duration) -> Self {
        let each = Duration::from_secs(60).as_secs_f64() / policy.expected_renewal_interval.as_secs_f64();
        let (seen, threshold) = (view.renewals_last_minute, view.renewals_threshold);
        let should_come = (view.expected_instances as f64 * each).round();
        let share = policy.renewal_threshold.0;
        let looks = format!(
            "Leases that are over are looked for each {}; at most {} % of all instances go at once.",
            Span(policy.eviction_interval),
            ((1.0 - share) * 100.0).round()
        );
        let heartbeats = if uptime < Duration::from_secs(60) {
            "No whole minute has been counted yet.".to_owned()
        } else {
            format!("{seen} heartbeats came in the last whole minute; {should_come} should have come.")
        };
        if !policy.self_preservation {
            let heading = "Self-preservation is off: an instance whose lease is over is taken out.";
            return Self { state: "off", heading, sentences: vec![looks, heartbeats] };
        }
        let enough = format!(
            "More than {threshold} are enough: {} % of those of the {} instances that are expected to send one each {}.",
            (share * 100.0).round(),
            view.expected_instances,
            Span(policy.expected_renewal_interval)
        );
        let small = small(view.instances, threshold, each);
        if view.eviction_allowed {
            let heading = "Self-preservation is on, and protects nobody now: enough heartbeats come.";
            return Self { state: "watching", heading, sentences: vec![heartbeats, enough, looks, small] };
        }
        let heading =
            "Self-preservation is on, and protects all instances now: nobody is taken out, not even who is gone.";
        Self { state: "protecting", heading, sentences: vec![heartbeats, enough, small] }
    }
}

/// What the rule means for a single instance that is killed.
fn small(instances: usize, threshold: u64, each: f64) -> String {
    let rule = "By Java's rule, and with its usual settings, the heartbeats of all but one are never enough under about 13 instances: one that is killed stays \
                listed for ever. ";
    let of_others = instances.saturating_sub(1) as f64 * each;
    let here = match instances {
        0 => String::new(),
        _ if of_others > threshold as f64 => format!(
            "Of the {instances} here, the others would send {}: one that is killed goes when its lease is over.",
            of_others.round()
        ),
        _ => format!(
            "So it is here: of {instances}, the others would send {}. Small systems switch self-preservation off, or let instances hold watches.",
            of_others.round()
        ),
    };
    format!("{rule}{here}").trim_end().to_owned()
}

/// A time in its two largest units.
pub(super) struct Span(pub(super) Duration);

impl Span {
    /// Without the milliseconds.
    pub(super) fn seconds(of: Duration) -> Self {
        Self(Duration::from_secs(of.as_secs()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let two = |f: &mut fmt::Formatter<'_>, large: u64, its: &str, small: u64, name: &str| match small {
            0 => write!(f, "{large} {its}"),
            _ => write!(f, "{large} {its} {small} {name}"),
        };
        match seconds {
            0 if !self.0.is_zero() => write!(f, "{} ms", self.0.as_millis()),
            0..60 => write!(f, "{seconds} s"),
            60..3600 => two(f, seconds / 60, "min", seconds % 60, "s"),
            3600..86_400 => two(f, seconds / 3600, "h", seconds / 60 % 60, "min"),
            _ => two(f, seconds / 86_400, "d", seconds / 3600 % 24, "h"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protection(
        instances: usize,
        expected: u64,
        seen: u64,
        eviction_allowed: bool,
        policy: &RegistryPolicy,
    ) -> String {
        let view = RegistryView {
            instances,
            expected_instances: expected,
            renewals_last_minute: seen,
            renewals_threshold: (expected as f64 * 2.0 * 0.85) as u64,
            eviction_allowed,
            ..RegistryView::default()
        };
        let Protection { state, heading, sentences } = Protection::new(&view, policy, Duration::from_secs(600));
        format!("{state}: {heading} {}", sentences.join(" "))
    }

    #[test]
    fn an_operator_reads_whether_instances_are_protected_and_why() {
        let policy = RegistryPolicy::default();
        let text = protection(20, 21, 12, false, &policy);
        assert!(
            text.starts_with("protecting: ")
                && text.contains("12 heartbeats came")
                && text.contains("42 should have come"),
            "{text}"
        );
        assert!(text.contains("More than 35 are enough: 85 % of those of the 21 instances"), "{text}");
        let text = protection(20, 21, 40, true, &policy);
        assert!(text.starts_with("watching: ") && text.contains("at most 15 % of all instances go at once"), "{text}");
        let text = protection(20, 21, 12, true, &RegistryPolicy { self_preservation: false, ..policy });
        assert!(text.starts_with("off: ") && !text.contains("13 instances"), "{text}");
    }

    #[test]
    fn an_operator_of_a_small_system_reads_that_a_killed_instance_stays() {
        let policy = RegistryPolicy::default();
        let stays = |instances| {
            let text = protection(instances, instances as u64 + 1, 0, false, &policy);
            assert!(text.contains("under about 13 instances"), "{text}");
            text.contains("So it is here")
        };
        assert!((1..=12).all(stays));
        assert!(!(13..=100).any(stays));
    }

    #[test]
    fn times_are_told_in_two_units() {
        for (seconds, told) in [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3_725, "1 h 2 min"), (180_000, "2 d 2 h")] {
            assert_eq!(Span(Duration::from_secs(seconds)).to_string(), told);
        }
        assert_eq!(Span(Duration::from_millis(500)).to_string(), "500 ms");
    }
}
