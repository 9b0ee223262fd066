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
    mem,
    sync::OnceLock,
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use crate::trace::TraceContext;

mod carried;
mod facts;

pub use carried::{Context, Scoped};
pub use facts::{Attempt, CallFacts, Ended};

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

/// What a connector tells, from its guards, of a request whose future is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    NeverWritten,
    /// Perhaps only in part.
    Written,
}

/// All of it is `Copy`: a thread-local without a destructor is one address, and is there until the thread is gone.
struct Ambient {
    clock: Cell<Clock>,
    deadline: Cell<Option<Instant>>,
    priority: Cell<Priority>,
    cause: Cell<DropCause>,
    told: Cell<Told>,
    probe: Cell<bool>,
    last: Cell<CallFacts>,
    attempt: Cell<Attempt>,
    alarm: Cell<Option<Alarm>>,
}

/// A timer outside that will have its task polled at `first` for whoever asks it to, while it polls what is inside.
#[derive(Clone, Copy)]
struct Alarm {
    task: TaskId,
    first: Option<Instant>,
}

/// Which task a waker wakes, as far as that can be told.
type TaskId = (usize, usize);

/// The shared clock reading: closed outside our layers, open and perhaps read inside.
#[derive(Clone, Copy)]
enum Clock {
    Closed,
    Unread,
    /// And the same as [`nanos`] has it.
    Read(Instant, u64),
}

thread_local! {
    static AMBIENT: Ambient = const {
        Ambient {
            clock: Cell::new(Clock::Closed),
            deadline: Cell::new(None),
            priority: Cell::new(Priority(0)),
            cause: Cell::new(DropCause::Cancelled),
            told: Cell::new(Told::Nothing),
            probe: Cell::new(false),
            last: Cell::new(CallFacts { attempts: 0, ended: Ended::Answered }),
            attempt: Cell::new(Attempt::NOBODYS),
            alarm: Cell::new(None),
        }
    };
    static TRACE: RefCell<Option<TraceContext>> = const { RefCell::new(None) };
}

/// The time, read at most once in a `call` or a `poll` of a stack.
#[inline]
pub fn now() -> Instant {
    reading().0
}

/// [`now`] in [`nanos`].
#[inline]
pub fn now_nanos() -> u64 {
    reading().1
}

#[inline]
fn reading() -> (Instant, u64) {
    AMBIENT.with(|ambient| match ambient.clock.get() {
        Clock::Read(now, nanos) => (now, nanos),
        clock => read(ambient, clock),
    })
}

#[inline(never)]
fn read(ambient: &Ambient, clock: Clock) -> (Instant, u64) {
    let now = Instant::now();
    let nanos = nanos(now);
    if matches!(clock, Clock::Unread) {
        ambient.clock.set(Clock::Read(now, nanos));
    }
    (now, nanos)
}

/// Nanoseconds of `at` since the first use in this process: what our atomics keep instead of an `Instant`.
#[inline]
pub fn nanos(at: Instant) -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    // An hour before the first reading, so that an instant of a paused clock that started earlier is not below zero.
    let epoch = EPOCH.get_or_init(|| at.checked_sub(Duration::from_secs(3600)).unwrap_or(at));
    at.saturating_duration_since(*epoch).as_nanos() as u64
}

/// When the call under way must have ended.
#[inline]
pub fn deadline() -> Option<Instant> {
    AMBIENT.with(|ambient| ambient.deadline.get())
}

/// How much the call under way matters.
#[inline]
pub fn priority() -> Priority {
    AMBIENT.with(|ambient| ambient.priority.get())
}

/// Why the future that is being dropped is dropped. For guards in their `Drop`.
#[inline]
pub fn drop_cause() -> DropCause {
    AMBIENT.with(|ambient| ambient.cause.get())
}

/// Tells whether the request of a future that is being dropped may have been written to a server. For guards of connectors, in their
/// `Drop`: where a timer drops an attempt of which all that is told is `false`, it surely never ran, and may be sent again.
pub fn tell_written(written: bool) {
    AMBIENT.with(|ambient| match (written, ambient.told.get()) {
        (true, _) => ambient.told.set(Told::Written),
        (false, Told::Nothing) => ambient.told.set(Told::NeverWritten),
        (false, _) => {}
    });
}

/// Drops by `drop`, and says whether what was dropped was surely never written.
pub(crate) fn drop_unwritten(drop: impl FnOnce()) -> bool {
    AMBIENT.with(|ambient| ambient.told.set(Told::Nothing));
    drop();
    AMBIENT.with(|ambient| ambient.told.get()) == Told::NeverWritten
}

/// The attempt under way.
#[inline]
pub fn attempt() -> Attempt {
    AMBIENT.with(|ambient| ambient.attempt.get())
}

/// Reads the trace context of the work under way, without a copy.
#[inline]
pub fn with_trace<R>(read: impl FnOnce(Option<&TraceContext>) -> R) -> R {
    TRACE.with_borrow(|trace| read(trace.as_ref()))
}

fn copy_of_trace() -> Option<TraceContext> {
    TRACE.with_borrow(Clone::clone)
}

/// How the call that was last awaited here ended. Valid right after its `.await`, before the next one.
#[inline]
pub fn last_call() -> CallFacts {
    AMBIENT.with(|ambient| ambient.last.get())
}

#[inline]
pub(crate) fn set_last_call(facts: CallFacts) {
    AMBIENT.with(|ambient| ambient.last.set(facts));
}

/// Adds an endpoint to those the call under way has tried.
#[inline]
pub(crate) fn tried(endpoint: u64) {
    AMBIENT.with(|ambient| {
        let mut attempt = ambient.attempt.get();
        // Kept for a call, not for a thread.
        if attempt.number > 0 {
            attempt.push(endpoint);
            ambient.attempt.set(attempt);
        }
    });
}

