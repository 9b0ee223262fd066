use std::{
    collections::HashMap,
    fmt,
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
struct Node<S> {
    handle: EndpointHandle,
    service: OnceLock<S>,
}

struct Writer<S> {
    nodes: HashMap<Identity, Arc<Node<S>>>,
    removed: HashMap<Identity, (EndpointHandle, Instant)>,
}

type Identity = (EndpointId, Address);

/// An endpoint chosen for an attempt.
pub(super) struct Picked<S> {
    pub(super) handle: EndpointHandle,
    pub(super) service: S,
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
            writer: Mutex::new(Writer { nodes: HashMap::new(), removed: HashMap::new() }),
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
        now: Instant,
        attempt: crate::context::Attempt,
        choose: impl Fn(&[EndpointHandle], &Pick) -> Option<usize>,
    ) -> Option<Picked<S>>
    where
        S: Clone,
    {
        let nanos = crate::context::nanos(now);
        let set = self.set();
        let panic = self.panics(&set);
        let pick = Pick::new(nanos, attempt, panic);
        for _ in 0..PROBE_RACES {
            let node = &set.nodes[choose(&set.handles, &pick)?];
            let health = node.handle.health();
            // In a panic nobody asks for a lease: everything is tried anyway.
            let probe = !panic && health.is_ejected();
            if !probe || health.try_probe(nanos, nanos + PROBE_LEASE.as_nanos() as u64) {
                let service = node.service.get_or_init(|| (self.connect)(&node.handle)).clone();
                return Some(Picked { handle: node.handle.clone(), service, probe });
            }
        }
        None
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
        let Some(node) = writer.nodes.values_mut().find(|node| node.handle.number() == handle.number()) else {
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

    /// The node of an endpoint: the one there is, one that was removed lately, or a new one.
    fn node(&self, writer: &mut Writer<S>, endpoint: &Arc<Endpoint>) -> Arc<Node<S>> {
        let identity = (endpoint.id().clone(), endpoint.address().clone());
        if let Some(node) = writer.nodes.get(&identity)
            && node.handle.endpoint().is_same(endpoint)
        {
            return Arc::clone(node);
        }
        let handle = match writer.removed.remove(&identity) {
            Some((handle, _)) if handle.endpoint().is_same(endpoint) => handle,
            _ => EndpointHandle::new(Arc::clone(&self.service), Arc::clone(endpoint), Arc::clone(&self.group)),
        };
        let node = Arc::new(Node { handle, service: OnceLock::new() });
        if self.eager {
            node.service.get_or_init(|| (self.connect)(&node.handle));
        }
        // One of the same identity that is reached otherwise now is another endpoint.
        if let Some(replaced) = writer.nodes.insert(identity, Arc::clone(&node)) {
            replaced.handle.remove();
        }
        node
    }
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
        for endpoint in chunk {
            self.node(&mut writer, endpoint);
        }
    }

    fn publish(&self, snapshot: &Snapshot) {
        let mut writer = self.writer();
        let mut before = std::mem::take(&mut writer.nodes);
        let mut nodes = Vec::with_capacity(snapshot.endpoints().len());
        let mut after = HashMap::with_capacity(snapshot.endpoints().len());
        for endpoint in snapshot.endpoints() {
            let identity = (endpoint.id().clone(), endpoint.address().clone());
            let node = match before.remove(&identity) {
                Some(node) if node.handle.endpoint().is_same(endpoint) => node,
                other => {
                    // Not prepared, or replaced since.
                    if let Some(other) = other {
                        other.handle.remove();
                    }
                    self.node(&mut writer, endpoint)
                }
            };
            node.handle.revive();
            if *node.handle.endpoint() != **endpoint {
                node.handle.update(Arc::clone(endpoint));
            }
            nodes.push(Arc::clone(&node));
            after.insert(identity, node);
        }
        writer.nodes = after;
        let now = Instant::now();
        for (identity, node) in before {
            node.handle.remove();
            writer.removed.insert(identity, (node.handle.clone(), now));
        }
        forget(&mut writer.removed, now);
        let handles: Box<[_]> = nodes.iter().map(|node| node.handle.clone()).collect();
        let up = handles.iter().filter(|handle| handle.endpoint().status() == Status::Up).count() as u32;
        self.group.size.store(handles.len() as u32, Relaxed);
        self.set.store(Arc::new(Set { handles, nodes: nodes.into(), up }));
        drop(writer);
        self.changed.notify_waiters();
    }
}

impl<S: Send + Sync> Observe for Endpoints<S> {
    fn kind(&self) -> Kind {
        Kind::Endpoints
    }

    fn observe(&self, name: &str) -> Vec<Observation> {
        let now = crate::context::nanos(crate::context::now());
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
