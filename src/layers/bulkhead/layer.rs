use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tower_layer::Layer;

use super::{
    Bulkhead, BulkheadPolicy,
    places::{Owner, Places},
};
use crate::{
    Error, ErrorKind,
    lanes::{Lane, Lanes},
    live::{Follow, IntoLive, Live, PolicyError},
    monitor::{BulkheadView, Kind, Monitor, Observation, Observe},
};

/// Puts one bulkhead round everything it is laid round. See the [module](super).
#[derive(Clone)]
pub struct BulkheadLayer {
    shared: Arc<Shared>,
}

/// What a call holds.
pub(super) struct Own {
    pub(super) shared: Arc<Shared>,
    lane: usize,
}

/// What all services of a layer share.
pub(super) struct Shared {
    name: ArcSwapOption<Arc<str>>,
    policy: Live<BulkheadPolicy>,
    places: Places,
    max_wait: AtomicU64,
    max_waiting: AtomicU32,
    rejected: AtomicU64,
}

impl BulkheadLayer {
    /// A bulkhead with all places free.
    pub fn new(policy: impl IntoLive<BulkheadPolicy>) -> Result<Self, PolicyError> {
        let policy = policy.into_live()?;
        let shared = Arc::new(Shared {
            name: ArcSwapOption::empty(),
            places: Places::new(policy.get().limit),
            policy,
            max_wait: AtomicU64::new(0),
            max_waiting: AtomicU32::new(0),
            rejected: AtomicU64::new(0),
        });
        shared.policy.follow(&shared);
        Ok(Self { shared })
    }

    /// Names it in errors and, if this comes before [`monitor`](Self::monitor), there.
    pub fn name(self, name: impl Into<Arc<str>>) -> Self {
        self.shared.name.store(Some(Arc::new(name.into())));
        self
    }

    /// Shows it in `monitor`, under its name, or as `bulkhead`.
    pub fn monitor(self, monitor: &Monitor) -> Self {
        monitor.register(self.shared.name().as_deref().unwrap_or("bulkhead"), &self.shared);
        self
    }
}

impl<S> Layer<S> for BulkheadLayer {
    type Service = Bulkhead<S>;

    fn layer(&self, inner: S) -> Bulkhead<S> {
        Bulkhead::new(inner, Lanes::new(|lane| Own { shared: Arc::clone(&self.shared), lane }))
    }
}

impl fmt::Debug for BulkheadLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shared, f)
    }
}

impl Shared {
    /// How long a call waits; `None` if not at all.
    pub(super) fn max_wait(&self) -> Option<Duration> {
        let wait = self.max_wait.load(Relaxed);
        (wait > 0).then(|| Duration::from_nanos(wait))
    }

    pub(super) fn max_waiting(&self) -> u32 {
        self.max_waiting.load(Relaxed)
    }

    /// Counts a refusal and makes its error.
    pub(super) fn refuse(&self, kind: ErrorKind) -> Error {
        self.rejected.fetch_add(1, Relaxed);
        // Whatever the kind: no request has left.
        let error = Error::new(kind).with_layer("bulkhead").unsent();
        match self.name() {
            Some(name) => error.with_service(name),
            None => error,
        }
    }

    fn name(&self) -> Option<Arc<str>> {
        self.name.load().as_deref().map(Arc::clone)
    }
}

impl Owner for Lane<Own> {
    fn places(&self) -> &Places {
        &self.shared.places
    }

    fn lane(&self) -> usize {
        self.lane
    }
}

impl Follow<BulkheadPolicy> for Shared {
    fn follow(&self, policy: &BulkheadPolicy) {
        self.max_wait.store(u64::try_from(policy.max_wait.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        self.max_waiting.store(policy.max_waiting, Relaxed);
        self.places.set_limit(policy.limit);
    }
}

impl Observe for Shared {
    fn kind(&self) -> Kind {
        Kind::Bulkhead
    }

    fn observe(&self, name: &str) -> Vec<Observation> {
        let (in_flight, waiting) = self.places.count();
        vec![Observation::Bulkhead(BulkheadView {
            name: name.to_owned(),
            limit: self.places.limit(),
            in_flight,
            waiting,
            rejected: self.rejected.load(Relaxed),
        })]
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (in_flight, waiting) = self.places.count();
        f.debug_struct("Bulkhead")
            .field("name", &self.name())
            .field("policy", &self.policy)
            .field("in_flight", &in_flight)
            .field("waiting", &waiting)
            .finish_non_exhaustive()
    }
}
