//! What every layer with a timer of its own has in common.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    task::coop,
    time::{Instant, Sleep, sleep_until},
};

use crate::{
    Live, Policy,
    context::{self, DropCause},
    live::Follow,
};

/// How long something may take: for good, or as a live policy says.
#[derive(Debug)]
pub(crate) enum Limit<P> {
    Fixed(Duration),
    Live(Arc<Following<P>>),
}

#[derive(Debug)]
pub(crate) struct Following<P> {
    nanoseconds: AtomicU64,
    /// Kept, since it must live as long as somebody follows it.
    policy: Live<P>,
}

impl<P> Limit<P> {
    pub(crate) fn live(policy: Live<P>) -> Self
    where
        P: Policy + AsRef<Duration>,
    {
        let following = Arc::new(Following { nanoseconds: AtomicU64::default(), policy });
        following.policy.follow(&following);
        Self::Live(following)
    }

    /// The moment it ends, if it began now; `None` for one so far off that the clock does not reach it.
    pub(crate) fn ends(&self, now: Instant) -> Option<Instant> {
        now.checked_add(match self {
            Self::Fixed(limit) => *limit,
            Self::Live(following) => Duration::from_nanos(following.nanoseconds.load(Relaxed)),
        })
    }
}

impl<P> Follow<P> for Following<P>
where
    P: Policy + AsRef<Duration>,
{
    fn follow(&self, policy: &P) {
        self.nanoseconds.store(nanos(*policy.as_ref()), Relaxed);
    }
}

impl<P> Clone for Limit<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Fixed(limit) => Self::Fixed(*limit),
            Self::Live(following) => Self::Live(Arc::clone(following)),
        }
    }
}

/// Nanoseconds, up to 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pin_project! {
    /// A future that is dropped at a moment unless it is ready before.
    pub(crate) struct Timed<F> {
        #[pin]
        inner: Option<F>,
        // Boxed: futures are moved outwards through each layer, and mostly it is never made.
        timer: Option<Pin<Box<Sleep>>>,
        at: Option<Instant>,
    }
}

/// Why there is no output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// The moment had passed before there was anything to wait for.
    Before,
    /// It passed while waiting.
    Now {
        /// What was waited for had surely not been written to a server yet.
        unwritten: bool,
    },
}

impl<F> Timed<F> {
    /// Until `at`, or without limit.
    pub(crate) fn new(inner: F, at: Option<Instant>) -> Self {
        Self { inner: Some(inner), timer: None, at }
    }

    /// The moment has passed.
    pub(crate) fn late() -> Self {
        Self { inner: None, timer: None, at: None }
    }

    pub(crate) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Polls the inner future by `poll`, then looks at the time. When that is up, the inner future is dropped here and now, and
    /// the guards in it see [`DropCause::TimedOut`].
    ///
    /// One timer serves all that are nested in one task: the outermost arms it for the earliest. Those inside need not trust that
    /// they are still there when it fires, only that whoever polls them goes on to do so; one that is carried off is
    /// polled elsewhere, finds no alarm outside, and arms a timer of its own.
    pub(crate) fn poll_by<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(Pin<&mut F>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, Late>> {
        let mut this = self.project();
        loop {
            let Some(inner) = this.inner.as_mut().as_pin_mut() else {
                return Poll::Ready(Err(Late::Before));
            };
            let Some(at) = *this.at else { return poll(inner, cx).map(Ok) };
            let first = if context::has_alarm(cx.waker()) {
                if let Poll::Ready(output) = poll(inner, cx) {
                    return Poll::Ready(Ok(output));
                }
                context::wake_at(at);
                None
            } else {
                let _alarm = context::enter_alarm(cx.waker());
                if let Poll::Ready(output) = poll(inner, cx) {
                    return Poll::Ready(Ok(output));
                }
                Some(context::alarm().map_or(at, |first| first.min(at)))
            };
            if let Some(first) = first {
                match this.timer {
                    Some(timer) if timer.deadline() != first => timer.as_mut().reset(first),
                    Some(_) => {}
                    None => *this.timer = Some(Box::pin(sleep_until(first))),
                }
                let timer = this.timer.as_mut().expect("made above");
                // An inner future that uses up the task's budget at each poll must not hold up the timer.
                if pin!(coop::unconstrained(timer.as_mut())).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                // It was not yet time when this poll began.
                context::refresh_clock();
            }
            if context::now() >= at {
                let _cause = context::enter_drop_cause(DropCause::TimedOut);
                let unwritten = context::drop_unwritten(|| this.inner.set(None));
                return Poll::Ready(Err(Late::Now { unwritten }));
            }
            if first.is_none() {
                return Poll::Pending;
            }
            // Somebody inside asked for this moment: it is for them to say what it means.
        }
    }
}

impl<F> std::fmt::Debug for Timed<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timed").field("at", &self.at).finish_non_exhaustive()
    }
}
