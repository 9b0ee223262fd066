use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use http::{Request, Response, header::PROXY_AUTHORIZATION};
use http_body::Body;
use tokio::runtime::{Handle, Id};
use tower::BoxError;
use tower_service::Service;

use super::{
    ClientBody, EgressProxy, HttpPolicy, Version,
    body::Lease,
    pool::Pool,
    request,
    send::{Sender, not_connected, upstream},
};
use crate::{Endpoint, EndpointHandle, Error, NewService, Policy as _, PolicyError, context, endpoint::Scheme};

/// The pooled client: makes an [`HttpService`] for each endpoint. See the [module](super).
///
/// Generic over the body of the requests, which is inferred from what the stack is called with. Clones share nothing but their settings.
pub struct HttpClient<B> {
    settings: Arc<Settings>,
    body: std::marker::PhantomData<fn(B)>,
}

pub(super) struct Settings {
    pub(super) policy: HttpPolicy,
    pub(super) version: Version,
    pub(super) proxy: Option<EgressProxy>,
    #[cfg(feature = "tls")]
    pub(super) tls: super::Tls,
}

impl Settings {
    /// What a connection to this endpoint will be: in the clear nothing is left to be agreed on.
    pub(super) fn version_for(&self, endpoint: &Endpoint) -> Version {
        match (self.version, endpoint.scheme()) {
            (Version::Auto, Scheme::Http) => Version::Http1,
            (version, _) => version,
        }
    }
}

/// Puts an [`HttpClient`] together.
#[derive(Debug)]
#[must_use]
pub struct HttpBuilder<B> {
    policy: HttpPolicy,
    version: Version,
    proxy: Option<EgressProxy>,
    #[cfg(feature = "tls")]
    tls: super::Tls,
    body: std::marker::PhantomData<fn(B)>,
}

impl<B> Default for HttpClient<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> HttpClient<B> {
    /// HTTP/1 in the clear; over TLS HTTP/2 where the server speaks it.
    pub fn new() -> Self {
        Self::builder().finish()
    }

    /// With settings of your own.
    pub fn builder() -> HttpBuilder<B> {
        HttpBuilder {
            policy: HttpPolicy::default(),
            version: Version::default(),
            proxy: None,
            #[cfg(feature = "tls")]
            tls: super::Tls::default(),
            body: std::marker::PhantomData,
        }
    }
}

impl<B> HttpBuilder<B> {
    /// Limits and times of the pools.
    pub fn policy(mut self, policy: HttpPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// The version of HTTP.
    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    /// Whose certificates are believed, and which one is shown.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: super::Tls) -> Self {
        self.tls = tls;
        self
    }

    /// Goes out through this proxy: for servers of others only.
    pub fn proxy(mut self, proxy: EgressProxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// The client, if its settings are valid.
    pub fn build(self) -> Result<HttpClient<B>, PolicyError> {
        self.policy.validate()?;
        Ok(self.finish())
    }

    fn finish(self) -> HttpClient<B> {
        let settings = Settings {
            policy: self.policy,
            version: self.version,
            proxy: self.proxy,
            #[cfg(feature = "tls")]
            tls: self.tls,
        };
        HttpClient { settings: Arc::new(settings), body: std::marker::PhantomData }
    }
}

impl<B> NewService<EndpointHandle> for HttpClient<B>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Service = HttpService<B>;

    fn new_service(&self, endpoint: &EndpointHandle) -> HttpService<B> {
        let shared = Shared {
            settings: Arc::clone(&self.settings),
            endpoint: endpoint.clone(),
            pools: ArcSwap::default(),
            writer: Mutex::new(()),
        };
        let service = HttpService { shared: Arc::new(shared) };
        if self.settings.policy.warm_up > 0
            && let Ok(runtime) = Handle::try_current()
        {
            service.shared.pool(&runtime).warm_up();
        }
        service
    }
}

/// A request that waits for a connection.
struct Waiting;

impl Drop for Waiting {
    /// Where that is the end of it, it was never written.
    fn drop(&mut self) {
        context::tell_written(false);
    }
}

/// Sends requests to one endpoint. Made by [`HttpClient`]; clones share its connections.
pub struct HttpService<B> {
    shared: Arc<Shared<B>>,
}

struct Shared<B> {
    settings: Arc<Settings>,
    endpoint: EndpointHandle,
    /// One for each runtime; there are few.
    pools: ArcSwap<Pools<B>>,
    writer: Mutex<()>,
}

type Pools<B> = Vec<(Id, Arc<Pool<B>>)>;

/// How a service's connections stand, in the runtime that asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStats {
    /// Connections.
    pub open: usize,
    /// Those nobody uses.
    pub idle: usize,
    /// Calls that wait for one.
    pub waiting: usize,
    /// Connections being made.
    pub dialing: usize,
}

