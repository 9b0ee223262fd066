use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::BoxError;
use tower_service::Service;

use super::places::{Place, Places};
use crate::Error;

pin_project! {
    /// Made by [`Bulkhead`](super::Bulkhead).
    pub struct ResponseFuture<S, F, Req> {
        #[pin]
        state: State<S, F, Req>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F, Req> {
        Calling { #[pin] call: F, place: Option<Place> },
        Waiting { wait: Wait, inner: S, request: Option<Req>, places: Arc<Places>, error: Option<Error> },
        Refused { error: Option<Error> },
    }
}

/// Boxed: who waits has time, and who does not should not carry it.
type Wait = Pin<Box<dyn Future<Output = Option<Place>> + Send>>;

impl<S, F, Req> ResponseFuture<S, F, Req> {
    pub(super) fn calling(call: F, place: Place) -> Self {
        Self { state: State::Calling { call, place: Some(place) } }
    }

    pub(super) fn refused(error: Error) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }

    pub(super) fn waiting(places: Arc<Places>, end: Instant, inner: S, request: Req, error: Error) -> Self {
        let wait = Box::pin(Arc::clone(&places).wait(end));
        Self { state: State::Waiting { wait, inner, request: Some(request), places, error: Some(error) } }
    }
}

impl<S, F, Req> Future for ResponseFuture<S, F, Req>
where
    S: Service<Req, Future = F>,
    S::Error: Into<BoxError>,
    F: Future<Output = Result<S::Response, S::Error>>,
{
    type Output = Result<S::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Calling { call, place } => {
                    let result = ready!(call.poll(cx));
                    // At the head, not when the body ends or somebody drops this future.
                    drop(place.take());
                    return Poll::Ready(result.map_err(Error::from_any));
                }
                StateProjection::Waiting { wait, inner, request, places, error } => {
                    let Some(place) = ready!(wait.as_mut().poll(cx)) else {
                        places.rejected.fetch_add(1, Relaxed);
                        return Poll::Ready(Err(error.take().expect("polled after it was ready")));
                    };
                    let call = inner.call(request.take().expect("the request is there until the call"));
                    this.state.set(State::Calling { call, place: Some(place) });
                }
                StateProjection::Refused { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after it was ready")));
                }
            }
        }
    }
}

impl<S, F, Req> fmt::Debug for ResponseFuture<S, F, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("bulkhead::ResponseFuture").finish_non_exhaustive()
    }
}
