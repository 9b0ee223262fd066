use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::BoxError;
use tower_service::Service;

use super::{
    layer::Shared,
    places::{Place, Waiting},
};
use crate::{Error, ErrorKind, context};

pin_project! {
    /// A call that has a place, waits for one, or is refused. Made by [`Bulkhead`](super::Bulkhead).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, F> {
        #[pin]
        state: State<S, Req, F>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Req, F> {
        Waiting {
            // The service that was made ready, and its request; taken when the place is there.
            call: Option<(S, Req)>,
            turn: Waiting<Shared>,
            until: Instant,
            // What it means when that has come.
            kind: ErrorKind,
            // Made at the first `Pending`.
            #[pin]
            timer: Option<Sleep>,
            shared: Arc<Shared>,
        },
        Calling {
            #[pin]
            inner: F,
            place: Place<Shared>,
        },
        Refused {
            error: Option<Error>,
        },
        Done,
    }
}

impl<S, Req, F> ResponseFuture<S, Req, F> {
    pub(super) fn calling(inner: F, place: Place<Shared>) -> Self {
        Self { state: State::Calling { inner, place } }
    }

    pub(super) fn refused(error: Error) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }

    pub(super) fn waiting(
        ready: S,
        request: Req,
        turn: Waiting<Shared>,
        until: Instant,
        kind: ErrorKind,
        shared: Arc<Shared>,
    ) -> Self {
        Self { state: State::Waiting { call: Some((ready, request)), turn, until, kind, timer: None, shared } }
    }
}

impl<S, Req, F, Res, E> Future for ResponseFuture<S, Req, F>
where
    S: Service<Req, Future = F>,
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Res, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _clock = context::enter_clock();
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Waiting { call, turn, until, kind, mut timer, shared } => match turn.poll_place(cx) {
                    Poll::Ready(place) => {
                        let (mut ready, request) = call.take().expect("taken once, with the place");
                        State::Calling { inner: ready.call(request), place }
                    }
                    Poll::Pending => {
                        if timer.is_none() {
                            timer.set(Some(sleep_until(*until)));
                        }
                        if let Some(timer) = timer.as_pin_mut() {
                            ready!(timer.poll(cx));
                        }
                        State::Refused { error: Some(shared.refuse(*kind)) }
                    }
                },
                StateProjection::Calling { inner, place: _ } => {
                    let result = ready!(inner.poll(cx)).map_err(Error::from_any);
                    // The place is free with the head, even if this future is kept.
                    state.set(State::Done);
                    return Poll::Ready(result);
                }
                StateProjection::Refused { error } => {
                    return Poll::Ready(Err(error.take().expect("polled after it was ready")));
                }
                StateProjection::Done => panic!("polled after it was ready"),
            };
            state.set(next);
        }
    }
}

impl<S, Req, F> fmt::Debug for ResponseFuture<S, Req, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Waiting { .. } => "waiting",
            State::Calling { .. } => "calling",
            State::Refused { .. } => "refused",
            State::Done => "done",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
