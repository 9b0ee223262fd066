//! A future that ends in time: what the layers with a timer share.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::context::{self, DropCause};

pin_project! {
    pub(super) struct Timed<F> {
        #[pin]
        call: Option<F>,
        // Made at the first `Pending`: most calls that are answered at once never need it.
        #[pin]
        timer: Option<Sleep>,
        end: Instant,
    }
}

/// Time ran out.
pub(super) struct Elapsed;

impl<F> Timed<F> {
    pub(super) fn new(call: F, end: Instant) -> Self {
        Self { call: Some(call), timer: None, end }
    }
}

impl<F: Future> Future for Timed<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let call = this.call.as_mut().as_pin_mut().expect("polled after it was ready");
        // The answer first: one that is there when the time ends counts.
        if let Poll::Ready(output) = call.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if this.timer.is_none() {
            this.timer.set(Some(sleep_until(*this.end)));
        }
        let fired = this.timer.as_pin_mut().is_some_and(|timer| timer.poll(cx).is_ready());
        if !fired {
            return Poll::Pending;
        }
        // Here and now, so that the guards inside can tell a timeout from a caller who went away.
        let _cause = context::enter_drop_cause(DropCause::TimedOut);
        this.call.set(None);
        Poll::Ready(Err(Elapsed))
    }
}
