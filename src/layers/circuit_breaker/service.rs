use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::BoxError;
use tower_service::Service;

use super::{ResponseFuture, layer::Shared};
use crate::{
    Error, context,
    outcome::{Classify, Standard},
};

/// A service behind a circuit breaker. Made by [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
pub struct CircuitBreaker<S, C = Standard> {
    inner: S,
    shared: Arc<Shared>,
    classify: Arc<C>,
}

impl<S, C> CircuitBreaker<S, C> {
    pub(super) fn new(inner: S, shared: Arc<Shared>, classify: Arc<C>) -> Self {
        Self { inner, shared, classify }
    }
}

impl<S, C, Req> Service<Req> for CircuitBreaker<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let _clock = context::enter_clock();
        match self.shared.admit() {
            Ok(admitted) => {
                let guard = super::future::Guard::new(Arc::clone(&self.shared), admitted);
                ResponseFuture::calling(self.inner.call(request), guard, Arc::clone(&self.classify))
            }
            Err(error) => ResponseFuture::refused(error),
        }
    }
}

impl<S: Clone, C> Clone for CircuitBreaker<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared), classify: Arc::clone(&self.classify) }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for CircuitBreaker<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker").field("breaker", &self.shared).field("inner", &self.inner).finish()
    }
}
