use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::BoxError;

use super::{Answer, Why, layer::Shared};
use crate::{
    Classify, Error,
    context::{self, CallFacts},
};

pin_project! {
    /// The response of a [`Fallback`](super::Fallback).
    ///
    /// Bounded, against our custom, since it holds what was kept of the request and the answer to come.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<Fut, Req, F, C>
    where
        F: Answer<Req>,
    {
        shared: Arc<Shared<F, C>>,
        // The caller's, as it was before the layers inside set one of their own.
        deadline: Option<Instant>,
        #[pin]
        state: State<Fut, F::Kept, F::Future, F::Response>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<Fut, K, A, Res> {
        Calling {
            #[pin]
            call: Fut,
            kept: Option<K>,
        },
        Answering {
            #[pin]
            answer: A,
            // What the caller gets if there is no answer either.
            original: Option<Result<Res, Error>>,
            facts: CallFacts,
        },
    }
}

impl<Fut, Req, F, C> ResponseFuture<Fut, Req, F, C>
where
    F: Answer<Req>,
{
    pub(super) fn new(shared: Arc<Shared<F, C>>, deadline: Option<Instant>, kept: F::Kept, call: Fut) -> Self {
        Self { shared, deadline, state: State::Calling { call, kept: Some(kept) } }
    }
}

impl<Fut, Req, F, C, E> Future for ResponseFuture<Fut, Req, F, C>
where
    F: Answer<Req>,
    Fut: Future<Output = Result<F::Response, E>>,
    E: Into<BoxError>,
    C: Classify<F::Response>,
{
    type Output = Result<F::Response, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let state = match this.state.as_mut().project() {
                StateProj::Calling { call, kept } => {
                    // What an earlier call on this thread left is not ours.
                    context::set_last_call(CallFacts::default());
                    let result = ready!(call.poll(cx)).map_err(Error::from_any);
                    let facts = context::last_call();
                    let kept = kept.take();
                    let Some(why) = this.shared.why(&result, facts) else {
                        return Poll::Ready(result);
                    };
                    let answer = {
                        let _clock = context::leave_clock();
                        let _deadline = context::replace_deadline(*this.deadline);
                        let _attempt = context::leave_attempt();
                        kept.and_then(|kept| this.shared.answer.answer(kept, why))
                    };
                    let Some(answer) = answer else {
                        tracing::debug!(target: "hopvine::fallback", ?why, "request not kept, no fallback");
                        this.shared.count(false);
                        context::set_last_call(facts);
                        return Poll::Ready(result);
                    };
                    State::Answering { answer, original: Some(result), facts }
                }
                StateProj::Answering { answer, original, facts } => {
                    let answered = {
                        let _clock = context::leave_clock();
                        let _deadline = context::replace_deadline(*this.deadline);
                        let _attempt = context::leave_attempt();
                        ready!(answer.poll(cx))
                    };
                    context::set_last_call(*facts);
                    let original = original.take();
                    this.shared.count(answered.is_ok());
                    return Poll::Ready(answered.or_else(|error| {
                        let error = Error::from_any(error);
                        tracing::debug!(target: "hopvine::fallback", %error, "fallback failed too");
                        original.expect("polled once it was ready")
                    }));
                }
            };
            this.state.set(state);
        }
    }
}

impl<F, C> Shared<F, C> {
    /// Why a fallback is wanted, if one is.
    fn why<Res>(&self, result: &Result<Res, Error>, facts: CallFacts) -> Option<Why>
    where
        C: Classify<Res>,
    {
        let outcome = self.classify.classify(result.as_ref());
        if result.is_ok() && !outcome.is_bad() {
            return None;
        }
        let why = Why::new(outcome, result, facts);
        self.when.as_ref().is_none_or(|when| when(&why)).then_some(why)
    }
}

impl<Fut, Req, F, C> fmt::Debug for ResponseFuture<Fut, Req, F, C>
where
    F: Answer<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}
