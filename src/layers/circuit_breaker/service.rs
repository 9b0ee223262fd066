use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::BoxError;
use tower_service::Service;

use super::{
    Breaker, ResponseFuture,
    future::{Guard, State},
    layer::Parts,
};
use crate::{
    Error, context,
    lanes::Lanes,
    outcome::{Classify, Standard},
};

/// A service behind a breaker. Made by [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
pub struct CircuitBreaker<S, C = Standard> {
    inner: S,
    lanes: Lanes<Parts<C>>,
}

impl<S, C> CircuitBreaker<S, C> {
    pub(super) fn new(inner: S, lanes: Lanes<Parts<C>>) -> Self {
        Self { inner, lanes }
    }

    /// A handle to the breaker.
    pub fn breaker(&self) -> Breaker {
        Breaker(Arc::clone(&self.lanes.here().shared))
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
        self.inner.poll_ready(cx).map_err(|error| {
            let error = Error::from_any(error);
            // A call was to be made and could not: it failed as one that was made.
            let parts = self.lanes.here();
            if let Some(pass) = parts.shared.admit_failed() {
                let outcome = parts.classify.classify(Err(&error));
                parts.shared.report(pass, None, outcome, parts.lane);
            }
            error
        })
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let _clock = context::enter_clock();
        let parts = self.lanes.here();
        match parts.shared.admit() {
            Ok(pass) => {
                // Before the inner call: if that panics, the pass goes back.
                let guard = Guard::new(Arc::clone(parts), pass);
                let _probe = context::enter_probe(pass.is_probe());
                ResponseFuture { state: State::Calling { inner: self.inner.call(request), guard } }
            }
            Err(error) => ResponseFuture::refused(error),
        }
    }
}

impl<S: Clone, C> Clone for CircuitBreaker<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), lanes: self.lanes.clone() }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for CircuitBreaker<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("inner", &self.inner)
            .field("breaker", &self.breaker())
            .finish_non_exhaustive()
    }
}
