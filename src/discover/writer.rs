//! The one writer of a service: gathers what its source says, and publishes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until};
use tower::{BoxError, discover::Change};

use super::{AddressFilter, ChangeStream, Update, service::Service};
use crate::{Endpoint, endpoint::EndpointId};

/// How many updates are gathered at most.
const GATHERED: usize = 1000;

pub(super) struct Writer {
    pub(super) service: Arc<Service>,
    pub(super) filter: Arc<AddressFilter>,
    pub(super) coalesce: Duration,
}

/// What the source has said so far.
#[derive(Default)]
struct Known {
    endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
    refused: BTreeSet<EndpointId>,
}

impl Writer {
    /// Runs until it is dropped: a source that ends leaves its last set.
    pub(super) async fn run(self, mut updates: ChangeStream) {
        let mut known = Known::default();
        while let Some(first) = updates.next().await {
            let mut heard = self.take(&mut known, first);
            let mut gathered = 1;
            // The first set is published as soon as the source pauses.
            let first_set = self.service.snapshot().version() == 0;
            let end = Instant::now() + self.coalesce;
            while gathered < GATHERED {
                let next = if first_set {
                    updates.next().now_or_never()
                } else {
                    tokio::select! {
                        biased;
                        () = sleep_until(end) => None,
                        next = updates.next() => Some(next),
                    }
                };
                let Some(Some(next)) = next else { break };
                heard |= self.take(&mut known, next);
                gathered += 1;
            }
            if heard {
                self.publish(&known).await;
            }
        }
        self.service.failed("the source has ended".to_owned());
        std::future::pending::<()>().await;
    }

    /// `false` if it was an error: then what is known stays.
    fn take(&self, known: &mut Known, update: Result<Update, BoxError>) -> bool {
        match update {
            Ok(update) => {
                known.take(update, |endpoint| self.admits(endpoint));
                self.service.heard(known.refused.len());
                true
            }
            Err(error) => {
                self.service.failed(error.to_string());
                false
            }
        }
    }

    fn admits(&self, endpoint: &Endpoint) -> bool {
        let reason = match endpoint.validate() {
            Err(invalid) => invalid.to_string(),
            Ok(()) if self.filter.admits(endpoint) => return true,
            Ok(()) => format!("endpoint {:?}: refused by the address filter", endpoint.address().to_string()),
        };
        tracing::warn!(target: "hopvine::discover", service = self.service.name(), reason, "endpoint refused");
        false
    }

    async fn publish(&self, known: &Known) {
        let before = self.service.snapshot();
        let same = before.version() > 0
            && before.endpoints().len() == known.endpoints.len()
            && before.endpoints().iter().zip(known.endpoints.values()).all(|(before, now)| before == now);
        if !same {
            self.service.publish(known.endpoints.values().cloned().collect()).await;
        }
    }
}

impl Known {
    fn take(&mut self, update: Update, admits: impl Fn(&Endpoint) -> bool) {
        match update {
            Update::Change(Change::Insert(id, endpoint)) => {
                self.insert(endpoint.with_id(id.shared()), &admits);
            }
            Update::Change(Change::Remove(id)) => {
                self.endpoints.remove(&id);
                self.refused.remove(&id);
            }
            Update::All(all) => {
                let named: BTreeSet<EndpointId> = all.iter().map(|endpoint| endpoint.id().clone()).collect();
                self.endpoints.retain(|id, _| named.contains(id));
                self.refused.retain(|id| named.contains(id));
                for endpoint in all {
                    self.insert(endpoint, &admits);
                }
            }
        }
    }

    fn insert(&mut self, endpoint: Endpoint, admits: impl Fn(&Endpoint) -> bool) {
        let id = endpoint.id().clone();
        if self.endpoints.get(&id).is_some_and(|known| **known == endpoint) {
            return;
        }
        // One that is refused and said again is not told again.
        if admits(&endpoint) {
            self.refused.remove(&id);
            self.endpoints.insert(id, Arc::new(endpoint));
        } else {
            self.endpoints.remove(&id);
            self.refused.insert(id);
        }
    }
}