impl<B> Shared<B>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn pool(&self, runtime: &Handle) -> Arc<Pool<B>> {
        let find =
            |pools: &Pools<B>| pools.iter().find(|(id, _)| *id == runtime.id()).map(|(_, pool)| Arc::clone(pool));
        if let Some(pool) = find(&self.pools.load()) {
            return pool;
        }
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.pools.load_full();
        if let Some(pool) = find(&before) {
            return pool;
        }
        let pool = Pool::new(Arc::clone(&self.settings), self.endpoint.clone(), runtime.clone());
        // A runtime that has ended took its janitor with it.
        let mut after: Pools<B> = before.iter().filter(|(_, pool)| pool.is_alive()).cloned().collect();
        after.push((runtime.id(), Arc::clone(&pool)));
        self.pools.store(Arc::new(after));
        pool
    }

    /// A connection that can take a request at once, if there is one.
    fn ready_now(&self) -> Option<(Arc<Pool<B>>, Lease, Sender<B>)> {
        let pool = self.pool(&Handle::try_current().ok()?);
        let lease = pool.try_acquire()?;
        let sender = pool.sender(&lease)?;
        if sender.is_ready() {
            return Some((pool, lease, sender));
        }
        pool.put_back(&lease, sender);
        None
    }

    /// Sends on it. Most calls end here, with a future a quarter the size of [`send`](Self::send)'s.
    fn send_now(
        self: &Arc<Self>,
        mut request: Request<B>,
        (pool, mut lease, mut sender): (Arc<Pool<B>>, Lease, Sender<B>),
    ) -> BoxedResponse {
        if let Err(error) = self.prepare(&mut request, sender.is_http2()) {
            pool.put_back(&lease, sender);
            return Box::pin(std::future::ready(Err(error)));
        }
        lease.reusable = false;
        let response = sender.send(request);
        pool.put_back(&lease, sender);
        let this = Arc::clone(self);
        Box::pin(async move {
            match response.await {
                Ok(response) => Ok(response.map(|body| ClientBody::incoming(body, lease))),
                Err(mut error) => match error.take_message() {
                    // It was never written: the connection had ended before.
                    Some(back) => {
                        drop(lease);
                        Box::pin(this.send(back)).await
                    }
                    None => Err(upstream(error.into_error())),
                },
            }
        })
    }

    async fn send(self: Arc<Self>, mut request: Request<B>) -> Result<Response<ClientBody>, Error> {
        let pool = self.pool(&Handle::try_current().map_err(not_connected)?);
        for last in [false, false, true] {
            let waiting = Waiting;
            let mut lease = pool.acquire(last).await?;
            let Some(mut sender) = pool.sender(&lease) else { continue };
            if sender.ready().await.is_err() {
                continue;
            }
            drop(waiting);
            self.prepare(&mut request, sender.is_http2())?;
            lease.reusable = false;
            let response = sender.send(request);
            pool.put_back(&lease, sender);
            match response.await {
                Ok(response) => return Ok(response.map(|body| ClientBody::incoming(body, lease))),
                Err(mut error) => match error.take_message() {
                    Some(back) if !last => request = back,
                    Some(_) => return Err(not_connected(error.into_error())),
                    None => return Err(upstream(error.into_error())),
                },
            }
        }
        Err(not_connected("every connection ended before the request could be written"))
    }

    /// Makes the request one for this endpoint, of this version.
    fn prepare(&self, request: &mut Request<B>, http2: bool) -> Result<(), Error> {
        let endpoint = self.endpoint.endpoint();
        let absolute = self.settings.proxy.is_some() && EgressProxy::is_asked_itself(endpoint.scheme());
        request::prepare(request, &endpoint, http2, absolute)?;
        if absolute && let Some(authorization) = self.settings.proxy.as_ref().and_then(EgressProxy::authorization) {
            request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        Ok(())
    }
}

impl<B> HttpService<B>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// How its connections stand. Zero outside a runtime.
    pub fn stats(&self) -> PoolStats {
        Handle::try_current().map(|runtime| self.shared.pool(&runtime).stats()).unwrap_or_default()
    }
}

impl<B> Service<Request<B>> for HttpService<B>
where
    B: Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ClientBody>;
    type Error = Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ResponseFuture {
        let response: BoxedResponse = match self.shared.ready_now() {
            Some(connection) => self.shared.send_now(request, connection),
            None => Box::pin(Arc::clone(&self.shared).send(request)),
        };
        ResponseFuture { response }
    }
}

/// Made by [`HttpService`]. Boxed, for hyper's own futures have no names.
pub struct ResponseFuture {
    response: BoxedResponse,
}

type BoxedResponse = Pin<Box<dyn Future<Output = Result<Response<ClientBody>, Error>> + Send>>;

impl Future for ResponseFuture {
    type Output = Result<Response<ClientBody>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.response.as_mut().poll(cx)
    }
}

impl<B> Clone for HttpClient<B> {
    fn clone(&self) -> Self {
        Self { settings: Arc::clone(&self.settings), body: std::marker::PhantomData }
    }
}

impl<B> Clone for HttpService<B> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<B> fmt::Debug for HttpClient<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("policy", &self.settings.policy)
            .field("version", &self.settings.version)
            .field("proxy", &self.settings.proxy)
            .finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for HttpService<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService").field("endpoint", &self.shared.endpoint).finish_non_exhaustive()
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("http::ResponseFuture").finish_non_exhaustive()
    }
}
