use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use bytes::Bytes;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::registry::Moment;

/// Where one variant of one document is kept.
#[derive(Debug, Default)]
pub(super) struct Cell {
    rendered: ArcSwapOption<Rendered>,
    turn: Arc<Mutex<()>>,
}

/// What was rendered last.
#[derive(Debug)]
pub(super) struct Rendered {
    /// Nothing, if there was no such thing.
    pub(super) body: Option<Bytes>,
    /// When it was read from the store, at the latest.
    pub(super) made: Moment,
    /// The store's version that it shows, at least.
    pub(super) version: u64,
    /// Until then it is not rendered again, whatever changes.
    pub(super) believed_until: Moment,
}

impl Cell {
    pub(super) fn load(&self) -> Guard<Option<Arc<Rendered>>> {
        self.rendered.load()
    }

    pub(super) fn store(&self, rendered: Rendered) {
        self.rendered.store(Some(Arc::new(rendered)));
    }

    /// Waits until nobody else renders.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }
}
