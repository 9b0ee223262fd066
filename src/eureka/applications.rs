use std::{collections::HashMap, sync::Arc};

use super::{ActionType, Instance, StatusCounts, Text};

/// The instances of one application.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Application {
    /// Its name, in upper case.
    pub name: Text,
    /// Its instances, shared with whoever else holds them.
    pub instances: Vec<Arc<Instance>>,
}

impl Application {
    /// As it was read. An instance that names no application is of this one.
    pub(super) fn of(name: Text, read: Vec<Instance>) -> Self {
        // Not collected: that would keep the memory of what was read.
        let mut instances = Vec::with_capacity(read.len());
        for mut instance in read {
            if instance.app.is_empty() {
                instance.app = name.clone();
            }
            instances.push(Arc::new(instance));
        }
        Self { name, instances }
    }

    /// What is taken of one whose name is beyond the limits.
    pub(super) fn reduced(self) -> Self {
        let instances = self.instances.into_iter().map(|instance| Arc::new(Arc::unwrap_or_clone(instance).reduced()));
        Self { name: self.name, instances: instances.collect() }
    }
}

/// A registry's content, or what changed in it: the two have one shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applications {
    /// `versions__delta`: 1 in a full list, a counter in deltas, -1 in the answer for a virtual name.
    pub version: i64,
    /// `apps__hashcode`: the [hash](StatusCounts) of the whole registry, in a delta too.
    pub hash: Box<str>,
    /// The applications.
    pub applications: Vec<Application>,
}

impl Applications {
    /// The application of this name, exactly.
    pub fn application(&self, name: &str) -> Option<&Application> {
        self.applications.iter().find(|application| &*application.name == name)
    }

    /// All instances of all applications.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.applications.iter().flat_map(|application| &application.instances)
    }

    /// How many of the instances have which status; its text is what [`hash`](Self::hash) says of a whole copy.
    pub fn counts(&self) -> StatusCounts {
        self.instances().map(|instance| instance.status).collect()
    }

    /// Takes over what a delta says has changed, and says whether this copy is whole now: if not, it must be fetched again.
    ///
    /// An instance that was added or modified takes the place of the one with its id. What is said twice is no harm, nor is the leaving of one that is not here.
    #[must_use = "a copy that is not whole must be fetched again"]
    pub fn apply(&mut self, delta: &Self) -> bool {
        for changed in &delta.applications {
            self.apply_to_one(changed);
        }
        self.version = delta.version;
        self.hash.clone_from(&delta.hash);
        self.counts().to_string() == *self.hash
    }

    fn apply_to_one(&mut self, changed: &Application) {
        let at = self.applications.iter().position(|application| application.name == changed.name);
        let at = at.unwrap_or_else(|| {
            self.applications.push(Application { name: changed.name.clone(), instances: Vec::new() });
            self.applications.len() - 1
        });
        let kept = &mut self.applications[at].instances;

        // The last word about an instance counts.
        let mut news: HashMap<&str, &Arc<Instance>> =
            changed.instances.iter().map(|instance| (instance.id(), instance)).collect();
        kept.retain_mut(|instance| match news.remove(instance.id()) {
            Some(new) if new.action_type == Some(ActionType::Deleted) => false,
            Some(new) => {
                *instance = Arc::clone(new);
                true
            }
            None => true,
        });
        for instance in &changed.instances {
            if let Some(new) = news.remove(instance.id())
                && new.action_type != Some(ActionType::Deleted)
            {
                kept.push(Arc::clone(new));
            }
        }
        if kept.is_empty() {
            self.applications.remove(at);
        }
    }
}
