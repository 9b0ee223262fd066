use std::{
    fmt,
    sync::{
        Arc, Once,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tower_layer::Layer;

use super::{
    Fallback, Why,
    answer::{Function, Keeping, Other},
};
use crate::{
    Monitor,
    monitor::{FallbackView, Kind, Observation, Observe},
    outcome::Standard,
};

/// Answers in place of a call that went wrong. See the [module](super).
pub struct FallbackLayer<F, C = Standard> {
    shared: Arc<Shared<F, C>>,
}

pub(super) struct Shared<F, C> {
    pub(super) answer: Arc<F>,
    pub(super) classify: Arc<C>,
    pub(super) when: Option<Arc<When>>,
    name: Arc<str>,
    monitor: Option<Monitor>,
    registered: Once,
    answered: AtomicU64,
    failed: AtomicU64,
}

/// Asked only after a call went wrong, so a pointer does.
type When = dyn Fn(&Why) -> bool + Send + Sync;

/// Bytes of a request body kept for another service, unless set otherwise.
const REPLAY_LIMIT: usize = 64 * 1024;

impl<F> FallbackLayer<Function<F>> {
    /// Answers by `answer`: `Fn(Why) -> impl Future<Output = Result<Response, Error>>`. Costs a good call nothing.
    pub fn new(answer: F) -> Self {
        Self::answer(Function(answer))
    }
}

impl<G, F> FallbackLayer<Keeping<G, F>> {
    /// Answers by `answer`, of what `keep` takes from each request before it is sent: a key, not the whole of it.
    pub fn keeping<Req, Kept>(keep: G, answer: F) -> Self
    where
        G: Fn(&Req) -> Kept,
    {
        Self::answer(Keeping { keep, answer })
    }
}

impl<S> FallbackLayer<Other<S>> {
    /// Answers by another service, which gets the request again.
    ///
    /// Each call pays for that: its head is copied and its body is kept as it passes
    /// ([`Replay`](crate::request::Replay)), 64 KiB of it; a call whose body was longer keeps its own result. The service inside gets the request as
    /// [`Replay::Attempt`](crate::request::Replay::Attempt). Calls can be spawned if `other` is `Send + Sync`.
    pub fn service(other: S) -> Self {
        Self::answer(Other { service: other, replay_limit: REPLAY_LIMIT })
    }
}

impl<S: Clone, C> FallbackLayer<Other<S>, C> {
    /// Keeps at most this many bytes of a request body.
    #[must_use]
    pub fn replay_limit(self, replay_limit: usize) -> Self {
        let answer = Arc::new(Other { service: self.shared.answer.service.clone(), replay_limit });
        self.rebuild(|shared| Shared { answer, ..shared })
    }
}

impl<F> FallbackLayer<F> {
    /// Answers by an [`Answer`](super::Answer) of your own.
    pub fn answer(answer: F) -> Self {
        let shared = Shared {
            answer: Arc::new(answer),
            classify: Arc::new(Standard),
            when: None,
            name: "fallback".into(),
            monitor: None,
            registered: Once::new(),
            answered: AtomicU64::default(),
            failed: AtomicU64::default(),
        };
        Self { shared: Arc::new(shared) }
    }
}

impl<F, C> FallbackLayer<F, C> {
    /// Judges responses by `classify`.
    #[must_use]
    pub fn classify<D>(self, classify: D) -> FallbackLayer<F, D> {
        self.rebuild(|shared| shared.with_classify(Arc::new(classify)))
    }

    /// Answers only where `when` holds too. The last one given counts.
    #[must_use]
    pub fn when(self, when: impl Fn(&Why) -> bool + Send + Sync + 'static) -> Self {
        self.rebuild(|shared| Shared { when: Some(Arc::new(when)), ..shared })
    }

    /// Its name in a monitor; `fallback` by default.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.rebuild(|shared| Shared { name: name.into(), ..shared })
    }

    /// Shows its counts in `monitor`, from when it is first put round a service.
    #[must_use]
    pub fn monitor(self, monitor: &Monitor) -> Self {
        self.rebuild(|shared| Shared { monitor: Some(monitor.clone()), ..shared })
    }

    fn rebuild<D>(self, change: impl FnOnce(Shared<F, C>) -> Shared<F, D>) -> FallbackLayer<F, D> {
        // A clone of this layer keeps its own counts and name.
        let shared =
            Arc::try_unwrap(self.shared).unwrap_or_else(|shared| shared.with_classify(Arc::clone(&shared.classify)));
        FallbackLayer { shared: Arc::new(change(shared)) }
    }
}

impl<S, F, C> Layer<S> for FallbackLayer<F, C>
where
    F: Send + Sync + 'static,
    C: Send + Sync + 'static,
{
    type Service = Fallback<S, F, C>;

    fn layer(&self, inner: S) -> Fallback<S, F, C> {
        let shared = &self.shared;
        if let Some(monitor) = &shared.monitor {
            shared.registered.call_once(|| drop(monitor.register(&shared.name, shared)));
        }
        Fallback::new(inner, Arc::clone(shared))
    }
}

impl<F, C> Shared<F, C> {
    fn with_classify<D>(&self, classify: Arc<D>) -> Shared<F, D> {
        Shared {
            answer: Arc::clone(&self.answer),
            classify,
            when: self.when.clone(),
            name: Arc::clone(&self.name),
            monitor: self.monitor.clone(),
            registered: Once::new(),
            answered: AtomicU64::default(),
            failed: AtomicU64::default(),
        }
    }

    pub(super) fn count(&self, answered: bool) {
        let counter = if answered { &self.answered } else { &self.failed };
        counter.fetch_add(1, Relaxed);
    }
}

impl<F: Send + Sync, C: Send + Sync> Observe for Shared<F, C> {
    fn kind(&self) -> Kind {
        Kind::Fallback
    }

    fn observe(&self, name: &str) -> Vec<Observation> {
        vec![Observation::Fallback(FallbackView {
            name: name.to_owned(),
            answered: self.answered.load(Relaxed),
            failed: self.failed.load(Relaxed),
        })]
    }
}

impl<F, C> Clone for FallbackLayer<F, C> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<F, C> fmt::Debug for FallbackLayer<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackLayer").field("name", &self.shared.name).finish_non_exhaustive()
    }
}