/// Opens the shared clock for the `call` or `poll` that follows, unless a layer outside did.
///
/// Every layer that reads [`now`] opens it; the outermost one's guard closes it.
#[inline]
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
#[inline]
pub fn leave_clock() -> Entered<impl FnOnce()> {
    let before = AMBIENT.with(|ambient| ambient.clock.replace(Clock::Closed));
    // What was read before is stale once that work is done.
    let after = if matches!(before, Clock::Closed) { Clock::Closed } else { Clock::Unread };
    restore(move |ambient| ambient.clock.set(after))
}

/// Forgets the shared reading, where time may have passed within one `poll`.
pub(crate) fn refresh_clock() {
    AMBIENT.with(|ambient| {
        if matches!(ambient.clock.get(), Clock::Read(..)) {
            ambient.clock.set(Clock::Unread);
        }
    });
}

/// Enters a deadline. Never extends the one that holds: the earlier of the two is in force inside.
#[inline]
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
#[inline]
pub fn replace_deadline(deadline: Option<Instant>) -> Entered<impl FnOnce()> {
    let before = AMBIENT.with(|ambient| ambient.deadline.replace(deadline));
    restore(move |ambient| ambient.deadline.set(before))
}

/// Enters a priority.
#[inline]
pub fn enter_priority(priority: Priority) -> Entered<impl FnOnce()> {
    let before = AMBIENT.with(|ambient| ambient.priority.replace(priority));
    restore(move |ambient| ambient.priority.set(before))
}

/// Whether the call under way is a breaker's probe, which asks whether the service works: it is not tried again.
#[inline]
pub fn is_probe() -> bool {
    AMBIENT.with(|ambient| ambient.probe.get())
}

/// Says whether the call is a breaker's probe.
#[inline]
pub fn enter_probe(probe: bool) -> Entered<impl FnOnce()> {
    let before = AMBIENT.with(|ambient| ambient.probe.replace(probe));
    restore(move |ambient| ambient.probe.set(before))
}

/// Says why the futures dropped under this guard are dropped.
#[inline]
pub fn enter_drop_cause(cause: DropCause) -> Entered<impl FnOnce()> {
    let before = AMBIENT.with(|ambient| ambient.cause.replace(cause));
    restore(move |ambient| ambient.cause.set(before))
}

/// Enters attempt facts, which stay the caller's: what is added inside is there when the guard is gone.
#[inline]
pub fn enter_attempt(attempt: &mut Attempt) -> Entered<impl FnOnce() + use<'_>> {
    let before = AMBIENT.with(|ambient| ambient.attempt.replace(*attempt));
    restore(move |ambient| *attempt = ambient.attempt.replace(before))
}

/// Begins a new chain of calls: what the one outside has tried is not known inside.
#[inline]
pub fn leave_attempt() -> Entered<impl FnOnce()> {
    let before = AMBIENT.with(|ambient| ambient.attempt.replace(Attempt::NOBODYS));
    restore(move |ambient| ambient.attempt.set(before))
}

/// Enters a trace context, moved in and back, never copied.
#[inline]
pub fn enter_trace(trace: &mut Option<TraceContext>) -> Entered<impl FnOnce() + use<'_>> {
    TRACE.with_borrow_mut(|ambient| mem::swap(ambient, trace));
    // A future dropped while its thread ends has nothing left to restore.
    Entered(Some(move || _ = TRACE.try_with(|ambient| mem::swap(&mut *ambient.borrow_mut(), trace))))
}

/// Opens an alarm for what is polled inside by this waker.
pub(crate) fn enter_alarm(waker: &Waker) -> Entered<impl FnOnce()> {
    let alarm = Alarm { task: task_of(waker), first: None };
    let before = AMBIENT.with(|ambient| ambient.alarm.replace(Some(alarm)));
    restore(move |ambient| ambient.alarm.set(before))
}

/// The earliest moment the open alarm was asked for.
pub(crate) fn alarm() -> Option<Instant> {
    AMBIENT.with(|ambient| ambient.alarm.get()?.first)
}

/// Whether there is an alarm outside that wakes the same task. A set of futures inside one task has wakers of its own, and polls
/// only those that were woken.
pub(crate) fn has_alarm(waker: &Waker) -> bool {
    AMBIENT.with(|ambient| ambient.alarm.get().is_some_and(|alarm| alarm.task == task_of(waker)))
}

/// Asks the open alarm for a poll at `at`.
pub(crate) fn wake_at(at: Instant) {
    AMBIENT.with(|ambient| {
        if let Some(alarm) = ambient.alarm.get() {
            let first = Some(alarm.first.map_or(at, |first| first.min(at)));
            ambient.alarm.set(Some(Alarm { first, ..alarm }));
        }
    });
}

fn task_of(waker: &Waker) -> TaskId {
    (waker.data() as usize, std::ptr::from_ref(waker.vtable()) as usize)
}

/// A guard: what was entered is in force until it is dropped.
#[must_use = "what was entered is restored when the guard is dropped"]
#[derive(Debug)]
pub struct Entered<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Entered<F> {
    #[inline]
    fn drop(&mut self) {
        if let Some(restore) = self.0.take() {
            restore();
        }
    }
}

#[inline]
fn restore<F: FnOnce(&Ambient)>(how: F) -> Entered<impl FnOnce()> {
    Entered(Some(move || AMBIENT.with(how)))
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
        for endpoint in 100..106 {
            own.push(endpoint);
        }
        assert!(!own.has_tried(7) && own.has_tried(105));
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
