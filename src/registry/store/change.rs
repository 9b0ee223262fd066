use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{By, Change, Moment, Override, Refused, State, Store, mark};
use crate::{
    eureka::{Action, ActionType, Instance, InstanceStatus, Replication, Text},
    registry::RegistryPolicy,
};

impl Store {
    /// Takes an instance out, with its override. `false` if it is not there; peers are told all the same while a registry learns from them what there is.
    pub fn cancel(&self, app: &str, id: &str, by: By, now: Moment) -> bool {
        let policy = self.policy.get();
        let mut state = self.write();
        let is_news = state.departs(app, id, &policy.limits);
        let Some((id, left)) = self.remove(&mut state, app, id, now, &policy) else {
            if is_news {
                let (app_name, id) = (app.into(), id.into());
                self.forward(by, || Replication { app_name, id, last_dirty_timestamp: None, action: Action::Cancel });
            }
            return false;
        };
        self.forward(by, || Replication {
            app_name: left.app.clone(),
            id,
            last_dirty_timestamp: left.last_dirty_timestamp,
            action: Action::Cancel,
        });
        drop(state);
        self.counters.cancels.add();
        self.tell_change();
        true
    }

    /// Sets an operator's word over an instance's own, and renews its lease. `false` if it is not there.
    ///
    /// The status it has already is none to set.
    pub fn set_status(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        last_dirty_timestamp: Option<u64>,
        by: By,
        now: Moment,
    ) -> Result<bool, Refused> {
        let policy = self.policy.get();
        let mut state = self.write();
        let Some(slot) = self.live(&state, app, id, now, &policy) else {
            return Ok(false);
        };
        slot.lease.renew(now);
        if slot.status != status {
            let adds = slot.overridden.is_none();
            if adds && state.overrides >= policy.limits.overrides {
                drop(state);
                let refused = Refused::Overrides(policy.limits.overrides);
                self.counters.refused(refused);
                return Err(refused);
            }
            let slot = state.replace(app, id, |instance| {
                mark(instance, ActionType::Modified, now);
                instance.status = status;
                instance.overridden_status = status;
                instance.last_dirty_timestamp = instance.last_dirty_timestamp.max(last_dirty_timestamp);
            });
            if let Some(slot) = slot {
                slot.lease.has_status(status, now);
                slot.overridden = Some(Override::new(status, now));
            }
            state.overrides += usize::from(adds);
            state.remember(app, id, now, policy.limits.changes);
            self.changed();
        }
        self.forward_status(&state, app, id, last_dirty_timestamp, by, Action::StatusUpdate(status));
        drop(state);
        self.tell_change();
        Ok(true)
    }

    /// Takes an operator's word back, and renews the lease; `status` is what the instance has until it says. `false` if it is not there.
    pub fn clear_status(
        &self,
        app: &str,
        id: &str,
        status: InstanceStatus,
        last_dirty_timestamp: Option<u64>,
        by: By,
        now: Moment,
    ) -> bool {
        let policy = self.policy.get();
        let mut state = self.write();
        let Some(slot) = self.live(&state, app, id, now, &policy) else {
            return false;
        };
        slot.lease.renew(now);
        if slot.overridden.is_some() {
            let over = slot.overridden(now, &policy).is_none();
            let slot = state.replace(app, id, |instance| {
                instance.overridden_status = InstanceStatus::Unknown;
                if !over {
                    mark(instance, ActionType::Modified, now);
                    instance.status = status;
                    instance.last_dirty_timestamp = instance.last_dirty_timestamp.max(last_dirty_timestamp);
                }
            });
            if let Some(slot) = slot {
                slot.overridden = None;
            }
            state.overrides -= 1;
            state.remember(app, id, now, policy.limits.changes);
            self.changed();
        }
        self.forward_status(&state, app, id, last_dirty_timestamp, by, Action::DeleteStatusOverride(status));
        drop(state);
        self.tell_change();
        true
    }

    fn forward_status(&self, state: &State, app: &str, id: &str, told: Option<u64>, by: By, action: Action) {
        let Some(slot) = state.slot(app, id) else { return };
        self.forward(by, || Replication {
            app_name: slot.instance.app.clone(),
            id: id.into(),
            last_dirty_timestamp: told.or(slot.instance.last_dirty_timestamp),
            action,
        });
    }

    /// Takes an instance out and keeps for deltas that it left. Says how it was, and its id.
    pub(super) fn remove(
        &self,
        state: &mut State,
        app: &str,
        id: &str,
        now: Moment,
        policy: &RegistryPolicy,
    ) -> Option<(Text, Arc<Instance>)> {
        let instances = state.applications.get_mut(app)?;
        let (id, mut slot) = instances.remove_entry(id)?;
        if instances.is_empty() {
            state.applications.remove(app);
        }
        state.instances -= 1;
        state.counts.remove(slot.status);
        state.overrides -= usize::from(slot.overridden.is_some());
        if slot.lease.is_unheard() {
            self.unheard.fetch_sub(1, Relaxed);
        } else {
            self.renewals.left();
        }

        let mut instance = (*slot.instance).clone();
        mark(&mut instance, ActionType::Deleted, now);
        let left = Arc::new(instance);
        let change = Change { at: now, instance: Arc::clone(&left), lease: slot.lease, left: Some(now) };
        state.recent.add(change, &mut slot.change, policy.limits.changes);
        self.changed();
        Some((id, left))
    }
}
