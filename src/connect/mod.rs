//! Below the balancer: how an endpoint becomes a service that can be called.

use crate::EndpointHandle;

#[cfg(feature = "http")]
pub mod http;
mod per_endpoint;

pub use per_endpoint::{NewPerEndpoint, PerEndpointLayer, per_endpoint};

/// Makes a service for a target: for an endpoint below the balancer, for a service's name above it.
///
/// A closure `Fn(&Target) -> Service` is one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not make services for endpoints",
    label = "expected a connector, or a layer that stands per endpoint",
    note = "below `BalanceLayer` stand connectors (`HttpClient`, or a closure `|endpoint: &EndpointHandle| service`) and layers of ours that know the endpoint",
    note = "lift an ordinary tower layer with `per_endpoint(|_| layer)`"
)]
pub trait NewService<Target> {
    /// What it makes.
    type Service;

    /// Makes one. Called once per target, not per call.
    fn new_service(&self, target: &Target) -> Self::Service;
}

#[diagnostic::do_not_recommend]
impl<Target, S, F> NewService<Target> for F
where
    F: Fn(&Target) -> S,
{
    type Service = S;

    fn new_service(&self, target: &Target) -> S {
        self(target)
    }
}

/// A connector: a [`NewService`] for endpoints.
pub trait Connector: NewService<EndpointHandle> {}

impl<N: NewService<EndpointHandle>> Connector for N {}
