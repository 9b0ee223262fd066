use std::{cmp::Ordering, sync::Arc};

use super::{By, Moment, Override, Slot, State, Store, mark};
use crate::{
    eureka::{Action, ActionType, Instance, InstanceStatus, Replication, StatusRules},
    registry::RegistryPolicy,
};

/// What a heartbeat says beside "I am here".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// When the instance changed itself last, as the sender knows it.
    pub last_dirty_timestamp: Option<u64>,
    /// The override at a peer.
    pub overridden_status: Option<InstanceStatus>,
}

/// What became of a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewed {
    /// The lease is renewed.
    Yes,
    /// There is no such instance, or nobody knows its status: it should register.
    Unknown,
    /// The lease is renewed, but the sender knows something newer: it should register.
    Newer,
    /// The lease is renewed, but a peer knows something older than this.
    Older(Arc<Instance>),
}

impl Store {
    /// Renews a lease.
    pub fn renew(&self, app: &str, id: &str, heartbeat: Heartbeat, by: By, now: Moment) -> Renewed {
        // The policy is only read where there is an override.
        let state = self.read();
        let Some((id, slot)) = state.applications.get(app).and_then(|instances| instances.get_key_value(id)) else {
            return Renewed::Unknown;
        };
        let overridden = match slot.overridden {
            Some(_) => slot.overridden(now, &self.policy.get()),
            None => None,
        };
        let kept = slot.status;
        let rules = StatusRules { said: kept, overridden, kept: Some(kept), by_peer: by == By::Peer };
        let status = rules.status();
        if status == InstanceStatus::Unknown {
            return Renewed::Unknown;
        }
        slot.lease.renew(now);
        self.heard(&slot.lease);
        self.renewals.count();
        self.forward(by, || Replication {
            app_name: slot.instance.app.clone(),
            id: id.clone(),
            last_dirty_timestamp: slot.instance.last_dirty_timestamp,
            action: Action::Heartbeat {
                status: Some(status),
                overridden_status: overridden.filter(|overridden| *overridden != InstanceStatus::Unknown),
            },
        });

        let renewed = self.compare(slot, heartbeat, by);
        let told = heartbeat.overridden_status.filter(|told| *told != InstanceStatus::Unknown);
        let told = told.filter(|told| renewed == Renewed::Newer && by == By::Peer && overridden != Some(*told));
        if status == kept && told.is_none() {
            return renewed;
        }
        let id = id.clone();
        drop(state);
        self.take_status(app, &id, status, told, now);
        renewed
    }

    fn compare(&self, slot: &Slot, heartbeat: Heartbeat, by: By) -> Renewed {
        let Some(told) = heartbeat.last_dirty_timestamp else { return Renewed::Yes };
        match told.cmp(&slot.last_dirty_timestamp) {
            Ordering::Equal => Renewed::Yes,
            Ordering::Greater => Renewed::Newer,
            Ordering::Less if by == By::Client => Renewed::Yes,
            Ordering::Less => Renewed::Older(self.as_told(slot, &self.policy.get())),
        }
    }

    /// A heartbeat that changes something after all: the status follows the override, or a peer tells of an override.
    fn take_status(&self, app: &str, id: &str, status: InstanceStatus, told: Option<InstanceStatus>, now: Moment) {
        let policy = self.policy.get();
        let mut state = self.write();
        let adds = told.is_some() && state.slot(app, id).is_some_and(|slot| slot.overridden.is_none());
        let told = told.filter(|_| !adds || state.overrides < policy.limits.overrides);
        let Some(slot) = state.replace(app, id, |instance| {
            mark(instance, ActionType::Modified, now);
            instance.status = status;
            if let Some(told) = told {
                instance.overridden_status = told;
            }
        }) else {
            return;
        };
        slot.lease.has_status(status, now);
        if let Some(told) = told {
            slot.overridden = Some(Override::new(told, now));
            state.overrides += usize::from(adds);
        }
        state.remember(app, id, now, policy.limits.changes);
        self.changed();
        drop(state);
        self.tell_change();
    }

    /// An instance, unless [it reads as gone](Self::reads_as_gone).
    pub(super) fn live<'s>(
        &self,
        state: &'s State,
        app: &str,
        id: &str,
        now: Moment,
        policy: &RegistryPolicy,
    ) -> Option<&'s Slot> {
        state.slot(app, id).filter(|slot| !self.reads_as_gone(slot, now, policy))
    }

    /// Whether single reads take it for gone already: its lease is over, and only the eviction is not yet here.
    pub(super) fn reads_as_gone(&self, slot: &Slot, now: Moment, policy: &RegistryPolicy) -> bool {
        slot.lease.is_expired(now, std::time::Duration::ZERO, policy.exact_leases)
            && self.renewals.eviction_allowed(policy)
    }
}
