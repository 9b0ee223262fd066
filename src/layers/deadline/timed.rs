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
    time::{Instant, Sleep},
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
        #[pin]
        timer: Option<Sleep>,
        at: Option<Instant>,
    }
}

/// Why there is no output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Late {
    /// The moment had passed before there was anything to wait for.
    Before,
    /// It passed while waiting.
    Now,
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

    /// Polls the inner future by `poll`, then the timer. When that fires, the inner future is dropped here and now, and
    /// the guards in it see [`DropCause::TimedOut`].
    pub(crate) fn poll_by<T>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut F>, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, Late>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(Err(Late::Before));
        };
        if let Poll::Ready(output) = poll(inner, cx) {
            return Poll::Ready(Ok(output));
        }
        let Some(at) = *this.at else { return Poll::Pending };
        if this.timer.is_none() {
            this.timer.set(Some(tokio::time::sleep_until(at)));
        }
        let timer = this.timer.as_pin_mut().expect("made above");
        // An inner future that uses up the task's budget at each poll must not hold up the timer.
        if pin!(coop::unconstrained(timer)).poll(cx).is_pending() {
            return Poll::Pending;
        }
        let _cause = context::enter_drop_cause(DropCause::TimedOut);
        this.inner.set(None);
        Poll::Ready(Err(Late::Now))
    }
}

impl<F> std::fmt::Debug for Timed<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timed").field("at", &self.at).finish_non_exhaustive()
    }
}
