//! What travels with a call beside the request: deadline, trace, priority, attempt facts, the clock reading.
//!
//! It is ambient: a thread-local that a layer's future enters for each `call` and each `poll`, and restores by a
//! guard. It costs no allocation and needs nothing of the request, and what a server layer took from an inbound request
//! reaches the outbound calls of its handler by itself, as long as the handler awaits them.
//!
//! **Spawned work does not inherit it.** Carry it over:
//!
//! ```
//! use hopvine::Context;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let work = async { Context::current().deadline() };
//! tokio::spawn(Context::current().scope(work)).await.unwrap();
//! # }
//! ```

use std::{
    cell::{Cell, RefCell},
    future::Future,
    mem,
    pin::Pin,
    sync::OnceLock,
    task::{self, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::trace::TraceContext;

/// How much a call matters to its caller, for layers that shed load. Travels with the call; higher matters more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(pub i8);

/// Why a future is dropped before it is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DropCause {
    /// The caller went away.
    #[default]
    Cancelled,
    /// A timer of ours outside ended the wait.
    TimedOut,
}

/// How a call ended, as its retry layer saw it. Read it with [`last_call`] right after the call's `.await`.
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
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    number: u32,
    tried: [u64; Self::REMEMBERED],
    len: u8,
}

impl Attempt {
    /// How many endpoints a call remembers; a ninth replaces the oldest.
    pub const REMEMBERED: usize = 8;

    /// Outside of any call that counts its attempts: nothing is remembered.
    const NOBODYS: Self = Self { number: 0, tried: [0; Self::REMEMBERED], len: 0 };

    /// The first attempt.
    pub const fn first() -> Self {
        Self { number: 1, tried: [0; Self::REMEMBERED], len: 0 }
    }

    /// Its number; the first is 1, also where nobody counts.
    pub fn number(&self) -> u32 {
        self.number.max(1)
    }

    /// Whether this call already tried the endpoint of this [number](crate::EndpointHandle::number).
    pub fn has_tried(&self, endpoint: u64) -> bool {
        self.tried[..usize::from(self.len)].contains(&endpoint)
    }

    /// Whether this call tried any endpoint yet.
    pub fn is_fresh(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn next(&mut self) {
        self.number += 1;
    }

    fn push(&mut self, endpoint: u64) {
        if usize::from(self.len) == Self::REMEMBERED {
            self.tried.rotate_left(1);
            self.tried[Self::REMEMBERED - 1] = endpoint;
        } else {
            self.tried[usize::from(self.len)] = endpoint;
            self.len += 1;
        }
    }
}

struct Ambient {
    clock: Cell<Clock>,
    deadline: Cell<Option<Instant>>,
    priority: Cell<Priority>,
    cause: Cell<DropCause>,
    probe: Cell<bool>,
    last: Cell<CallFacts>,
    attempt: RefCell<Attempt>,
    trace: RefCell<Option<TraceContext>>,
}

/// The shared clock reading: closed outside our layers, open and perhaps read inside.
#[derive(Clone, Copy)]
enum Clock {
    Closed,
    Unread,
    Read(Instant),
}

thread_local! {
    static AMBIENT: Ambient = const {
        Ambient {
            clock: Cell::new(Clock::Closed),
            deadline: Cell::new(None),
            priority: Cell::new(Priority(0)),
            cause: Cell::new(DropCause::Cancelled),
            probe: Cell::new(false),
            last: Cell::new(CallFacts { attempts: 0, ended: Ended::Answered }),
            attempt: RefCell::new(Attempt::NOBODYS),
            trace: RefCell::new(None),
        }
    };
}

/// The time, read at most once in a `call` or a `poll` of a stack.
pub fn now() -> Instant {
    AMBIENT.with(|ambient| match ambient.clock.get() {
        Clock::Read(now) => now,
        Clock::Closed => Instant::now(),
        Clock::Unread => {
            let now = Instant::now();
            ambient.clock.set(Clock::Read(now));
            now
        }
    })
}

/// Nanoseconds of `at` since the first use in this process: what our atomics keep instead of an `Instant`.
pub fn nanos(at: Instant) -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    // An hour before the first reading, so that an instant of a paused clock that started earlier is not below zero.
    let epoch = EPOCH.get_or_init(|| at.checked_sub(Duration::from_secs(3600)).unwrap_or(at));
    at.saturating_duration_since(*epoch).as_nanos() as u64
}

/// When the call under way must have ended.
pub fn deadline() -> Option<Instant> {
    AMBIENT.with(|ambient| ambient.deadline.get())
}

/// How much the call under way matters.
pub fn priority() -> Priority {
    AMBIENT.with(|ambient| ambient.priority.get())
}

