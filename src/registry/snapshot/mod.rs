//! The registry on disk, so that a restart does not begin empty.

mod policy;

pub use policy::SnapshotPolicy;

use std::{
    fs, io,
    path::{Path, PathBuf},
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
    /// The store's version that is on disk; none, as long as it is what it was at the start.
    version: Option<u64>,
    written: Option<Moment>,
    /// When that was written which was restored.
    restored: Option<Moment>,
    tried: Option<Moment>,
    error: Option<String>,
}

/// Whether the file's folder is there: that it is not is a wrong setting, not a bad day.
pub(super) fn check(path: &Path) -> io::Result<()> {
    if path.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "names no file"));
    }
    let folder = snapshot::folder(path);
    if !fs::metadata(folder)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is no folder", folder.display())));
    }
    Ok(())
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
                state.version = Some(self.store.version());
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

    /// Writes it when something has changed, until it is told to close; then once more.
    pub(super) async fn run(self: Arc<Self>, closing: CancellationToken) {
        while closing.run_until_cancelled(tokio::time::sleep_until(Instant::now() + TICK)).await.is_some() {
            let interval = self.store.policy().get().snapshot.interval;
            let tried = self.state().tried;
            if tried.is_none_or(|tried| self.clock.now().since(tried) >= interval) {
                self.save().await;
            }
        }
        self.save().await;
    }

    async fn save(self: &Arc<Self>) {
        let version = self.store.version();
        if self.state().version.unwrap_or(0) == version {
            return;
        }
        self.state().tried = Some(self.clock.now());
        let keeper = Arc::clone(self);
        // Changes that come while it is read make it newer than this version: it is written once more then.
        let saved = tokio::task::spawn_blocking(move || keeper.save_now()).await;
        let saved = saved.unwrap_or_else(|_| Err(io::Error::other("writing it was cut short")));
        let mut state = self.state();
        match saved {
            Ok(()) => {
                (state.version, state.written, state.error) = (Some(version), Some(self.clock.now()), None);
            }
            Err(error) => {
                if state.error.is_none() {
                    tracing::warn!(target: "hopvine::registry", path = %self.path.display(), %error, "the snapshot cannot be written");
                }
                state.error = Some(error.to_string());
            }
        }
    }

    /// Who was silent since a restart is known from the former file, and no better: so this one is as old as that, or is without them.
    fn save_now(&self) -> io::Result<()> {
        let age = self.state().restored.map(|restored| self.clock.now().since(restored));
        match age.filter(|_| self.store.unheard() > 0) {
            Some(age) if age <= self.store.policy().get().snapshot.max_age => {
                snapshot::save(&self.path, &self.store.all(), age)
            }
            Some(_) => snapshot::save(&self.path, &self.store.all_heard(), Duration::ZERO),
            None => snapshot::save(&self.path, &self.store.all(), Duration::ZERO),
        }
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
