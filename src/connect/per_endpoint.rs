use std::fmt;

use tower_layer::Layer;

use super::NewService;
use crate::EndpointHandle;

/// Lifts an ordinary tower layer below the balancer: `make` is asked for a new one for each endpoint.
///
/// ```
/// use std::time::Duration;
/// use hopvine::connect::per_endpoint;
/// let lifted = per_endpoint(|_| tower::timeout::TimeoutLayer::new(Duration::from_millis(300)));
/// # let _ = lifted;
/// ```
///
/// To share one layer's state over all endpoints, clone it in the closure.
pub fn per_endpoint<F, L>(make: F) -> PerEndpointLayer<F>
where
    F: Fn(&EndpointHandle) -> L + Clone,
{
    PerEndpointLayer { make }
}

/// Made by [`per_endpoint`].
#[derive(Clone, Copy)]
pub struct PerEndpointLayer<F> {
    make: F,
}

impl<N, F: Clone> Layer<N> for PerEndpointLayer<F> {
    type Service = NewPerEndpoint<N, F>;

    fn layer(&self, inner: N) -> NewPerEndpoint<N, F> {
        NewPerEndpoint { inner, make: self.make.clone() }
    }
}

/// A connector with an ordinary layer round each of its services. Made by [`per_endpoint`].
#[derive(Clone, Copy)]
pub struct NewPerEndpoint<N, F> {
    inner: N,
    make: F,
}

impl<N, F, L> NewService<EndpointHandle> for NewPerEndpoint<N, F>
where
    N: NewService<EndpointHandle>,
    F: Fn(&EndpointHandle) -> L,
    L: Layer<N::Service>,
{
    type Service = L::Service;

    fn new_service(&self, target: &EndpointHandle) -> L::Service {
        (self.make)(target).layer(self.inner.new_service(target))
    }
}

impl<F> fmt::Debug for PerEndpointLayer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerEndpointLayer").finish_non_exhaustive()
    }
}

impl<N: fmt::Debug, F> fmt::Debug for NewPerEndpoint<N, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewPerEndpoint").field("inner", &self.inner).finish_non_exhaustive()
    }
}
