//! The one writer of a service: gathers what its source says, and publishes it.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until};
use tower::{BoxError, discover::Change};

use super::{
    AddressFilter, ChangeStream, Update,
    service::{CHUNK, Service},
};
use crate::{Endpoint, endpoint::EndpointId};

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
            // The first set is published as soon as the source pauses.
            let first_set = self.service.snapshot().version() == 0;
            let mut end = pin!(sleep_until(Instant::now() + self.coalesce));
            for gathered in 1_usize.. {
                if gathered % CHUNK == 0 {
                    // A source that never pauses must not hold the executor, nor put the end off.
                    tokio::task::yield_now().await;
                    if Instant::now() >= end.deadline() {
                        break;
                    }
                }
                let next = if first_set {
                    updates.next().now_or_never()
                } else {
                    // What is there comes before the end: a look at the clock for each would cost more than the update.
                    tokio::select! {
                        biased;
                        next = updates.next() => Some(next),
                        () = &mut end => None,
                    }
                };
                let Some(Some(next)) = next else { break };
                heard |= self.take(&mut known, next);
            }
            if heard {
                self.publish(&known).await;
            }
        }
        self.service.failed("the source has ended".to_owned());
        std::future::pending::<()>().await;
    }

    /// `false` if it was an error, or a list of nothing but what may not be used, as of a name that was taken over: then what is known stays.
    fn take(&self, known: &mut Known, update: Result<Update, BoxError>) -> bool {
        match update {
            Ok(Update::All(all)) if self.refuses_all(&all) => {
                self.service.refused_all(all.len());
                false
            }
            Ok(update) => {
                known.take(update, |endpoint, told| self.admits(endpoint, told));
                self.service.heard(known.refused.len());
                true
            }
            Err(error) => {
                self.service.failed(error.to_string());
                false
            }
        }
    }

    fn refuses_all(&self, all: &[Endpoint]) -> bool {
        !all.is_empty() && all.iter().all(|endpoint| self.refusal(endpoint).is_some())
    }

    /// Why it may not be used.
    fn refusal(&self, endpoint: &Endpoint) -> Option<String> {
        match endpoint.validate() {
            Err(invalid) => Some(invalid.to_string()),
            Ok(()) if self.filter.admits(endpoint) => None,
            Ok(()) => Some(format!("endpoint {:?}: refused by the address filter", endpoint.address().to_string())),
        }
    }

    /// Whether it may be used. Where it may not, that is told, unless it was `told` before.
    fn admits(&self, endpoint: &Endpoint, told: bool) -> bool {
        let Some(reason) = self.refusal(endpoint) else { return true };
        if !told {
            tracing::warn!(target: "hopvine::discover", service = self.service.name(), reason, "endpoint refused");
        }
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
    fn take(&mut self, update: Update, admits: impl Fn(&Endpoint, bool) -> bool) {
        match update {
            Update::Change(Change::Insert(id, endpoint)) => {
                self.insert(endpoint.with_id(id.shared()), &admits);
            }
            Update::Change(Change::Remove(id)) => {
                self.endpoints.remove(&id);
                self.refused.remove(&id);
            }
            Update::All(all) => self.replace(all, admits),
        }
    }

    /// All of them at once: one walk along what is known, in the order of ids, instead of a search for each.
    fn replace(&mut self, mut all: Vec<Endpoint>, admits: impl Fn(&Endpoint, bool) -> bool) {
        all.sort_by(|a, b| a.id().cmp(b.id()));
        // Of two with one id the last counts.
        all.dedup_by(|later, earlier| {
            let same = later.id() == earlier.id();
            if same {
                mem::swap(later, earlier);
            }
            same
        });
        let mut known = mem::take(&mut self.endpoints).into_iter().peekable();
        let told = mem::take(&mut self.refused);
        let mut taken = Vec::with_capacity(all.len());
        for endpoint in all {
            while known.next_if(|(id, _)| id < endpoint.id()).is_some() {}
            match known.next_if(|(_, known)| **known == endpoint) {
                Some(same) => taken.push(same),
                None if admits(&endpoint, told.contains(endpoint.id())) => {
                    taken.push((endpoint.id().clone(), Arc::new(endpoint)));
                }
                None => _ = self.refused.insert(endpoint.id().clone()),
            }
        }
        self.endpoints = taken.into_iter().collect();
    }

    fn insert(&mut self, endpoint: Endpoint, admits: impl Fn(&Endpoint, bool) -> bool) {
        let id = endpoint.id().clone();
        if self.endpoints.get(&id).is_some_and(|known| **known == endpoint) {
            return;
        }
        if admits(&endpoint, self.refused.contains(&id)) {
            self.refused.remove(&id);
            self.endpoints.insert(id, Arc::new(endpoint));
        } else {
            self.endpoints.remove(&id);
            self.refused.insert(id);
        }
    }
}
