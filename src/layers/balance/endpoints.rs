use std::{
    collections::HashMap,
    fmt, mem,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use tokio::{sync::Notify, time::Instant};

use super::picker::Pick;
use crate::{
    Endpoint, EndpointHandle,
    discover::{Snapshot, Subscriber},
    endpoint::{Address, EndpointId, Group, Status},
    monitor::{Act, EndpointView, Kind, Observation, Observe},
};

/// How long what was learned of a removed endpoint is kept.
const KEEP: Duration = Duration::from_secs(60);

/// Of how many removed endpoints it is kept.
const KEPT: usize = 1024;

/// How many picks are tried again when somebody else takes the probe first.
const PROBE_RACES: usize = 3;

/// Shortest lease of a probe.
const PROBE_LEASE: Duration = Duration::from_secs(10);

/// Makes the service of an endpoint.
pub(super) type Connect<S> = Box<dyn Fn(&EndpointHandle) -> S + Send + Sync>;

/// The endpoints of one service in one stack: written by the directory's writer, read by every call.
pub(super) struct Endpoints<S> {
    service: Arc<str>,
    connect: Connect<S>,
    eager: bool,
    group: Arc<Group>,
    set: ArcSwap<Set<S>>,
    panic: AtomicBool,
    /// Somebody waits for a change.
    pub(super) changed: Notify,
    writer: Mutex<Writer<S>>,
}

/// What calls read; never changes, a new one takes its place.
pub(super) struct Set<S> {
    pub(super) handles: Box<[EndpointHandle]>,
    nodes: Box<[Arc<Node<S>>]>,
    /// How many of them their source says are up.
    up: u32,
}

/// An endpoint and its service.
pub(super) struct Node<S> {
    pub(super) handle: EndpointHandle,
    service: OnceLock<S>,
}

struct Writer<S> {
    /// Those of the last snapshot, in its order, which is that of their ids.
    current: Vec<Known<S>>,
    /// Those the next one will have and the last had not, in its order.
    prepared: Vec<Known<S>>,
    removed: HashMap<Identity, (EndpointHandle, Instant)>,
}

/// An endpoint as its source said it, and its node.
type Known<S> = (Arc<Endpoint>, Arc<Node<S>>);

type Identity = (EndpointId, Address);

/// An endpoint chosen for an attempt.
pub(super) struct Picked<S> {
    pub(super) node: Arc<Node<S>>,
    /// Whether it has the endpoint's one probe.
    pub(super) probe: bool,
}

impl<S> Endpoints<S> {
    pub(super) fn new(service: Arc<str>, connect: Connect<S>, eager: bool) -> Self {
        let set = Set { handles: Box::new([]), nodes: Box::new([]), up: 0 };
        Self {
            service,
            connect,
            eager,
            group: Arc::default(),
            set: ArcSwap::from_pointee(set),
            panic: AtomicBool::new(false),
            changed: Notify::new(),
            writer: Mutex::new(Writer { current: Vec::new(), prepared: Vec::new(), removed: HashMap::new() }),
        }
    }

    pub(super) fn service(&self) -> &Arc<str> {
        &self.service
    }

    pub(super) fn set(&self) -> Guard<Arc<Set<S>>> {
        self.set.load()
    }

    /// Whether to ignore health: too few are usable by our own data (D5). Left with a margin, so that it does not flutter.
    pub(super) fn panics(&self, set: &Set<S>) -> bool {
        let bad = self.group.ejected() + self.group.held();
        if bad == 0 {
            if self.panic.load(Relaxed) {
                self.panic.store(false, Relaxed);
            }
            return false;
        }
        let serving = set.up.saturating_sub(self.group.drained());
        let usable = serving.saturating_sub(bad);
        let was = self.panic.load(Relaxed);
        // Below 50 % it begins, at 60 % it ends.
        let is = if was { usable * 10 < serving * 6 } else { usable * 2 < serving };
        if is != was {
            self.panic.store(is, Relaxed);
            tracing::warn!(target: "hopvine::balance", service = %self.service, usable, serving, panic = is,
                "{}", if is { "too few usable endpoints: health is ignored" } else { "health counts again" });
        }
        is
    }

    /// Chooses an endpoint, by `choose`, and takes its probe's lease if it needs one.
    pub(super) fn pick(
        &self,
        now: u64,
        attempt: crate::context::Attempt,
        choose: impl Fn(&[EndpointHandle], &Pick) -> Option<usize>,
    ) -> Option<Picked<S>> {
        let set = self.set();
        let panic = self.panics(&set);
        let pick = Pick::new(now, attempt, panic);
        for _ in 0..PROBE_RACES {
            let node = &set.nodes[choose(&set.handles, &pick)?];
            let health = node.handle.health();
            // In a panic nobody asks for a lease: everything is tried anyway.
            let probe = !panic && health.is_ejected();
            if !probe || health.try_probe(now, now + PROBE_LEASE.as_nanos() as u64) {
                return Some(Picked { node: Arc::clone(node), probe });
            }
        }
        None
    }

    /// An instance of its service, which its first pick makes.
    pub(super) fn service_of(&self, node: &Node<S>) -> S
    where
        S: Clone,
    {
        node.service.get_or_init(|| (self.connect)(&node.handle)).clone()
    }

    /// When the first endpoint that is closed for a time only opens again.
    pub(super) fn opens_at(&self) -> Option<u64> {
        let set = self.set();
        set.handles.iter().filter(|handle| handle.is_serving()).filter_map(|handle| handle.health().opens_at()).min()
    }

    /// Whether there are serving endpoints, and each asked to be left alone; until when, for the first of them.
    pub(super) fn all_held_until(&self, now: u64) -> Option<u64> {
        let set = self.set();
        let mut serving = set.handles.iter().filter(|handle| handle.is_serving()).peekable();
        serving.peek()?;
        serving.map(|handle| handle.health().held_until()).min().filter(|&until| until > now)
    }

    /// Forgets the service of an endpoint, which broke; the next pick makes a new one.
    pub(super) fn renew(&self, handle: &EndpointHandle) {
        let mut writer = self.writer();
        let is_it = |node: &Arc<Node<S>>| node.handle.number() == handle.number();
        let Some((_, node)) = writer.current.iter_mut().find(|(_, node)| is_it(node)) else {
            return;
        };
        let fresh = Arc::new(Node { handle: handle.clone(), service: OnceLock::new() });
        *node = Arc::clone(&fresh);
        let set = self.set();
        let nodes = set
            .nodes
            .iter()
            .map(|node| if node.handle.number() == handle.number() { Arc::clone(&fresh) } else { Arc::clone(node) });
        self.set.store(Arc::new(Set { handles: set.handles.clone(), nodes: nodes.collect(), up: set.up }));
    }

    fn writer(&self) -> MutexGuard<'_, Writer<S>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node for an endpoint that has none: with what was learned of it, if it was removed lately.
    fn node(
        &self,
        removed: &mut HashMap<Identity, (EndpointHandle, Instant)>,
        endpoint: &Arc<Endpoint>,
    ) -> Arc<Node<S>> {
        let known = if removed.is_empty() { None } else { removed.remove(&identity(endpoint)) };
        let handle = match known {
            Some((handle, _)) if handle.endpoint().is_same(endpoint) => {
                // What its source said of it when it left no longer holds.
                handle.update(Arc::clone(endpoint));
                handle
            }
            _ => EndpointHandle::new(Arc::clone(&self.service), Arc::clone(endpoint), Arc::clone(&self.group)),
        };
        let node = Arc::new(Node { handle, service: OnceLock::new() });
        if self.eager {
            node.service.get_or_init(|| (self.connect)(&node.handle));
        }
        node
    }
}

fn identity(endpoint: &Endpoint) -> Identity {
    (endpoint.id().clone(), endpoint.address().clone())
}

/// Keeps what is young enough, and of that the youngest.
fn forget(removed: &mut HashMap<Identity, (EndpointHandle, Instant)>, now: Instant) {
    removed.retain(|_, (_, since)| now.saturating_duration_since(*since) < KEEP);
    if removed.len() > KEPT {
        let mut times: Vec<_> = removed.values().map(|(_, since)| *since).collect();
        let (_, limit, _) = times.select_nth_unstable(removed.len() - KEPT);
        let limit = *limit;
        let mut places = KEPT;
        removed.retain(|_, (_, since)| {
            let keep = *since >= limit && places > 0;
            places -= usize::from(keep);
            keep
        });
    }
}

impl<S: Send + Sync> Subscriber for Endpoints<S> {
    fn prepare(&self, chunk: &[Arc<Endpoint>]) {
        let mut writer = self.writer();
        let writer = &mut *writer;
        for endpoint in chunk {
            let there = writer.current.binary_search_by(|(known, _)| known.id().cmp(endpoint.id()));
            // One that is the same but for what may change keeps its node.
            if there.is_ok_and(|at| writer.current[at].0.is_same(endpoint)) {
                continue;
            }
            let node = self.node(&mut writer.removed, endpoint);
            writer.prepared.push((Arc::clone(endpoint), node));
        }
    }

    fn publish(&self, snapshot: &Snapshot) {
        let mut writer = self.writer();
        let writer = &mut *writer;
        let now = Instant::now();
        let mut before = mem::take(&mut writer.current).into_iter().peekable();
        let mut prepared = mem::take(&mut writer.prepared).into_iter().peekable();
        let mut after = Vec::with_capacity(snapshot.endpoints().len());
        let mut left = Vec::new();
        for endpoint in snapshot.endpoints() {
            if let Some(same) = before.next_if(|(known, _)| Arc::ptr_eq(known, endpoint)) {
                after.push(same);
                continue;
            }
            while let Some((_, gone)) = before.next_if(|(known, _)| known.id() < endpoint.id()) {
                left.push(gone);
            }
            let node = match before.next_if(|(known, _)| known.id() == endpoint.id()) {
                Some((known, node)) if known.is_same(endpoint) => {
                    node.handle.update(Arc::clone(endpoint));
                    node
                }
                replaced => {
                    // One of the same id that is reached otherwise now is another endpoint.
                    left.extend(replaced.map(|(_, node)| node));
                    while prepared.next_if(|(known, _)| known.id() < endpoint.id()).is_some() {}
                    match prepared.next_if(|(known, _)| Arc::ptr_eq(known, endpoint)) {
                        Some((_, node)) => node,
                        // It came in between.
                        None => self.node(&mut writer.removed, endpoint),
                    }
                }
            };
            node.handle.revive();
            after.push((Arc::clone(endpoint), node));
        }
        for node in left.into_iter().chain(before.map(|(_, node)| node)) {
            node.handle.remove();
            writer.removed.insert(identity(&node.handle.endpoint()), (node.handle.clone(), now));
        }
        forget(&mut writer.removed, now);
        let up = after.iter().filter(|(endpoint, _)| endpoint.status() == Status::Up).count() as u32;
        let handles: Box<[_]> = after.iter().map(|(_, node)| node.handle.clone()).collect();
        let nodes = after.iter().map(|(_, node)| Arc::clone(node)).collect();
        writer.current = after;
        self.group.size.store(handles.len() as u32, Relaxed);
        self.set.store(Arc::new(Set { handles, nodes, up }));
        self.changed.notify_waiters();
    }
}

impl<S: Send + Sync> Observe for Endpoints<S> {
    fn kind(&self) -> Kind {
        Kind::Endpoints
    }

    fn observe(&self, name: &str) -> Vec<Observation> {
        let now = crate::context::now_nanos();
        let view = |handle: &EndpointHandle| {
            let endpoint = handle.endpoint();
            Observation::Endpoint(EndpointView {
                name: name.to_owned(),
                id: endpoint.id().to_string(),
                address: endpoint.address().to_string(),
                state: handle.state(now),
                in_flight: handle.load().in_flight(),
                counts: handle.counts().view(),
                latency: handle.load().latency(),
            })
        };
        self.set().handles.iter().map(view).collect()
    }

    fn act(&self, act: &Act) -> bool {
        let set = self.set();
        let find = |id: &String| set.handles.iter().find(|handle| handle.endpoint().id().as_str() == id);
        let (handle, act): (_, fn(&EndpointHandle)) = match act {
            Act::Eject(id) => (find(id), EndpointHandle::operator_eject),
            Act::Drain(id) => (find(id), EndpointHandle::operator_drain),
            Act::Restore(id) => (find(id), EndpointHandle::operator_restore),
            _ => return false,
        };
        handle.map(act).is_some()
    }
}

impl<S> fmt::Debug for Endpoints<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints")
            .field("service", &self.service)
            .field("endpoints", &self.set().handles)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::endpoint::Scheme;

    fn endpoint((id, port, https, weight): (u8, u16, bool, u32)) -> Endpoint {
        let endpoint = Endpoint::from(std::net::SocketAddr::from(([10, 0, 0, 1], port)));
        let scheme = if https { Scheme::Https } else { Scheme::Http };
        endpoint.with_id(id.to_string()).with_scheme(scheme).with_weight(weight)
    }

    proptest! {
        /// Against maps: what is there, and what was there once.
        #[test]
        fn an_endpoint_keeps_what_was_learned_of_it_as_long_as_it_is_the_same_one(
            sets in prop::collection::vec(
                (prop::collection::vec((0..5_u8, 1..3_u16, any::<bool>(), 0..3_u32), 0..6), 0..7_usize), 0..12,
            ),
        ) {
            let endpoints = Endpoints::new("s".into(), Box::new(|_: &EndpointHandle| ()), false);
            let mut current: BTreeMap<EndpointId, (Arc<Endpoint>, u64)> = BTreeMap::new();
            let mut gone: BTreeMap<(EndpointId, Address), (Arc<Endpoint>, u64)> = BTreeMap::new();
            for (set, unprepared) in sets {
                let set: BTreeMap<EndpointId, Endpoint> =
                    set.into_iter().map(endpoint).map(|endpoint| (endpoint.id().clone(), endpoint)).collect();
                // As the writer does: what has not changed is the same `Arc`.
                let set: Vec<Arc<Endpoint>> = set
                    .into_values()
                    .map(|endpoint| match current.get(endpoint.id()) {
                        Some((same, _)) if **same == endpoint => Arc::clone(same),
                        _ => Arc::new(endpoint),
                    })
                    .collect();
                let fresh = set.iter().filter(|new| current.get(new.id()).is_none_or(|(old, _)| !Arc::ptr_eq(old, new)));
                // A subscriber that came in between was not told of the first ones.
                let chunk: Vec<_> = fresh.skip(unprepared.saturating_sub(3)).cloned().collect();
                endpoints.prepare(&chunk);
                endpoints.publish(&Snapshot::of(set.iter().cloned()));

                let handles = endpoints.set();
                let mut next = BTreeMap::new();
                prop_assert_eq!(handles.handles.len(), set.len());
                for (handle, new) in handles.handles.iter().zip(&set) {
                    prop_assert!(Arc::ptr_eq(&handle.endpoint(), new) && !handle.is_removed());
                    let known = match current.get(new.id()) {
                        Some((old, number)) if old.is_same(new) => Some(*number),
                        _ => gone.remove(&identity(new)).filter(|(old, _)| old.is_same(new)).map(|(_, number)| number),
                    };
                    let number = handle.number();
                    let mut others = current.values().chain(next.values()).chain(gone.values());
                    let is_new = || others.all(|(_, other)| *other != number);
                    prop_assert!(known.map_or_else(is_new, |known| known == number), "{} is taken for another", new.id());
                    next.insert(new.id().clone(), (Arc::clone(new), number));
                }
                for (id, (old, number)) in current {
                    if next.get(&id).is_none_or(|(_, new)| *new != number) {
                        gone.insert(identity(&old), (old, number));
                    }
                }
                current = next;
            }
        }
    }
}
