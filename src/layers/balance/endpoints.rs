use std::{
    collections::HashMap,
    fmt, mem,
    ops::Range,
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

/// What calls read; never changes, a new one takes its place. In the order of the directory's snapshot.
pub(super) struct Set<S> {
    pub(super) handles: Vec<EndpointHandle>,
    nodes: Vec<Arc<Node<S>>>,
    /// How many of them their source says are up.
    up: u32,
}

/// An endpoint and its service.
pub(super) struct Node<S> {
    pub(super) handle: EndpointHandle,
    service: OnceLock<S>,
}

struct Writer<S> {
    /// What the next set will have and the present one has not.
    prepared: Set<S>,
    /// Those of them that were there before.
    returned: Vec<EndpointHandle>,
    removed: HashMap<Identity, (EndpointHandle, Instant)>,
}

type Identity = (EndpointId, Address);

/// An endpoint chosen for an attempt.
pub(super) struct Picked<S> {
    pub(super) node: Arc<Node<S>>,
    /// Whether it has the endpoint's one probe.
    pub(super) probe: bool,
}

impl<S> Endpoints<S> {
    pub(super) fn new(service: Arc<str>, connect: Connect<S>, eager: bool) -> Self {
        Self {
            service,
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
    pub(super) fn pick(&self, choose: impl Fn(&[EndpointHandle], &Pick) -> Option<usize>) -> Option<Picked<S>> {
        let set = self.set();
        let panic = self.panics(&set);
        let pick = Pick::under_way(panic);
        for _ in 0..PROBE_RACES {
            let node = &set.nodes[choose(&set.handles, &pick)?];
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
        // The set is replaced under this lock alone.
        let _writer = self.writer();
        let set = self.set();
        let Some(at) = set.handles.iter().position(|known| known.is(handle)) else { return };
        let mut nodes = set.nodes.clone();
        nodes[at] = Arc::new(Node { handle: handle.clone(), service: OnceLock::new() });
        self.set.store(Arc::new(Set { handles: set.handles.clone(), nodes, up: set.up }));
    }

    fn writer(&self) -> MutexGuard<'_, Writer<S>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An endpoint that is new here: with what was learned of it, if it was removed lately.
    fn handle(&self, writer: &mut Writer<S>, endpoint: &Arc<Endpoint>) -> EndpointHandle {
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

impl<S> Set<S> {
    fn new(capacity: usize) -> Self {
        Self { handles: Vec::with_capacity(capacity), nodes: Vec::with_capacity(capacity), up: 0 }
    }

    /// Adds some of another set, but for their `up`.
    fn extend(&mut self, other: &Self, range: Range<usize>) {
        self.handles.extend_from_slice(&other.handles[range.clone()]);
        self.nodes.extend_from_slice(&other.nodes[range]);
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
    fn prepare(&self, before: usize, chunk: &[Arc<Endpoint>]) {
        let mut writer = self.writer();
        let writer = &mut *writer;
        if before == 0 {
            writer.prepared = Set::new(chunk.len());
            writer.returned.clear();
        }
        for endpoint in chunk {
            let handle = self.handle(writer, endpoint);
            let node = Arc::new(Node { handle: handle.clone(), service: OnceLock::new() });
            if self.eager {
                node.service.get_or_init(|| (self.connect)(&handle));
            }
            writer.prepared.up += u32::from(handle.is_up());
            writer.prepared.handles.push(handle);
            writer.prepared.nodes.push(node);
        }
    }

    fn publish(&self, snapshot: &Snapshot, edits: &[(Edit, usize)]) {
        let mut writer = self.writer();
        let writer = &mut *writer;
        let now = Instant::now();
        let before = self.set.load_full();
        let prepared = mem::replace(&mut writer.prepared, Set::new(0));
        let (mut handles, mut nodes) = (prepared.handles.into_iter(), prepared.nodes.into_iter());
        let mut after = Set::new(snapshot.endpoints().len());
        after.up = before.up + prepared.up;
        let mut left = Vec::new();
        let mut at = 0;
        // What is kept is not looked at, only counted: each would be a cache miss.
        for &(edit, count) in edits {
            let old = at..at + count;
            match edit {
                Edit::Keep => after.extend(&before, old),
                Edit::Update => {
                    let said = &snapshot.endpoints()[after.handles.len()..];
                    for (handle, endpoint) in before.handles[old.clone()].iter().zip(said) {
                        after.up -= u32::from(handle.is_up());
                        handle.update(Arc::clone(endpoint));
                        after.up += u32::from(handle.is_up());
                    }
                    after.extend(&before, old);
                }
                Edit::Insert => {
                    after.handles.extend(handles.by_ref().take(count));
                    after.nodes.extend(nodes.by_ref().take(count));
                    continue;
                }
                Edit::Remove => left.extend(&before.handles[old]),
            }
            at += count;
        }
        for handle in writer.returned.drain(..) {
            handle.revive();
        }
        for handle in left {
            after.up -= u32::from(handle.is_up());
            handle.remove();
            writer.removed.insert(identity(&handle.endpoint()), (handle.clone(), now));
        }
        forget(&mut writer.removed, now);
        self.group.size.store(after.handles.len() as u32, Relaxed);
        self.set.store(Arc::new(after));
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
