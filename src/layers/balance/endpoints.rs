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
pub(super) struct Endpoints<S, R> {
    service: Arc<str>,
    rule: Arc<R>,
    connect: Connect<S>,
    eager: bool,
    group: Arc<Group>,
    set: ArcSwap<Set<S, R>>,
    panic: AtomicBool,
    /// Somebody waits for a change.
    pub(super) changed: Notify,
    writer: Mutex<Writer<S, R>>,
}

/// What calls read; never changes, a new one takes its place.
pub(super) struct Set<S, R> {
    pub(super) slots: Box<[Slot<S, R>]>,
    /// How many of them their source says are up.
    up: u32,
}

/// An endpoint as pickers see it, and its node: side by side, for the one that is picked is looked up at once.
pub(super) struct Slot<S, R> {
    pub(super) handle: EndpointHandle,
    node: Arc<Node<S, R>>,
}

/// An endpoint, its service, and by what rule it was chosen: all that a call under way needs, so that it counts up nothing that
/// calls at other endpoints count, too.
pub(super) struct Node<S, R> {
    pub(super) handle: EndpointHandle,
    pub(super) rule: Arc<R>,
    service: OnceLock<S>,
    /// Its service failed to become ready: another one is made for the next call, since it may be so for good.
    broken: AtomicBool,
}

struct Writer<S, R> {
    /// Those of the last snapshot, in its order, which is that of their ids.
    current: Vec<Known<S, R>>,
    /// Those the next one will have and the last had not, in its order.
    prepared: Vec<Known<S, R>>,
    removed: HashMap<Identity, (EndpointHandle, Instant)>,
}

/// An endpoint as its source said it, and its node.
type Known<S, R> = (Arc<Endpoint>, Arc<Node<S, R>>);

type Identity = (EndpointId, Address);

/// An endpoint chosen for an attempt.
pub(super) struct Picked<S, R> {
    pub(super) node: Arc<Node<S, R>>,
    /// Whether it has the endpoint's one probe.
    pub(super) probe: bool,
}

impl<S, R> Set<S, R> {
    pub(super) fn handles(&self) -> impl Iterator<Item = &EndpointHandle> {
        self.slots.iter().map(|slot| &slot.handle)
    }

    fn serving(&self) -> impl Iterator<Item = &EndpointHandle> {
        self.handles().filter(|handle| handle.is_serving())
    }
}

impl<S, R> Slot<S, R> {
    fn new(node: &Arc<Node<S, R>>) -> Self {
        Self { handle: node.handle.clone(), node: Arc::clone(node) }
    }
}

impl<S, R> AsRef<EndpointHandle> for Slot<S, R> {
    fn as_ref(&self) -> &EndpointHandle {
        &self.handle
    }
}

impl<S, R> Node<S, R> {
    fn new(handle: EndpointHandle, rule: Arc<R>) -> Self {
        Self { handle, rule, service: OnceLock::new(), broken: AtomicBool::new(false) }
    }

    /// Its service is no good any more.
    pub(super) fn give_up(&self) {
        self.broken.store(true, Relaxed);
    }
}

