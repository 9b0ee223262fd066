use std::collections::HashSet;

use super::{By, Moment, Refused, State, Store};
use crate::{
    eureka::{Instance, Text},
    registry::RegistryLimits,
};

/// Who left while the registry learns from others what there is: they may not know it yet. None, once it has learned.
pub(super) type Departed = Option<HashSet<(Text, Text)>>;

impl Store {
    /// From now on it is remembered who leaves, and peers are told of it, whether he is here or not.
    pub(in crate::registry) fn begin_to_learn(&self) {
        self.write().departed = Some(HashSet::new());
    }

    /// There is no more to learn.
    pub(in crate::registry) fn has_learned(&self) {
        self.write().departed = None;
    }

    /// Takes an instance from a peer's list, unless it has left since: then `false`.
    pub(in crate::registry) fn learn(&self, instance: Instance, now: Moment) -> Result<bool, Refused> {
        self.register_if(instance, By::Peer, now, |state, instance| !state.has_departed(instance))
    }
}

impl State {
    pub(super) fn has_departed(&self, instance: &Instance) -> bool {
        let key = || (instance.app.clone(), instance.id().into());
        self.departed.as_ref().is_some_and(|departed| departed.contains(&key()))
    }

    /// Remembers that this one left, if there is something to learn yet; says whether that is news. Nobody has a longer name than a text may be.
    pub(super) fn departs(&mut self, app: &str, id: &str, limits: &RegistryLimits) -> bool {
        let most = limits.document.text_bytes;
        match &mut self.departed {
            Some(departed) if departed.len() < limits.instances && app.len() <= most && id.len() <= most => {
                departed.insert((app.into(), id.into()))
            }
            _ => false,
        }
    }

    /// It is there again.
    pub(super) fn returns(&mut self, instance: &Instance) {
        if let Some(departed) = &mut self.departed {
            departed.remove(&(instance.app.clone(), instance.id().into()));
        }
    }
}
