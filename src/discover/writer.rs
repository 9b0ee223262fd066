//! The one writer of a service: gathers what its source says, and publishes it.

use std::{collections::BTreeSet, mem, pin::pin, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until};
use tower::BoxError;

use super::{
    AddressFilter, ChangeStream, Edit, Update,
    merge::Merge,
    pending::{Pending, Said},
    service::{CHUNK, Service},
};
use crate::{Endpoint, endpoint::EndpointId};

pub(super) struct Writer {
    pub(super) service: Arc<Service>,
    pub(super) filter: Arc<AddressFilter>,
    pub(super) coalesce: Duration,
}

impl Writer {
    /// Runs until it is dropped: a source that ends leaves its last set.
    pub(super) async fn run(self, mut updates: ChangeStream) {
        let mut refused = BTreeSet::new();
        while let Some(first) = updates.next().await {
            let mut pending = Pending::default();
            let mut heard = self.take(&mut pending, first);
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
                heard |= self.take(&mut pending, next);
            }
            if heard {
                self.publish(pending, &mut refused).await;
            }
        }
        self.service.failed("the source has ended".to_owned());
        std::future::pending::<()>().await;
    }

    /// `false` if it was an error, or a list of nothing but what may not be used, as of a name that was taken over: then what is known stays.
    fn take(&self, pending: &mut Pending, update: Result<Update, BoxError>) -> bool {
        match update {
            Ok(Update::All(all)) if self.refuses_all(&all) => {
                self.service.refused_all(all.len());
                false
            }
            Ok(update) => {
                pending.take(update);
                self.service.heard();
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

    /// Puts the next snapshot together of the last one and what was said, and publishes it, if it is another.
    async fn publish(&self, pending: Pending, refused: &mut BTreeSet<EndpointId>) {
        let before = self.service.snapshot();
        let told = if pending.all { mem::take(refused) } else { refused.clone() };
        let unsaid = if pending.all { Edit::Remove } else { Edit::Keep };
        let mut merge = Merge::new(before.endpoints(), unsaid);
        for (said, count) in pending.into_sorted().zip(1..) {
            if count % CHUNK == 0 {
                tokio::task::yield_now().await;
            }
            match said {
                Said::Left(id) => {
                    let known = merge.seek(&id);
                    merge.pass(known.iter().count(), Edit::Remove);
                    refused.remove(&id);
                }
                Said::Is(endpoint) => match merge.seek(endpoint.id()) {
                    Some(known) if *known == endpoint => merge.pass(1, Edit::Keep),
                    known if self.admits(&endpoint, told.contains(endpoint.id())) => {
                        refused.remove(endpoint.id());
                        merge.put(endpoint, known);
                    }
                    known => {
                        merge.pass(known.iter().count(), Edit::Remove);
                        refused.insert(endpoint.id().clone());
                    }
                },
            }
        }
        merge.finish();
        self.service.refused(refused.len());
        if before.version() == 0 || !merge.is_the_same() {
            self.service.publish(merge.endpoints, &merge.edits).await;
        }
    }
}