impl<S, R> Endpoints<S, R> {
    pub(super) fn new(service: Arc<str>, connect: Connect<S>, eager: bool, rule: Arc<R>) -> Self {
        let set = Set { slots: Box::new([]), up: 0 };
        Self {
            service,
            rule,
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

    pub(super) fn rule(&self) -> &R {
        &self.rule
    }

    pub(super) fn set(&self) -> Guard<Arc<Set<S, R>>> {
        self.set.load()
    }

    /// Whether to ignore health: too few are usable by our own data (D5). Left with a margin, so that it does not flutter.
    pub(super) fn panics(&self, set: &Set<S, R>) -> bool {
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
    pub(super) fn pick(&self, choose: impl Fn(&[Slot<S, R>], &Pick) -> Option<usize>) -> Option<Picked<S, R>> {
        let set = self.set();
        let panic = self.panics(&set);
        let pick = Pick::under_way(panic);
        for _ in 0..PROBE_RACES {
            let Slot { node, .. } = &set.slots[choose(&set.slots, &pick)?];
            let health = node.handle.health();
            // In a panic nobody asks for a lease: everything is tried anyway.
            let probe = !panic && health.is_ejected();
            if !probe || health.try_probe(pick.now(), pick.now() + PROBE_LEASE.as_nanos() as u64) {
                return Some(Picked { node: Arc::clone(node), probe });
            }
        }
        None
    }

    /// An instance of its service, which its first pick makes.
    pub(super) fn service_of(&self, node: &mut Arc<Node<S, R>>) -> S
    where
        S: Clone,
    {
        if node.broken.load(Relaxed) {
            self.renew(node);
        }
        node.service.get_or_init(|| (self.connect)(&node.handle)).clone()
    }

    /// When the first endpoint that is closed for a time only opens again.
    pub(super) fn opens_at(&self) -> Option<u64> {
        let set = self.set();
        set.serving().filter_map(|handle| handle.health().opens_at()).min()
    }

    /// Whether there are serving endpoints, and each asked to be left alone; until when, for the first of them.
    pub(super) fn all_held_until(&self, now: u64) -> Option<u64> {
        let set = self.set();
        let mut serving = set.serving().peekable();
        serving.peek()?;
        serving.map(|handle| handle.health().held_until()).min().filter(|&until| until > now)
    }

    /// Puts a node without a service in the place of one whose service is no good, unless somebody did.
    #[cold]
    fn renew(&self, broken: &mut Arc<Node<S, R>>) {
        let mut writer = self.writer();
        let handle = &broken.handle;
        let Some((_, node)) = writer.current.iter_mut().find(|(_, node)| node.handle.is(handle)) else {
            return;
        };
        if node.broken.load(Relaxed) {
            *node = Arc::new(Node::new(handle.clone(), Arc::clone(&self.rule)));
            let slot = |slot: &Slot<S, R>| Slot::new(if slot.handle.is(handle) { node } else { &slot.node });
            let set = self.set();
            self.set.store(Arc::new(Set { slots: set.slots.iter().map(slot).collect(), up: set.up }));
        }
        let renewed = Arc::clone(node);
        *broken = renewed;
    }

    fn writer(&self) -> MutexGuard<'_, Writer<S, R>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node for an endpoint that has none: with what was learned of it, if it was removed lately.
    fn node(
        &self,
        removed: &mut HashMap<Identity, (EndpointHandle, Instant)>,
        endpoint: &Arc<Endpoint>,
    ) -> Arc<Node<S, R>> {
        let known = if removed.is_empty() { None } else { removed.remove(&identity(endpoint)) };
        let handle = match known {
            Some((handle, _)) if handle.endpoint().is_same(endpoint) => handle,
            _ => EndpointHandle::new(Arc::clone(&self.service), Arc::clone(endpoint), Arc::clone(&self.group)),
        };
        let node = Arc::new(Node::new(handle, Arc::clone(&self.rule)));
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

impl<S: Send + Sync, R: Send + Sync> Subscriber for Endpoints<S, R> {
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
        let slots: Box<[_]> = after.iter().map(|(_, node)| Slot::new(node)).collect();
        writer.current = after;
        self.group.size.store(slots.len() as u32, Relaxed);
        self.set.store(Arc::new(Set { slots, up }));
        self.changed.notify_waiters();
    }
}

impl<S: Send + Sync, R: Send + Sync> Observe for Endpoints<S, R> {
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
        self.set().slots.iter().map(|slot| view(&slot.handle)).collect()
    }

    fn act(&self, act: &Act) -> bool {
        let set = self.set();
        let find = |id: &String| set.handles().find(|handle| handle.endpoint().id().as_str() == id);
        let (handle, act): (_, fn(&EndpointHandle)) = match act {
            Act::Eject(id) => (find(id), EndpointHandle::operator_eject),
            Act::Drain(id) => (find(id), EndpointHandle::operator_drain),
            Act::Restore(id) => (find(id), EndpointHandle::operator_restore),
            _ => return false,
        };
        handle.map(act).is_some()
    }
}

impl<S, R> fmt::Debug for Endpoints<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints")
            .field("service", &self.service)
            .field("endpoints", &self.set().handles().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
