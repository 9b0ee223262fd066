use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
};

use tower::BoxError;
use tower_service::Service;

use super::{Answer, ResponseFuture, layer::Shared};
use crate::{Classify, Error, context, outcome::Standard};

/// The service of a [`FallbackLayer`](super::FallbackLayer).
pub struct Fallback<S, F, C = Standard> {
    inner: S,
    shared: Arc<Shared<F, C>>,
}

impl<S, F, C> Fallback<S, F, C> {
    pub(super) fn new(inner: S, shared: Arc<Shared<F, C>>) -> Self {
        Self { inner, shared }
    }
}

impl<S, Req, F, C> Service<Req> for Fallback<S, F, C>
where
    F: Answer<Req>,
    S: Service<F::Request, Response = F::Response>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future, Req, F, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let (request, kept) = self.shared.answer.keep(request);
        let deadline = context::deadline();
        ResponseFuture::new(Arc::clone(&self.shared), deadline, kept, self.inner.call(request))
    }
}

impl<S: Clone, F, C> Clone for Fallback<S, F, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), shared: Arc::clone(&self.shared) }
    }
}

impl<S: fmt::Debug, F, C> fmt::Debug for Fallback<S, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fallback").field("inner", &self.inner).finish_non_exhaustive()
    }
}
