use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use super::Document;
use crate::{
    eureka::{Application, Applications, Instance},
    registry::{Moment, Store},
};

/// The whole registry at one moment, from which several documents are made.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) made: Moment,
    pub(super) version: u64,
    pub(super) all: Applications,
    /// Made when somebody asks for a virtual name.
    vips: OnceLock<Index>,
    secure_vips: OnceLock<Index>,
}

/// The instances of each virtual name, in the order of all.
type Index = HashMap<Box<str>, Vec<Arc<Instance>>>;

impl Snapshot {
    pub(super) fn new(store: &Store, now: Moment) -> Self {
        // The version first: a change in between is seen, and seen as new once more.
        let version = store.version();
        Self { made: now, version, all: store.all(), vips: OnceLock::new(), secure_vips: OnceLock::new() }
    }

    pub(super) fn has_vip(&self, document: Document<'_>) -> bool {
        self.matches(document).is_some()
    }

    /// The instances that serve a virtual name, in a document of their own.
    pub(super) fn of_vip(&self, document: Document<'_>) -> Applications {
        let mut applications: Vec<Application> = Vec::new();
        for instance in self.matches(document).into_iter().flatten() {
            let instance = Arc::clone(instance);
            match applications.last_mut().filter(|application| application.name == instance.app) {
                Some(application) => application.instances.push(instance),
                None => applications.push(Application { name: instance.app.clone(), instances: vec![instance] }),
            }
        }
        let mut found = Applications { version: -1, applications, ..Applications::default() };
        found.hash = found.counts().to_string().into();
        found
    }

    fn matches(&self, document: Document<'_>) -> Option<&Vec<Arc<Instance>>> {
        match document {
            Document::Vip(name) => self.vips.get_or_init(|| index(&self.all, |of| of.vip_address.as_deref())).get(name),
            Document::SecureVip(name) => {
                self.secure_vips.get_or_init(|| index(&self.all, |of| of.secure_vip_address.as_deref())).get(name)
            }
            _ => None,
        }
    }
}

fn index(all: &Applications, names: impl Fn(&Instance) -> Option<&str>) -> Index {
    let mut index = Index::new();
    for instance in all.instances() {
        for name in names(instance).into_iter().flat_map(|names| names.split(',')) {
            match index.get_mut(name) {
                Some(instances) => instances.push(Arc::clone(instance)),
                None => {
                    index.insert(name.into(), vec![Arc::clone(instance)]);
                }
            }
        }
    }
    index
}
