use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use pin_project_lite::pin_project;
use tower::BoxError;
use tower_service::Service;

use super::verdict::{Target, Verdict};
use crate::{Classify, Error, context, outcome::Standard};

/// Watches one endpoint. Made by [`OutlierDetectionLayer`](super::OutlierDetectionLayer).
pub struct OutlierDetection<S, C = Standard> {
    inner: S,
    target: Arc<Target<C>>,
}

impl<S, C> OutlierDetection<S, C> {
    pub(super) fn new(inner: S, target: Target<C>) -> Self {
        Self { inner, target: Arc::new(target) }
    }
}

impl<S, C, Req> Service<Req> for OutlierDetection<S, C>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
    C: Classify<S::Response>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(|error| {
            let error = Error::from_any(error);
            // It was chosen and cannot even be called.
            Verdict::new(Arc::clone(&self.target)).of::<S::Response>(Err(&error));
            error
        })
    }

    fn call(&mut self, request: Req) -> ResponseFuture<S::Future, C> {
        // First, so that a call that panics gives a probe's lease back.
        let verdict = Verdict::new(Arc::clone(&self.target));
        ResponseFuture { inner: self.inner.call(request), verdict }
    }
}

impl<S: Clone, C> Clone for OutlierDetection<S, C> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), target: Arc::clone(&self.target) }
    }
}

impl<S: fmt::Debug, C> fmt::Debug for OutlierDetection<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutlierDetection")
            .field("inner", &self.inner)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The response of an [`OutlierDetection`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, C = Standard> {
        #[pin]
        inner: F,
        verdict: Verdict<C>,
    }
}

impl<F, C, T, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
    C: Classify<T>,
{
    type Output = Result<T, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Result<T, Error>> {
        let _clock = context::enter_clock();
        let this = self.project();
        this.inner.poll(cx).map(|result| {
            let result = result.map_err(Error::from_any);
            this.verdict.of(result.as_ref());
            result
        })
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("verdict", &self.verdict).finish_non_exhaustive()
    }
}
