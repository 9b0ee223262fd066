//! The registry as it was read from disk, for a start while no server answers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{EurekaPolicy, copy::Copy, follower::State};
use crate::{Live, eureka::Applications, snapshot::Loaded};

/// What was read, until a server is heard of.
#[derive(Debug, Default)]
pub(super) enum Disk {
    #[default]
    Nothing,
    Loaded(Loaded),
    /// Services see it.
    Used(Applications),
}

pub(super) fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what was read from disk, unless the registry has been heard of.
pub(super) fn use_snapshot(
    sender: &watch::Sender<State>,
    disk: &Mutex<Disk>,
    policy: &Live<EurekaPolicy>,
    reason: &str,
) {
    let mut disk = lock(disk);
    let Disk::Loaded(loaded) = &mut *disk else { return };
    let (age, applications) = (loaded.age, std::mem::take(&mut loaded.applications));
    let mut copy = Copy::default();
    copy.replace(applications.clone(), None, policy.get().endpoint);
    let view = copy.view();
    tracing::warn!(target: "hopvine::eureka", ?age, instances = view.instances, reason, "a snapshot is used");
    *disk = Disk::Used(applications);
    sender.send_modify(|state| {
        state.view = Some(Arc::new(view));
        state.error = Some(reason.into());
    });
}
