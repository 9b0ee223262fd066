//! The connection that shows a registry of ours that this process lives.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::discover::eureka::{
    calls::Calls,
    transport::segment,
    watch::{NoWatch, Watch},
};

/// The ceiling of the first wait after a break: the registry waits a second for us.
const AGAIN: Duration = Duration::from_millis(200);

/// The longest, and that of the first wait where a server does not know of such connections.
const LONGEST: Duration = Duration::from_secs(10);
const UNKNOWN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// Holds it, and makes it anew when it breaks, until this is dropped.
pub(super) async fn hold(mut calls: Calls, app: String, id: String) {
    // Of changes only our own application's: what they say is not used.
    let query = format!("?app={}&instance={}", segment(&app), segment(&format!("{app}/{id}")));
    let mut failures = 0_u32;
    loop {
        let server = calls.cursor.candidates(Instant::now())[0];
        let (first, longest) = match held(&mut calls, server, &query, &mut failures).await {
            NoWatch::Unknown(failure) => {
                tracing::debug!(target: "hopvine::eureka", %failure, "no connection to hold");
                UNKNOWN
            }
            NoWatch::Broken(failure) => {
                tracing::info!(target: "hopvine::eureka", %failure, "the connection that was held broke");
                calls.cursor.failed(server);
                (AGAIN, LONGEST)
            }
        };
        let ceiling = first.saturating_mul(1 << failures.min(10)).min(longest);
        failures += 1;
        sleep_until(Instant::now() + ceiling.mul_f64(fastrand::f64())).await;
    }
}

/// Holds one, and says why no more.
async fn held(calls: &mut Calls, server: usize, query: &str, failures: &mut u32) -> NoWatch {
    let mut watch = match Watch::open(&calls.transport, server, query).await {
        Ok(watch) => watch,
        Err(error) => return error,
    };
    calls.cursor.succeeded(server);
    *failures = 0;
    loop {
        if let Err(failure) = watch.line(&calls.transport).await {
            return NoWatch::Broken(failure);
        }
    }
}
