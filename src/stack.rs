//! A finished stack: what it must be, how it is put together with readable errors, erased, and printed.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tower::{ServiceBuilder, util::Oneshot};
use tower_layer::Layer;
use tower_service::Service;

use crate::Error;

/// A whole stack: a service of `Req` that can be shared, cloned and spawned. Implemented for whatever is one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no whole stack for `{Req}`",
    label = "not a service of this request",
    note = "outermost first: layers per call, `DiscoverLayer`, `BalanceLayer`, layers per endpoint, and a connector such as `HttpClient`",
    note = "an ordinary tower layer per endpoint needs `per_endpoint(|_| layer)`; a layer that knows the endpoint cannot stand above `BalanceLayer`"
)]
pub trait Stack<Req>: Service<Req, Error = Error, Future: Send + 'static> + Clone + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<S, Req> Stack<Req> for S where
    S: Service<Req, Error = Error, Future: Send + 'static> + Clone + Send + Sync + 'static
{
}

/// Puts a stack together, with an error that says what is missing when it is none.
///
/// `ServiceBuilder::service` does the same, with less to read when a layer is in the wrong place.
///
/// ```
/// use hopvine::{Directory, EndpointHandle, layers::balance::{BalanceLayer, DiscoverLayer, RoundRobin}};
/// let directory = Directory::fixed([("catalog", ["http://127.0.0.1:8081".parse()?])]);
/// let builder = tower::ServiceBuilder::new()
///     .layer(DiscoverLayer::new(directory.service("catalog")))
///     .layer(BalanceLayer::new(RoundRobin::default()));
/// let connector = |_: &EndpointHandle| {
///     tower::service_fn(|_: http::Request<()>| async { Ok::<_, hopvine::Error>(http::Response::new(())) })
/// };
/// let stack = hopvine::build::<http::Request<()>, _, _>(builder, connector);
/// # let _ = stack;
/// # Ok::<(), hopvine::endpoint::InvalidEndpoint>(())
/// ```
#[allow(clippy::needless_pass_by_value, reason = "reads as the call it stands for; a builder is used once")]
pub fn build<Req, L, C>(builder: ServiceBuilder<L>, connector: C) -> L::Service
where
    L: Layer<C>,
    L::Service: Stack<Req>,
{
    builder.service(connector)
}

/// A stack whose type can be named, in an axum state for example. Costs one allocation a call, for the future.
///
/// Clones share the stack.
pub struct BoxStack<Req, Res> {
    stack: Arc<dyn Erased<Req, Res>>,
}

type BoxFuture<Res> = Pin<Box<dyn Future<Output = Result<Res, Error>> + Send>>;

trait Erased<Req, Res>: Send + Sync {
    fn call(&self, request: Req) -> BoxFuture<Res>;
    fn layers(&self) -> Vec<String>;
}

impl<S, Req> Erased<Req, S::Response> for S
where
    S: Stack<Req>,
    Req: Send + 'static,
{
    fn call(&self, request: Req) -> BoxFuture<S::Response> {
        // Drives readiness of the clone that is called.
        Box::pin(Oneshot::new(self.clone(), request))
    }

    fn layers(&self) -> Vec<String> {
        layers_of(self)
    }
}

impl<Req, Res> BoxStack<Req, Res> {
    /// Erases the type of a stack.
    pub fn new<S>(stack: S) -> Self
    where
        S: Stack<Req, Response = Res>,
        Req: Send + 'static,
    {
        Self { stack: Arc::new(stack) }
    }

    /// Puts a stack together and erases its type: [`build`], where the request's type is known from this one's.
    #[allow(clippy::needless_pass_by_value, reason = "as `build`")]
    pub fn build<L, C>(builder: ServiceBuilder<L>, connector: C) -> Self
    where
        L: Layer<C>,
        L::Service: Stack<Req, Response = Res>,
        Req: Send + 'static,
    {
        Self::new(builder.service(connector))
    }

    /// Its layers, outermost first, as [`layers_of`] gives them.
    pub fn layers(&self) -> Vec<String> {
        self.stack.layers()
    }
}

impl<Req, Res> Service<Req> for BoxStack<Req, Res> {
    type Response = Res;
    type Error = Error;
    type Future = BoxFuture<Res>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> BoxFuture<Res> {
        self.stack.call(request)
    }
}

impl<Req, Res> Clone for BoxStack<Req, Res> {
    fn clone(&self) -> Self {
        Self { stack: Arc::clone(&self.stack) }
    }
}

impl<Req, Res> fmt::Debug for BoxStack<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.layers()).finish()
    }
}

/// The layers of a stack, outermost first, read from its type.
///
/// Every service has what it wraps as its first type parameter, as in tower itself; the first that does not is the last line.
///
/// ```
/// use std::time::Duration;
/// use tower::{limit::ConcurrencyLimitLayer, timeout::TimeoutLayer};
/// let stack = tower::ServiceBuilder::new()
///     .layer(TimeoutLayer::new(Duration::from_secs(1)))
///     .layer(ConcurrencyLimitLayer::new(8))
///     .service(tower::service_fn(|_: ()| async { Ok::<_, hopvine::Error>(()) }));
/// assert_eq!(hopvine::layers_of(&stack), ["Timeout", "ConcurrencyLimit", "ServiceFn"]);
/// ```
pub fn layers_of<S: ?Sized>(_: &S) -> Vec<String> {
    let mut layers = Vec::new();
    let mut rest = std::any::type_name::<S>();
    loop {
        let (path, inner) = rest.split_once('<').unwrap_or((rest, ""));
        let path = path.split(',').next().unwrap_or_default();
        // A closure, a reference, a tuple: no layer's name.
        let name = path.rsplit("::").next().unwrap_or_default().trim_end_matches('>');
        if name.is_empty() || !name.starts_with(|first: char| first.is_ascii_uppercase()) {
            return layers;
        }
        layers.push(name.to_owned());
        if inner.is_empty() || INNERMOST.contains(&name) || !has_inner(rest) {
            return layers;
        }
        rest = inner;
    }
}

/// Services whose first type parameter is not a service.
const INNERMOST: [&str; 5] = ["HttpService", "ServiceFn", "ScriptedService", "BoxCloneSyncService", "BoxStack"];

/// Whether the type has parameters of its own, and is not just followed by somebody else's.
fn has_inner(name: &str) -> bool {
    name.find('<').is_some_and(|open| name.find([',', '>']).is_none_or(|end| open < end))
}
