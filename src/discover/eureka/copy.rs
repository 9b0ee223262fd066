//! Our copy of the registry, and what services see of it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    Endpoint,
    eureka::{Applications, EndpointSettings, Instance, PortChoice, Text},
};

/// The registry as we know it.
#[derive(Debug, Default)]
pub(super) struct Copy {
    applications: Applications,
    /// What it suddenly did not list any more, by application: seen until it is released.
    held: HashMap<Text, Vec<Arc<Instance>>>,
    seen: HashMap<Text, Arc<Seen>>,
}

/// What services see, by their names. Never changes; a new one takes its place.
#[derive(Debug, Default)]
pub(super) struct View {
    names: HashMap<Box<str>, Parts>,
    pub(super) applications: usize,
    pub(super) instances: usize,
}

/// What is listed less than half, where a server does not know everybody yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shrunk {
    /// Some application.
    Application,
    /// All of them together: of one, the last instance may have left in order.
    Whole,
}

/// The endpoints of a name: one set for each application that has some.
#[derive(Debug, Default)]
struct Parts {
    virtual_name: Vec<Set>,
    application: Vec<Set>,
    secure_virtual_name: Vec<Set>,
}

/// The same `Arc` as long as nothing in it changes.
pub(super) type Set = Arc<[Endpoint]>;

/// One application's endpoints, by all the names it has.
#[derive(Debug)]
struct Seen {
    application: Set,
    virtual_names: HashMap<Box<str>, Set>,
    secure_virtual_names: HashMap<Box<str>, Set>,
}

impl View {
    /// The endpoints of a service, whose name is in lower case.
    pub(super) fn service(&self, name: &str) -> &[Set] {
        self.names.get(name).map_or(&[], |parts| {
            let all = [&parts.virtual_name, &parts.application, &parts.secure_virtual_name];
            all.into_iter().find(|sets| !sets.is_empty()).map_or(&[], |sets| sets)
        })
    }

    pub(super) fn lists(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }
}

impl Copy {
    /// Everything anew. What is missing stays seen, if `hold` is listed less than half: the server has just been started.
    pub(super) fn replace(&mut self, applications: Applications, hold: Option<Shrunk>, settings: EndpointSettings) {
        let before = std::mem::replace(&mut self.applications, applications);
        let kept = std::mem::take(&mut self.held);
        if let Some(shrunk) = hold {
            self.hold(shrunk, before, kept);
        }
        let names: HashSet<_> = self.names().cloned().collect();
        self.seen.retain(|name, _| names.contains(name));
        for name in &names {
            self.see(name, settings);
        }
    }

    fn hold(&mut self, shrunk: Shrunk, before: Applications, mut known: HashMap<Text, Vec<Arc<Instance>>>) {
        let mut is_sudden = !known.is_empty();
        for application in before.applications {
            known.entry(application.name).or_default().extend(application.instances);
        }
        let all: usize = known.values().map(Vec::len).sum();
        is_sudden |= self.applications.instances().count() * 2 < all;
        for (name, instances) in &mut known {
            let listed = self.applications.application(name).map_or(&[][..], |application| &application.instances);
            is_sudden |= shrunk == Shrunk::Application && listed.len() * 2 < instances.len();
            let listed: HashSet<_> = listed.iter().map(|instance| instance.id()).collect();
            instances.retain(|instance| !listed.contains(instance.id()));
        }
        if is_sudden {
            known.retain(|_, instances| !instances.is_empty());
            self.held = known;
        }
    }

    /// What is held is not seen any more.
    pub(super) fn release(&mut self, settings: EndpointSettings) {
        for name in std::mem::take(&mut self.held).into_keys() {
            self.see(&name, settings);
        }
    }

    /// How many are held.
    pub(super) fn held(&self) -> usize {
        self.held.values().map(Vec::len).sum()
    }

    /// What has changed. Says whether the copy is whole.
    #[must_use]
    pub(super) fn apply(&mut self, delta: &Applications, settings: EndpointSettings) -> bool {
        let whole = self.applications.apply(delta);
        for changed in &delta.applications {
            if let Some(held) = self.held.get_mut(&changed.name) {
                held.retain(|held| changed.instances.iter().all(|instance| instance.id() != held.id()));
                if held.is_empty() {
                    self.held.remove(&changed.name);
                }
            }
            self.see(&changed.name, settings);
        }
        whole
    }

