use std::{
    mem,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{By, Change, Lease, Moment, Override, Refused, Slot, State, Store, mark};
use crate::{
    eureka::{
        Action, ActionType, DataCenterInfo, Instance, InstanceStatus, LeaseInfo, Metadata, Replication, StatusRules,
    },
    registry::RegistryPolicy,
};

impl Store {
    /// Takes an instance, or takes it again with a new lease. It must be [valid](Instance::validate).
    ///
    /// What is kept stays if it changed itself later than what comes; the lease is a new one all the same.
    pub fn register(&self, instance: Instance, by: By, now: Moment) -> Result<(), Refused> {
        self.register_if(instance, by, now, |_, _| true).map(drop)
    }

    /// Takes an instance that a peer knows better, if it is newer than what is here by now; one that is not here, only if `absent`. Says whether it was taken.
    pub(in crate::registry) fn take_newer(
        &self,
        instance: Instance,
        absent: bool,
        now: Moment,
    ) -> Result<bool, Refused> {
        let policy = self.policy.get();
        self.register_if(instance, By::Peer, now, |state, instance| {
            let slot = self.live(state, &instance.app, instance.id(), now, &policy);
            slot.map_or(absent, |slot| slot.instance.last_dirty_timestamp < instance.last_dirty_timestamp)
        })
    }

    /// Registers an instance, if it may be as things stand. Says whether it might.
    pub(super) fn register_if(
        &self,
        instance: Instance,
        by: By,
        now: Moment,
        may: impl FnOnce(&State, &Instance) -> bool,
    ) -> Result<bool, Refused> {
        let policy = self.policy.get();
        let lease = Lease::new(now, lease_duration(&instance, &policy));
        let mut state = self.write();
        if !may(&state, &instance) {
            return Ok(false);
        }
        let registered = self.register_locked(&mut state, instance, lease, by, now, &policy);
        drop(state);
        match &registered {
            Ok(_) => {
                self.counters.registrations.add();
                self.tell_change();
            }
            Err(refused) => self.counters.refused(*refused),
        }
        registered.map(|_| true)
    }

    /// Takes an instance that was here before a restart, with a whole new lease; one that has registered again already stays, and one that has left again is not taken.
    /// Peers are not told.
    ///
    /// Until it is heard of, no heartbeats are expected of it: if those who live send theirs, self-preservation does not keep those who died meanwhile.
    pub fn restore(&self, instance: Instance, now: Moment) -> Result<(), Refused> {
        let policy = self.policy.get();
        let mut state = self.write();
        if state.slot(&instance.app, instance.id()).is_some() || state.has_departed(&instance) {
            return Ok(());
        }
        let lease = Lease::new(now, lease_duration(&instance, &policy)).restored();
        let restored = self.register_locked(&mut state, instance, lease, By::Peer, now, &policy);
        drop(state);
        match &restored {
            Ok(_) => self.tell_change(),
            Err(refused) => self.counters.refused(*refused),
        }
        restored.map(drop)
    }

    /// Sets texts of an instance's metadata. It is a registration of what is kept, and told to peers as one. `false` if there is no such instance.
    pub fn add_metadata(
        &self,
        app: &str,
        id: &str,
        entries: Vec<(String, String)>,
        by: By,
        now: Moment,
    ) -> Result<bool, Refused> {
        let policy = self.policy.get();
        let mut state = self.write();
        let Some(slot) = self.live(&state, app, id, now, &policy) else {
            return Ok(false);
        };
        let (mut instance, duration) = ((*slot.instance).clone(), slot.lease.duration());
        let done = bounded(&entries, &policy).and_then(|()| {
            instance.metadata = instance.metadata.with(entries);
            within(&instance.metadata, &policy)?;
            self.register_locked(&mut state, instance, Lease::new(now, duration), by, now, &policy)
        });
        drop(state);
        match &done {
            Ok(_) => self.tell_change(),
            Err(refused) => self.counters.refused(*refused),
        }
        done.map(|_| true)
    }

    /// Gives back what it replaced: to drop it may wait until the lock is released.
    fn register_locked(
        &self,
        state: &mut State,
        instance: Instance,
        lease: Lease,
        by: By,
        now: Moment,
        policy: &RegistryPolicy,
    ) -> Result<(Option<Slot>, Option<Change>), Refused> {
        let limits = &policy.limits;
        let State { applications, instances, overrides, counts, recent, .. } = &mut *state;
        let all = applications.get_mut(&*instance.app);
        let siblings = all.as_ref().map_or(0, |all| all.len());
        let kept = all.and_then(|all| all.get_mut(instance.id()));
        if kept.is_none() && *instances >= limits.instances {
            return Err(Refused::Instances(limits.instances));
        }
        if kept.is_none() && siblings >= limits.instances_per_application {
            return Err(Refused::InstancesPerApplication(limits.instances_per_application));
        }
        let mut slot = Slot::registering(instance, lease, kept.as_deref(), by, now, policy);
        let adds_override = slot.overridden.is_some() && kept.as_ref().is_none_or(|kept| kept.overridden.is_none());
        if adds_override && *overrides >= limits.overrides {
            return Err(Refused::Overrides(limits.overrides));
        }

        let former_change = recent.add(slot.changed(now), &mut slot.change, limits.changes);
        let instance = Arc::clone(&slot.instance);
        counts.add(slot.status);
        *overrides += usize::from(slot.overridden.is_some());
        let former = if let Some(kept) = kept {
            let former = mem::replace(kept, slot);
            counts.remove(former.status);
            *overrides -= usize::from(former.overridden.is_some());
            self.heard(&former.lease);
            Some(former)
        } else {
            *instances += 1;
            if slot.lease.is_unheard() {
                self.unheard.fetch_add(1, Relaxed);
            } else {
                self.renewals.joined();
            }
            // Texts of their own: they stay longer than this document.
            let (app, id) = (instance.app.as_str().into(), instance.id().into());
            applications.entry(app).or_default().insert(id, slot);
            None
        };
        state.returns(&instance);
        self.changed();
        self.forward(by, || Replication {
            app_name: instance.app.clone(),
            id: instance.id().into(),
            last_dirty_timestamp: instance.last_dirty_timestamp,
            action: Action::Register(instance),
        });
        Ok((former, former_change))
    }
}

impl Slot {
    /// That of an instance that registers, after the one that is kept of it.
    fn registering(
        mut instance: Instance,
        lease: Lease,
        kept: Option<&Self>,
        by: By,
        now: Moment,
        policy: &RegistryPolicy,
    ) -> Self {
        instance.last_dirty_timestamp.get_or_insert(now.0);
        name_amazon_instance(&mut instance, policy);
        let mut overridden = kept.and_then(|kept| kept.overridden(now, policy));
        if let Some(kept) = kept {
            lease.follows(&kept.lease);
            if Some(kept.last_dirty_timestamp) > instance.last_dirty_timestamp {
                instance = (*kept.instance).clone();
            }
        }
        if overridden.is_none() && instance.overridden_status != InstanceStatus::Unknown {
            overridden = Some(instance.overridden_status);
        }
        let kept_status = kept.map(|kept| kept.status);
        let rules = StatusRules { said: instance.status, overridden, kept: kept_status, by_peer: by == By::Peer };
        instance.status = rules.status();
        if let Some(overridden) = overridden {
            instance.overridden_status = overridden;
        }
        instance.is_coordinating_discovery_server = false;
        mark(&mut instance, ActionType::Added, now);
        lease.has_status(instance.status, now);
        instance.lease_info = Some(lease.info(instance.lease_info, None, policy.exact_leases));
        let overridden = overridden.map(|status| Override::new(status, now));
        Self { change: kept.map_or(0, |kept| kept.change), ..Self::new(Arc::new(instance), lease, overridden) }
    }
}

/// How long the instance may be silent, by its own word if it gives one.
fn lease_duration(instance: &Instance, policy: &RegistryPolicy) -> Duration {
    let said = instance.lease_info.as_ref().map(|lease: &LeaseInfo| lease.duration_in_secs);
    said.filter(|seconds| *seconds > 0).map_or(policy.default_lease, |seconds| Duration::from_secs(seconds.into()))
}

/// An instance on Amazon has a name there; its own stands for it, unless what it says of Amazon is as much as may be: it would be more than anybody reads.
fn name_amazon_instance(instance: &mut Instance, policy: &RegistryPolicy) {
    if instance.amazon("instance-id").is_none()
        && let Some(DataCenterInfo::Amazon(metadata)) = &instance.data_center_info
    {
        let named = metadata.with([("instance-id", instance.id())]);
        if within(&named, policy).is_ok() {
            instance.data_center_info = Some(DataCenterInfo::Amazon(named));
        }
    }
}

fn bounded(entries: &[(String, String)], policy: &RegistryPolicy) -> Result<(), Refused> {
    let most = policy.limits.document.text_bytes;
    let is_long = |(name, text): &(String, String)| name.len() > most || text.len() > most;
    if entries.iter().any(is_long) { Err(Refused::TextBytes(most)) } else { Ok(()) }
}

fn within(metadata: &Metadata, policy: &RegistryPolicy) -> Result<(), Refused> {
    let limits = &policy.limits.document;
    if metadata.bytes() > limits.metadata_bytes {
        return Err(Refused::MetadataBytes(limits.metadata_bytes));
    }
    if metadata.len() > limits.metadata_entries {
        return Err(Refused::MetadataEntries(limits.metadata_entries));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_meanwhile_is_not_brought_back_by_a_peer_that_knew_better() {
        let store = Store::new(RegistryPolicy::default(), Moment(0)).unwrap();
        let instance = |dirty| Instance {
            instance_id: Some("i1".into()),
            app: "A".into(),
            last_dirty_timestamp: Some(dirty),
            ..Instance::default()
        };
        assert_eq!(store.take_newer(instance(2), false, Moment(1)), Ok(false));
        assert!(!store.has("A", "i1"));
        assert_eq!(store.take_newer(instance(2), true, Moment(1)), Ok(true));
        for (dirty, is_taken) in [(1, false), (2, false), (3, true)] {
            assert_eq!(store.take_newer(instance(dirty), true, Moment(2)), Ok(is_taken), "{dirty}");
        }
    }
}
