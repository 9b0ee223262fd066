use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use arc_swap::ArcSwap;

use crate::{Endpoint, Monitor};

/// One service of a directory: its endpoints, now and as they change. Clones share it.
#[derive(Clone)]
pub struct ServiceHandle(Arc<Shared>);

struct Shared {
    name: Arc<str>,
    monitor: Monitor,
    snapshot: ArcSwap<Snapshot>,
    subscribers: Mutex<Vec<Weak<dyn Subscriber>>>,
}

/// A service's endpoints at one moment. Never changes; a new one takes its place.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    version: u64,
    endpoints: Arc<[Arc<Endpoint>]>,
}

impl Snapshot {
    /// Goes up with each change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The endpoints, each identity once, in the order of their ids.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }
}

/// Whoever keeps something of its own for each endpoint, as a balancer does.
///
/// The directory's writer calls both, one call at a time; never a caller of the stack.
pub trait Subscriber: Send + Sync {
    /// Some of the endpoints the next snapshot will have. The writer yields to the executor between two chunks.
    fn prepare(&self, chunk: &[Arc<Endpoint>]);

    /// The next snapshot, all of whose endpoints were prepared.
    fn publish(&self, snapshot: &Snapshot);
}

impl ServiceHandle {
    /// A service with these endpoints, which never change.
    pub fn fixed(name: impl Into<Arc<str>>, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let snapshot = Snapshot { version: 1, endpoints: endpoints.into_iter().map(Arc::new).collect() };
        Self(Arc::new(Shared {
            name: name.into(),
            monitor: Monitor::new(),
            snapshot: ArcSwap::from_pointee(snapshot),
            subscribers: Mutex::default(),
        }))
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Its directory's monitor.
    pub fn monitor(&self) -> &Monitor {
        &self.0.monitor
    }

    /// Its endpoints now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    /// Tells `subscriber` the present snapshot at once, and then each new one, until it is dropped.
    pub fn subscribe<S: Subscriber + 'static>(&self, subscriber: &Arc<S>) {
        let mut subscribers = self.subscribers();
        let snapshot = self.snapshot();
        subscriber.prepare(snapshot.endpoints());
        subscriber.publish(&snapshot);
        let subscriber: Weak<S> = Arc::downgrade(subscriber);
        subscribers.push(subscriber);
    }

    fn subscribers(&self) -> MutexGuard<'_, Vec<Weak<dyn Subscriber>>> {
        self.0.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ServiceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceHandle")
            .field("name", &self.0.name)
            .field("snapshot", &self.0.snapshot.load())
            .finish_non_exhaustive()
    }
}
