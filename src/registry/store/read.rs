use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use serde::Serialize;

use super::{Lease, Moment, Slot, Store, recent::Change};
use crate::{
    eureka::{Application, Applications, Instance, Text},
    registry::RegistryPolicy,
};

/// How many instances there are, and how self-preservation stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Applications.
    pub applications: usize,
    /// Instances.
    pub instances: usize,
    /// Overrides.
    pub overrides: usize,
    /// Changes kept for deltas.
    pub changes: usize,
    /// The hash of all.
    pub hash: String,
    /// Instances that should send heartbeats.
    pub expected: u64,
    /// Heartbeats of the last whole minute.
    pub renewals_last_minute: u64,
    /// Heartbeats a minute above which leases may end.
    pub renewals_threshold: u64,
    /// Whether leases may end now.
    pub eviction_allowed: bool,
}

/// What changed after some change.
#[derive(Clone, Debug)]
pub(in crate::registry) struct Changes {
    /// The number of the last change.
    pub(in crate::registry) last: u64,
    /// What changed, with the hash of all.
    pub(in crate::registry) applications: Applications,
}

impl Store {
    /// One instance, with its lease as of now.
    pub fn instance(&self, app: &str, id: &str, now: Moment) -> Option<Arc<Instance>> {
        let policy = self.policy.get();
        let state = self.read();
        let slot = self.live(&state, app, id, now, &policy)?;
        Some(self.as_told(slot, &policy))
    }

    /// Calls this with one instance, as [`instance`](Self::instance) gives it, before anything else can happen to it: what it tells a sink is told in its place.
    pub(in crate::registry) fn with_instance(
        &self,
        app: &str,
        id: &str,
        now: Moment,
        call: impl FnOnce(Option<Arc<Instance>>),
    ) {
        let policy = self.policy.get();
        let state = self.read();
        let slot = self.live(&state, app, id, now, &policy);
        call(slot.map(|slot| self.as_told(slot, &policy)));
    }

    /// The instance of this id, in whatever application: the first by name.
    pub fn instance_of_any(&self, id: &str, now: Moment) -> Option<Arc<Instance>> {
        let policy = self.policy.get();
        let state = self.read();
        let all = state.applications.iter().filter_map(|(app, instances)| Some((app, instances.get(id)?)));
        let (_, slot) = all.filter(|(_, slot)| !self.reads_as_gone(slot, now, &policy)).min_by_key(|(app, _)| *app)?;
        Some(self.as_told(slot, &policy))
    }

    /// One application, its instances in the order of their ids. Those whose lease is over stay until they are evicted.
    pub fn application(&self, name: &str) -> Option<Application> {
        let exact = self.policy.get().exact_leases;
        let (name, mut slots) = {
            let state = self.read();
            let (name, instances) = state.applications.get_key_value(name)?;
            (name.clone(), copies(instances))
        };
        sort(&mut slots);
        Some(Application { name, instances: slots.into_iter().map(|slot| slot.as_told(exact)).collect() })
    }

    /// Whether there is such an instance.
    pub(in crate::registry) fn has(&self, app: &str, id: &str) -> bool {
        self.read().slot(app, id).is_some()
    }

    /// How many instances an application has.
    pub fn instances_of(&self, name: &str) -> usize {
        self.read().applications.get(name).map_or(0, HashMap::len)
    }

    /// Everything, in the order of names.
    pub fn all(&self) -> Applications {
        self.those(|_| true)
    }

    /// Those that somebody has heard of since the restart. The hash is that of all.
    pub(in crate::registry) fn all_heard(&self) -> Applications {
        self.those(|lease| !lease.is_unheard())
    }

    /// How many nobody has heard of since the restart.
    pub(in crate::registry) fn unheard(&self) -> usize {
        self.unheard.load(Relaxed)
    }

