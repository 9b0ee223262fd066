//! The registry on disk, so that a restart does not begin empty.

mod policy;

pub use policy::SnapshotPolicy;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Clock, Moment, Store, peers};
use crate::{
    monitor::SnapshotView,
    snapshot::{self, NotLoaded},
};

/// How often it is looked whether something changed.
const TICK: Duration = Duration::from_secs(1);

/// The file, and what it holds.
#[derive(Debug)]
pub(super) struct Keeper {
    path: PathBuf,
    store: Arc<Store>,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The store's version that is on disk; 0 is that of a store nobody has told anything.
    version: u64,
    written: Option<Moment>,
    /// How things stood when, as the file says.
    dated: Option<Moment>,
    /// When that was written which was restored.
    restored: Option<Moment>,
    tried: Option<Moment>,
    error: Option<String>,
}

impl Keeper {
    pub(super) fn new(path: PathBuf, store: &Arc<Store>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { path, store: Arc::clone(store), clock, state: Mutex::default() })
    }

    /// Registers what the file holds, if it may be used, and says how many instances that are.
    pub(super) async fn restore(self: &Arc<Self>) -> usize {
        let keeper = Arc::clone(self);
        tokio::task::spawn_blocking(move || keeper.restore_now()).await.unwrap_or(0)
    }

    fn restore_now(&self) -> usize {
        let policy = self.store.policy().get();
        let (settings, limits) = (&policy.snapshot, &policy.limits.document);
        match snapshot::load(&self.path, settings.max_age, settings.max_bytes, limits) {
            Ok(loaded) => {
                let known = peers::valid(loaded.applications, &self.store);
                let restored = known.filter_map(|instance| self.store.restore(instance, self.clock.now()).ok()).count();
                let mut state = self.state();
                state.restored = Some(self.clock.now().before(loaded.age));
                tracing::info!(target: "hopvine::registry", path = %self.path.display(), age = ?loaded.age, instances = restored,
                    "restored from the snapshot");
                restored
            }
            Err(NotLoaded::Missing) => 0,
            Err(why) => {
                tracing::warn!(target: "hopvine::registry", path = %self.path.display(), %why, "the snapshot is not used");
                0
            }
        }
    }

    /// Writes it when something has changed, or it grows old, until it is told to close; then once more.
    pub(super) async fn run(self: Arc<Self>, closing: CancellationToken) {
        while closing.run_until_cancelled(tokio::time::sleep_until(Instant::now() + TICK)).await.is_some() {
            if self.is_due() {
                self.save().await;
            }
        }
        // Even if nothing has changed: the next start must see that this was so until now.
        if self.store.version() > 0 {
            self.save().await;
        }
    }

    fn is_due(&self) -> bool {
        let (now, policy) = (self.clock.now(), self.store.policy().get());
        let state = self.state();
        if state.tried.is_some_and(|tried| now.since(tried) < policy.snapshot.interval) {
            return false;
        }
        let grows_old = || state.dated.is_some_and(|dated| now.since(dated) > policy.snapshot.max_age / 4);
        state.version != self.store.version() || grows_old()
    }

    async fn save(self: &Arc<Self>) {
        let (version, now) = (self.store.version(), self.clock.now());
        self.state().tried = Some(now);
        let keeper = Arc::clone(self);
        // Changes that come while it is read make it newer than this version: it is written once more then.
        let saved = tokio::task::spawn_blocking(move || keeper.save_now()).await;
        let saved = saved.unwrap_or_else(|_| Err(io::Error::other("writing it was cut short")));
        let mut state = self.state();
        match saved {
            Ok(age) => {
                (state.version, state.error) = (version, None);
                (state.written, state.dated) = (Some(self.clock.now()), Some(now.before(age)));
            }
            Err(error) => {
                if state.error.is_none() {
                    tracing::warn!(target: "hopvine::registry", path = %self.path.display(), %error, "the snapshot cannot be written");
                }
                state.error = Some(error.to_string());
            }
        }
    }

    /// Says of which age it is. Who was silent since a restart is known from the former file, and no better: so this one is as old as that, or is without them.
    fn save_now(&self) -> io::Result<Duration> {
        let age = self.state().restored.map(|restored| self.clock.now().since(restored));
        let (applications, age) = match age.filter(|_| self.store.unheard() > 0) {
            Some(age) if age <= self.store.policy().get().snapshot.max_age => (self.store.all(), age),
            Some(_) => (self.store.all_heard(), Duration::ZERO),
            None => (self.store.all(), Duration::ZERO),
        };
        snapshot::save(&self.path, &applications, age)?;
        Ok(age)
    }

    pub(super) fn view(&self) -> SnapshotView {
        let state = self.state();
        SnapshotView {
            path: self.path.display().to_string(),
            age: state.written.map(|written| self.clock.now().since(written)),
            error: state.error.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
