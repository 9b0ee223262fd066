//! Answers instead of an error.
//!
//! ```
//! use hopvine::{Error, layers::fallback::{FallbackLayer, Why}};
//! use http::{Request, Response};
//!
//! // From nothing:
//! let layer = FallbackLayer::new(async |_why: Why| Ok::<_, Error>(Response::new("the usual offers".to_owned())));
//!
//! // From something of the request, kept before it is sent; an error says that there is no answer for this one.
//! let layer = FallbackLayer::keeping(
//!     |request: &Request<()>| request.uri().path().to_owned(),
//!     async |path: String, why: Why| {
//!         tracing::debug!(?why, "from the cache");
//!         Ok::<_, Error>(Response::new(format!("cached {path}")))
//!     },
//! );
//!
//! // From another service:
//! let cache = tower::service_fn(async |_: Request<()>| Ok::<_, Error>(Response::new("cached".to_owned())));
//! let layer = FallbackLayer::service(cache);
//! # let _ = layer;
//! ```
//!
//! It steps in for an error, and for a response that says the service is in trouble (a failure, throttled, timed out), not for a success or a caller's
//! mistake. If it has no answer either, the caller gets the original one.
//!
//! **State.** Only counts, in the layer value. **Placement.** Per call, outside the breaker: inside, an open breaker would never reach it. It has the
//! time its caller gave, not what this stack's deadline left of it. **Errors.** The original one. **Cancellation.** Drops whichever of the
//! two is under way.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{BoxError, ServiceExt as _, util::Oneshot};
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    Classify, Error, ErrorKind, Monitor, Outcome, context,
    monitor::{FallbackView, Observation, Observe},
    outcome::Standard,
};

/// Why a fallback is asked.
#[derive(Clone, Copy, Debug)]
pub struct Why {
    outcome: Outcome,
    error: Option<ErrorKind>,
    attempts: u32,
    retry_after: Option<Duration>,
}

impl Why {
    /// What the call's end says of the service.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// What went wrong; `None` if there was a response.
    pub fn error(&self) -> Option<ErrorKind> {
        self.error
    }

    /// How many attempts the call made; 0 if none, or nobody counted.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// When it is worth asking again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

/// Where a fallback's answer comes from.
pub trait Answer<Req, Res> {
    /// What is kept of the request while it is sent.
    type Kept;
    /// The answer's future.
    type Future: Future<Output = Result<Res, Error>>;

    /// Keeps what the answer will need.
    fn keep(&self, request: &Req) -> Self::Kept;

    /// Answers; an error says that there is no answer.
    fn answer(&self, kept: Self::Kept, why: Why) -> Self::Future;
}

/// From a function. See [`FallbackLayer::new`].
#[derive(Clone, Copy)]
pub struct FromFunction<F>(F);

/// From a function and something of the request. See [`FallbackLayer::keeping`].
#[derive(Clone, Copy)]
pub struct FromRequest<K, F>(K, F);

/// From another service. See [`FallbackLayer::service`].
#[derive(Clone, Copy)]
pub struct FromService<S>(S);

impl<Req, Res, F, Fut, E> Answer<Req, Res> for FromFunction<F>
where
    F: Fn(Why) -> Fut,
    Fut: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Kept = ();
    type Future = Answering<Fut>;

    fn keep(&self, _: &Req) {}

    fn answer(&self, (): (), why: Why) -> Answering<Fut> {
        Answering { answer: (self.0)(why) }
    }
}

impl<Req, Res, K, T, F, Fut, E> Answer<Req, Res> for FromRequest<K, F>
where
    K: Fn(&Req) -> T,
    F: Fn(T, Why) -> Fut,
    Fut: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Kept = T;
    type Future = Answering<Fut>;

    fn keep(&self, request: &Req) -> T {
        (self.0)(request)
    }

    fn answer(&self, kept: T, why: Why) -> Answering<Fut> {
        Answering { answer: (self.1)(kept, why) }
    }
}

impl<Req, S> Answer<Req, S::Response> for FromService<S>
where
    Req: Clone,
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    type Kept = Req;
    type Future = Answering<Oneshot<S, Req>>;

    fn keep(&self, request: &Req) -> Req {
        request.clone()
    }

    fn answer(&self, kept: Req, _: Why) -> Self::Future {
        Answering { answer: self.0.clone().oneshot(kept) }
    }
}

pin_project! {
    /// A fallback's answer on its way.
    pub struct Answering<F> {
        #[pin]
        answer: F,
    }
}

impl<F, Res, E> Future for Answering<F>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Res, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().answer.poll(cx).map_err(Error::from_any)
    }
}

/// Answers instead of an error. See the [module](self).
pub struct FallbackLayer<A, C = Standard> {
    answer: Arc<A>,
    classify: Arc<C>,
    counts: Arc<Counts>,
    name: Arc<str>,
}

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU64,
    failed: AtomicU64,
}

impl<F> FallbackLayer<FromFunction<F>> {
    /// From a function: `async |why: Why| Ok::<_, E>(response)`.
    pub fn new(answer: F) -> Self {
        Self::from(FromFunction(answer))
    }
}

impl<K, F> FallbackLayer<FromRequest<K, F>> {
    /// From a function that also gets what `keep` took from the request: `async |kept, why: Why| Ok::<_, E>(response)`.
    ///
    /// `keep` runs for every call, `answer` only when it is needed: keep little.
    pub fn keeping(keep: K, answer: F) -> Self {
        Self::from(FromRequest(keep, answer))
    }
}

