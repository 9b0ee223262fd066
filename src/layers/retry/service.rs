use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use tower::BoxError;
use tower_service::Service;

use super::{ResponseFuture, decision::Course, layer::Shared};
use crate::{
    Classify, Error, context,
    context::Attempt,
    lanes::Lanes,
    outcome::Standard,
    request::{Idempotent, Replay},
};

/// The service of a [`RetryLayer`](super::RetryLayer).
pub struct Retry<S, C = Standard> {
    inner: S,
    lanes: Lanes<Parts<S, C>>,
}

/// What a call needs to make further attempts: one count to go up, where most calls make none.
pub(super) struct Parts<S, C> {
    pub(super) shared: Arc<Shared<C>>,
    lane: usize,
    /// Later attempts are made by clones of this one. Locked, since a service need not be one that two threads may look at.
    template: Arc<Mutex<S>>,
}

impl<S: Clone, C> Parts<S, C> {
    pub(super) fn service(&self) -> S {
        self.template.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S: Clone, C> Retry<S, C> {
    pub(super) fn new(inner: S, shared: &Arc<Shared<C>>) -> Self {
        let template = Arc::new(Mutex::new(inner.clone()));
        let lanes = Lanes::new(|lane| Parts { shared: Arc::clone(shared), lane, template: Arc::clone(&template) });
        Self { inner, lanes }
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
        let parts = self.lanes.here();
        let shared = &parts.shared;
        let max_attempts = shared.begin(parts.lane);
        let course = Course {
            max_attempts,
            attempts: 1,
            seen: 0,
            backoffs: 0,
            idempotent: request.is_idempotent(),
            probe: context::is_probe(),
        };
        let (first, again) = if max_attempts > 1 {
            let (first, kept) = request.split(shared.replay_limit());
            (first, Some(kept))
        } else {
            (request.once(), None)
        };
        let mut attempt = Attempt::first();
        let future = {
            let _attempt = context::enter_attempt(&mut attempt);
            // The instance that is ready now; later attempts drive the readiness of one of their own.
            self.inner.call(first)
        };
        ResponseFuture::new(Arc::clone(parts), course, attempt, again, future)
    }
}

impl<S: Clone, C> Clone for Retry<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), lanes: self.lanes.clone() }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for Retry<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("inner", &self.inner).field("shared", &self.lanes.here().shared).finish()
    }
}
