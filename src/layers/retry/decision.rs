//! Whether a call is tried again (R1, R4, R5).

use std::time::Duration;

use crate::{
    context::Ended,
    outcome::{Failure, Outcome, PUSHBACK_MAX, Pushback},
};

/// What a call has behind it.
#[derive(Debug)]
pub(super) struct Course {
    /// Attempts it may make.
    pub(super) max_attempts: u32,
    /// Attempts made.
    pub(super) attempts: u32,
    /// Attempts made that a server may have seen.
    pub(super) seen: u32,
    /// Waits of our own choice since the server last chose one.
    pub(super) backoffs: u32,
    /// Whether the request may run twice.
    pub(super) idempotent: bool,
    /// Whether it is a breaker's probe: one answer is all it is for.
    pub(super) probe: bool,
}

/// What an attempt came to, as far as trying again goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempted {
    pub(super) outcome: Outcome,
    /// A layer on this side refused it.
    pub(super) rejected: bool,
    /// It surely never ran at a server.
    pub(super) unsent: bool,
    pub(super) pushback: Option<Pushback>,
}

/// How to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// At once: it never ran.
    Requeue,
    /// After the wait the server asked for.
    After(Duration),
    /// After a wait of our own choice.
    Backoff,
}

impl Course {
    /// How to try again after this attempt, or why not.
    pub(super) fn next(&self, attempted: Attempted) -> Result<Again, Ended> {
        let Attempted { outcome, rejected, unsent, pushback } = attempted;
        // Whoever refused on this side would refuse again, or was asked for just that.
        if rejected || outcome == Outcome::Success {
            return Err(Ended::Answered);
        }
        let again = if unsent {
            Again::Requeue
        } else {
            if !is_worth_it(outcome) {
                return Err(Ended::Answered);
            }
            if self.probe {
                return Err(Ended::Probed);
            }
            if !self.idempotent {
                return Err(Ended::NotIdempotent);
            }
            match (pushback, outcome) {
                (Some(Pushback::Never), _) => return Err(Ended::PushedBack),
                (Some(Pushback::After(wait)), _) | (None, Outcome::Throttled(Some(wait))) => {
                    Again::After(wait.min(PUSHBACK_MAX))
                }
                _ => Again::Backoff,
            }
        };
        if self.attempts >= self.max_attempts { Err(Ended::AttemptsExhausted) } else { Ok(again) }
    }
}

fn is_worth_it(outcome: Outcome) -> bool {
    match outcome {
        // Not implemented, HTTP version not supported: the next answer will be the same.
        Outcome::Failure(Failure::Status(501 | 505)) => false,
        outcome => outcome.is_bad(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Outcome = Outcome::Failure(Failure::Transport);

    fn next(idempotent: bool, outcome: Outcome, rejected: bool, unsent: bool) -> Result<Again, Ended> {
        let course = Course { max_attempts: 3, attempts: 1, seen: 0, backoffs: 0, idempotent, probe: false };
        course.next(Attempted { outcome, rejected, unsent, pushback: None })
    }

    #[test]
    fn the_table_of_outcomes_holds() {
        let throttled = Outcome::Throttled(Some(Duration::from_secs(400)));
        assert_eq!(next(true, Outcome::Success, false, false), Err(Ended::Answered));
        assert_eq!(next(true, FAILED, false, false), Ok(Again::Backoff));
        assert_eq!(next(false, FAILED, false, false), Err(Ended::NotIdempotent));
        assert_eq!(next(true, Outcome::TimedOut, false, false), Ok(Again::Backoff));
        assert_eq!(next(true, throttled, false, false), Ok(Again::After(PUSHBACK_MAX)));
        assert_eq!(next(true, Outcome::Throttled(None), false, false), Ok(Again::Backoff));
        assert_eq!(next(false, Outcome::Throttled(None), false, false), Err(Ended::NotIdempotent));
        assert_eq!(next(true, Outcome::Cancelled, false, false), Err(Ended::Answered));
        assert_eq!(next(true, Outcome::Ignored, true, true), Err(Ended::Answered), "our own rejection");
        assert_eq!(next(true, Outcome::Ignored, false, false), Err(Ended::Answered));
        assert_eq!(next(false, Outcome::Ignored, false, true), Ok(Again::Requeue));
        assert_eq!(next(false, Outcome::Failure(Failure::Connect), false, true), Ok(Again::Requeue));
        for status in [501, 505] {
            assert_eq!(next(true, Outcome::Failure(Failure::Status(status)), false, false), Err(Ended::Answered));
        }
    }

    #[test]
    fn a_probe_is_sent_again_only_if_it_never_ran() {
        let course = Course { max_attempts: 3, attempts: 1, seen: 0, backoffs: 0, idempotent: true, probe: true };
        let after = |unsent| course.next(Attempted { outcome: FAILED, rejected: false, unsent, pushback: None });
        assert_eq!((after(false), after(true)), (Err(Ended::Probed), Ok(Again::Requeue)));
    }

    #[test]
    fn a_server_that_says_never_is_not_asked_again() {
        let course = Course { max_attempts: 3, attempts: 1, seen: 0, backoffs: 0, idempotent: true, probe: false };
        let after = |pushback| course.next(Attempted { outcome: FAILED, rejected: false, unsent: false, pushback });
        assert_eq!(after(Some(Pushback::Never)), Err(Ended::PushedBack));
        let wait = Duration::from_secs(2);
        assert_eq!(after(Some(Pushback::After(wait))), Ok(Again::After(wait)));
    }

    #[test]
    fn no_sixth_attempt_whatever_happened() {
        let course = Course { max_attempts: 5, attempts: 5, seen: 0, backoffs: 0, idempotent: true, probe: false };
        for unsent in [false, true] {
            let attempted = Attempted { outcome: FAILED, rejected: false, unsent, pushback: None };
            assert_eq!(course.next(attempted), Err(Ended::AttemptsExhausted));
        }
    }
}
