use std::time::Duration;

use hopvine::{
    BoxStack, Error, Monitor, Stack,
    connect::per_endpoint,
    layers::{
        attempt_timeout::AttemptTimeoutLayer,
        balance::{BalanceLayer, DiscoverLayer, P2cPeakEwma},
        bulkhead::{BulkheadLayer, BulkheadPolicy},
        circuit_breaker::{CircuitBreakerLayer, CircuitBreakerPolicy},
        deadline::DeadlineLayer,
        fallback::{FallbackLayer, Why},
        outlier::{OutlierDetectionLayer, OutlierPolicy},
        pushback::PushbackLayer,
        retry::{RetryLayer, RetryPolicy},
        trace::{AttemptTraceLayer, ClientTraceLayer},
    },
    testing::conformance::{Conformance, Probe},
};
use tower::ServiceBuilder;

use crate::support::{Rows, catalog, get, idle, page, query, rows};

const LIMIT: u32 = 3;

/// All layers, each made once, as `layer()` of each is called for every service.
macro_rules! all {
    ($monitor:expr, $fallback:expr) => {{
        let monitor: &Monitor = $monitor;
        let trace = ClientTraceLayer::new("catalog").monitor(monitor);
        let fallback = FallbackLayer::new($fallback);
        let breaker = CircuitBreakerLayer::new("catalog", CircuitBreakerPolicy::default()).unwrap().monitor(monitor);
        let bulkhead = BulkheadLayer::new(BulkheadPolicy { limit: LIMIT, ..Default::default() }).unwrap();
        let bulkhead = bulkhead.monitor(monitor);
        let retry = RetryLayer::new(RetryPolicy::default()).unwrap();
        let outlier = OutlierDetectionLayer::new(OutlierPolicy::default()).unwrap();
        let balance = BalanceLayer::new(P2cPeakEwma::default()).monitor(monitor);
        move |inner: Probe<_>| {
            ServiceBuilder::new()
                .layer(trace.clone())
                .layer(fallback.clone())
                .layer(breaker.clone())
                .layer(bulkhead.clone())
                .layer(DeadlineLayer::new(Duration::from_secs(2)))
                .layer(retry.clone())
                .layer(DiscoverLayer::new(catalog(5)))
                .layer(balance.clone())
                .layer(AttemptTraceLayer::new())
                .layer(PushbackLayer::new())
                .layer(outlier.clone())
                .layer(per_endpoint(|_| AttemptTimeoutLayer::new(Duration::from_secs(1))))
                .service(inner)
        }
    }};
}

/// A fallback that has none to offer, so that refusals stay refusals.
async fn none<T>(why: Why) -> Result<T, Error> {
    let _ = why;
    Err(Error::new(hopvine::ErrorKind::Upstream))
}

#[tokio::test(start_paused = true)]
async fn all_layers_round_a_plain_value() {
    let monitor = Monitor::new();
    let make = all!(&monitor, none::<Rows>);
    Conformance::new(make, query, rows).limit(LIMIT as usize).given_back(move || idle(&monitor)).check().await;
}

#[tokio::test(start_paused = true)]
async fn all_layers_round_http() {
    let monitor = Monitor::new();
    let make = all!(&monitor, none::<http::Response<()>>);
    Conformance::new(make, get, page).limit(LIMIT as usize).given_back(move || idle(&monitor)).check().await;
}

#[tokio::test(start_paused = true)]
async fn all_layers_erased() {
    let monitor = Monitor::new();
    let make = all!(&monitor, none::<Rows>);
    let erased = move |inner| BoxStack::new(is_stack(make(inner)));
    Conformance::new(erased, query, rows).limit(LIMIT as usize).given_back(move || idle(&monitor)).check().await;
}

fn is_stack<S: Stack<crate::support::Query, Response = Rows>>(stack: S) -> S {
    stack
}
