/// How a call ended, as its retry layer saw it. Read it with [`last_call`](super::last_call) right after the call's `.await`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallFacts {
    /// Attempts made, requeued ones included.
    pub attempts: u32,
    /// Why there was no further one.
    pub ended: Ended,
}

/// Why a call was not tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// There was no reason to: it succeeded, or nobody retries here.
    #[default]
    Answered,
    /// It failed, but may have run, and may not run twice.
    NotIdempotent,
    /// All attempts the policy allows were made.
    AttemptsExhausted,
    /// The retry budget is empty.
    BudgetExhausted,
    /// The wait before the next attempt would outlast the deadline.
    DeadlineNear,
    /// The body outgrew what is kept for a second attempt, or was already under way to the caller.
    NotReplayable,
    /// The server asked not to be asked again.
    PushedBack,
    /// It was a breaker's probe, which has its answer.
    Probed,
}

/// The facts of the attempt under way: its number and the endpoints tried so far.
///
/// Small, since it is copied with each `call` and `poll`.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub(super) number: u32,
    /// Their [numbers](crate::EndpointHandle::number).
    tried: [u32; Self::REMEMBERED],
    len: u32,
}

impl Attempt {
    /// How many endpoints a call remembers; a seventh replaces the oldest.
    pub const REMEMBERED: usize = 6;

    /// Outside of any call that counts its attempts: nothing is remembered.
    pub(super) const NOBODYS: Self = Self { number: 0, tried: [0; Self::REMEMBERED], len: 0 };

    /// The first attempt.
    pub const fn first() -> Self {
        Self { number: 1, tried: [0; Self::REMEMBERED], len: 0 }
    }

    /// Its number; the first is 1, also where nobody counts.
    #[inline]
    pub fn number(&self) -> u32 {
        self.number.max(1)
    }

    /// Whether this call already tried the endpoint of this [number](crate::EndpointHandle::number).
    #[inline]
    pub fn has_tried(&self, endpoint: u32) -> bool {
        self.tried[..self.len()].contains(&endpoint)
    }

    /// Whether this call tried any endpoint yet.
    #[inline]
    pub fn is_fresh(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn next(&mut self) {
        self.number += 1;
    }

    #[inline]
    pub(super) fn push(&mut self, endpoint: u32) {
        if self.len() == Self::REMEMBERED {
            self.tried.rotate_left(1);
            self.tried[Self::REMEMBERED - 1] = endpoint;
        } else {
            self.tried[self.len()] = endpoint;
            self.len += 1;
        }
    }

    #[inline]
    fn len(&self) -> usize {
        // The bound is told to the compiler, which then needs no check of its own.
        (self.len as usize).min(Self::REMEMBERED)
    }
}
