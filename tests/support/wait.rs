//! How tests over real sockets wait.

use std::time::Duration;

use tokio::time::Instant;

/// Waits for a condition, 10 s at most.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "waited 10 s in vain: {what}");
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(2)).await;
    }
}
