use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::sync::watch;
use tokio_util::sync::ReusableBoxFuture;
use tower::discover::Change;

use super::{ServiceHandle, Snapshot};
use crate::{Endpoint, endpoint::EndpointId};

/// The endpoints there are, and then their changes, for tower's and tonic's own balancers. Made by [`ServiceHandle::discover`].
///
/// It never ends and never errs. An endpoint is inserted once: new metadata, weight or status of the same identity is not repeated, since those balancers make the
/// service anew; one that is reached otherwise now is removed and inserted. Those that are not up are left out.
pub struct Changes {
    handle: ServiceHandle,
    known: BTreeMap<EndpointId, Arc<Endpoint>>,
    queue: VecDeque<Change<EndpointId, Endpoint>>,
    changed: ReusableBoxFuture<'static, watch::Receiver<u64>>,
}

impl Changes {
    pub(super) fn new(handle: ServiceHandle) -> Self {
        let mut versions = handle.watch();
        versions.mark_unchanged();
        let mut changes = Self {
            known: BTreeMap::new(),
            queue: VecDeque::new(),
            changed: ReusableBoxFuture::new(next(versions)),
            handle,
        };
        changes.compare(&changes.handle.snapshot());
        changes
    }

    fn compare(&mut self, snapshot: &Snapshot) {
        let up = snapshot.endpoints().iter().filter(|endpoint| endpoint.status() == crate::endpoint::Status::Up);
        let now: BTreeMap<_, _> = up.map(|endpoint| (endpoint.id().clone(), Arc::clone(endpoint))).collect();
        for (id, old) in &self.known {
            if now.get(id).is_none_or(|new| !new.is_same(old)) {
                self.queue.push_back(Change::Remove(id.clone()));
            }
        }
        for (id, new) in &now {
            if self.known.get(id).is_none_or(|old| !old.is_same(new)) {
                self.queue.push_back(Change::Insert(id.clone(), Endpoint::clone(new)));
            }
        }
        self.known = now;
    }
}

async fn next(mut versions: watch::Receiver<u64>) -> watch::Receiver<u64> {
    if versions.changed().await.is_err() {
        // Nobody will change it any more; the stream goes on as it is.
        std::future::pending::<()>().await;
    }
    versions
}

impl Stream for Changes {
    type Item = Result<Change<EndpointId, Endpoint>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(change) = this.queue.pop_front() {
                return Poll::Ready(Some(Ok(change)));
            }
            let versions = ready!(this.changed.poll(cx));
            this.changed.set(next(versions));
            this.compare(&this.handle.snapshot());
        }
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("service", self.handle.name()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::endpoint::Status;

    /// An endpoint by its id, its port and what makes no other one of it.
    fn endpoint((id, port, weight, up): (u8, u16, u32, bool)) -> (String, Endpoint) {
        let status = if up { Status::Up } else { Status::Draining };
        let endpoint = Endpoint::from(std::net::SocketAddr::from(([10, 0, 0, 1], port)));
        (id.to_string(), endpoint.with_id(id.to_string()).with_weight(weight).with_status(status))
    }

    proptest! {
        #[test]
        fn a_balancer_that_follows_the_changes_has_the_endpoints_that_are_up_and_rebuilds_none_in_vain(
            sets in prop::collection::vec(
                prop::collection::vec((0..6_u8, 1..3_u16, 0..2_u32, prop::bool::weighted(0.8)), 0..6), 0..12,
            ),
        ) {
            let mut changes = Changes::new(ServiceHandle::fixed("s", []));
            let mut balancer: BTreeMap<EndpointId, Endpoint> = BTreeMap::new();
            for set in sets {
                let set: BTreeMap<_, _> = set.into_iter().map(endpoint).collect();
                let up: BTreeMap<_, _> = set
                    .values()
                    .filter(|endpoint| endpoint.status() == Status::Up)
                    .map(|endpoint| (endpoint.id().clone(), endpoint))
                    .collect();
                let kept = up.iter().filter(|(id, new)| balancer.get(id).is_some_and(|old| old.is_same(new))).count();
                let needed = balancer.len() + up.len() - 2 * kept;

                changes.compare(&Snapshot::of(set.values().cloned().map(Arc::new)));
                prop_assert_eq!(changes.queue.len(), needed, "no change but what is needed");
                for change in changes.queue.drain(..) {
                    match change {
                        Change::Remove(id) => prop_assert!(balancer.remove(&id).is_some(), "removed twice"),
                        Change::Insert(id, endpoint) => {
                            prop_assert_eq!(&id, endpoint.id());
                            prop_assert!(balancer.insert(id, endpoint).is_none(), "inserted over another");
                        }
                    }
                }
                prop_assert!(balancer.keys().eq(up.keys()));
                prop_assert!(balancer.values().zip(up.values()).all(|(old, new)| old.is_same(new)));
            }
        }
    }
}
