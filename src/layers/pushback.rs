//! Leaves an endpoint alone for as long as it asks to be.
//!
//! An answer that is throttled and says for how long (HTTP 429 or 503 with `Retry-After`, gRPC `RESOURCE_EXHAUSTED` with
//! `grpc-retry-pushback-ms`; cut at 300 s) holds its endpoint: the balancer gives it no call before that time. While all
//! endpoints of a service are held, calls fail at once with [`ErrorKind::RateLimited`](crate::ErrorKind) and the time that is left.
//!
//! It believes that the limit is *yours*, as at an external service that knows you by your key. Between services of one house
//! a 429 often means one tenant of many, which must not hold the endpoint for all; there the retry layer's wait and
//! the balancer's preference for others are the right answer, so only [`stacks::external`](crate::stacks::external) has this layer.
//!
//! **State.** In the endpoint's handle: all services of one stack share it. **Placement.** Per endpoint, below the balancer, anywhere
//! above the connector. **Errors.** None of its own. **Cancellation.** A call that is dropped before its answer teaches nothing.
//!
//! ```
//! use hopvine::{Directory, EndpointHandle, layers::{balance::{BalanceLayer, DiscoverLayer, RoundRobin}, pushback::PushbackLayer}};
//! use tower::ServiceBuilder;
//!
//! let directory = Directory::fixed([("bank", ["https://bank.example".parse()?])]);
//! let stack = ServiceBuilder::new()
//!     .layer(DiscoverLayer::new(directory.service("bank")))
//!     .layer(BalanceLayer::new(RoundRobin::default()))
//!     .layer(PushbackLayer::new())
//!     .service(|endpoint: &EndpointHandle| {
//!         let number = endpoint.number();
//!         tower::service_fn(move |_: http::Request<()>| async move { Ok::<_, hopvine::Error>(http::Response::new(number)) })
//!     });
//! # fn takes_requests<S: tower::Service<http::Request<()>>>(_: S) {}
//! # takes_requests(stack);
//! # Ok::<(), hopvine::endpoint::InvalidEndpoint>(())
//! ```

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    EndpointHandle, NewService, context,
    outcome::{Classify, Outcome, Standard},
};

/// Holds endpoints that ask for it. See the [module](self).
#[derive(Debug, Default)]
pub struct PushbackLayer<C = Standard> {
    classify: Arc<C>,
}

impl PushbackLayer {
    /// By the [`Standard`] classification.
    pub fn new() -> Self {
        Self::default()
    }

    /// By a classification of your own.
    pub fn classify<C>(self, classify: C) -> PushbackLayer<C> {
        PushbackLayer { classify: Arc::new(classify) }
    }
}

impl<C> Clone for PushbackLayer<C> {
    fn clone(&self) -> Self {
        Self { classify: Arc::clone(&self.classify) }
    }
}

impl<N, C> Layer<N> for PushbackLayer<C> {
    type Service = NewPushback<N, C>;

    fn layer(&self, inner: N) -> NewPushback<N, C> {
        NewPushback { inner, classify: Arc::clone(&self.classify) }
    }
}

/// Makes a [`Pushback`] for each endpoint.
#[derive(Clone, Debug)]
pub struct NewPushback<N, C = Standard> {
    inner: N,
    classify: Arc<C>,
}

impl<N, C> NewService<EndpointHandle> for NewPushback<N, C>
where
    N: NewService<EndpointHandle>,
{
    type Service = Pushback<N::Service, C>;

    fn new_service(&self, endpoint: &EndpointHandle) -> Self::Service {
        let inner = self.inner.new_service(endpoint);
        Pushback { inner, endpoint: endpoint.clone(), classify: Arc::clone(&self.classify) }
    }
}

/// An endpoint's service that listens to what it is asked.
#[derive(Debug)]
pub struct Pushback<S, C = Standard> {
    inner: S,
    endpoint: EndpointHandle,
    classify: Arc<C>,
}

impl<S: Clone, C> Clone for Pushback<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), endpoint: self.endpoint.clone(), classify: Arc::clone(&self.classify) }
    }
}

impl<S, C, Req> Service<Req> for Pushback<S, C>
where
    S: Service<Req>,
    C: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        ResponseFuture {
            inner: self.inner.call(request),
            endpoint: self.endpoint.clone(),
            classify: Arc::clone(&self.classify),
        }
    }
}

pin_project! {
    /// Made by [`Pushback`].
    #[derive(Debug)]
    pub struct ResponseFuture<F, C> {
        #[pin]
        inner: F,
        endpoint: EndpointHandle,
        classify: Arc<C>,
    }
}

impl<F, C, Res, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<Res, E>>,
    C: Classify<Res>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        if let Ok(response) = &result
            && let Outcome::Throttled(Some(wait)) = this.classify.classify(Ok(response))
        {
            let _clock = context::enter_clock();
            this.endpoint.health().hold(context::nanos(context::now() + wait));
        }
        Poll::Ready(result)
    }
}
