use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_util::sync::DropGuard;

use super::{Changes, Edit, NotReady, merge::inserted};
use crate::{Endpoint, Monitor, context, monitor::ServiceView};

/// One service of a directory: its endpoints, now and as they change. Clones share it.
///
/// Its source runs as long as somebody holds one.
#[derive(Clone)]
pub struct ServiceHandle {
    pub(super) service: Arc<Service>,
    monitor: Monitor,
    /// Stops the source with the last handle.
    _source: Option<Arc<DropGuard>>,
}

/// What the writer writes and everybody reads.
pub(super) struct Service {
    name: Arc<str>,
    snapshot: ArcSwap<Snapshot>,
    versions: watch::Sender<u64>,
    subscribers: Mutex<Vec<Weak<dyn Subscriber>>>,
    health: Mutex<Health>,
}

/// How its source is.
#[derive(Default)]
struct Health {
    heard: Option<Instant>,
    stale_since: Option<Instant>,
    error: Option<String>,
    refused: usize,
}

/// A service's endpoints at one moment. Never changes; a new one takes its place.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    version: u64,
    endpoints: Arc<[Arc<Endpoint>]>,
}

impl Snapshot {
    /// Goes up with each change; 0 before the first set.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The endpoints, each id once, in the order of their ids.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    #[cfg(test)]
    pub(crate) fn of(endpoints: impl IntoIterator<Item = Arc<Endpoint>>) -> Self {
        Self { version: 1, endpoints: endpoints.into_iter().collect() }
    }
}

/// Whoever keeps something of its own for each endpoint, as a balancer does.
///
/// The directory's writer calls both, one call at a time; never a caller of the stack.
pub trait Subscriber: Send + Sync {
    /// Some of the endpoints that the next snapshot [inserts](Edit::Insert), in its order; `before` of them came in earlier chunks. With 0 it begins
    /// anew: a snapshot that was prepared need not come. The writer yields to the executor between chunks.
    fn prepare(&self, before: usize, chunk: &[Arc<Endpoint>]);

    /// The next snapshot, and what was done to how many of the last one's endpoints, in order, to come to it. All it inserts was prepared.
    fn publish(&self, snapshot: &Snapshot, edits: &[(Edit, usize)]);
}

/// How many endpoints are prepared before the executor has its turn.
pub(super) const CHUNK: usize = 1024;

impl ServiceHandle {
    /// A service with these endpoints, which never change. Of two with one id the last counts.
    pub fn fixed(name: impl Into<Arc<str>>, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let sorted: std::collections::BTreeMap<_, _> =
            endpoints.into_iter().map(|endpoint| (endpoint.id().clone(), Arc::new(endpoint))).collect();
        let service = Arc::new(Service::new(name.into()));
        let endpoints: Vec<_> = sorted.into_values().collect();
        let edits = [(Edit::Insert, endpoints.len())];
        service.publish_now(endpoints, &edits, 0);
        Self::new(service, Monitor::new(), None)
    }

    pub(super) fn new(service: Arc<Service>, monitor: Monitor, source: Option<Arc<DropGuard>>) -> Self {
        Self { service, monitor, _source: source }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.service.name
    }

    /// Its directory's monitor.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Its endpoints now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.service.snapshot.load_full()
    }

    /// The version of its snapshot, as it goes up.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.service.versions.subscribe()
    }

    /// The endpoints there are, and then their changes: a tower `Discover` that never ends and never errs.
    pub fn discover(&self) -> Changes {
        Changes::new(self.clone())
    }

    /// Waits until its source has said something, at most this long.
    pub async fn ready(&self, timeout: Duration) -> Result<(), NotReady> {
        let mut versions = self.watch();
        let heard = versions.wait_for(|version| *version > 0);
        match timeout_at(Instant::now() + timeout, heard).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(NotReady::new(vec![self.name().to_string()])),
        }
    }

    /// Tells `subscriber` the present snapshot at once, and then each new one, until it is dropped.
    pub fn subscribe<S: Subscriber + 'static>(&self, subscriber: &Arc<S>) {
        let mut subscribers = self.service.subscribers();
        let snapshot = self.snapshot();
        subscriber.prepare(0, snapshot.endpoints());
        subscriber.publish(&snapshot, &[(Edit::Insert, snapshot.endpoints().len())]);
        let subscriber: Weak<S> = Arc::downgrade(subscriber);
        subscribers.push(subscriber);
    }
}

impl Service {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            snapshot: ArcSwap::default(),
            versions: watch::Sender::new(0),
            subscribers: Mutex::default(),
            health: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Publishes a set that is sorted by id, letting others have their turn between chunks.
    pub(super) async fn publish(&self, endpoints: Vec<Arc<Endpoint>>, edits: &[(Edit, usize)]) {
        // Nobody but `publish_now` takes one out, so that those that come in between are after these.
        let subscribers = self.subscribers().clone();
        let mut prepared = 0;
        for chunk in inserted(&endpoints, edits).flat_map(|run| run.chunks(CHUNK)) {
            for subscriber in subscribers.iter().filter_map(Weak::upgrade) {
                subscriber.prepare(prepared, chunk);
            }
            let chunks = prepared / CHUNK;
            prepared += chunk.len();
            if prepared / CHUNK > chunks {
                tokio::task::yield_now().await;
            }
        }
        self.publish_now(endpoints, edits, subscribers.len());
    }

