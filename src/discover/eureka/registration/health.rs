//! Asks the application how it is.

use std::{collections::VecDeque, fmt, panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use super::{RegistrationPolicy, lease::Desired};
use crate::eureka::InstanceStatus;

/// Changes that are told in [`PERIOD`]: a check that goes to and fro does not make the registry do so.
const CHANGES: usize = 4;
const PERIOD: Duration = Duration::from_secs(60);

/// The application's own check.
#[derive(Clone)]
pub(super) struct HealthCheck(Arc<dyn Fn() -> Answer + Send + Sync>);

type Answer = Pin<Box<dyn Future<Output = InstanceStatus> + Send>>;

impl HealthCheck {
    pub(super) fn new<F, Fut>(check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = InstanceStatus> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(check())))
    }

    /// Asks again and again. One that does not answer in time, or panics, is `DOWN`.
    pub(super) async fn run(self, policy: RegistrationPolicy, desired: Arc<watch::Sender<Desired>>) {
        let mut changes: VecDeque<Instant> = VecDeque::with_capacity(CHANGES);
        loop {
            let asked = Instant::now();
            let answer = async { AssertUnwindSafe((self.0)()).catch_unwind().await };
            let status = match timeout_at(asked + policy.health_timeout, answer).await {
                Ok(Ok(status)) => status,
                Ok(Err(_)) | Err(_) => InstanceStatus::Down,
            };
            if desired.borrow().health != Some(status) {
                if changes.len() == CHANGES
                    && let Some(first) = changes.pop_front()
                {
                    sleep_until(first + PERIOD).await;
                }
                changes.push_back(Instant::now());
                desired.send_modify(|desired| desired.health = Some(status));
            }
            sleep_until(asked + policy.health_interval).await;
        }
    }
}

impl fmt::Debug for HealthCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HealthCheck")
    }
}
