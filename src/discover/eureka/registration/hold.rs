//! The connection that shows a registry of ours that this process lives.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

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

/// Holds it, and makes it anew when it breaks, until this is dropped. Tells `anew`, since that may have taken too long, and we have been taken out.
pub(super) async fn hold(mut calls: Calls, app: String, id: String, anew: Arc<Notify>) {
    // Of changes only our own application's: what they say is not used.
    let query = format!("?app={}&instance={}", segment(&app), segment(&format!("{app}/{id}")));
    let mut failures = 0_u32;
    let mut first = true;
    loop {
        let server = calls.cursor.candidates(Instant::now())[0];
        let open = match Watch::open(&calls.transport, server, &query).await {
            Ok(watch) => {
                if !std::mem::take(&mut first) {
                    anew.notify_one();
                }
                calls.cursor.succeeded(server);
                failures = 0;
                NoWatch::Broken(watch.end(&calls.transport).await)
            }
            Err(error) => error,
        };
        let (base, longest) = match open {
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
        let ceiling = base.saturating_mul(1 << failures.min(10)).min(longest);
        failures += 1;
        sleep_until(Instant::now() + ceiling.mul_f64(fastrand::f64())).await;
    }
}