/// Why the future that is being dropped is dropped. For guards in their `Drop`.
pub fn drop_cause() -> DropCause {
    AMBIENT.try_with(|ambient| ambient.cause.get()).unwrap_or_default()
}

/// The attempt under way.
pub fn attempt() -> Attempt {
    AMBIENT.with(|ambient| *ambient.attempt.borrow())
}

/// Reads the trace context of the work under way, without a copy.
pub fn with_trace<R>(read: impl FnOnce(Option<&TraceContext>) -> R) -> R {
    AMBIENT.with(|ambient| read(ambient.trace.borrow().as_ref()))
}

fn copy_of_trace() -> Option<TraceContext> {
    AMBIENT.with(|ambient| ambient.trace.borrow().clone())
}

/// How the call that was last awaited here ended. Valid right after its `.await`, before the next one.
pub fn last_call() -> CallFacts {
    AMBIENT.with(|ambient| ambient.last.get())
}

pub(crate) fn set_last_call(facts: CallFacts) {
    AMBIENT.with(|ambient| ambient.last.set(facts));
}

/// Adds an endpoint to those the call under way has tried.
pub(crate) fn tried(endpoint: u64) {
    AMBIENT.with(|ambient| {
        let mut attempt = ambient.attempt.borrow_mut();
        // Kept for a call, not for a thread.
        if attempt.number > 0 {
            attempt.push(endpoint);
        }
    });
}

/// Opens the shared clock for the `call` or `poll` that follows, unless a layer outside did.
///
/// Every layer that reads [`now`] opens it; the outermost one's guard closes it.
pub fn enter_clock() -> Entered<impl FnOnce()> {
    let opened = AMBIENT.with(|ambient| {
        let closed = matches!(ambient.clock.get(), Clock::Closed);
        if closed {
            ambient.clock.set(Clock::Unread);
        }
        closed
    });
    restore(move |ambient| {
        if opened {
            ambient.clock.set(Clock::Closed);
        }
    })
}

/// Closes the shared clock for foreign work inside, a handler or a fallback, which may take long and read it itself.
pub fn leave_clock() -> Entered<impl FnOnce()> {
    let before = AMBIENT.with(|ambient| ambient.clock.replace(Clock::Closed));
    // What was read before is stale once that work is done.
    let after = if matches!(before, Clock::Closed) { Clock::Closed } else { Clock::Unread };
    restore(move |ambient| ambient.clock.set(after))
}

/// Forgets the shared reading, where time may have passed within one `poll`.
pub(crate) fn refresh_clock() {
    AMBIENT.with(|ambient| {
        if matches!(ambient.clock.get(), Clock::Read(_)) {
            ambient.clock.set(Clock::Unread);
        }
    });
}

/// Enters a deadline. Never extends the one that holds: the earlier of the two is in force inside.
pub fn enter_deadline(deadline: Option<Instant>) -> Entered<impl FnOnce()> {
    let before = AMBIENT.with(|ambient| {
        let before = ambient.deadline.get();
        ambient.deadline.set(match (before, deadline) {
            (Some(outer), Some(own)) => Some(outer.min(own)),
            (outer, own) => outer.or(own),
        });
        before
    });
    restore(move |ambient| ambient.deadline.set(before))
}

/// Replaces the deadline, a later one or none included: for where a new chain of calls begins, as at a fallback
/// that answers with the caller's time, or a server that does not trust what came in.
pub fn replace_deadline(deadline: Option<Instant>) -> Entered<impl FnOnce()> {
    let before = AMBIENT.with(|ambient| ambient.deadline.replace(deadline));
    restore(move |ambient| ambient.deadline.set(before))
}

/// Enters a priority.
pub fn enter_priority(priority: Priority) -> Entered<impl FnOnce()> {
    let before = AMBIENT.with(|ambient| ambient.priority.replace(priority));
    restore(move |ambient| ambient.priority.set(before))
}

/// Whether the call under way is a breaker's probe, which asks whether the service works: it is not tried again.
pub fn is_probe() -> bool {
    AMBIENT.with(|ambient| ambient.probe.get())
}

/// Says whether the call is a breaker's probe.
pub fn enter_probe(probe: bool) -> Entered<impl FnOnce()> {
    let before = AMBIENT.with(|ambient| ambient.probe.replace(probe));
    restore(move |ambient| ambient.probe.set(before))
}

/// Says why the futures dropped under this guard are dropped.
pub fn enter_drop_cause(cause: DropCause) -> Entered<impl FnOnce()> {
    let before = AMBIENT.with(|ambient| ambient.cause.replace(cause));
    restore(move |ambient| ambient.cause.set(before))
}

