use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::eureka::{InstanceStatus, LeaseInfo};

use super::Moment;

/// How long an instance is believed to be there. Heartbeats renew it without a lock.
#[derive(Debug)]
pub(super) struct Lease {
    registered: Moment,
    /// The last heartbeat; 0 before the first.
    renewed: AtomicU64,
    /// When it was up first; 0 before that.
    service_up: AtomicU64,
    /// Whether the instance is only known from before a restart.
    unheard: AtomicBool,
    duration: u64,
}

impl Lease {
    pub(super) fn new(now: Moment, duration: Duration) -> Self {
        let duration = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (renewed, service_up) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { registered: now, renewed, service_up, unheard: AtomicBool::new(false), duration }
    }

    /// One of an instance that nobody has heard of since the restart.
    pub(super) fn restored(self) -> Self {
        Self { unheard: AtomicBool::new(true), ..self }
    }

    pub(super) fn is_unheard(&self) -> bool {
        self.unheard.load(Relaxed)
    }

    /// The instance was heard of. Says whether that is the first time since the restart.
    pub(super) fn is_heard_now(&self) -> bool {
        self.is_unheard() && self.unheard.swap(false, Relaxed)
    }

    /// A new lease of the same instance: it was up first when it was up first.
    pub(super) fn follows(&self, former: &Self) {
        self.service_up.store(former.service_up.load(Relaxed), Relaxed);
    }

    pub(super) fn renew(&self, now: Moment) {
        self.renewed.store(now.0, Relaxed);
    }

    pub(super) fn has_status(&self, status: InstanceStatus, now: Moment) {
        if status == InstanceStatus::Up && self.service_up.load(Relaxed) == 0 {
            self.service_up.store(now.0, Relaxed);
        }
    }

    /// What Java calls its last renewal. A heartbeat counts one duration ahead there, so that a lease lasts two from then on; not if leases are exact.
    fn stamp(&self, exact: bool) -> u64 {
        match self.renewed.load(Relaxed) {
            0 => self.registered.0,
            renewed if exact => renewed,
            renewed => renewed.saturating_add(self.duration),
        }
    }

    pub(super) fn registered(&self) -> Moment {
        self.registered
    }

    /// The last heartbeat.
    pub(super) fn renewed(&self) -> Option<Moment> {
        Some(self.renewed.load(Relaxed)).filter(|renewed| *renewed > 0).map(Moment)
    }

    pub(super) fn duration(&self) -> Duration {
        Duration::from_millis(self.duration)
    }

    /// When it is over.
    pub(super) fn due(&self, exact: bool) -> Moment {
        Moment(self.stamp(exact).saturating_add(self.duration))
    }

    pub(super) fn is_expired(&self, now: Moment, compensation: Duration, exact: bool) -> bool {
        now > self.due(exact).after(compensation)
    }

    /// What documents say of it, beside what the instance said itself.
    pub(super) fn info(&self, said: Option<LeaseInfo>, evicted: Option<Moment>, exact: bool) -> LeaseInfo {
        LeaseInfo {
            registration_timestamp: self.registered.0,
            last_renewal_timestamp: self.stamp(exact),
            eviction_timestamp: evicted.map_or(0, |evicted| evicted.0),
            service_up_timestamp: self.service_up.load(Relaxed),
            ..said.unwrap_or_else(|| self.terms())
        }
    }

    /// What documents say for an instance that said nothing. What is registered from one, after a restart or at a peer, gets the same lease.
    fn terms(&self) -> LeaseInfo {
        let duration_in_secs = u32::try_from(self.duration.div_ceil(1000)).unwrap_or(u32::MAX);
        LeaseInfo { duration_in_secs, ..LeaseInfo::default() }
    }
}