impl<S> FallbackLayer<FromService<S>> {
    /// From another service, made ready and called with a clone of the request. Every call pays for the clone: for a request that is
    /// costly or impossible to clone take [`keeping`](FallbackLayer::keeping).
    pub fn service(service: S) -> Self {
        Self::from(FromService(service))
    }
}

impl<A> FallbackLayer<A> {
    /// From an [`Answer`] of your own.
    pub fn from(answer: A) -> Self {
        Self { answer: Arc::new(answer), classify: Arc::default(), counts: Arc::default(), name: "fallback".into() }
    }
}

impl<A, C> FallbackLayer<A, C> {
    /// By a classification of your own.
    pub fn classify<D>(self, classify: D) -> FallbackLayer<A, D> {
        FallbackLayer { answer: self.answer, classify: Arc::new(classify), counts: self.counts, name: self.name }
    }

    /// Its name, in views; default `fallback`.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Where it can be watched, under the name it has now.
    #[must_use]
    pub fn monitor(self, monitor: &Monitor) -> Self {
        monitor.register(&self.name, &self.counts);
        self
    }
}

impl Observe for Counts {
    fn observe(&self, name: &str) -> Vec<Observation> {
        vec![Observation::Fallback(FallbackView {
            name: name.to_owned(),
            answered: self.answered.load(Relaxed),
            failed: self.failed.load(Relaxed),
        })]
    }
}

impl<S, A, C> Layer<S> for FallbackLayer<A, C> {
    type Service = Fallback<S, A, C>;

    fn layer(&self, inner: S) -> Fallback<S, A, C> {
        Fallback { inner, layer: self.clone() }
    }
}

/// A service with a fallback. Made by [`FallbackLayer`].
pub struct Fallback<S, A, C = Standard> {
    inner: S,
    layer: FallbackLayer<A, C>,
}

impl<S, A, C, Req> Service<Req> for Fallback<S, A, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    A: Answer<Req, S::Response>,
    C: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future, Req, S::Response, A, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let _clock = context::enter_clock();
        let kept = Some(self.layer.answer.keep(&request));
        let call = self.inner.call(request);
        ResponseFuture {
            state: State::Calling { call, kept },
            layer: self.layer.clone(),
            deadline: context::deadline(),
        }
    }
}

pin_project! {
    /// Made by [`Fallback`].
    pub struct ResponseFuture<F, Req, Res, A, C>
    where
        A: Answer<Req, Res>,
    {
        #[pin]
        state: State<F, Res, A::Kept, A::Future>,
        layer: FallbackLayer<A, C>,
        // The caller's, which the stack inside has shortened.
        deadline: Option<Instant>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<F, Res, K, G> {
        Calling { #[pin] call: F, kept: Option<K> },
        Answering { #[pin] answer: G, original: Option<Result<Res, Error>> },
    }
}

impl<F, Req, Res, E, A, C> Future for ResponseFuture<F, Req, Res, A, C>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
    A: Answer<Req, Res>,
    C: Classify<Res>,
{
    type Output = Result<Res, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _clock = context::enter_clock();
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Calling { call, kept } => {
                    let result = ready!(call.poll(cx)).map_err(Error::from_any);
                    let outcome = this.layer.classify.classify(result.as_ref());
                    if result.is_ok() && !outcome.is_bad() {
                        return Poll::Ready(result);
                    }
                    let error = result.as_ref().err();
                    let why = Why {
                        outcome,
                        error: error.map(Error::kind),
                        attempts: error.map_or_else(|| context::last_call().attempts, Error::attempts),
                        retry_after: error.and_then(Error::retry_after),
                    };
                    let Some(kept) = kept.take() else { return Poll::Ready(result) };
                    // Somebody else's code, which may take its time.
                    let _clock = context::leave_clock();
                    let _deadline = context::replace_deadline(*this.deadline);
                    let answer = this.layer.answer.answer(kept, why);
                    this.state.set(State::Answering { answer, original: Some(result) });
                }
                StateProjection::Answering { answer, original } => {
                    let _clock = context::leave_clock();
                    let _deadline = context::replace_deadline(*this.deadline);
                    let (counter, result) = match ready!(answer.poll(cx)) {
                        Ok(response) => (&this.layer.counts.answered, Ok(response)),
                        Err(error) => {
                            tracing::debug!(target: "hopvine::fallback", name = &*this.layer.name, %error, "no answer either");
                            (&this.layer.counts.failed, original.take().expect("polled after it was ready"))
                        }
                    };
                    counter.fetch_add(1, Relaxed);
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl<A, C> Clone for FallbackLayer<A, C> {
    fn clone(&self) -> Self {
        Self {
            answer: Arc::clone(&self.answer),
            classify: Arc::clone(&self.classify),
            counts: Arc::clone(&self.counts),
            name: Arc::clone(&self.name),
        }
    }
}

impl<S: Clone, A, C> Clone for Fallback<S, A, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), layer: self.layer.clone() }
    }
}

impl<A, C> fmt::Debug for FallbackLayer<A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackLayer").field("name", &self.name).field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl<S: fmt::Debug, A, C> fmt::Debug for Fallback<S, A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("layer", &self.layer).field("inner", &self.inner).finish()
    }
}

impl<F, Req, Res, A: Answer<Req, Res>, C> fmt::Debug for ResponseFuture<F, Req, Res, A, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("fallback::ResponseFuture").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for Answering<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for FromFunction<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFunction").finish_non_exhaustive()
    }
}

impl<K, F> fmt::Debug for FromRequest<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromRequest").finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for FromService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromService").finish_non_exhaustive()
    }
}
