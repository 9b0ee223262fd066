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

mod subscribe;

use super::picker::Pick;
use crate::{
    Endpoint, EndpointHandle,
    endpoint::{Address, EndpointId, Group},
    lanes::{Lane, PerLane},
    monitor::{Act, EndpointView, Kind, Observation, Observe},
};

/// How many picks are tried again when somebody else takes the probe first.
const PROBE_RACES: usize = 3;

/// Shortest lease of a probe.
const PROBE_LEASE: Duration = Duration::from_secs(10);

/// Makes the service of an endpoint.
pub(super) type Connect<S> = Box<dyn Fn(&EndpointHandle) -> S + Send + Sync>;

/// The endpoints of one service in one stack: written by the directory's writer, read by every call.
pub(super) struct Endpoints<S, R> {
    /// A thin pointer, since each endpoint has one.
    service: Arc<Arc<str>>,
    rule: Arc<R>,
    connect: Connect<S>,
    eager: bool,
    group: Arc<Group>,
    /// The same one in each.
    sets: PerLane<ArcSwap<InLane<S, R>>>,
    panic: AtomicBool,
    /// Somebody waits for a change.
    pub(super) changed: Notify,
    writer: Mutex<Writer<S>>,
}

/// A set as the calls of one lane hold it.
type InLane<S, R> = Lane<Set<S, R>>;

/// What calls read; never changes, a new one takes its place. In the order of the directory's snapshot.
pub(super) struct Set<S, R> {
    rule: Arc<R>,
    slots: Arc<[Slot<S>]>,
    /// How many of them their source says are up.
    up: u32,
}

/// An endpoint as pickers see it, and its node: side by side, for the one that is picked is looked up at once.
pub(super) struct Slot<S> {
    handle: EndpointHandle,
    node: Arc<Node<S>>,
}

/// The service of an endpoint, the same one in all sets.
struct Node<S> {
    service: OnceLock<S>,
    /// Its service failed to become ready: another one is made for the next call, since it may be so for good.
    broken: AtomicBool,
}

struct Writer<S> {
    /// What the next set will have and the present one has not.
    prepared: Made<S>,
    /// Those of them that were there before.
    returned: Vec<EndpointHandle>,
    removed: HashMap<Identity, (EndpointHandle, Instant)>,
}

/// A set, or a part of one, under construction.
struct Made<S> {
    slots: Vec<Slot<S>>,
    up: u32,
}

type Identity = (EndpointId, Address);

/// An endpoint chosen for an attempt. It holds the set, not the endpoint: that is counted in the thread's lane, where calls of other
/// threads at the same endpoint do not count.
pub(super) struct Picked<S, R> {
    pub(super) at: At<S, R>,
    /// Whether it has the endpoint's one probe.
    pub(super) probe: bool,
}

/// An endpoint of a set.
pub(super) struct At<S, R> {
    set: Arc<InLane<S, R>>,
    slot: u32,
}

impl<S> AsRef<EndpointHandle> for Slot<S> {
    fn as_ref(&self) -> &EndpointHandle {
        &self.handle
    }
}

impl<S> Node<S> {
    fn new() -> Arc<Self> {
        Arc::new(Self { service: OnceLock::new(), broken: AtomicBool::new(false) })
    }
}

impl<S, R> At<S, R> {
    #[inline]
    pub(super) fn handle(&self) -> &EndpointHandle {
        &self.slot().handle
    }

    #[inline]
    pub(super) fn rule(&self) -> &R {
        &self.set.rule
    }

    /// Its service is no good any more.
    pub(super) fn give_up(&self) {
        self.slot().node.broken.store(true, Relaxed);
    }

    #[inline]
    fn slot(&self) -> &Slot<S> {
        &self.set.slots[self.slot as usize]
    }
}

impl<S, R> Endpoints<S, R> {
    pub(super) fn new(service: Arc<str>, connect: Connect<S>, eager: bool, rule: Arc<R>) -> Self {
        let empty = Set { rule, slots: Arc::default(), up: 0 };
        Self {
            service: Arc::new(service),
            connect,
            eager,
            group: Arc::default(),
            sets: PerLane::new(|| ArcSwap::new(Lane::new(empty.clone()))),
            panic: AtomicBool::new(false),
            changed: Notify::new(),
            writer: Mutex::new(Writer { prepared: Made::default(), returned: Vec::new(), removed: HashMap::new() }),
            rule: empty.rule,
        }
    }

