//! What the tests of all layers share: a request and a response that are no HTTP, and a way to drop a future at each
//! of its await points.

#![allow(dead_code, unreachable_pub, reason = "each module takes what it needs")]

use std::{future::Future, pin::pin, task::Poll};

use hopvine::{
    outcome::{Classified, Failure, Outcome},
    request::{Carrier, Idempotent, Replay},
};

/// A request that is no HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub text: String,
    pub write: bool,
}

impl Query {
    pub(crate) fn read(text: &str) -> Self {
        Self { text: text.to_owned(), write: false }
    }

    pub(crate) fn write(text: &str) -> Self {
        Self { text: text.to_owned(), write: true }
    }
}

impl Carrier for Query {}

impl Idempotent for Query {
    fn is_idempotent(&self) -> bool {
        !self.write
    }
}

impl Replay for Query {
    type Attempt = Self;
    type Kept = Self;

    fn once(self) -> Self {
        self
    }

    fn split(self, _limit: usize) -> (Self, Self) {
        (self.clone(), self)
    }

    fn again(kept: &mut Self, _earlier: u32) -> Option<Self> {
        Some(kept.clone())
    }
}

/// Its response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Rows(u32),
    Broken,
}

impl Classified for Answer {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Rows(_) => Outcome::Success,
            Self::Broken => Outcome::Failure(Failure::Other),
        }
    }
}

/// Polls `future` at most `polls` times, lets the clock and other tasks move in between, then drops it.
/// `Some` if it was ready before.
pub(crate) async fn drop_after<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = futures_util::poll!(future.as_mut()) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}
