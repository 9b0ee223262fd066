use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::Moment;
use crate::eureka::InstanceStatus;

/// What an operator set. It is kept as long as somebody asks for it now and then, as each heartbeat does.
#[derive(Debug)]
pub(super) struct Override {
    status: InstanceStatus,
    asked: AtomicU64,
}

impl Override {
    pub(super) fn new(status: InstanceStatus, now: Moment) -> Self {
        Self { status, asked: AtomicU64::new(now.0) }
    }

    /// The status, unless nobody asked for too long.
    pub(super) fn status(&self, now: Moment, retention: Duration) -> Option<InstanceStatus> {
        let status = self.seen(now, retention)?;
        self.asked.fetch_max(now.0, Relaxed);
        Some(status)
    }

    /// The same, without having asked.
    pub(super) fn seen(&self, now: Moment, retention: Duration) -> Option<InstanceStatus> {
        (now.since(Moment(self.asked.load(Relaxed))) <= retention).then_some(self.status)
    }
}
