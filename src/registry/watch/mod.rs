//! Push: lines of what changed, for whoever watches, at most one each `render_interval`; and the instances that hold a watch as their own.
//!
//! One task makes the lines. Watchers that have seen the same share them.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

mod rounds;
mod suspects;

use suspects::{Key, Suspects};

use super::{By, Clock, Store, render::STALE, server::Connection};
use crate::eureka::Text;

/// How long a watcher hears nothing at the longest: both sides notice a dead connection by it.
const BEAT: Duration = Duration::from_secs(5);

/// How long a first change waits for those that come with it.
const GATHER: Duration = Duration::from_millis(5);

/// All who watch.
pub(super) struct Watches {
    store: Arc<Store>,
    clock: Clock,
    state: Mutex<State>,
    /// As many as there are watchers, to be read without the lock.
    count: AtomicUsize,
    /// Something changed, or a watch began.
    changed: Notify,
    /// There is a new suspect.
    suspected: Notify,
}

#[derive(Default)]
struct State {
    watchers: HashMap<u64, Watcher>,
    next: u64,
    suspects: Suspects,
    closed: bool,
}

struct Watcher {
    applications: Arc<[Text]>,
    own: Option<Key>,
    /// The last change it was told of.
    position: u64,
    lines: mpsc::Sender<Bytes>,
    connection: Arc<Connection>,
}

/// What a watcher asks for.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// Only these applications; none is all.
    pub(super) applications: Vec<Text>,
    /// The instance that holds the watch as its own.
    pub(super) own: Option<Key>,
}

/// There are as many watchers as there may be.
#[derive(Debug)]
pub(super) struct TooMany(pub(super) usize);

impl Watches {
    pub(super) fn new(store: Arc<Store>, clock: Clock) -> Arc<Self> {
        let (state, count) = (Mutex::default(), AtomicUsize::new(0));
        let watches = Arc::new(Self { store, clock, state, count, changed: Notify::new(), suspected: Notify::new() });
        let told = Arc::downgrade(&watches);
        watches.store.on_change(move || {
            if let Some(watches) = told.upgrade()
                && watches.count.load(Relaxed) > 0
            {
                watches.changed.notify_one();
            }
        });
        watches
    }

    /// How many watch.
    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Begins a watch. What changed in the last seconds is told at once, since a document that is read next may not show it yet.
    pub(super) fn watch(self: &Arc<Self>, interest: Interest, connection: &Arc<Connection>) -> Result<Lines, TooMany> {
        let policy = self.store.policy().get();
        let most = policy.limits.watchers;
        let mut state = self.state();
        if state.watchers.len() >= most || state.closed {
            drop(state);
            self.store.counters().refused_watchers.add();
            return Err(TooMany(most));
        }
        let (position, hash) = self.store.position(self.clock.now().before(STALE));
        let (lines, receiver) = mpsc::channel(policy.limits.watcher_lines);
        let own = interest.own.filter(|_| policy.expel_on_disconnect);
        if let Some(own) = &own {
            state.suspects.holds(own.clone());
        }
        state.next += 1;
        let number = state.next;
        let (applications, connection) = (interest.applications.into(), Arc::clone(connection));
        connection.watching();
        state.watchers.insert(number, Watcher { applications, own, position, lines, connection });
        self.count.store(state.watchers.len(), Relaxed);
        drop(state);
        self.changed.notify_one();
        let first = format!("{{\"version\":{position},\"apps__hashcode\":\"{hash}\"}}\n");
        Ok(Lines { first: Some(first.into()), receiver, watches: Arc::clone(self), number })
    }

    /// Ends all watches, and takes no more.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let ended = std::mem::take(&mut state.watchers);
        self.count.store(0, Relaxed);
        drop(state);
        drop(ended);
    }

    fn gone(&self, number: u64) {
        let mut state = self.state();
        // After a close, nobody broke: we did.
        let Some(watcher) = state.watchers.remove(&number) else { return };
        self.count.store(state.watchers.len(), Relaxed);
        self.broke(&mut state, &watcher);
    }

    fn broke(&self, state: &mut State, watcher: &Watcher) {
        if let Some(own) = &watcher.own {
            let now = self.clock.now();
            // One that left in order is no suspect.
            if self.store.has(&own.0, &own.1) {
                state.suspects.broke(own, now);
                self.suspected.notify_one();
            } else {
                state.suspects.left(own);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes lines and expels suspects, until it is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        let mut beat = Instant::now() + BEAT;
        // When lines may be made again, and when they will be if there is something to tell.
        let (mut free, mut round) = (Instant::now(), None);
        loop {
            let suspicion = self.store.policy().get().suspicion;
            let due = self.state().suspects.next(suspicion).map(|due| self.clock.instant(due));
            let next = [due, round].into_iter().flatten().fold(beat, Instant::min);
            tokio::select! {
                () = self.changed.notified(), if round.is_none() => round = Some(free.max(Instant::now() + GATHER)),
                () = self.suspected.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
            let now = Instant::now();
            if round.is_some_and(|round| now >= round) {
                round = None;
                if self.count() > 0 {
                    self.round();
                    free = Instant::now() + self.store.policy().get().render_interval;
                }
            }
            if now >= beat {
                self.send_all(&Bytes::from_static(b"\n"));
                beat = now + BEAT;
            }
            self.expel();
        }
    }

    fn expel(&self) {
        let (policy, now) = (self.store.policy().get(), self.clock.now());
        let due = self.state().suspects.due(now, policy.suspicion, |app| self.store.instances_of(app));
        for (app, id) in due {
            if self.store.cancel(&app, &id, By::Client, now) {
                self.store.counters().expelled.add();
                tracing::info!(target: "hopvine::registry", app = ?app, id = ?id, "instance taken out: its watch broke");
            }
        }
    }
}

/// The lines one watcher reads. Dropped, the watch has ended.
pub(super) struct Lines {
    first: Option<Bytes>,
    receiver: mpsc::Receiver<Bytes>,
    watches: Arc<Watches>,
    number: u64,
}

impl Lines {
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.receiver.poll_recv(context),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.watches.gone(self.number);
    }
}

impl fmt::Debug for Watches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watches").field("count", &self.count()).finish_non_exhaustive()
    }
}
