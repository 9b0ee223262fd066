use std::time::Duration;

use hopvine::{
    Error, Monitor, NewService,
    connect::per_endpoint,
    endpoint::Group,
    layers::{
        attempt_timeout::AttemptTimeoutLayer,
        balance::{BalanceLayer, DiscoverLayer, P2cLeastRequest, P2cPeakEwma, RoundRobin},
        bulkhead::{BulkheadLayer, BulkheadPolicy},
        circuit_breaker::{CircuitBreakerLayer, CircuitBreakerPolicy},
        deadline::{DeadlineHeaderLayer, DeadlineLayer, ServerDeadlineLayer, ServerDeadlinePolicy},
        fallback::{FallbackLayer, Why},
        outlier::{OutlierDetectionLayer, OutlierPolicy},
        pushback::PushbackLayer,
        respond::RespondLayer,
        retry::{RetryLayer, RetryPolicy},
        trace::{AttemptTraceLayer, ClientTraceLayer, ServerTraceLayer},
    },
    testing::conformance::{Conformance, Probe},
};
use tower::{Layer, ServiceBuilder};

use crate::support::{Rows, catalog, get, idle, page, query, rows};

/// A layer that stands per call: alone, and lifted to stand per endpoint.
macro_rules! layer {
    ($name:ident, $layer:expr $(, $setting:ident($($argument:expr)?))*) => {
        mod $name {
            use super::*;

            #[tokio::test(start_paused = true)]
            async fn round_a_plain_value() {
                let layer = $layer;
                let suite = Conformance::new(move |inner| layer.layer(inner), query, rows);
                suite$(.$setting($($argument)?))*.check().await;
            }

            #[tokio::test(start_paused = true)]
            async fn round_http() {
                let layer = $layer;
                let suite = Conformance::new(move |inner| layer.layer(inner), get, page);
                suite$(.$setting($($argument)?))*.check().await;
            }

            #[tokio::test(start_paused = true)]
            async fn lifted_per_endpoint() {
                let layer = $layer;
                let make = move |inner: Probe<_>| {
                    let layer = layer.clone();
                    ServiceBuilder::new()
                        .layer(DiscoverLayer::new(catalog(1)))
                        .layer(BalanceLayer::new(RoundRobin::default()))
                        .layer(per_endpoint(move |_| layer.clone()))
                        .service(inner)
                };
                let suite = Conformance::new(make, query, rows);
                suite$(.$setting($($argument)?))*.check().await;
            }
        }
    };
}

layer!(deadline, DeadlineLayer::new(Duration::from_secs(1)));
layer!(attempt_timeout, AttemptTimeoutLayer::new(Duration::from_secs(1)));
layer!(retry, RetryLayer::new(RetryPolicy::default()).unwrap());
layer!(bulkhead, BulkheadLayer::new(BulkheadPolicy { limit: 3, ..Default::default() }).unwrap(), limit(3));
layer!(
    bulkhead_with_a_queue,
    BulkheadLayer::new(BulkheadPolicy { limit: 3, max_wait: Duration::from_secs(5), max_waiting: 64 }).unwrap(),
    limit(3)
);
layer!(circuit_breaker, CircuitBreakerLayer::new("catalog", CircuitBreakerPolicy::default()).unwrap());
layer!(client_trace, ClientTraceLayer::new("catalog"));

/// A future is moved outwards through every layer: what one adds, all outside it pay for.
#[tokio::test(start_paused = true)]
async fn futures_are_small() {
    let deadline = DeadlineLayer::new(Duration::from_secs(1));
    Conformance::new(move |inner| deadline.layer(inner), query, rows).future_size(40).check().await;
    let bulkhead = BulkheadLayer::new(BulkheadPolicy::default()).unwrap();
    Conformance::new(move |inner| bulkhead.layer(inner), query, rows).future_size(64).check().await;
    let breaker = CircuitBreakerLayer::new("catalog", CircuitBreakerPolicy::default()).unwrap();
    Conformance::new(move |inner| breaker.layer(inner), query, rows).future_size(64).check().await;
    let retry = RetryLayer::new(RetryPolicy::default()).unwrap();
    Conformance::new(move |inner| retry.layer(inner), query, rows).future_size(256).check().await;
}

