use std::{
    fmt,
    sync::{Arc, atomic},
};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

use super::{
    Admission, Endpoint, Health, Load, Status,
    health::{History, Operator},
};
use crate::{
    context,
    monitor::Counts,
    sync::{AtomicU32, Relaxed},
};

/// An endpoint with its live state in one stack: load, health, whether it was removed. Clones share the state.
#[derive(Clone)]
pub struct EndpointHandle(Arc<Node>);

/// In this order and so aligned, all that is read of a candidate and written of a call that succeeds is one cache line, the
/// second, and no other endpoint's: of ten thousand endpoints each look is a cache miss.
#[repr(C, align(64))]
struct Node {
    /// A thin pointer.
    service: Arc<Arc<str>>,
    group: Arc<Group>,
    endpoint: ArcSwap<Endpoint>,
    /// Its last word, the successes, begins the line.
    counts: Counts,
    load: Load,
    /// As the source says.
    weight: AtomicU32,
    number: u32,
    /// Its first words end the line.
    health: Health,
    removal: Notify,
}

// Loom's atomics are larger.
#[cfg(not(all(test, hopvine_loom)))]
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(Node, counts) + size_of::<Counts>() == 64 + size_of::<u64>());
    assert!(offset_of!(Node, health) + Health::READ_BY_CALLS <= 128);
    assert!(size_of::<Node>() <= 192);
};

/// What the endpoints of one service in one stack share: how many there are, and how many of them are ejected.
#[derive(Debug, Default)]
pub struct Group {
    pub(crate) size: AtomicU32,
    ejected: AtomicU32,
    /// Ejected by operators.
    held: AtomicU32,
    /// Drained by operators.
    drained: AtomicU32,
}

