use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::BoxError;
use tower_service::Service;

use super::{ResponseFuture, decision::Course, layer::Shared};
use crate::{
    Classify, Error, context,
    context::Attempt,
    outcome::Standard,
    request::{Idempotent, Replay},
};

/// The service of a [`RetryLayer`](super::RetryLayer).
pub struct Retry<S, C = Standard> {
    inner: S,
    shared: Arc<Shared<C>>,
}

impl<S, C> Retry<S, C> {
    pub(super) fn new(inner: S, shared: Arc<Shared<C>>) -> Self {
        Self { inner, shared }
    }
}

impl<S, Req, C> Service<Req> for Retry<S, C>
where
    Req: Replay + Idempotent,
    S: Service<Req::Attempt> + Clone,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Req, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let _clock = context::enter_clock();
        let max_attempts = self.shared.begin();
        let course = Course {
            max_attempts,
            attempts: 1,
            seen: 0,
            backoffs: 0,
            idempotent: request.is_idempotent(),
            probe: context::is_probe(),
        };
        let (first, again) = if max_attempts > 1 {
            let (first, kept) = request.split(self.shared.replay_limit());
            // A later attempt drives the readiness of this clone; the first is the instance that is ready now.
            (first, Some((self.inner.clone(), kept)))
        } else {
            (request.once(), None)
        };
        let mut attempt = Attempt::first();
        let future = {
            let _attempt = context::enter_attempt(&mut attempt);
            self.inner.call(first)
        };
        ResponseFuture::new(Arc::clone(&self.shared), course, attempt, again, future)
    }
}

impl<S: Clone, C> Clone for Retry<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Retry<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).field("shared", &self.shared).finish()
    }
}