    fn those(&self, which: impl Fn(&Lease) -> bool) -> Applications {
        let exact = self.policy.get().exact_leases;
        let (mut applications, hash) = {
            let state = self.read();
            let copies = |(name, instances): (&Text, _)| {
                let mut copies = copies(instances);
                copies.retain(|copy| which(&copy.lease));
                (name.clone(), copies)
            };
            let all = state.applications.iter().map(copies).filter(|(_, copies)| !copies.is_empty());
            (all.collect::<Vec<_>>(), state.counts.to_string())
        };
        applications.sort_unstable_by(|(name, _), (other, _)| name.cmp(other));
        let applications = applications.into_iter().map(|(name, mut slots)| {
            sort(&mut slots);
            Application { name, instances: slots.into_iter().map(|slot| slot.as_told(exact)).collect() }
        });
        Applications { version: 1, hash: hash.into(), applications: applications.collect() }
    }

    /// What changed lately, in the order of the changes.
    pub fn delta(&self) -> Applications {
        let exact = self.policy.get().exact_leases;
        let (changes, hash) = {
            let state = self.read();
            (state.recent.all().cloned().collect::<Vec<_>>(), state.counts.to_string())
        };
        Applications { version: 1, hash: hash.into(), applications: grouped(&changes, exact) }
    }

    /// What changed after the change of this number; `None` if some of it is forgotten.
    pub(in crate::registry) fn changes_after(&self, number: u64) -> Option<Changes> {
        let exact = self.policy.get().exact_leases;
        let (changes, last, hash) = {
            let state = self.read();
            (state.recent.after(number)?.cloned().collect::<Vec<_>>(), state.recent.last(), state.counts.to_string())
        };
        let version = i64::try_from(last).unwrap_or(i64::MAX);
        let applications = Applications { version, hash: hash.into(), applications: grouped(&changes, exact) };
        Some(Changes { last, applications })
    }

    /// The number of the last change before this moment, and the hash of all as of now.
    pub(in crate::registry) fn position(&self, moment: Moment) -> (u64, String) {
        let state = self.read();
        (state.recent.before(moment), state.counts.to_string())
    }

    /// How many there are of everything.
    pub fn counted(&self) -> Counted {
        let policy = self.policy.get();
        let state = self.read();
        Counted {
            applications: state.applications.len(),
            instances: state.instances,
            overrides: state.overrides,
            changes: state.recent.all().len(),
            hash: state.counts.to_string(),
            expected: self.renewals.expected(),
            renewals_last_minute: self.renewals.last_minute(),
            renewals_threshold: self.renewals.threshold(&policy),
            eviction_allowed: self.renewals.eviction_allowed(&policy),
        }
    }

    #[allow(clippy::unused_self, reason = "a store's word")]
    pub(super) fn as_told(&self, slot: &Slot, policy: &RegistryPolicy) -> Arc<Instance> {
        Copied { instance: Arc::clone(&slot.instance), lease: Arc::clone(&slot.lease) }.as_told(policy.exact_leases)
    }
}

/// What is copied while the lock is held; the rest is done outside.
struct Copied {
    instance: Arc<Instance>,
    lease: Arc<Lease>,
}

impl Copied {
    fn as_told(&self, exact: bool) -> Arc<Instance> {
        as_told(&self.instance, &self.lease, None, exact)
    }
}

fn copies(instances: &HashMap<Text, Slot>) -> Vec<Copied> {
    let copy = |slot: &Slot| Copied { instance: Arc::clone(&slot.instance), lease: Arc::clone(&slot.lease) };
    instances.values().map(copy).collect()
}

fn sort(slots: &mut [Copied]) {
    slots.sort_unstable_by(|slot, other| slot.instance.id().cmp(other.instance.id()));
}

/// The instance with its lease as of now: the same one if no heartbeat came since it was made.
fn as_told(instance: &Arc<Instance>, lease: &Lease, left: Option<Moment>, exact: bool) -> Arc<Instance> {
    let info = Some(lease.info(instance.lease_info, left, exact));
    if instance.lease_info == info {
        return Arc::clone(instance);
    }
    Arc::new(Instance { lease_info: info, ..(**instance).clone() })
}

/// Applications in the order in which they come first, instances in the order of their changes.
fn grouped(changes: &[Change], exact: bool) -> Vec<Application> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut applications: Vec<Application> = Vec::new();
    for change in changes {
        let app = &change.instance.app;
        let place = *places.entry(app).or_insert_with(|| {
            applications.push(Application { name: app.clone(), instances: Vec::new() });
            applications.len() - 1
        });
        applications[place].instances.push(as_told(&change.instance, &change.lease, change.left, exact));
    }
    applications
}
