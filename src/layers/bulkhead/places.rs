use std::sync::{
    Arc,
    atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Relaxed, SeqCst},
    },
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// The places, and those who wait for one.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) limit: AtomicU32,
    pub(super) max_wait: AtomicU64,
    pub(super) max_waiting: AtomicU32,
    taken: AtomicU32,
    waiting: AtomicU32,
    pub(super) rejected: AtomicU64,
    free: Notify,
}

/// One place, given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Places>);

/// Counts one who waits.
struct Waiting<'a>(&'a Places);

impl Places {
    /// A place, if there is one and nobody waits for it.
    pub(super) fn take(self: &Arc<Self>) -> Option<Place> {
        (self.waiting() == 0).then(|| self.take_next()).flatten()
    }

    fn take_next(self: &Arc<Self>) -> Option<Place> {
        let limit = self.limit.load(Relaxed);
        let one_more = |taken| (taken < limit).then_some(taken + 1);
        self.taken.fetch_update(AcqRel, Relaxed, one_more).ok().map(|_| Place(Arc::clone(self)))
    }

    /// Waits for a place until `end`, if not too many wait already.
    pub(super) async fn wait(self: Arc<Self>, end: Instant) -> Option<Place> {
        let most = self.max_waiting.load(Relaxed);
        let one_more = |waiting| (waiting < most).then_some(waiting + 1);
        self.waiting.fetch_update(SeqCst, Relaxed, one_more).ok()?;
        let _waiting = Waiting(&self);
        loop {
            // In the queue before the look, so that a place given back in between is not missed.
            let mut free = std::pin::pin!(self.free.notified());
            free.as_mut().enable();
            if let Some(place) = self.take_next() {
                return Some(place);
            }
            tokio::select! {
                biased;
                // Dropped when already told, it tells the next one.
                () = free => {}
                () = sleep_until(end) => return self.take_next(),
            }
        }
    }

    /// Tells those who wait that the limit may have grown.
    pub(super) fn wake(&self) {
        self.free.notify_waiters();
    }

    pub(super) fn taken(&self) -> u32 {
        self.taken.load(Relaxed)
    }

    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(SeqCst)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, SeqCst);
        if self.0.waiting() > 0 {
            self.0.free.notify_one();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}
