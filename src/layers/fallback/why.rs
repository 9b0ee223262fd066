use std::time::Duration;

use crate::{
    Error, ErrorKind, Outcome,
    context::{CallFacts, Ended},
};

/// Why a fallback is asked: what came of the call, as plain facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Why {
    outcome: Outcome,
    error: Option<ErrorKind>,
    layer: Option<&'static str>,
    retry_after: Option<Duration>,
    facts: CallFacts,
}

impl Why {
    pub(super) fn new<Res>(outcome: Outcome, result: &Result<Res, Error>, facts: CallFacts) -> Self {
        let error = result.as_ref().err();
        let retry_after = match outcome {
            Outcome::Throttled(wait) => wait,
            _ => error.and_then(Error::retry_after),
        };
        // Where no retry layer stands inside, an error may still have been counted elsewhere.
        let attempts = facts.attempts.max(error.map_or(0, Error::attempts));
        let facts = CallFacts { attempts, ..facts };
        Self { outcome, error: error.map(Error::kind), layer: error.and_then(Error::layer), retry_after, facts }
    }

    /// What the classifier made of the result: [`Outcome::Ignored`] where a layer on this side refused the call.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The kind of the error; `None` where there was a response, but a bad one.
    pub fn error(&self) -> Option<ErrorKind> {
        self.error
    }

    /// The layer that made the error, if it was one of ours.
    pub fn layer(&self) -> Option<&'static str> {
        self.layer
    }

    /// When it is worth asking again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Attempts made; 0 where no retry layer stands inside.
    pub fn attempts(&self) -> u32 {
        self.facts.attempts
    }

    /// Why there was no further attempt.
    pub fn ended(&self) -> Ended {
        self.facts.ended
    }
}