impl Group {
    /// Of so many endpoints. For tests and connectors of your own; a stack's balancer keeps its own.
    pub fn new(size: u32) -> Self {
        Self { size: AtomicU32::new(size), ..Self::default() }
    }

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
        Self(Arc::new(Node::new(Arc::new(service), endpoint, group)))
    }

    /// The same, where many share the name.
    pub(crate) fn of(service: &Arc<Arc<str>>, endpoint: &Arc<Endpoint>, group: &Arc<Group>) -> Self {
        Self(Arc::new(Node::new(Arc::clone(service), Arc::clone(endpoint), Arc::clone(group))))
    }

    /// A number no other endpoint of this process has, of the last four billion.
    #[inline]
    pub fn number(&self) -> u32 {
        self.0.number
    }

    /// Whether the two are of the same endpoint.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The service it belongs to.
    #[inline]
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
    #[inline]
    pub fn load(&self) -> &Load {
        &self.0.load
    }

    /// Ejections.
    #[inline]
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// Finished attempts, by outcome.
    #[inline]
    pub fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Whether its source wants it to have calls, whatever our own data say: up, not removed, not drained.
    #[inline]
    pub fn is_serving(&self) -> bool {
        self.0.health.is_serving()
    }

    /// Whether its source says it is up.
    pub(crate) fn is_up(&self) -> bool {
        self.0.health.is_up()
    }

    /// Whether it may have a call now (`now` as of [`context::nanos`](crate::context::nanos)).
    pub fn admission(&self, now: u64) -> Admission {
        self.admission_by(|| now)
    }

    /// The same, where the clock is asked only if it matters.
    #[inline]
    pub(crate) fn admission_by(&self, now: impl FnOnce() -> u64) -> Admission {
        if self.is_serving() { self.0.health.admission_by(now) } else { Admission::Closed }
    }

    /// Ejects it until `until` unless `most` endpoints of its service are ejected already, or it was removed. `true` if
    /// it is ejected now and was not before; an ejection that is in force already is only moved to `until`.
    pub fn eject(&self, until: u64, most: u32) -> bool {
        let mut history = self.0.health.lock();
        let was = self.0.health.is_ejected();
        self.0.eject(until, most, &mut history) && !was
    }

    /// Ends an ejection. `true` if there was one.
    pub fn restore(&self) -> bool {
        self.0.restore(&mut self.0.health.lock())
    }

    /// Ejects it as [`eject`](Self::eject) does, or moves its ejection, if nothing changed since `generation`. `decide`
    /// says until when, from what is remembered, and remembers. `None` if nothing was done.
    pub(crate) fn eject_in(
        &self,
        generation: u32,
        most: u32,
        decide: impl FnOnce(&History) -> (u32, u64),
    ) -> Option<u64> {
        let mut history = self.0.health.lock();
        if self.0.health.generation() != generation {
            return None;
        }
        let (in_a_row, until) = decide(&history);
        let done = self.0.eject(until, most, &mut history);
        if done {
            history.in_a_row = in_a_row;
        }
        done.then_some(until)
    }

    /// Ends its ejection if nothing changed since `generation`. `true` if there was one.
    pub(crate) fn restore_in(&self, generation: u32) -> bool {
        let mut history = self.0.health.lock();
        self.0.health.generation() == generation && self.0.restore(&mut history)
    }

    /// Whether its source no longer lists it.
    pub fn is_removed(&self) -> bool {
        self.0.health.is_removed()
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
    #[inline]
    pub fn weight(&self) -> f64 {
        f64::from(self.0.weight.load(Relaxed)).max(0.001)
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
        let _history = self.0.health.lock();
        let before = self.0.health.operator(word);
        if !self.is_removed() {
            self.0.group.operator(before, |count| _ = count.fetch_sub(1, Relaxed));
            self.0.group.operator(word, |count| _ = count.fetch_add(1, Relaxed));
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

    /// Takes over what the source newly says.
    pub(crate) fn update(&self, endpoint: Arc<Endpoint>) {
        self.0.weight.store(endpoint.weight(), Relaxed);
        self.0.health.set_up(endpoint.status() == Status::Up);
        self.0.endpoint.store(endpoint);
    }

    /// It left the set: its place in the group, and in the group's ejections, is free.
    pub(crate) fn remove(&self) {
        let _history = self.0.health.lock();
        if !self.0.health.set_removed(true) {
            if self.0.health.is_ejected() {
                self.0.group.ejected.fetch_sub(1, Relaxed);
            }
            self.0.group.operator(self.0.health.operator_word(), |count| _ = count.fetch_sub(1, Relaxed));
            self.0.removal.notify_waiters();
        }
    }

    /// It is back, with what was learned of it: ejected still, if it was, even where that is one more than the cap
    /// would have allowed.
    pub(crate) fn revive(&self) {
        if !self.is_removed() {
            return;
        }
        let _history = self.0.health.lock();
        if self.0.health.set_removed(false) {
            if self.0.health.is_ejected() {
                self.0.group.ejected.fetch_add(1, Relaxed);
            }
            self.0.group.operator(self.0.health.operator_word(), |count| _ = count.fetch_add(1, Relaxed));
        }
    }
}

/// The group's `ejected` is the number of its endpoints that are ejected and not removed. Whatever changes one of the
/// two does so under the lock of the endpoint's health, and changes the count with it.
impl Node {
    fn new(service: Arc<Arc<str>>, endpoint: Arc<Endpoint>, group: Arc<Group>) -> Self {
        static NEXT: atomic::AtomicU32 = atomic::AtomicU32::new(1);
        let (weight, up) = (endpoint.weight(), endpoint.status() == Status::Up);
        Self {
            number: NEXT.fetch_add(1, Relaxed),
            service,
            endpoint: ArcSwap::new(endpoint),
            group,
            load: Load::default(),
            health: Health::new(up),
            counts: Counts::default(),
            weight: AtomicU32::new(weight),
            removal: Notify::new(),
        }
    }

    fn eject(&self, until: u64, most: u32, history: &mut History) -> bool {
        let ejected = &self.group.ejected;
        // Where its probe failed, or it failed on, its place in the cap is held already.
        let may = self.health.is_ejected()
            || !self.health.is_removed()
                && ejected.fetch_update(Relaxed, Relaxed, |count| (count < most).then_some(count + 1)).is_ok();
        if may {
            self.health.change(until.max(1), history);
        }
        may
    }

    fn restore(&self, history: &mut History) -> bool {
        let was = self.health.is_ejected();
        if was {
            self.health.change(0, history);
            history.returned = context::now_nanos();
            if !self.health.is_removed() {
                self.group.ejected.fetch_sub(1, Relaxed);
            }
        }
        was
    }
}

impl Drop for Node {
    /// Its place in the cap, and in the operators' counts, goes with it, even if nobody said that it left.
    fn drop(&mut self) {
        if self.health.is_removed() {
            return;
        }
        if self.health.is_ejected() {
            self.group.ejected.fetch_sub(1, Relaxed);
        }
        self.group.operator(self.health.operator_word(), |count| _ = count.fetch_sub(1, Relaxed));
    }
}

impl AsRef<Self> for EndpointHandle {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl fmt::Debug for EndpointHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointHandle")
            .field("service", &self.0.service)
            .field("endpoint", &self.0.endpoint.load())
            .field("load", &self.0.load)
            .field("health", &self.0.health)
            .field("removed", &self.is_removed())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(hopvine_loom)))]
