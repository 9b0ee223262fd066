use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{Lease, Moment};
use crate::eureka::{Instance, Text};

/// What changed lately, each instance once, as it is now; the last changed stands last. Deltas and watches are made of it.
///
/// Where an instance stands in it, its slot knows; where one that left stands is known here.
#[derive(Debug, Default)]
pub(super) struct Recent {
    changes: BTreeMap<u64, Change>,
    /// The changes of those who left, by application and id.
    left: HashMap<Text, HashMap<Text, u64>>,
    /// The number of the last change.
    last: u64,
    /// The number of the last one that is forgotten.
    forgotten: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) at: Moment,
    pub(super) instance: Arc<Instance>,
    pub(super) lease: Arc<Lease>,
    pub(super) left: Option<Moment>,
}

impl Recent {
    /// Adds a change of the instance whose slot keeps its number at `place`. Gives back the instance's former one: to drop it may wait until the lock is released.
    pub(super) fn add(&mut self, change: Change, place: &mut u64, most: usize) -> Option<Change> {
        let (app, id) = (&change.instance.app, change.instance.id());
        let number = self.back(app, id).unwrap_or(*place);
        let former = self.changes.remove(&number);
        self.last += 1;
        *place = self.last;
        if change.left.is_some() {
            self.left.entry(app.as_str().into()).or_default().insert(id.into(), self.last);
        }
        self.changes.insert(self.last, change);
        while self.changes.len() > most {
            self.forget_first();
        }
        former
    }

    /// Forgets what is older than this, and says whether there was any.
    pub(super) fn prune(&mut self, now: Moment, retention: Duration) -> bool {
        let mut pruned = false;
        while let Some((_, change)) = self.changes.first_key_value()
            && now.since(change.at) > retention
        {
            self.forget_first();
            pruned = true;
        }
        pruned
    }

    fn forget_first(&mut self) {
        let Some((number, change)) = self.changes.pop_first() else { return };
        self.forgotten = number;
        if change.left.is_some() {
            self.back(&change.instance.app, change.instance.id());
        }
    }

    /// Who left is no longer known to have: it is back, or that is forgotten. Gives the number of the change in which it left.
    fn back(&mut self, app: &str, id: &str) -> Option<u64> {
        if self.left.is_empty() {
            return None;
        }
        let left = self.left.get_mut(app)?;
        let number = left.remove(id);
        if left.is_empty() {
            self.left.remove(app);
        }
        number
    }

    /// The number of the last change.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// What changed after the change of this number, unless some of it is forgotten.
    pub(super) fn after(&self, number: u64) -> Option<impl Iterator<Item = &Change>> {
        (number >= self.forgotten).then(|| self.changes.range(number + 1..).map(|(_, change)| change))
    }

    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &Change> {
        self.changes.values()
    }

    /// The number of the last change that was made before this moment.
    pub(super) fn before(&self, moment: Moment) -> u64 {
        let newer = self.changes.iter().rev().take_while(|(_, change)| change.at >= moment).last();
        newer.map_or(self.last, |(number, _)| number - 1).max(self.forgotten)
    }
}
