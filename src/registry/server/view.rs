use crate::{
    monitor::{Kind, Observation, Observe, RegistryView},
    registry::http::Desk,
};

impl Observe for Desk {
    fn kind(&self) -> Kind {
        Kind::Registry
    }

    fn observe(&self, name: &str) -> Vec<Observation> {
        vec![Observation::Registry(self.view(name))]
    }
}

impl Desk {
    /// The registry as a monitor sees it.
    pub(in crate::registry) fn view(&self, name: &str) -> RegistryView {
        let (counted, counters) = (self.store.counted(), self.store.counters().view());
        RegistryView {
            name: name.to_owned(),
            address: self.address.to_string(),
            applications: counted.applications,
            instances: counted.instances,
            overrides: counted.overrides,
            watchers: self.watches.count(),
            connections: self.connections.len(),
            expected_instances: counted.expected,
            renewals_last_minute: counted.renewals_last_minute,
            renewals_threshold: counted.renewals_threshold,
            eviction_allowed: counted.eviction_allowed,
            counts: counters.named().into(),
            peers: self.peers.views(),
            snapshot: self.keeper.as_ref().map(|keeper| keeper.view()),
        }
    }
}
