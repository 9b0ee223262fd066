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
    discover::{Edit, Snapshot, Subscriber},
    endpoint::{Address, EndpointId, Group},
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

/// What calls read; never changes, a new one takes its place. In the order of the directory's snapshot.
pub(super) struct Set<S, R> {
    slots: Vec<Slot<S, R>>,
    /// How many of them their source says are up.
    up: u32,
}

/// An endpoint as pickers see it, and its node: side by side, for the one that is picked is looked up at once.
pub(super) struct Slot<S, R> {
    handle: EndpointHandle,
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
    /// What the next set will have and the present one has not.
    prepared: Set<S, R>,
    /// Those of them that were there before.
    returned: Vec<EndpointHandle>,
    removed: HashMap<Identity, (EndpointHandle, Instant)>,
}

type Identity = (EndpointId, Address);

/// An endpoint chosen for an attempt.
pub(super) struct Picked<S, R> {
    pub(super) node: Arc<Node<S, R>>,
    /// Whether it has the endpoint's one probe.
    pub(super) probe: bool,
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
        Self {
            service,
            rule,
            connect,
            eager,
            group: Arc::default(),
            set: ArcSwap::from_pointee(Set::new(0)),
            panic: AtomicBool::new(false),
            changed: Notify::new(),
            writer: Mutex::new(Writer { prepared: Set::new(0), returned: Vec::new(), removed: HashMap::new() }),
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
        // The set is replaced under this lock alone.
        let _writer = self.writer();
        let set = self.set();
        let Some(at) = set.slots.iter().position(|slot| slot.handle.is(&broken.handle)) else { return };
        let node = &set.slots[at].node;
        if !node.broken.load(Relaxed) {
            *broken = Arc::clone(node);
            return;
        }
        *broken = Arc::new(Node::new(broken.handle.clone(), Arc::clone(&self.rule)));
        let mut slots = set.slots.clone();
        slots[at].node = Arc::clone(broken);
        self.set.store(Arc::new(Set { slots, up: set.up }));
    }

    fn writer(&self) -> MutexGuard<'_, Writer<S, R>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An endpoint that is new here: with what was learned of it, if it was removed lately.
    fn handle(&self, writer: &mut Writer<S, R>, endpoint: &Arc<Endpoint>) -> EndpointHandle {
        let known = if writer.removed.is_empty() { None } else { writer.removed.remove(&identity(endpoint)) };
        match known {
            Some((handle, _)) if handle.endpoint().is_same(endpoint) => {
                handle.update(Arc::clone(endpoint));
                writer.returned.push(handle.clone());
                handle
            }
            _ => EndpointHandle::new(Arc::clone(&self.service), Arc::clone(endpoint), Arc::clone(&self.group)),
        }
    }
}

impl<S, R> Set<S, R> {
    fn new(capacity: usize) -> Self {
        Self { slots: Vec::with_capacity(capacity), up: 0 }
    }

    pub(super) fn handles(&self) -> impl Iterator<Item = &EndpointHandle> {
        self.slots.iter().map(|slot| &slot.handle)
    }

    fn serving(&self) -> impl Iterator<Item = &EndpointHandle> {
        self.handles().filter(|handle| handle.is_serving())
    }
}

// Derived, it would ask that of the service.
impl<S, R> Clone for Slot<S, R> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), node: Arc::clone(&self.node) }
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
    fn prepare(&self, before: usize, chunk: &[Arc<Endpoint>]) {
        let mut writer = self.writer();
        let writer = &mut *writer;
        if before == 0 {
            writer.prepared = Set::new(chunk.len());
            writer.returned.clear();
        }
        for endpoint in chunk {
            let handle = self.handle(writer, endpoint);
            let node = Arc::new(Node::new(handle.clone(), Arc::clone(&self.rule)));
            if self.eager {
                node.service.get_or_init(|| (self.connect)(&handle));
            }
            writer.prepared.up += u32::from(handle.is_up());
            writer.prepared.slots.push(Slot { handle, node });
        }
    }

    fn publish(&self, snapshot: &Snapshot, edits: &[(Edit, usize)]) {
        let mut writer = self.writer();
        let writer = &mut *writer;
        let now = Instant::now();
        let before = self.set.load_full();
        let prepared = mem::replace(&mut writer.prepared, Set::new(0));
        let mut fresh = prepared.slots.into_iter();
        let mut after = Set::new(snapshot.endpoints().len());
        after.up = before.up + prepared.up;
        let mut left = Vec::new();
        let mut at = 0;
        // What is kept is not looked at, only counted: each would be a cache miss.
        for &(edit, count) in edits {
            let old = at..at + count;
            match edit {
                Edit::Keep => after.slots.extend_from_slice(&before.slots[old]),
                Edit::Update => {
                    let said = &snapshot.endpoints()[after.slots.len()..];
                    for (Slot { handle, .. }, endpoint) in before.slots[old.clone()].iter().zip(said) {
                        after.up -= u32::from(handle.is_up());
                        handle.update(Arc::clone(endpoint));
                        after.up += u32::from(handle.is_up());
                    }
                    after.slots.extend_from_slice(&before.slots[old]);
                }
                Edit::Insert => {
                    after.slots.extend(fresh.by_ref().take(count));
                    continue;
                }
                Edit::Remove => left.extend(&before.slots[old]),
            }
            at += count;
        }
        for handle in writer.returned.drain(..) {
            handle.revive();
        }
        for Slot { handle, .. } in left {
            after.up -= u32::from(handle.is_up());
            handle.remove();
            writer.removed.insert(identity(&handle.endpoint()), (handle.clone(), now));
        }
        forget(&mut writer.removed, now);
        self.group.size.store(after.slots.len() as u32, Relaxed);
        self.set.store(Arc::new(after));
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
        self.set().handles().map(view).collect()
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