mod tests {
    use super::*;

    fn endpoints(count: u32, group: &Arc<Group>) -> Vec<EndpointHandle> {
        group.size.store(count, Relaxed);
        let endpoint = |port| Arc::new(format!("127.0.0.1:{port}").parse().expect("an endpoint"));
        (1..=count).map(|port| EndpointHandle::new("catalog".into(), endpoint(port), Arc::clone(group))).collect()
    }

    fn counted(endpoints: &[EndpointHandle]) -> u32 {
        let counted = endpoints.iter().filter(|endpoint| endpoint.health().is_ejected() && !endpoint.is_removed());
        counted.count().try_into().expect("few")
    }

    #[test]
    fn a_removed_endpoint_gives_back_its_place_in_the_cap_once() {
        let group = Arc::default();
        let all = endpoints(3, &group);
        assert!(all[0].eject(10, 1));
        assert!(!all[1].eject(10, 1), "the cap");
        all[0].remove();
        all[0].remove();
        assert_eq!(group.ejected(), 0);
        assert!(all[0].restore(), "a call that ended after the removal showed that it is well");
        assert_eq!(group.ejected(), 0);
        assert!(!all[0].eject(10, 1), "it is in no cap, so nothing would end it");
        assert!(all[1].eject(10, 1));
        all[1].remove();
        all[1].revive();
        assert_eq!(group.ejected(), 1, "it is ejected still");
        drop(all);
        assert_eq!(group.ejected(), 0, "dropped with the node");
    }

    #[test]
    fn an_endpoint_that_is_dropped_leaves_no_operators_word_in_the_counts() {
        let group = Arc::default();
        let all = endpoints(2, &group);
        all[0].operator_eject();
        all[1].operator_drain();
        drop(all);
        assert_eq!((group.held(), group.drained()), (0, 0));
    }

    #[test]
    fn an_ejection_in_force_is_moved_and_keeps_its_one_place() {
        let group = Arc::default();
        let all = endpoints(2, &group);
        let generation = all[0].health().generation();
        assert!(all[0].eject(10, 1));
        assert!(!all[0].eject(20, 1));
        assert_eq!((all[0].admission(19), all[0].admission(20)), (Admission::Closed, Admission::Probe));
        assert_eq!(all[0].eject_in(generation, 1, |_| (1, 99)), None, "a result of before");
        assert!(!all[0].restore_in(generation));
        assert_eq!(group.ejected(), 1);
    }

    /// E8: in any order, at any moment, at most as many as the cap allows.
    #[test]
    fn the_cap_holds_over_ten_thousand_random_events() {
        fastrand::seed(8);
        let group = Arc::default();
        let all = endpoints(20, &group);
        let mut reached = false;
        for _ in 0..10_000 {
            let endpoint = &all[fastrand::usize(..all.len())];
            match fastrand::u8(..8) {
                0 => _ = endpoint.restore(),
                1 => endpoint.remove(),
                // What comes back ejected may exceed the cap; here it comes back well.
                2 if endpoint.is_removed() => {
                    endpoint.restore();
                    endpoint.revive();
                }
                _ => _ = endpoint.eject(10, 6),
            }
            assert_eq!(group.ejected(), counted(&all));
            assert!(group.ejected() <= 6);
            reached |= group.ejected() == 6;
        }
        assert!(reached);
    }

    #[test]
    fn threads_that_eject_restore_remove_and_revive_leak_no_place() {
        const CAP: u32 = 2;
        let group: Arc<Group> = Arc::default();
        let all = endpoints(4, &group);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (all, group) = (&all, &group);
                scope.spawn(move || {
                    fastrand::seed(seed);
                    for _ in 0..20_000 {
                        let endpoint = &all[fastrand::usize(..all.len())];
                        match fastrand::u8(..6) {
                            0 => _ = endpoint.restore(),
                            1 => endpoint.remove(),
                            2 => endpoint.revive(),
                            3 => _ = endpoint.eject_in(endpoint.health().generation(), CAP, |_| (1, 10)),
                            4 => _ = endpoint.restore_in(endpoint.health().generation()),
                            _ => _ = endpoint.eject(10, CAP),
                        }
                        // A count below zero would have wrapped.
                        assert!(group.ejected() <= 4, "{group:?}");
                    }
                });
            }
        });
        assert_eq!(group.ejected(), counted(&all));
        drop(all);
        assert_eq!(group.ejected(), 0);
    }
}
