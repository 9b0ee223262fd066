use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use pin_project_lite::pin_project;
use tower::{BoxError, ServiceExt as _, util::Oneshot};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Directory, Error, ErrorKind, NewService, ServiceHandle, context};

/// Says which service's endpoints a [`BalanceLayer`](super::BalanceLayer) below it chooses from. See the [module](super).
#[derive(Clone, Debug)]
pub struct DiscoverLayer<T = ServiceHandle> {
    target: T,
}

/// The service by request, of [`DiscoverLayer::by`].
pub struct ByRequest<F> {
    directory: Directory,
    name: Arc<F>,
    most: usize,
    idle: Duration,
}

impl DiscoverLayer {
    /// Always this service.
    pub fn new(service: ServiceHandle) -> Self {
        Self { target: service }
    }
}

impl<F> DiscoverLayer<ByRequest<F>> {
    /// The service of this directory that `name` reads from the request, as a gateway needs it.
    ///
    /// A name the directory does not know is [`ErrorKind::NoService`]. A service's balancer is made on its first
    /// call; of those there are at most 1 024, the longest idle one leaves first, and one that was idle for 10 minutes leaves when
    /// another is made.
    ///
    /// ```
    /// use hopvine::{Directory, layers::balance::DiscoverLayer};
    /// let directory = Directory::fixed([("catalog", ["http://127.0.0.1:8081".parse()?])]);
    /// let layer = DiscoverLayer::by(&directory, |request: &http::Request<()>| {
    ///     request.uri().path().split('/').nth(1).unwrap_or_default().to_owned()
    /// });
    /// # let _ = layer;
    /// # Ok::<(), hopvine::endpoint::InvalidEndpoint>(())
    /// ```
    pub fn by(directory: &Directory, name: F) -> Self {
        let idle = Duration::from_secs(600);
        Self { target: ByRequest { directory: directory.clone(), name: Arc::new(name), most: 1024, idle } }
    }

    /// At most this many services at once, at least 1.
    #[must_use]
    pub fn most(mut self, services: usize) -> Self {
        self.target.most = services.max(1);
        self
    }
}

impl<M> Layer<M> for DiscoverLayer
where
    M: NewService<ServiceHandle>,
{
    type Service = Discover<M::Service>;

    fn layer(&self, inner: M) -> Self::Service {
        Discover { inner: inner.new_service(&self.target) }
    }
}

/// The balancer of one service. Made by [`DiscoverLayer::new`].
#[derive(Clone, Debug)]
pub struct Discover<S> {
    inner: S,
}

impl<S, Req> Service<Req> for Discover<S>
where
    S: Service<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> S::Future {
        self.inner.call(request)
    }
}

impl<M, F> Layer<M> for DiscoverLayer<ByRequest<F>>
where
    M: NewService<ServiceHandle>,
{
    type Service = DiscoverBy<M::Service, M, F>;

    fn layer(&self, inner: M) -> Self::Service {
        DiscoverBy {
            shared: Arc::new(Shared {
                inner,
                target: self.target.clone(),
                balancers: ArcSwap::default(),
                writer: Mutex::new(()),
            }),
        }
    }
}

/// The balancers of many services. Made by [`DiscoverLayer::by`]; clones share them.
pub struct DiscoverBy<S, M, F> {
    shared: Arc<Shared<S, M, F>>,
}

struct Shared<S, M, F> {
    inner: M,
    target: ByRequest<F>,
    balancers: ArcSwap<HashMap<Arc<str>, Arc<Entry<S>>>>,
    writer: Mutex<()>,
}

struct Entry<S> {
    balancer: S,
    used: AtomicU64,
}

impl<S, M, F> Shared<S, M, F>
where
    S: Clone,
    M: NewService<ServiceHandle, Service = S>,
{
    fn balancer(&self, name: &str) -> Option<S> {
        let now = context::now_nanos();
        if let Some(entry) = self.balancers.load().get(name) {
            entry.used.store(now, Relaxed);
            return Some(entry.balancer.clone());
        }
        let service = self.target.directory.get(name)?;
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.balancers.load();
        if let Some(entry) = before.get(name) {
            return Some(entry.balancer.clone());
        }
        let idle = self.target.idle.as_nanos() as u64;
        let used = |entry: &Entry<S>| entry.used.load(Relaxed);
        let mut after: HashMap<_, _> = before
            .iter()
            .filter(|(_, entry)| now.saturating_sub(used(entry)) < idle)
            .map(|(name, entry)| (Arc::clone(name), Arc::clone(entry)))
            .collect();
        while after.len() >= self.target.most {
            let oldest = after.iter().min_by_key(|(_, entry)| used(entry)).map(|(name, _)| Arc::clone(name));
            oldest.and_then(|name| after.remove(&name));
        }
        let balancer = self.inner.new_service(&service);
        let entry = Entry { balancer: balancer.clone(), used: AtomicU64::new(now) };
        after.insert(Arc::clone(service.name()), Arc::new(entry));
        self.balancers.store(Arc::new(after));
        Some(balancer)
    }
}

impl<S, M, F, N, Req> Service<Req> for DiscoverBy<S, M, F>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
    M: NewService<ServiceHandle, Service = S>,
    F: Fn(&Req) -> N,
    N: AsRef<str>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = DiscoverByFuture<S, Req>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let _clock = context::enter_clock();
        let name = (self.shared.target.name)(&request);
        let name = name.as_ref();
        match self.shared.balancer(name) {
            Some(balancer) => DiscoverByFuture::Calling { call: balancer.oneshot(request) },
            None => DiscoverByFuture::Refused {
                error: Some(Error::new(ErrorKind::NoService).with_layer("discover").with_service(name.into())),
            },
        }
    }
}

pin_project! {
    /// Made by [`DiscoverBy`].
    #[project = DiscoverByProjection]
    pub enum DiscoverByFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[doc(hidden)]
        Calling { #[pin] call: Oneshot<S, Req> },
        #[doc(hidden)]
        Refused { error: Option<Error> },
    }
}

impl<S, Req> Future for DiscoverByFuture<S, Req>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            DiscoverByProjection::Calling { call } => call.poll(cx).map_err(Error::from_any),
            DiscoverByProjection::Refused { error } => {
                Poll::Ready(Err(error.take().expect("polled after it was ready")))
            }
        }
    }
}

impl<S: Service<Req>, Req> fmt::Debug for DiscoverByFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscoverByFuture").finish_non_exhaustive()
    }
}

impl<S, M, F> Clone for DiscoverBy<S, M, F> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<F> Clone for ByRequest<F> {
    fn clone(&self) -> Self {
        Self { directory: self.directory.clone(), name: Arc::clone(&self.name), most: self.most, idle: self.idle }
    }
}

impl<F> fmt::Debug for ByRequest<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByRequest").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl<S, M, F> fmt::Debug for DiscoverBy<S, M, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.shared.balancers.load().keys().cloned().collect();
        f.debug_struct("DiscoverBy").field("services", &names).finish_non_exhaustive()
    }
}
