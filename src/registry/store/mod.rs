//! What a registry knows, without clock, runtime or socket: applications, leases, overrides, and what changed lately.
//!
//! One lock guards it. A heartbeat takes it for reading, looks up two maps and writes one atomic of the lease: its cost does not depend on the number of
//! instances, and heartbeats do not wait for each other, unless there are peers: then each takes its place in every peer's queue, under that queue's own lock
//! (about 0.6 µs each). Changes take it for writing, shortly; documents are made outside it.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

mod change;
mod evict;
mod heartbeat;
mod learn;
mod lease;
mod moment;
mod operation;
mod overriding;
mod overview;
mod read;
mod recent;
mod register;
mod renewals;

pub use heartbeat::{Heartbeat, Renewed};
pub use moment::Moment;
pub use operation::{By, Refused, ReplicationSink};
pub(super) use overview::{ApplicationSeen, InstanceSeen, Part};
pub(super) use read::Changes;
pub use read::Counted;

use crate::{
    Live, PolicyError,
    eureka::{ActionType, Instance, InstanceStatus, Replication, StatusCounts, Text},
    live::IntoLive,
    registry::{Counters, RegistryPolicy},
};

use learn::Departed;
use lease::Lease;
use overriding::Override;
use recent::{Change, Recent};
use renewals::Renewals;

/// The instances of a registry, and their leases. All operations take the time they happen at.
///
/// Names of applications are in upper case here; documents and paths bring them so.
pub struct Store {
    policy: Live<RegistryPolicy>,
    state: RwLock<State>,
    renewals: Renewals,
    counters: Counters,
    /// Counts what makes full documents old, and what makes deltas old.
    version: AtomicU64,
    delta_version: AtomicU64,
    /// When the last eviction was, and when the expected number was last set.
    evicted: AtomicU64,
    expected_set: AtomicU64,
    /// Instances that were restored, and have not been heard of since.
    unheard: AtomicUsize,
    sink: OnceLock<Arc<dyn ReplicationSink>>,
    on_change: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// What the lock guards.
#[derive(Debug, Default)]
struct State {
    applications: HashMap<Text, HashMap<Text, Slot>>,
    instances: usize,
    overrides: usize,
    counts: StatusCounts,
    recent: Recent,
    departed: Departed,
}

/// One instance. What a heartbeat compares lies here beside the lease: with many instances, each look elsewhere is a miss of the processor's cache.
#[derive(Debug)]
struct Slot {
    status: InstanceStatus,
    last_dirty_timestamp: u64,
    lease: Arc<Lease>,
    overridden: Option<Override>,
    instance: Arc<Instance>,
    /// The number of its last change; 0 before the first.
    change: u64,
}

impl Store {
    /// An empty one.
    pub fn new(policy: impl IntoLive<RegistryPolicy>, now: Moment) -> Result<Self, PolicyError> {
        Ok(Self {
            policy: policy.into_live()?,
            state: RwLock::default(),
            renewals: Renewals::new(now),
            counters: Counters::default(),
            version: AtomicU64::new(0),
            delta_version: AtomicU64::new(0),
            evicted: AtomicU64::new(now.0),
            expected_set: AtomicU64::new(now.0),
            unheard: AtomicUsize::new(0),
            sink: OnceLock::new(),
            on_change: OnceLock::new(),
        })
    }

    /// Tells `sink` of every operation that is not a peer's own, from now on; only the first sink counts.
    pub fn replicate_to(&self, sink: Arc<dyn ReplicationSink>) {
        let _ = self.sink.set(sink);
    }

    /// Calls this after each change; only the first counts.
    pub(super) fn on_change(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_change.set(Box::new(call));
    }

    /// The policy it follows.
    pub fn policy(&self) -> &Live<RegistryPolicy> {
        &self.policy
    }

    /// What it counted since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Grows with each change of what a full document says.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Grows with each change of what a delta says.
    pub(super) fn delta_version(&self) -> u64 {
        self.delta_version.load(Ordering::Acquire)
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the sink, while the lock is held, so that the order is that of what happened.
    fn forward(&self, by: By, operation: impl FnOnce() -> Replication) {
        if by == By::Client
            && let Some(sink) = self.sink.get()
        {
            sink.replicate(operation());
        }
    }

    /// An instance was heard of, by itself or by a peer. From then on it is one that should be.
    fn heard(&self, lease: &Lease) {
        if lease.is_heard_now() {
            self.unheard.fetch_sub(1, Ordering::Relaxed);
            self.renewals.joined();
        }
    }

    /// Marks all documents as old. Called with the lock for writing held, so that who sees the version sees the change.
    fn changed(&self) {
        self.version.fetch_add(1, Ordering::Release);
        self.delta_version.fetch_add(1, Ordering::Release);
    }

    /// Wakes who waits for changes. Called after the lock is released.
    fn tell_change(&self) {
        if let Some(call) = self.on_change.get() {
            call();
        }
    }
}

impl State {
    fn slot(&self, app: &str, id: &str) -> Option<&Slot> {
        self.applications.get(app)?.get(id)
    }

    /// Puts a changed instance in the place of the former.
    fn replace(&mut self, app: &str, id: &str, change: impl FnOnce(&mut Instance)) -> Option<&mut Slot> {
        let slot = self.applications.get_mut(app)?.get_mut(id)?;
        let mut instance = (*slot.instance).clone();
        change(&mut instance);
        self.counts.remove(slot.status);
        self.counts.add(instance.status);
        slot.set(Arc::new(instance));
        Some(slot)
    }

    /// Keeps what happened to an instance that is here for deltas.
    fn remember(&mut self, app: &str, id: &str, now: Moment, most: usize) {
        let Some(slot) = self.applications.get_mut(app).and_then(|all| all.get_mut(id)) else { return };
        self.recent.add(slot.changed(now), &mut slot.change, most);
    }
}

impl Slot {
    fn new(instance: Arc<Instance>, lease: Lease, overridden: Option<Override>) -> Self {
        Self {
            status: instance.status,
            last_dirty_timestamp: instance.last_dirty_timestamp.unwrap_or_default(),
            lease: Arc::new(lease),
            overridden,
            instance,
            change: 0,
        }
    }

    /// That it is now as it is.
    fn changed(&self, now: Moment) -> Change {
        Change { at: now, instance: Arc::clone(&self.instance), lease: Arc::clone(&self.lease), left: None }
    }

    fn set(&mut self, instance: Arc<Instance>) {
        self.status = instance.status;
        self.last_dirty_timestamp = instance.last_dirty_timestamp.unwrap_or_default();
        self.instance = instance;
    }

    /// The override, unless its time is over.
    fn overridden(&self, now: Moment, policy: &RegistryPolicy) -> Option<InstanceStatus> {
        self.overridden.as_ref().and_then(|overridden| overridden.status(now, policy.override_retention))
    }
}

/// What every change of a kept instance writes.
fn mark(instance: &mut Instance, action: ActionType, now: Moment) {
    instance.action_type = Some(action);
    instance.last_updated_timestamp = Some(now.0);
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("policy", &self.policy).field("counted", &self.counted()).finish_non_exhaustive()
    }
}
