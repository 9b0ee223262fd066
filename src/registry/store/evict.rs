use std::{
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, Release},
    },
    time::Duration,
};

use super::{Moment, Store};
use crate::eureka::{Instance, Text};

impl Store {
    /// Lets time pass: counts the minutes of heartbeats, forgets old changes, and sets the expected number when it is due. Called each second or so.
    pub fn tick(&self, now: Moment) {
        let policy = self.policy.get();
        self.renewals.tick(now);
        if now.since(Moment(self.expected_set.load(Relaxed))) >= policy.threshold_update_interval {
            self.expected_set.store(now.0, Relaxed);
            let instances = self.read().instances.saturating_sub(self.unheard.load(Relaxed));
            self.renewals.expect(instances, &policy);
        }
        let is_old = |store: &Self| {
            let state = store.read();
            state.recent.all().next().is_some_and(|change| now.since(change.at) > policy.delta_retention)
        };
        if is_old(self) {
            self.write().recent.prune(now, policy.delta_retention);
            self.delta_version.fetch_add(1, Release);
        }
    }

    /// Takes out instances whose leases are over, and says which. Called each `eviction_interval`; a late call gives the leases as much longer.
    ///
    /// Nobody goes while self-preservation holds, and at most the share above `renewal_threshold` at once: `below(n)` draws who, a number below `n`. Peers are
    /// not told: they have their own leases.
    pub fn evict(&self, now: Moment, mut below: impl FnMut(usize) -> usize) -> Vec<Arc<Instance>> {
        let policy = self.policy.get();
        let gap = now.since(Moment(self.evicted.swap(now.0, Relaxed)));
        if !self.renewals.eviction_allowed(&policy) {
            return Vec::new();
        }
        let compensation = gap.saturating_sub(policy.eviction_interval);

        let (mut expired, instances) = self.expired(now, compensation, policy.exact_leases);
        let stay = (instances as f64 * policy.renewal_threshold.0) as usize;
        let most = expired.len().min(instances - stay);
        for place in 0..most {
            let drawn = place + below(expired.len() - place).min(expired.len() - place - 1);
            expired.swap(place, drawn);
        }
        expired.truncate(most);
        if expired.is_empty() {
            return Vec::new();
        }

        let mut state = self.write();
        // A heartbeat may have come meanwhile.
        expired.retain(|(app, id, _)| {
            let over = |slot: &super::Slot| slot.lease.is_expired(now, compensation, policy.exact_leases);
            state.slot(app, id).is_some_and(over) && self.remove(&mut state, app, id, now, &policy).is_some()
        });
        drop(state);
        self.counters.evictions.add_many(expired.len() as u64);
        self.tell_change();
        expired.into_iter().map(|(_, _, instance)| instance).collect()
    }

    #[allow(clippy::type_complexity, reason = "a list of keys, used once above")]
    fn expired(&self, now: Moment, compensation: Duration, exact: bool) -> (Vec<(Text, Text, Arc<Instance>)>, usize) {
        let state = self.read();
        let mut expired = Vec::new();
        for (app, instances) in &state.applications {
            for (id, slot) in instances {
                if slot.lease.is_expired(now, compensation, exact) {
                    expired.push((app.clone(), id.clone(), Arc::clone(&slot.instance)));
                }
            }
        }
        // In an order that only the draw shakes.
        expired.sort_unstable_by(|(app, id, _), (other, other_id, _)| (app, id).cmp(&(other, other_id)));
        (expired, state.instances)
    }

    /// Expects heartbeats of so many instances from now on: those copied from peers. At least one, as Spring does.
    pub fn expect(&self, instances: usize) {
        let policy = self.policy.get();
        self.renewals.expect(
            instances.max(1),
            &crate::registry::RegistryPolicy { self_preservation: false, ..(*policy).clone() },
        );
    }
}
