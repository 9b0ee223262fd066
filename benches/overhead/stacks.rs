//! Whole stacks: ours with what the peers have, ours with everything, and the peers'.

use std::time::Duration;

use hopvine::{
    BoxStack, Directory, EndpointHandle, Error, NewService, ServiceHandle, Stack,
    connect::per_endpoint,
    layers::{
        attempt_timeout::AttemptTimeoutLayer,
        balance::{Balance, BalanceLayer, Discover, DiscoverLayer, P2cPeakEwma},
        bulkhead::{Bulkhead, BulkheadLayer, BulkheadPolicy},
        circuit_breaker::{CircuitBreaker, CircuitBreakerLayer, CircuitBreakerPolicy},
        deadline::{Deadline, DeadlineLayer},
        fallback::{FallbackLayer, Why},
        outlier::{OutlierDetectionLayer, OutlierPolicy},
        retry::{Retry, RetryLayer, RetryPolicy},
        trace::{AttemptTraceLayer, ClientTraceLayer},
    },
};
use http::Response;
use tower::{Service, ServiceBuilder};

use crate::{
    bare::{Bare, Pends, Plain, Reply, get, plain},
    layers::{Http, add, add_each},
    measure::{Case, calls, calls_on_two, cloned_calls, runtime},
    peers,
};

/// Everything: the stack of `server_to_server`, with a fallback. The same for both kinds of request.
macro_rules! full {
    ($bare:expr, $fallback:expr) => {
        ServiceBuilder::new()
            .layer(ClientTraceLayer::new("catalog"))
            .layer(FallbackLayer::new($fallback))
            .layer(CircuitBreakerLayer::new("catalog", CircuitBreakerPolicy::default()).expect("valid"))
            .layer(BulkheadLayer::new(BulkheadPolicy::default()).expect("valid"))
            .layer(DeadlineLayer::new(Duration::from_secs(1)))
            .layer(RetryLayer::new(RetryPolicy::default()).expect("valid"))
            .layer(DiscoverLayer::new(catalog(10)))
            .layer(BalanceLayer::new(P2cPeakEwma::default()))
            .layer(AttemptTraceLayer::new())
            .layer(OutlierDetectionLayer::new(OutlierPolicy::default()).expect("valid"))
            .layer(per_endpoint(|_| AttemptTimeoutLayer::new(Duration::from_millis(300))))
            .service($bare)
    };
}

pub(crate) fn cases(cases: &mut Vec<Case>) {
    const PEERS: &str = "peers/stack";
    add(cases, "hopvine/stack", Some(PEERS), |bare| stack(catalog(10), bare));
    more(cases, "hopvine/stack", |bare| stack(catalog(10), bare), |bare| stack(catalog(10), bare));
    add_each(cases, "hopvine/stack-full", Some(PEERS), full_for_plain, full_for_http);
    more(cases, "hopvine/stack-full", full_for_plain, full_for_http);
    add_each(cases, PEERS, None, peers::stack::<Plain, Reply>, peers::stack::<Http, Response<()>>);
}

/// The same cloned per call, erased, and on two threads.
fn more<P, H>(
    cases: &mut Vec<Case>,
    name: &'static str,
    for_plain: impl Fn(Bare) -> P + Clone + 'static,
    for_http: impl Fn(Bare) -> H + Clone + 'static,
) where
    P: Service<Plain, Response = Reply, Error = Error, Future: Send> + Clone + Send + Sync + 'static,
    H: Service<Http, Response = Response<()>, Error = Error, Future: Send> + Clone + Send + Sync + 'static,
{
    let bare = Bare(Pends::Never);
    let make = for_plain.clone();
    cases.push(Case::new(format!("{name}+clone"), move || cloned_calls(runtime(), make(bare), plain)).beside(name));
    let make = for_plain.clone();
    let erased = move || calls(runtime(), BoxStack::new(make(bare)), plain, crate::measure::Wheel::Empty);
    cases.push(Case::new(format!("{name}+erased"), erased).beside(name));
    let make = for_http.clone();
    let erased = move || calls(runtime(), BoxStack::new(make(bare)), get, crate::measure::Wheel::Empty);
    cases.push(Case::new(format!("{name}+erased+http"), erased).beside(format!("{name}+http")));
    let make = for_plain;
    let two = move || calls_on_two(make(bare), plain);
    cases.push(Case::new(format!("{name}+threads"), two).beside(name).uncountable());
    let two = move || calls_on_two(for_http(bare), get);
    cases.push(Case::new(format!("{name}+threads+http"), two).beside(format!("{name}+http")).uncountable());
}

pub(crate) fn catalog(count: u16) -> ServiceHandle {
    let endpoints = (0..count).map(|number| {
        let [high, low] = number.to_be_bytes();
        format!("10.0.{high}.{low}:80").parse().expect("an endpoint")
    });
    Directory::fixed([("catalog", endpoints)]).service("catalog")
}

/// Of the service of an endpoint.
pub(crate) type Ours<S> = CircuitBreaker<Bulkhead<Deadline<Retry<Discover<Balance<S, P2cPeakEwma>>>>>>;

/// What the peers have, too.
pub(crate) fn stack<N>(service: ServiceHandle, connector: N) -> Ours<N::Service>
where
    N: NewService<EndpointHandle, Service: Clone + Send + Sync + 'static> + Clone + Send + Sync + 'static,
{
    ServiceBuilder::new()
        .layer(CircuitBreakerLayer::new("catalog", CircuitBreakerPolicy::default()).expect("valid"))
        .layer(BulkheadLayer::new(BulkheadPolicy::default()).expect("valid"))
        .layer(DeadlineLayer::new(Duration::from_secs(1)))
        .layer(RetryLayer::new(RetryPolicy::default()).expect("valid"))
        .layer(DiscoverLayer::new(service))
        .layer(BalanceLayer::new(P2cPeakEwma::default()))
        .service(connector)
}

fn full_for_plain(bare: Bare) -> impl Stack<Plain, Response = Reply> {
    full!(bare, |_: Why| async { Ok::<_, Error>(Reply(0)) })
}

fn full_for_http(bare: Bare) -> impl Stack<Http, Response = Response<()>> {
    full!(bare, |_: Why| async { Ok::<_, Error>(Response::new(())) })
}
