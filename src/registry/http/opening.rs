use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::registry::{Clock, Moment};

/// When lists may be read: a registry that was just started and knows nobody yet would make its clients forget whom they know.
#[derive(Debug)]
pub(in crate::registry) struct Opening(AtomicU64);

const OPEN: u64 = 0;
const CLOSED: u64 = u64::MAX;

impl Opening {
    pub(in crate::registry) fn open() -> Self {
        Self(AtomicU64::new(OPEN))
    }

    pub(in crate::registry) fn closed() -> Self {
        Self(AtomicU64::new(CLOSED))
    }

    pub(in crate::registry) fn open_at(&self, moment: Moment) {
        self.0.store(moment.0, Relaxed);
    }

    pub(in crate::registry) fn is_open(&self, clock: Clock) -> bool {
        match self.0.load(Relaxed) {
            OPEN => true,
            CLOSED => false,
            at if clock.now() < Moment(at) => false,
            _ => {
                self.0.store(OPEN, Relaxed);
                true
            }
        }
    }
}
