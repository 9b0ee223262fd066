use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::Moment;
use crate::registry::RegistryPolicy;

/// One bucket of heartbeats, in milliseconds.
const MINUTE: u64 = 60_000;

/// How many heartbeats come, and how many should: what self-preservation goes by. The rules are those of a Spring Cloud server.
#[derive(Debug)]
pub(super) struct Renewals {
    /// Heartbeats since the running minute began.
    running: AtomicU64,
    /// Heartbeats of the last whole minute; none during the first.
    last: AtomicU64,
    /// When the running minute began.
    began: AtomicU64,
    /// How many instances should send heartbeats. Spring begins with one, so that it counts at all.
    expected: AtomicU64,
}

impl Renewals {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            running: AtomicU64::new(0),
            last: AtomicU64::new(0),
            began: AtomicU64::new(now.0),
            expected: AtomicU64::new(1),
        }
    }

    pub(super) fn count(&self) {
        self.running.fetch_add(1, Relaxed);
    }

    /// Closes minutes that are over. Called by one caller at a time.
    pub(super) fn tick(&self, now: Moment) {
        let minutes = now.0.saturating_sub(self.began.load(Relaxed)) / MINUTE;
        if minutes > 0 {
            self.began.fetch_add(minutes * MINUTE, Relaxed);
            let counted = self.running.swap(0, Relaxed);
            // Of several at once, nobody knows which of them the heartbeats were in: too few is the safe side.
            self.last.store(if minutes == 1 { counted } else { 0 }, Relaxed);
        }
    }

    pub(super) fn joined(&self) {
        let _ = self.expected.fetch_update(Relaxed, Relaxed, |expected| (expected > 0).then_some(expected + 1));
    }

    pub(super) fn left(&self) {
        let _ = self.expected.fetch_update(Relaxed, Relaxed, |expected| expected.checked_sub(1));
    }

    /// Expects as many as there are, unless that is so few that they may only be out of sight.
    pub(super) fn expect(&self, instances: usize, policy: &RegistryPolicy) {
        let floor = self.expected.load(Relaxed) as f64 * policy.renewal_threshold.0;
        if instances as f64 > floor || !policy.self_preservation {
            self.expected.store(instances as u64, Relaxed);
        }
    }

    pub(super) fn expected(&self) -> u64 {
        self.expected.load(Relaxed)
    }

    pub(super) fn last_minute(&self) -> u64 {
        self.last.load(Relaxed)
    }

    pub(super) fn threshold(&self, policy: &RegistryPolicy) -> u64 {
        let each = Duration::from_secs(60).as_secs_f64() / policy.expected_renewal_interval.as_secs_f64();
        (self.expected.load(Relaxed) as f64 * each * policy.renewal_threshold.0) as u64
    }

    /// Whether leases may end.
    pub(super) fn eviction_allowed(&self, policy: &RegistryPolicy) -> bool {
        let threshold = self.threshold(policy);
        !policy.self_preservation || (threshold > 0 && self.last_minute() > threshold)
    }
}