mod fallback {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn round_a_plain_value() {
        let layer = FallbackLayer::new(|_: Why| async { Ok::<_, Error>(Rows) });
        Conformance::new(move |inner| layer.layer(inner), query, rows).answers_errors().check().await;
    }

    #[tokio::test(start_paused = true)]
    async fn round_http() {
        let layer = FallbackLayer::new(|_: Why| async { Ok::<_, Error>(page()) });
        Conformance::new(move |inner| layer.layer(inner), get, page).answers_errors().check().await;
    }
}

/// A server's layers, and those that need headers.
mod of_http {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn respond() {
        let layer = RespondLayer::new();
        // Its answers have a body of its own: what the caller gets is not looked at here.
        let make = move |inner: Probe<http::Response<http_body_util::Empty<bytes::Bytes>>>| {
            let respond = layer.layer(inner);
            tower::util::MapResponse::new(respond, |response: http::Response<_>| {
                response.map(|_| http_body_util::Empty::new())
            })
        };
        Conformance::new(make, get, || http::Response::new(http_body_util::Empty::new()))
            .answers_errors()
            .check()
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn server_deadline() {
        let policy = ServerDeadlinePolicy { default: Duration::from_secs(5), ..Default::default() };
        let layer = ServerDeadlineLayer::new(policy).unwrap();
        Conformance::new(move |inner| layer.layer(inner), get, page).check().await;
    }

    #[tokio::test(start_paused = true)]
    async fn server_trace() {
        let layer = ServerTraceLayer::new();
        Conformance::new(move |inner| layer.layer(inner), get, page).check().await;
    }
}

/// Layers that know the endpoint, alone on one, and below a balancer.
macro_rules! endpoint_layer {
    ($name:ident, $layer:expr) => {
        mod $name {
            use super::*;

            #[tokio::test(start_paused = true)]
            async fn on_one_endpoint() {
                let layer = $layer;
                let endpoint = hopvine::EndpointHandle::new(
                    "catalog".into(),
                    std::sync::Arc::new("127.0.0.1:1".parse().unwrap()),
                    std::sync::Arc::new(Group::new(1)),
                );
                let make = move |inner: Probe<_>| layer.layer(inner).new_service(&endpoint);
                Conformance::new(make, get, page).check().await;
            }

            #[tokio::test(start_paused = true)]
            async fn below_a_balancer() {
                let (layer, monitor) = ($layer, Monitor::new());
                let watched = monitor.clone();
                let make = move |inner: Probe<_>| {
                    ServiceBuilder::new()
                        .layer(DiscoverLayer::new(catalog(3)))
                        .layer(BalanceLayer::new(P2cPeakEwma::default()).monitor(&watched))
                        .layer(layer.clone())
                        .service(inner)
                };
                Conformance::new(make, get, page).given_back(move || idle(&monitor)).check().await;
            }
        }
    };
}

endpoint_layer!(outlier, OutlierDetectionLayer::new(OutlierPolicy::default()).unwrap());
endpoint_layer!(attempt_trace, AttemptTraceLayer::new());
endpoint_layer!(pushback, PushbackLayer::new());
endpoint_layer!(deadline_header, DeadlineHeaderLayer::new());

mod balance {
    use super::*;

    async fn balanced<P: hopvine::layers::balance::Picker + Clone>(picker: P, count: u16) {
        let (layer, monitor) = (BalanceLayer::new(picker), Monitor::new());
        let layer = layer.monitor(&monitor);
        let make = move |inner: Probe<_>| {
            ServiceBuilder::new().layer(DiscoverLayer::new(catalog(count))).layer(layer.clone()).service(inner)
        };
        Conformance::new(make, query, rows).given_back(move || idle(&monitor)).check().await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_endpoint() {
        balanced(P2cLeastRequest, 1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn by_peak_ewma() {
        balanced(P2cPeakEwma::default(), 5).await;
    }

    #[tokio::test(start_paused = true)]
    async fn by_least_request() {
        balanced(P2cLeastRequest, 5).await;
    }
}