    /// Publishes it to subscribers of whom the first so many have been prepared.
    fn publish_now(&self, endpoints: Vec<Arc<Endpoint>>, edits: &[(Edit, usize)], prepared: usize) {
        let mut subscribers = self.subscribers();
        let version = self.snapshot.load().version + 1;
        let snapshot = Arc::new(Snapshot { version, endpoints: endpoints.into() });
        self.snapshot.store(Arc::clone(&snapshot));
        for subscriber in subscribers.iter().skip(prepared).filter_map(Weak::upgrade) {
            inserted(snapshot.endpoints(), edits).fold(0, |before, run| {
                subscriber.prepare(before, run);
                before + run.len()
            });
        }
        subscribers.retain(|subscriber| {
            subscriber.upgrade().inspect(|subscriber| subscriber.publish(&snapshot, edits)).is_some()
        });
        drop(subscribers);
        self.versions.send_replace(version);
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Its source said something.
    pub(super) fn heard(&self) {
        let mut health = self.health();
        if health.stale_since.is_some() {
            tracing::info!(target: "hopvine::discover", service = %self.name, "the source is back");
        }
        *health = Health { heard: Some(Instant::now()), stale_since: None, error: None, refused: health.refused };
    }

    /// So many endpoints of its source were no good.
    pub(super) fn refused(&self, count: usize) {
        self.health().refused = count;
    }

    /// Its source failed: what is known stays.
    pub(super) fn failed(&self, error: String) {
        let mut health = self.health();
        if health.error.as_ref() != Some(&error) {
            tracing::warn!(target: "hopvine::discover", service = %self.name, error, "the source failed; the last set stays");
        }
        health.stale_since.get_or_insert_with(Instant::now);
        health.error = Some(error);
    }

    /// Its source listed so many endpoints, and none of them may be used: as good as a failure.
    pub(super) fn refused_all(&self, count: usize) {
        self.failed(format!("none of the {count} endpoints it lists may be used"));
        self.health().refused = count;
    }

    pub(super) fn view(&self) -> ServiceView {
        let snapshot = self.snapshot();
        let health = self.health();
        let now = context::now();
        let since = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at));
        ServiceView {
            name: self.name.to_string(),
            endpoints: snapshot.endpoints().len(),
            version: snapshot.version(),
            age: since(health.heard),
            stale_for: since(health.stale_since),
            error: health.error.clone(),
            refused: health.refused,
        }
    }

    fn subscribers(&self) -> MutexGuard<'_, Vec<Weak<dyn Subscriber>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ServiceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceHandle")
            .field("name", &self.service.name)
            .field("snapshot", &self.service.snapshot.load())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        thread,
    };

    use super::*;

    #[derive(Default)]
    struct Follower {
        last: AtomicU64,
        missed: AtomicBool,
    }

    impl Subscriber for Follower {
        fn prepare(&self, _: usize, _: &[Arc<Endpoint>]) {}

        fn publish(&self, snapshot: &Snapshot, _: &[(Edit, usize)]) {
            let last = self.last.swap(snapshot.version(), SeqCst);
            self.missed.fetch_or(last != 0 && snapshot.version() != last + 1, SeqCst);
        }
    }

    /// By force of numbers: neither the pointer swap nor the channel can be put through a model checker.
    #[test]
    fn whoever_hears_of_a_version_finds_it_and_a_subscriber_misses_none() {
        const LAST: u64 = 50_000;
        let handle = ServiceHandle::new(Arc::new(Service::new("catalog".into())), Monitor::new(), None);
        let mut followers: VecDeque<_> = (0..8).map(|_| Arc::new(Follower::default())).collect();
        for follower in &followers {
            handle.subscribe(follower);
        }
        thread::scope(|scope| {
            scope.spawn(|| (0..LAST).for_each(|_| handle.service.publish_now(Vec::new(), &[], 0)));
            scope.spawn(|| {
                let versions = handle.watch();
                let mut heard = 0;
                while heard < LAST {
                    let version = *versions.borrow();
                    let found = handle.snapshot().version();
                    assert!(heard <= version && version <= found, "heard of {heard}, then of {version}; found {found}");
                    heard = version;
                }
            });
            while handle.snapshot().version() < LAST {
                let follower = Arc::new(Follower::default());
                handle.subscribe(&follower);
                followers.push_back(follower);
                let first = followers.pop_front().expect("eight and one");
                assert!(!first.missed.load(SeqCst));
            }
        });
        for follower in followers {
            assert_eq!((follower.missed.load(SeqCst), follower.last.load(SeqCst)), (false, LAST));
        }
    }
}
