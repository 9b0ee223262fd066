//! Each layer alone, round the bare service, and its counterparts.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hopvine::{
    EndpointHandle, Error, NewService,
    endpoint::Group,
    layers::{
        attempt_timeout::AttemptTimeoutLayer,
        bulkhead::{BulkheadLayer, BulkheadPolicy},
        circuit_breaker::{CircuitBreakerLayer, CircuitBreakerPolicy},
        deadline::DeadlineLayer,
        fallback::{FallbackLayer, Why},
        outlier::{OutlierDetectionLayer, OutlierPolicy},
        retry::{RetryLayer, RetryPolicy},
        trace::{AttemptTraceLayer, ClientTraceLayer},
    },
};
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, Service};

use crate::{
    bare::{Bare, Pends, Plain, Reply, get, plain},
    measure::{Case, Run, Wheel, calls, runtime},
    peers,
};

pub(crate) type Http = Request<Full<Bytes>>;

pub(crate) fn cases(cases: &mut Vec<Case>) {
    add(cases, "bare", None, |bare| bare);

    let breaker =
        |bare| CircuitBreakerLayer::new("catalog", CircuitBreakerPolicy::default()).expect("valid").layer(bare);
    add(cases, "hopvine/circuit-breaker", Some("tower-resilience/circuit-breaker"), breaker);
    add(cases, "hopvine/deadline", Some("tower-resilience/deadline"), |bare| {
        DeadlineLayer::new(Duration::from_secs(1)).layer(bare)
    });
    add(cases, "hopvine/retry", Some("tower-resilience/retry"), |bare| {
        RetryLayer::new(RetryPolicy::default()).expect("valid").layer(bare)
    });
    add(cases, "hopvine/bulkhead", Some("tower-resilience/bulkhead"), |bare| {
        BulkheadLayer::new(BulkheadPolicy::default()).expect("valid").layer(bare)
    });
    add_each(
        cases,
        "hopvine/fallback",
        Some("tower-resilience/fallback"),
        |bare| FallbackLayer::new(|_: Why| async { Ok::<_, Error>(Reply(0)) }).layer(bare),
        |bare| FallbackLayer::new(|_: Why| async { Ok::<_, Error>(Response::new(())) }).layer(bare),
    );
    add(cases, "hopvine/attempt-timeout", Some("tower-resilience/deadline"), |bare| {
        AttemptTimeoutLayer::new(Duration::from_millis(300)).layer(bare)
    });
    add(cases, "hopvine/outlier", Some("tower-resilience/outlier"), |bare| {
        let layer = OutlierDetectionLayer::new(OutlierPolicy::default()).expect("valid");
        layer.layer(bare).new_service(&endpoint())
    });
    // Both parts: the call's and the attempt's.
    let traced =
        |bare| ClientTraceLayer::new("catalog").layer(AttemptTraceLayer::new().layer(bare).new_service(&endpoint()));
    add(cases, "hopvine/trace", None, traced);
    cases.push(subscribed("hopvine/trace+subscriber", traced));

    add(cases, "tower/timeout", None, |bare| tower::timeout::TimeoutLayer::new(Duration::from_secs(1)).layer(bare));
    add(cases, "tower/retry", None, |bare| tower::retry::RetryLayer::new(peers::Again::new()).layer(bare));
    add(cases, "tower/concurrency-limit", None, |bare| tower::limit::ConcurrencyLimitLayer::new(256).layer(bare));
    add(cases, "tower-resilience/circuit-breaker", None, |bare| peers::circuit_breaker().layer(bare));
    add(cases, "tower-resilience/deadline", None, |bare| peers::deadline().layer(bare));
    add_each(
        cases,
        "tower-resilience/retry",
        None,
        |bare| peers::retry().layer(bare),
        |bare| peers::retry().layer(bare),
    );
    add(cases, "tower-resilience/bulkhead", None, |bare| peers::bulkhead().layer(bare));
    add_each(
        cases,
        "tower-resilience/fallback",
        None,
        |bare| peers::fallback(Reply(0)).layer(bare),
        |bare| peers::fallback(Response::new(())).layer(bare),
    );
    add(cases, "tower-resilience/outlier", None, |bare| peers::outlier().layer(bare));
}

pub(crate) fn endpoint() -> EndpointHandle {
    let endpoint = "127.0.0.1:80".parse().expect("an endpoint");
    EndpointHandle::new("catalog".into(), Arc::new(endpoint), Arc::new(Group::new(1)))
}

/// A service of both kinds of request, in all its cases.
pub(crate) fn add<S>(
    cases: &mut Vec<Case>,
    name: &str,
    beside: Option<&str>,
    service: impl Fn(Bare) -> S + Clone + 'static,
) where
    S: Service<Plain, Error: std::fmt::Debug> + Service<Http, Error: std::fmt::Debug> + 'static,
{
    add_each(cases, name, beside, service.clone(), service);
}

/// The same where the two are different services.
pub(crate) fn add_each<P, H>(
    cases: &mut Vec<Case>,
    name: &str,
    beside: Option<&str>,
    for_plain: impl Fn(Bare) -> P + Clone + 'static,
    for_http: impl Fn(Bare) -> H + Clone + 'static,
) where
    P: Service<Plain, Error: std::fmt::Debug> + 'static,
    H: Service<Http, Error: std::fmt::Debug> + 'static,
{
    let mut push = |suffix: &str, make: Box<dyn FnOnce() -> Run>| {
        let mut case = Case::new(format!("{name}{suffix}"), make);
        case.beside = beside.map(|beside| format!("{beside}{suffix}"));
        cases.push(case);
    };
    let plainly = |pends, wheel| {
        let service = for_plain.clone();
        Box::new(move || run(service, pends, plain, wheel)) as Box<dyn FnOnce() -> Run>
    };
    push("", plainly(Pends::Never, Wheel::Empty));
    push("+pend", plainly(Pends::Once, Wheel::Empty));
    push("+pend+timer", plainly(Pends::Once, Wheel::Earlier));
    push("+http", Box::new(move || run(for_http, Pends::Never, get, Wheel::Empty)));
}

/// Made inside the runtime that runs it: some peers start tasks.
pub(crate) fn run<S, Req: 'static>(
    service: impl FnOnce(Bare) -> S,
    pends: Pends,
    request: fn() -> Req,
    wheel: Wheel,
) -> Run
where
    S: Service<Req, Error: std::fmt::Debug> + 'static,
{
    let runtime = runtime();
    let service = {
        let _inside = runtime.enter();
        service(Bare(pends))
    };
    calls(runtime, service, request, wheel)
}

/// With a subscriber that takes everything and writes it nowhere. It is there while the case runs only: as long as one is, spans cost
/// more for those without one, too.
fn subscribed<S>(name: &str, service: impl FnOnce(Bare) -> S + 'static) -> Case
where
    S: Service<Plain, Error: std::fmt::Debug> + 'static,
{
    Case::new(name, move || {
        let mut run = run(service, Pends::Never, plain, Wheel::Empty);
        Box::new(move |count| {
            let subscriber = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG);
            let dispatch = tracing::Dispatch::new(subscriber.with_writer(std::io::sink).finish());
            let took = tracing::dispatcher::with_default(&dispatch, || run(count));
            drop(dispatch);
            tracing::callsite::rebuild_interest_cache();
            took
        })
    })
}
