use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{Moment, Slot, Store};
use crate::{
    eureka::{Instance, InstanceStatus, StatusCounts, Text},
    registry::RegistryPolicy,
};

/// Which part of a registry is looked at, and how much of it at most: a look costs no more than that, and one pass over the instances of what is shown.
#[derive(Clone, Copy, Debug)]
pub(in crate::registry) struct Part<'a> {
    /// Only this application.
    pub(in crate::registry) application: Option<&'a str>,
    /// What comes after this name of an application, or after this id if there is only one application.
    pub(in crate::registry) after: Option<&'a str>,
    pub(in crate::registry) applications: usize,
    pub(in crate::registry) instances: usize,
    /// Instances of one application among several.
    pub(in crate::registry) instances_of_each: usize,
}

/// A part of a registry, in the order of names.
#[derive(Debug, Default)]
pub(in crate::registry) struct Overview {
    pub(in crate::registry) applications: Vec<ApplicationSeen>,
    /// Applications after those.
    pub(in crate::registry) further: usize,
}

#[derive(Debug)]
pub(in crate::registry) struct ApplicationSeen {
    pub(in crate::registry) name: Text,
    pub(in crate::registry) counts: StatusCounts,
    pub(in crate::registry) instances: Vec<InstanceSeen>,
    /// Instances after those.
    pub(in crate::registry) further: usize,
}

#[derive(Debug)]
pub(in crate::registry) struct InstanceSeen {
    pub(in crate::registry) id: Text,
    pub(in crate::registry) instance: Arc<Instance>,
    /// An operator's word.
    pub(in crate::registry) overridden: Option<InstanceStatus>,
    pub(in crate::registry) registered: Moment,
    /// The last heartbeat.
    pub(in crate::registry) renewed: Option<Moment>,
    /// How long it may be silent.
    pub(in crate::registry) duration: Duration,
    /// When its lease is over.
    pub(in crate::registry) due: Moment,
}

impl Store {
    /// Looks at a part of what there is, and changes nothing by it.
    pub(in crate::registry) fn overview(&self, part: Part<'_>, now: Moment) -> Overview {
        let policy = self.policy.get();
        let state = self.read();
        if let Some(name) = part.application {
            let found = state.applications.get_key_value(name);
            let seen = found.map(|found| application(found, part.after, part.instances, now, &policy));
            return Overview { applications: seen.into_iter().collect(), further: 0 };
        }
        let all = state.applications.iter().filter(|(name, _)| part.after.is_none_or(|after| ***name > *after));
        let (names, further) = first(all.map(|(name, _)| name), part.applications);
        let mut left = part.instances;
        let seen = names.into_iter().filter_map(|name| state.applications.get_key_value(name)).map(|found| {
            let seen = application(found, None, part.instances_of_each.min(left), now, &policy);
            left -= seen.instances.len();
            seen
        });
        Overview { applications: seen.collect(), further }
    }
}

fn application(
    (name, slots): (&Text, &HashMap<Text, Slot>),
    after: Option<&str>,
    most: usize,
    now: Moment,
    policy: &RegistryPolicy,
) -> ApplicationSeen {
    let (ids, further) = first(slots.keys().filter(|id| after.is_none_or(|after| ***id > *after)), most);
    let instances = ids.into_iter().filter_map(|id| Some(instance(id, slots.get(id)?, now, policy)));
    ApplicationSeen {
        name: name.clone(),
        counts: slots.values().map(|slot| slot.status).collect(),
        instances: instances.collect(),
        further,
    }
}

fn instance(id: &Text, slot: &Slot, now: Moment, policy: &RegistryPolicy) -> InstanceSeen {
    let lease = &slot.lease;
    InstanceSeen {
        id: id.clone(),
        instance: Arc::clone(&slot.instance),
        overridden: slot.overridden.as_ref().and_then(|overridden| overridden.seen(now, policy.override_retention)),
        registered: lease.registered(),
        renewed: lease.renewed(),
        duration: lease.duration(),
        due: lease.due(policy.exact_leases),
    }
}

/// The first so many in order, and how many come after them. It takes one pass: only those are sorted.
fn first<T: Ord>(all: impl Iterator<Item = T>, most: usize) -> (Vec<T>, usize) {
    let mut all: Vec<T> = all.collect();
    let further = all.len().saturating_sub(most);
    if further > 0 {
        all.select_nth_unstable(most);
        all.truncate(most);
    }
    all.sort_unstable();
    (all, further)
}
