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
    layer::Own,
    places::{Places, Queued},
};
use crate::{Error, ErrorKind, context, lanes::Lanes};

/// A service behind a bulkhead. Made by [`BulkheadLayer`](super::BulkheadLayer).
#[derive(Clone)]
pub struct Bulkhead<S> {
    inner: S,
    lanes: Lanes<Own>,
}

impl<S> Bulkhead<S> {
    pub(super) fn new(inner: S, lanes: Lanes<Own>) -> Self {
        Self { inner, lanes }
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
        let own = self.lanes.here();
        if let Some(place) = Places::take(own) {
            return ResponseFuture::calling(self.inner.call(request), place);
        }
        let shared = &own.shared;
        let Some(max_wait) = shared.max_wait() else {
            return ResponseFuture::refused(shared.refuse(ErrorKind::BulkheadFull));
        };
        let now = context::now();
        let deadline = context::deadline();
        if deadline.is_some_and(|deadline| deadline <= now) {
            return ResponseFuture::refused(shared.refuse(ErrorKind::DeadlineExceeded));
        }
        match Places::queue(own, shared.max_waiting()) {
            Queued::Place(place) => ResponseFuture::calling(self.inner.call(request), place),
            Queued::Full => ResponseFuture::refused(shared.refuse(ErrorKind::BulkheadFull)),
            Queued::Waiting(turn) => {
                // The instance that was made ready waits along; the clone that stays has to be made ready itself.
                let clone = self.inner.clone();
                let ready = mem::replace(&mut self.inner, clone);
                let until = now + max_wait;
                let (until, kind) = match deadline {
                    Some(deadline) if deadline <= until => (deadline, ErrorKind::DeadlineExceeded),
                    _ => (until, ErrorKind::BulkheadFull),
                };
                let (call, shared) = (Some((ready, request)), Arc::clone(shared));
                ResponseFuture::waiting(InQueue { call, turn, until, kind, timer: None, shared })
            }
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for Bulkhead<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bulkhead").field("inner", &self.inner).field("bulkhead", &self.lanes.here().shared).finish()
    }
}
