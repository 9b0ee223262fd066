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
    layer::{Own, Shared},
    places::{Place, Waiting},
};
use crate::{Error, ErrorKind, context, lanes::Lane};

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
            // In a box: what few calls have must not make the futures of all of them larger.
            queued: Box<InQueue<S, Req>>,
        },
        Calling {
            #[pin]
            inner: F,
            place: Place<Lane<Own>>,
        },
        Refused {
            error: Option<Error>,
        },
        Done,
    }
}

/// A call in the queue.
pub(super) struct InQueue<S, Req> {
    /// The service that was made ready, and its request; taken when the place is there.
    pub(super) call: Option<(S, Req)>,
    pub(super) turn: Waiting<Lane<Own>>,
    pub(super) until: Instant,
    /// What it means when that has come.
    pub(super) kind: ErrorKind,
    /// Made at the first `Pending`.
    pub(super) timer: Option<Pin<Box<Sleep>>>,
    pub(super) shared: Arc<Shared>,
}

impl<S, Req, F> ResponseFuture<S, Req, F> {
    pub(super) fn calling(inner: F, place: Place<Lane<Own>>) -> Self {
        Self { state: State::Calling { inner, place } }
    }

    pub(super) fn refused(error: Error) -> Self {
        Self { state: State::Refused { error: Some(error) } }
    }

    pub(super) fn waiting(queued: InQueue<S, Req>) -> Self {
        Self { state: State::Waiting { queued: Box::new(queued) } }
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
                StateProjection::Waiting { queued } => match queued.turn.poll_place(cx) {
                    Poll::Ready(place) => {
                        let (mut ready, request) = queued.call.take().expect("taken once, with the place");
                        State::Calling { inner: ready.call(request), place }
                    }
                    Poll::Pending => {
                        let until = queued.until;
                        let timer = queued.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
                        ready!(timer.as_mut().poll(cx));
                        State::Refused { error: Some(queued.shared.refuse(queued.kind)) }
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
