use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{Lease, Moment};
use crate::eureka::Instance;

/// What changed lately, each instance once, as it is now; the last changed stands last. Deltas and watches are made of it.
#[derive(Debug, Default)]
pub(super) struct Recent {
    changes: BTreeMap<u64, Change>,
    /// Where in it an instance stands, by application and id.
    places: HashMap<Arc<str>, HashMap<Arc<str>, u64>>,
    /// The number of the last change.
    last: u64,
    /// The number of the last one that is forgotten.
    forgotten: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) at: Moment,
    pub(super) app: Arc<str>,
    pub(super) id: Arc<str>,
    pub(super) instance: Arc<Instance>,
    pub(super) lease: Arc<Lease>,
    pub(super) left: Option<Moment>,
}

impl Recent {
    pub(super) fn add(&mut self, change: Change, most: usize) {
        self.last += 1;
        let places = self.places.entry(Arc::clone(&change.app)).or_default();
        if let Some(former) = places.insert(Arc::clone(&change.id), self.last) {
            self.changes.remove(&former);
        }
        self.changes.insert(self.last, change);
        while self.changes.len() > most {
            self.forget_first();
        }
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
        if let Some(places) = self.places.get_mut(&change.app) {
            places.remove(&change.id);
            if places.is_empty() {
                self.places.remove(&change.app);
            }
        }
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
