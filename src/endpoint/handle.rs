use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{Admission, Endpoint, Health, Load, Status};
use crate::monitor::Counts;

/// An endpoint with its live state in one stack: load, health, whether it was removed. Clones share the state.
#[derive(Clone)]
pub struct EndpointHandle(Arc<Node>);

struct Node {
    number: u64,
    service: Arc<str>,
    endpoint: ArcSwap<Endpoint>,
    group: Arc<Group>,
    load: Load,
    health: Health,
    counts: Counts,
    removed: AtomicBool,
    removal: Notify,
}

/// What the endpoints of one service in one stack share: how many there are, and how many of them are ejected.
#[derive(Debug, Default)]
pub struct Group {
    pub(crate) size: AtomicU32,
    pub(crate) ejected: AtomicU32,
}

impl Group {
    /// How many endpoints the service has.
    pub fn size(&self) -> u32 {
        self.size.load(Relaxed)
    }

    /// How many of them are ejected.
    pub fn ejected(&self) -> u32 {
        self.ejected.load(Relaxed)
    }
}

impl EndpointHandle {
    /// A new endpoint of `service`, with no history. For tests and connectors of your own; a stack's balancer makes its own.
    pub fn new(service: Arc<str>, endpoint: Arc<Endpoint>, group: Arc<Group>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(Arc::new(Node {
            number: NEXT.fetch_add(1, Relaxed),
            service,
            endpoint: ArcSwap::new(endpoint),
            group,
            load: Load::default(),
            health: Health::default(),
            counts: Counts::default(),
            removed: AtomicBool::new(false),
            removal: Notify::new(),
        }))
    }

    /// A number no other endpoint of this process has.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// The service it belongs to.
    pub fn service(&self) -> &Arc<str> {
        &self.0.service
    }

    /// What its source says of it now.
    pub fn endpoint(&self) -> Arc<Endpoint> {
        self.0.endpoint.load_full()
    }

    /// What the endpoints of this service share.
    pub fn group(&self) -> &Group {
        &self.0.group
    }

    /// Calls in flight and latency.
    pub fn load(&self) -> &Load {
        &self.0.load
    }

    /// Ejections.
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// Finished attempts, by outcome.
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Whether its source wants it to have calls, whatever our own data say: up, not removed, not drained.
    pub fn is_serving(&self) -> bool {
        !self.0.removed.load(Relaxed) && !self.0.health.is_drained() && self.0.endpoint.load().status() == Status::Up
    }

    /// Whether it may have a call now (`now` as of [`context::nanos`](crate::context::nanos)).
    pub fn admission(&self, now: u64) -> Admission {
        if self.is_serving() { self.0.health.admission(now) } else { Admission::Closed }
    }

    /// Ejects it until `until` unless `most` endpoints of its service are ejected already. `true` if it is ejected now
    /// and was not before; an ejection that is in force already is only moved to `until`.
    pub fn eject(&self, until: u64, most: u32) -> bool {
        self.0.health.eject(until, || {
            self.0
                .group
                .ejected
                .fetch_update(Relaxed, Relaxed, |ejected| (ejected < most).then_some(ejected + 1))
                .is_ok()
        })
    }

    /// Ends an ejection. `true` if there was one.
    pub fn restore(&self) -> bool {
        let was = self.0.health.restore();
        if was {
            self.0.group.ejected.fetch_sub(1, Relaxed);
        }
        was
    }

    /// Whether its source no longer lists it.
    pub fn is_removed(&self) -> bool {
        self.0.removed.load(Relaxed)
    }

    /// Waits until its source no longer lists it.
    pub async fn removed(&self) {
        let mut removal = std::pin::pin!(self.0.removal.notified());
        // Registered before the check, so that a removal in between is not missed.
        removal.as_mut().enable();
        if !self.is_removed() {
            removal.await;
        }
    }

    /// Takes over what the source newly says.
    pub(crate) fn update(&self, endpoint: Arc<Endpoint>) {
        self.0.endpoint.store(endpoint);
    }

    /// It left the set: its place in the group, and in the group's ejections, is free.
    pub(crate) fn remove(&self) {
        if !self.0.removed.swap(true, Relaxed) {
            if self.0.health.is_ejected() {
                self.0.group.ejected.fetch_sub(1, Relaxed);
            }
            self.0.removal.notify_waiters();
        }
    }

    /// It is back, with what was learned of it.
    pub(crate) fn revive(&self) {
        if self.0.removed.swap(false, Relaxed) && self.0.health.is_ejected() {
            self.0.group.ejected.fetch_add(1, Relaxed);
        }
    }
}

impl fmt::Debug for EndpointHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointHandle")
            .field("service", &self.0.service)
            .field("endpoint", &self.0.endpoint.load())
            .field("load", &self.0.load)
            .field("health", &self.0.health)
            .field("removed", &self.0.removed)
            .finish_non_exhaustive()
    }
}