    fn names(&self) -> impl Iterator<Item = &Text> {
        self.applications.applications.iter().map(|application| &application.name).chain(self.held.keys())
    }

    /// What services see of an application now.
    fn see(&mut self, name: &Text, settings: EndpointSettings) {
        let listed = self.applications.application(name).map_or(&[][..], |application| &application.instances);
        let held = self.held.get(name).map_or(&[][..], |held| held);
        if listed.is_empty() && held.is_empty() {
            self.seen.remove(name);
            return;
        }
        let seen = Seen::new(listed.iter().chain(held), settings, self.seen.get(name));
        self.seen.insert(name.clone(), Arc::new(seen));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.applications.applications.is_empty()
    }

    pub(super) fn applications(&self) -> &Applications {
        &self.applications
    }

    pub(super) fn view(&self) -> View {
        let mut names: HashMap<Box<str>, Parts> = HashMap::with_capacity(self.seen.len());
        for (application, seen) in &self.seen {
            let name = application.to_lowercase();
            names.entry(name.into()).or_default().application.push(Arc::clone(&seen.application));
            for (name, set) in &seen.virtual_names {
                names.entry(name.clone()).or_default().virtual_name.push(Arc::clone(set));
            }
            for (name, set) in &seen.secure_virtual_names {
                names.entry(name.clone()).or_default().secure_virtual_name.push(Arc::clone(set));
            }
        }
        // In one order, so that sets can be compared with those of before.
        for parts in names.values_mut() {
            for sets in [&mut parts.virtual_name, &mut parts.application, &mut parts.secure_virtual_name] {
                sets.sort_by_key(|set| set.as_ptr().addr());
            }
        }
        View { names, applications: self.seen.len(), instances: self.applications.instances().count() + self.held() }
    }
}

impl Seen {
    fn new<'a>(
        instances: impl Iterator<Item = &'a Arc<Instance>>,
        settings: EndpointSettings,
        before: Option<&Arc<Self>>,
    ) -> Self {
        let secure = EndpointSettings { port: PortChoice::Secure, ..settings };
        let mut all = Vec::with_capacity(instances.size_hint().0);
        let mut virtual_names: HashMap<Box<str>, Vec<Endpoint>> = HashMap::new();
        let mut secure_virtual_names: HashMap<Box<str>, Vec<Endpoint>> = HashMap::new();
        for instance in instances {
            if let Some(endpoint) = endpoint(instance, settings) {
                for name in names(instance.vip_address.as_deref()) {
                    virtual_names.entry(name).or_default().push(endpoint.clone());
                }
                all.push(endpoint);
            }
            if instance.secure_port.enabled
                && let Some(endpoint) = endpoint(instance, secure)
            {
                for name in names(instance.secure_vip_address.as_deref()) {
                    secure_virtual_names.entry(name).or_default().push(endpoint.clone());
                }
            }
        }
        let by_name = |sets: HashMap<Box<str>, Vec<Endpoint>>, before: Option<&HashMap<Box<str>, Set>>| {
            let same = |(name, endpoints)| {
                let set = set(endpoints, before.and_then(|before| before.get(&name)));
                (name, set)
            };
            sets.into_iter().map(same).collect()
        };
        Self {
            application: set(all, before.map(|before| &before.application)),
            virtual_names: by_name(virtual_names, before.map(|before| &before.virtual_names)),
            secure_virtual_names: by_name(secure_virtual_names, before.map(|before| &before.secure_virtual_names)),
        }
    }
}

/// The set of before, if it is the same.
fn set(endpoints: Vec<Endpoint>, before: Option<&Set>) -> Set {
    match before {
        Some(before) if **before == *endpoints => Arc::clone(before),
        _ => endpoints.into(),
    }
}

fn endpoint(instance: &Instance, settings: EndpointSettings) -> Option<Endpoint> {
    instance
        .endpoint(&settings)
        .inspect_err(|error| {
            tracing::debug!(target: "hopvine::eureka", app = &*instance.app, %error, "an instance cannot be called");
        })
        .ok()
}

/// Virtual names in lower case, each once.
fn names(addresses: Option<&str>) -> impl Iterator<Item = Box<str>> {
    let mut names: Vec<Box<str>> = addresses
        .into_iter()
        .flat_map(|addresses| addresses.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(|name| name.to_lowercase().into())
        .collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}