    pub(super) fn service(&self) -> &Arc<str> {
        &self.service
    }

    pub(super) fn rule(&self) -> &R {
        &self.rule
    }

    pub(super) fn set(&self) -> Guard<Arc<InLane<S, R>>> {
        self.sets.here().load()
    }

    fn replace(&self, made: Made<S>) {
        let set = Set { rule: Arc::clone(&self.rule), slots: made.slots.into(), up: made.up };
        for lane in self.sets.iter() {
            lane.store(Lane::new(set.clone()));
        }
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
    #[inline]
    pub(super) fn pick(&self, choose: impl Fn(&[Slot<S>], &Pick) -> Option<usize>) -> Option<Picked<S, R>> {
        let set = self.set();
        let panic = self.panics(&set);
        let pick = Pick::under_way(panic);
        for _ in 0..PROBE_RACES {
            let slot = choose(&set.slots, &pick)?;
            let health = set.slots[slot].handle.health();
            // In a panic nobody asks for a lease: everything is tried anyway.
            let probe = !panic && health.is_ejected();
            if !probe || health.try_probe(pick.now(), pick.now() + PROBE_LEASE.as_nanos() as u64) {
                return Some(Picked { at: At { set: Guard::into_inner(set), slot: slot as u32 }, probe });
            }
        }
        None
    }

    /// An instance of its service, which its first pick makes.
    #[inline]
    pub(super) fn service_of(&self, at: &mut At<S, R>) -> S
    where
        S: Clone,
    {
        if at.slot().node.broken.load(Relaxed) {
            self.renew(at);
        }
        let Slot { handle, node } = at.slot();
        node.service.get_or_init(|| (self.connect)(handle)).clone()
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
    fn renew(&self, broken: &mut At<S, R>) {
        // The set is replaced under this lock alone.
        let _writer = self.writer();
        let set = self.set();
        let Some(slot) = set.slots.iter().position(|slot| slot.handle.is(broken.handle())) else { return };
        if set.slots[slot].node.broken.load(Relaxed) {
            let mut slots = set.slots.to_vec();
            slots[slot].node = Node::new();
            self.replace(Made { slots, up: set.up });
        }
        *broken = At { set: self.sets.here().load_full(), slot: slot as u32 };
    }

    fn writer(&self) -> MutexGuard<'_, Writer<S>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With what was learned of this endpoint, if it was removed lately.
    fn known(writer: &mut Writer<S>, endpoint: &Arc<Endpoint>) -> Option<EndpointHandle> {
        if writer.removed.is_empty() {
            return None;
        }
        let (handle, _) = writer.removed.remove(&identity(endpoint))?;
        handle.endpoint().is_same(endpoint).then(|| {
            handle.update(Arc::clone(endpoint));
            writer.returned.push(handle.clone());
            handle
        })
    }
}

impl<S> Made<S> {
    fn new(capacity: usize) -> Self {
        Self { slots: Vec::with_capacity(capacity), up: 0 }
    }
}

impl<S> Default for Made<S> {
    fn default() -> Self {
        Self::new(0)
    }
}

impl<S, R> Set<S, R> {
    pub(super) fn handles(&self) -> impl Iterator<Item = &EndpointHandle> {
        self.slots.iter().map(|slot| &slot.handle)
    }

    fn serving(&self) -> impl Iterator<Item = &EndpointHandle> {
        self.handles().filter(|handle| handle.is_serving())
    }
}

// Derived, it would ask that of the rule.
impl<S, R> Clone for Set<S, R> {
    fn clone(&self) -> Self {
        Self { rule: Arc::clone(&self.rule), slots: Arc::clone(&self.slots), up: self.up }
    }
}

// And of the service.
impl<S> Clone for Slot<S> {
    fn clone(&self) -> Self {
        Self { handle: self.handle.clone(), node: Arc::clone(&self.node) }
    }
}

fn identity(endpoint: &Endpoint) -> Identity {
    (endpoint.id().clone(), endpoint.address().clone())
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