/// Enters attempt facts, which stay the caller's: what is added inside is there when the guard is gone.
pub fn enter_attempt(attempt: &mut Attempt) -> Entered<impl FnOnce() + use<'_>> {
    AMBIENT.with(|ambient| mem::swap(&mut *ambient.attempt.borrow_mut(), attempt));
    restore(move |ambient| mem::swap(&mut *ambient.attempt.borrow_mut(), attempt))
}

/// Enters a trace context, moved in and back, never copied.
pub fn enter_trace(trace: &mut Option<TraceContext>) -> Entered<impl FnOnce() + use<'_>> {
    AMBIENT.with(|ambient| mem::swap(&mut *ambient.trace.borrow_mut(), trace));
    restore(move |ambient| mem::swap(&mut *ambient.trace.borrow_mut(), trace))
}

/// A guard: what was entered is in force until it is dropped.
#[must_use = "what was entered is restored when the guard is dropped"]
#[derive(Debug)]
pub struct Entered<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Entered<F> {
    fn drop(&mut self) {
        if let Some(restore) = self.0.take() {
            restore();
        }
    }
}

fn restore<F: FnOnce(&Ambient)>(how: F) -> Entered<impl FnOnce()> {
    Entered(Some(move || {
        // A future dropped while its thread ends has nothing left to restore.
        let _ = AMBIENT.try_with(how);
    }))
}

/// A copy of what travels, to carry it where the thread-local does not reach.
#[derive(Clone, Debug, Default)]
pub struct Context {
    deadline: Option<Instant>,
    priority: Priority,
    trace: Option<TraceContext>,
}

impl Context {
    /// Nothing: no deadline, no trace, the usual priority.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is in force here and now.
    pub fn current() -> Self {
        Self { deadline: deadline(), priority: priority(), trace: copy_of_trace() }
    }

    /// With this deadline instead.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// With this priority instead.
    #[must_use]
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// With this trace context instead.
    #[must_use]
    pub fn with_trace(mut self, trace: Option<TraceContext>) -> Self {
        self.trace = trace;
        self
    }

    /// When the call must have ended.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the call may still take; zero when its deadline has passed.
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now()))
    }

    /// How much the call matters.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The trace it belongs to.
    pub fn trace(&self) -> Option<&TraceContext> {
        self.trace.as_ref()
    }

    /// Runs `future` in this context, wherever it is polled: the way to carry it into spawned work.
    pub fn scope<F: Future>(self, future: F) -> Scoped<F> {
        Scoped { context: self, future }
    }

    /// Puts a copy into a request's extensions, for code between two layers that has the request but not the task.
    pub fn insert_into(&self, extensions: &mut http::Extensions) {
        extensions.insert(self.clone());
    }

    /// Takes the copy that [`insert_into`](Self::insert_into) put there.
    pub fn from_extensions(extensions: &http::Extensions) -> Option<Self> {
        extensions.get::<Self>().cloned()
    }
}

pin_project! {
    /// A future that runs in a [`Context`]. Made by [`Context::scope`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Scoped<F> {
        context: Context,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _deadline = replace_deadline(this.context.deadline);
        let _priority = enter_priority(this.context.priority);
        let _trace = enter_trace(&mut this.context.trace);
        this.future.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_inside_never_extends_the_one_outside() {
        let near = Instant::now();
        let far = near + Duration::from_secs(1);
        let _outer = enter_deadline(Some(near));
        {
            let _inner = enter_deadline(Some(far));
            assert_eq!(deadline(), Some(near));
            let _none = enter_deadline(None);
            assert_eq!(deadline(), Some(near));
        }
        assert_eq!(deadline(), Some(near));
    }

    #[test]
    fn what_was_entered_is_restored_when_a_poll_panics() {
        let result = std::panic::catch_unwind(|| {
            let _priority = enter_priority(Priority(3));
            panic!("on purpose");
        });
        assert!(result.is_err());
        assert_eq!(priority(), Priority(0));
    }

    #[test]
    fn attempt_facts_come_back_to_their_owner() {
        let mut own = Attempt::first();
        {
            let _attempt = enter_attempt(&mut own);
            tried(7);
        }
        assert!(own.has_tried(7) && !attempt().has_tried(7));
        for endpoint in 100..108 {
            own.push(endpoint);
        }
        assert!(!own.has_tried(7) && own.has_tried(107));
    }

    #[test]
    fn outside_a_call_nothing_is_remembered() {
        tried(7);
        assert!(attempt().is_fresh());
        assert_eq!(attempt().number(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_read_once_and_again_after_foreign_work() {
        let start = now();
        let _clock = enter_clock();
        assert_eq!(now(), start);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(now(), start, "shared");
        drop(leave_clock());
        assert_eq!(now(), start + Duration::from_secs(1));
    }
}
