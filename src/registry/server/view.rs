use std::{net::SocketAddr, sync::Arc};

use tokio_util::task::TaskTracker;

use crate::{
    monitor::{Kind, Observation, Observe, RegistryView},
    registry::{http::Desk, snapshot::Keeper},
};

/// A registry as a monitor sees it.
pub(super) struct Seen {
    pub(super) desk: Arc<Desk>,
    pub(super) keeper: Option<Arc<Keeper>>,
    pub(super) address: SocketAddr,
    pub(super) connections: TaskTracker,
}

impl Observe for Seen {
    fn kind(&self) -> Kind {
        Kind::Registry
    }

    fn observe(&self, name: &str) -> Vec<Observation> {
        let (counted, counters) = (self.desk.store.counted(), self.desk.store.counters().view());
        vec![Observation::Registry(RegistryView {
            name: name.to_owned(),
            address: self.address.to_string(),
            applications: counted.applications,
            instances: counted.instances,
            overrides: counted.overrides,
            watchers: self.desk.watches.count(),
            connections: self.connections.len(),
            expected_instances: counted.expected,
            renewals_last_minute: counted.renewals_last_minute,
            renewals_threshold: counted.renewals_threshold,
            eviction_allowed: counted.eviction_allowed,
            counts: counters.named().into(),
            peers: self.desk.peers.views(),
            snapshot: self.keeper.as_ref().map(|keeper| keeper.view()),
        })]
    }
}
