//! How tests over real sockets wait.

use std::time::Duration;

use tokio::time::Instant;

/// So many looks follow each other as soon as everybody else had a turn: mostly that is all it takes.
const AT_ONCE: usize = 100;

/// Waits for a condition, 10 s at most.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    for look in 0.. {
        if condition() {
            return;
        }
        let now = Instant::now();
        assert!(now < end, "waited 10 s in vain: {what}");
        if look < AT_ONCE {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep_until(now + Duration::from_millis(2)).await;
        }
    }
}
