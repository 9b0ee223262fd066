use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use super::Moment;

/// The time of day when the registry started, counted on from there: setting the system's clock neither ends leases nor prolongs them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    began: Moment,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { started: Instant::now(), began: Moment::default().after(since_1970) }
    }

    pub(super) fn now(&self) -> Moment {
        self.began.after(self.started.elapsed())
    }

    /// When that moment is, or was.
    pub(super) fn instant(&self, moment: Moment) -> Instant {
        self.started + moment.since(self.began)
    }

    /// When the registry started.
    pub(super) fn began(&self) -> Moment {
        self.began
    }
}
