use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{Admission, Endpoint, Health, Load, Status, health::Operator};
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
    /// What the picker reads of the endpoint for every candidate, without a way through the pointer.
    weight: AtomicU32,
    up: AtomicBool,
    removed: AtomicBool,
    removal: Notify,
    membership: Mutex<()>,
}

/// What the endpoints of one service in one stack share: how many there are, and how many of them are ejected.
#[derive(Debug, Default)]
pub struct Group {
    pub(crate) size: AtomicU32,
    pub(crate) ejected: AtomicU32,
    /// Ejected by operators.
    held: AtomicU32,
    /// Drained by operators.
    drained: AtomicU32,
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

    /// How many of them operators ejected.
    pub fn held(&self) -> u32 {
        self.held.load(Relaxed)
    }

    /// How many of them operators drained.
    pub fn drained(&self) -> u32 {
        self.drained.load(Relaxed)
    }

    fn operator(&self, word: Operator, change: impl Fn(&AtomicU32)) {
        match word {
            Operator::Silent => {}
            Operator::Eject => change(&self.held),
            Operator::Drain => change(&self.drained),
        }
    }
}

impl EndpointHandle {
    /// A new endpoint of `service`, with no history. For tests and connectors of your own; a stack's balancer makes its own.
    pub fn new(service: Arc<str>, endpoint: Arc<Endpoint>, group: Arc<Group>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (weight, up) = (endpoint.weight(), endpoint.status() == Status::Up);
        Self(Arc::new(Node {
            number: NEXT.fetch_add(1, Relaxed),
            service,
            endpoint: ArcSwap::new(endpoint),
            group,
            load: Load::default(),
            health: Health::default(),
            counts: Counts::default(),
            weight: AtomicU32::new(weight),
            up: AtomicBool::new(up),
            removed: AtomicBool::new(false),
            removal: Notify::new(),
            membership: Mutex::new(()),
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
        !self.0.removed.load(Relaxed) && self.0.up.load(Relaxed) && !self.0.health.is_drained()
    }

    /// Whether it may have a call now (`now` as of [`context::nanos`](crate::context::nanos)).
    pub fn admission(&self, now: u64) -> Admission {
        if self.is_serving() { self.0.health.admission(now) } else { Admission::Closed }
    }

    /// Ejects it until `until` unless `most` endpoints of its service are ejected already. `true` if it is ejected now
    /// and was not before; an ejection that is in force already is only moved to `until`.
    pub fn eject(&self, until: u64, most: u32) -> bool {
        let _whole = self.0.membership();
        if self.0.health.is_ejected() {
            // Its probe failed, or it failed on in a panic: its place under the cap is held already.
            self.0.health.eject(until);
            return false;
        }
        if self.is_removed() {
            return false;
        }
        let reserve = |ejected| (ejected < most).then_some(ejected + 1);
        let reserved = self.0.group.ejected.fetch_update(Relaxed, Relaxed, reserve).is_ok();
        if reserved {
            self.0.health.eject(until);
        }
        reserved
    }

    /// Ends an ejection. `true` if there was one.
    pub fn restore(&self) -> bool {
        let _whole = self.0.membership();
        let was = self.0.health.restore();
        if was && !self.is_removed() {
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

    /// Its weight; one of weight 0 still counts a little, or a service of such endpoints would have none.
    pub fn weight(&self) -> f64 {
        f64::from(self.0.weight.load(Relaxed)).max(0.001)
    }

    /// Takes over what the source newly says.
    pub(crate) fn update(&self, endpoint: Arc<Endpoint>) {
        self.0.weight.store(endpoint.weight(), Relaxed);
        self.0.up.store(endpoint.status() == Status::Up, Relaxed);
        self.0.endpoint.store(endpoint);
    }

    /// An operator's word: no calls, but with too few endpoints left it is used all the same.
    pub fn operator_eject(&self) {
        self.operator(Operator::Eject);
    }

    /// An operator's word: no new calls at all.
    pub fn operator_drain(&self) {
        self.operator(Operator::Drain);
    }

    /// Takes the operator's word back.
    pub fn operator_restore(&self) {
        self.operator(Operator::Silent);
    }

    fn operator(&self, word: Operator) {
        let _whole = self.0.membership();
        let before = self.0.health.operator(word);
        if !self.is_removed() {
            self.0.group.operator(before, |count| {
                count.fetch_sub(1, Relaxed);
            });
            self.0.group.operator(word, |count| {
                count.fetch_add(1, Relaxed);
            });
        }
    }

    /// It left the set: its places in the group's counts are free.
    pub(crate) fn remove(&self) {
        let _whole = self.0.membership();
        if !self.0.removed.swap(true, Relaxed) {
            if self.0.health.is_ejected() {
                self.0.group.ejected.fetch_sub(1, Relaxed);
            }
            self.0.group.operator(self.0.health.operator_word(), |count| {
                count.fetch_sub(1, Relaxed);
            });
            self.0.removal.notify_waiters();
        }
    }

    /// It is back, with what was learned of it.
    pub(crate) fn revive(&self) {
        if !self.is_removed() {
            return;
        }
        let _whole = self.0.membership();
        if self.0.removed.swap(false, Relaxed) {
            if self.0.health.is_ejected() {
                self.0.group.ejected.fetch_add(1, Relaxed);
            }
            self.0.group.operator(self.0.health.operator_word(), |count| {
                count.fetch_add(1, Relaxed);
            });
        }
    }

    /// What it is like, in a word, as [`EndpointView`](crate::monitor::EndpointView) has it.
    pub(crate) fn state(&self, now: u64) -> &'static str {
        let health = &self.0.health;
        match (health.operator_word(), self.endpoint().status()) {
            (Operator::Drain, _) => "drained",
            (Operator::Eject, _) => "held",
            (_, Status::Draining) => "draining",
            (_, Status::Down) => "down",
            _ if health.is_probing(now) => "probing",
            _ if health.is_ejected() => "ejected",
            _ if health.held_until() > now => "asked to wait",
            _ => "up",
        }
    }
}

impl Node {
    /// Held while an endpoint changes what it counts for in its group: leaving, returning, ejection and an operator's word each change
    /// two things that must agree. Never on the way of a call that changes nothing.
    fn membership(&self) -> MutexGuard<'_, ()> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
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
