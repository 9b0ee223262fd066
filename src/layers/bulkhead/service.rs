use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use tower::BoxError;
use tower_service::Service;

use super::{
    ResponseFuture,
    future::InQueue,
    layer::Shared,
    places::{Places, Queued},
};
use crate::{Error, ErrorKind, context};

/// A service behind a bulkhead. Made by [`BulkheadLayer`](super::BulkheadLayer).
#[derive(Clone)]
pub struct Bulkhead<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S> Bulkhead<S> {
    pub(super) fn new(inner: S, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }
}

impl<S, Req> Service<Req> for Bulkhead<S>
where
    S: Service<Req> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = ResponseFuture<S, Req, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx).map_err(Error::from_any)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let _clock = context::enter_clock();
        if let Some(place) = Places::take(&self.shared) {
            return ResponseFuture::calling(self.inner.call(request), place);
        }
        let Some(max_wait) = self.shared.max_wait() else {
            return ResponseFuture::refused(self.shared.refuse(ErrorKind::BulkheadFull));
        };
        let now = context::now();
        let deadline = context::deadline();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return ResponseFuture::refused(self.shared.refuse(ErrorKind::DeadlineExceeded));
        }
        match Places::queue(&self.shared, self.shared.max_waiting()) {
            Queued::Place(place) => ResponseFuture::calling(self.inner.call(request), place),
            Queued::Full => ResponseFuture::refused(self.shared.refuse(ErrorKind::BulkheadFull)),
            Queued::Waiting(turn) => {
                // The instance that was made ready waits along; the clone that stays has to be made ready itself.
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                let until = now + max_wait;
                let (until, kind) = match deadline {
                    Some(deadline) if deadline <= until => (deadline, ErrorKind::DeadlineExceeded),
                    _ => (until, ErrorKind::BulkheadFull),
                };
                let (call, shared) = (Some((ready, request)), Arc::clone(&self.shared));
                ResponseFuture::waiting(InQueue { call, turn, until, kind, timer: None, shared })
            }
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Bulkhead<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead").field("inner", &self.inner).field("bulkhead", &self.shared).finish()
    }
}
