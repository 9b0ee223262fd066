//! What broke in other libraries, as tests of ours, each named for what a user would lose. The rest of the list stands beside the
//! layer it is of:
//!
//! | what was found | test |
//! |---|---|
//! | a count window that stops sliding | `circuit_breaker::failures_older_than_the_window_do_not_count` |
//! | half open for ever, for probes are rarer than the window | `circuit_breaker::probes_that_nobody_polls_nor_drops_are_replaced_after_their_lease` |
//! | a late result from before the trip decides the probe, or closes the breaker | `circuit_breaker::a_late_result_from_before_the_trip_decides_nothing` |
//! | a cancelled probe leaves it half open | `circuit_breaker::a_probe_dropped_at_any_await_point_does_not_keep_it_half_open` |
//! | timeouts the breaker does not see; an outer deadline it takes for a cancellation | `circuit_breaker::timeouts_open_it_as_a_value_and_as_a_drop_with_that_cause` |
//! | one discovery error kills the client | `discover::addresses_follow_their_records_and_outlive_every_failure`, and below |
//! | a readiness error loses the endpoint for good | `balance::a_service_that_breaks_while_getting_ready_is_made_anew` |
//! | an endpoint that fails at once attracts traffic | `balance::an_endpoint_that_fails_at_once_attracts_no_traffic` |
//! | a budget that truncates its ratio | `retry::every_success_pays_its_share_and_no_more` |
//! | 100 000 inserts block the executor | `discover::a_hundred_thousand_endpoints_do_not_hold_the_executor` |
//! | a change of weight drops history; an idle clone pins a removed endpoint | `balance::a_change_of_weight_keeps_history_and_a_removed_endpoint_is_let_go` |
//! | an ejected endpoint's place leaks when it is removed | `a_removed_endpoint_gives_back_its_place_in_the_cap_once`, in `endpoint::handle` |
//! | clones made per request all pick the same endpoint | `balance::clones_made_per_call_take_turns`, and below |
//! | a stack that cannot be spawned | `retry::a_stack_with_retries_can_be_cloned_shared_and_spawned` |
//! | a dead connection, or one with an unread body, is handed on | `client::a_connection_whose_body_is_unread_is_not_used_again` |
//! | callers hang behind a dead connection's successor | `client::nobody_hangs_behind_a_connection_that_dies` |

use std::{
    collections::HashMap,
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, routing::get};
use futures_util::{FutureExt as _, StreamExt as _, future::join_all, stream::FuturesUnordered};
use hopvine::{
    Directory, EndpointHandle, Error, ErrorKind, ServiceHandle,
    connect::per_endpoint,
    discover::{Change, ChangeStream},
    layers::{
        attempt_timeout::AttemptTimeoutLayer,
        balance::{BalanceLayer, DiscoverLayer, P2cLeastRequest, P2cPeakEwma, RoundRobin},
        bulkhead::{BulkheadLayer, BulkheadPolicy},
        circuit_breaker::{CircuitBreakerLayer, CircuitBreakerPolicy, State},
        deadline::DeadlineLayer,
        outlier::{OutlierDetectionLayer, OutlierPolicy},
        respond::RespondLayer,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::Instant,
};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, limit::ConcurrencyLimitLayer, service_fn};

fn catalog(count: u16) -> ServiceHandle {
    let endpoints = (1..=count).map(|port| format!("127.0.0.1:{port}").parse().unwrap());
    Directory::fixed([("catalog", endpoints)]).service("catalog")
}

type Request = http::Request<()>;
type Answer = Pin<Box<dyn Future<Output = Result<http::Response<String>, Error>> + Send>>;

fn request() -> Request {
    Request::new(())
}

/// Answers with its endpoint's id after a time.
fn named(
    after: Duration,
) -> impl Fn(&EndpointHandle) -> tower::util::BoxCloneSyncService<Request, http::Response<String>, Error> + Clone {
    move |endpoint: &EndpointHandle| {
        let id = endpoint.endpoint().id().to_string();
        tower::util::BoxCloneSyncService::new(service_fn(move |_: Request| -> Answer {
            let id = id.clone();
            Box::pin(async move {
                if !after.is_zero() {
                    tokio::time::sleep_until(Instant::now() + after).await;
                }
                Ok(http::Response::new(id))
            })
        }))
    }
}

/// Never ready: it fails to become so.
#[derive(Clone)]
struct Unready;

impl Service<Request> for Unready {
    type Response = http::Response<String>;
    type Error = std::io::Error;
    type Future = std::future::Pending<Result<http::Response<String>, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        std::future::pending()
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_becomes_ready_opens_the_breaker() {
    let policy = CircuitBreakerPolicy { minimum_calls: 5, ..Default::default() };
    let service = CircuitBreakerLayer::new("catalog", policy).unwrap().layer(Unready);
    for _ in 0..5 {
        assert_eq!(service.clone().oneshot(request()).await.unwrap_err().kind(), ErrorKind::Upstream);
    }
    assert_eq!(service.breaker().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_never_becomes_ready_is_ejected() {
    let handle = catalog(2);
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(handle.clone()))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .layer(OutlierDetectionLayer::new(OutlierPolicy::default()).unwrap())
        .service(|_: &EndpointHandle| Unready);
    for _ in 0..20 {
        stack.clone().oneshot(request()).await.unwrap_err();
    }
    let ejected = handle.monitor().snapshot().endpoints.iter().filter(|endpoint| endpoint.state == "ejected").count();
    assert_eq!(ejected, 1, "all that may be");
}

/// Counts how often it is asked whether it is ready.
#[derive(Clone)]
struct Asked(Arc<AtomicUsize>);

impl Service<Request> for Asked {
    type Response = http::Response<String>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<http::Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.fetch_add(1, SeqCst);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request) -> Self::Future {
        let mut response = http::Response::new(String::new());
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        std::future::ready(Ok(response))
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_that_nobody_calls_costs_nothing() {
    let asked = Arc::new(AtomicUsize::new(0));
    let (handle, counter) = (catalog(2), Arc::clone(&asked));
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(handle.clone()))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .layer(OutlierDetectionLayer::new(OutlierPolicy::default()).unwrap())
        .service(move |_: &EndpointHandle| Asked(Arc::clone(&counter)));
    for _ in 0..20 {
        stack.clone().oneshot(request()).await.unwrap();
    }
    assert!(handle.monitor().snapshot().endpoints.iter().any(|endpoint| endpoint.state == "ejected"));
    let (before, tasks) = (asked.load(SeqCst), tokio::runtime::Handle::current().metrics().num_alive_tasks());
    tokio::time::advance(Duration::from_secs(3600)).await;
    tokio::task::yield_now().await;
    assert_eq!(asked.load(SeqCst), before);
    assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), tasks);
}

#[tokio::test(start_paused = true)]
async fn one_error_of_discovery_takes_nothing_from_the_calls() {
    let (tell, mut told) = mpsc::unbounded_channel::<Result<Vec<hopvine::Endpoint>, std::io::Error>>();
    let told = futures_util::stream::poll_fn(move |cx| told.poll_recv(cx));
    let directory = Directory::builder().service("catalog", ChangeStream::sets(told)).build();
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(directory.service("catalog")))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .service(named(Duration::ZERO));
    tell.send(Ok(vec!["127.0.0.1:1".parse().unwrap()])).unwrap();
    directory.ready(Duration::from_secs(1)).await.unwrap();
    for _ in 0..3 {
        tell.send(Err(std::io::ErrorKind::ConnectionReset.into())).unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        stack.clone().oneshot(request()).await.unwrap();
    }
    tell.send(Ok(vec!["127.0.0.1:2".parse().unwrap()])).unwrap();
    directory.service("catalog").watch().wait_for(|version| *version >= 2).await.unwrap();
    assert_eq!(stack.oneshot(request()).await.unwrap().into_body(), "127.0.0.1:2", "and it is heard again");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_removed_after_readiness_is_not_called() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let told =
        futures_util::stream::poll_fn(move |cx| told.poll_recv(cx).map(|change| change.map(Ok::<_, Infallible>)));
    let directory = Directory::builder().service("catalog", ChangeStream::new(told)).build();
    let service = directory.service("catalog");
    let [first, second] = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| address.parse::<hopvine::Endpoint>().unwrap());
    tell.send(Change::Insert(first.id().clone(), first.clone())).unwrap();
    directory.ready(Duration::from_secs(1)).await.unwrap();
    let mut stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(service.clone()))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .service(named(Duration::ZERO));
    // Ready with the first one there is; by the call it has gone.
    stack.ready().await.unwrap();
    tell.send(Change::Remove(first.id().clone())).unwrap();
    tell.send(Change::Insert(second.id().clone(), second)).unwrap();
    let mut versions = service.watch();
    versions.wait_for(|version| *version >= 2).await.unwrap();
    assert_eq!(stack.call(request()).await.unwrap().into_body(), "127.0.0.1:2");
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_one_task_within_the_limit_is_not_shed() {
    let bulkhead = BulkheadLayer::new(BulkheadPolicy { limit: 50, ..Default::default() }).unwrap();
    let stack = ServiceBuilder::new()
        .layer(bulkhead)
        .layer(DiscoverLayer::new(catalog(3)))
        .layer(BalanceLayer::new(P2cPeakEwma::default()))
        .service(named(Duration::from_millis(10)));
    for _ in 0..10 {
        let answers = join_all((0..50).map(|_| stack.clone().oneshot(request()))).await;
        assert!(answers.iter().all(Result::is_ok));
    }
}

#[tokio::test(start_paused = true)]
async fn clones_made_per_request_spread_over_all_endpoints() {
    fastrand::seed(5);
    for stack in [true, false] {
        let discover = DiscoverLayer::new(catalog(10));
        let mut taken: HashMap<String, usize> = HashMap::new();
        let builder = ServiceBuilder::new().layer(discover);
        let least = builder.clone().layer(BalanceLayer::new(P2cLeastRequest)).service(named(Duration::ZERO));
        let ewma = builder.layer(BalanceLayer::new(P2cPeakEwma::default())).service(named(Duration::ZERO));
        for _ in 0..10_000 {
            let answer =
                if stack { least.clone().oneshot(request()).await } else { ewma.clone().oneshot(request()).await };
            *taken.entry(answer.unwrap().into_body()).or_default() += 1;
        }
        assert_eq!(taken.len(), 10);
        assert!(taken.values().all(|&calls| calls > 500), "{taken:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_for_a_limited_endpoint_are_served_though_others_leave() {
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(catalog(1)))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .layer(per_endpoint(|_| ConcurrencyLimitLayer::new(1)))
        .service(named(Duration::from_millis(10)));
    let mut calls: Vec<_> = (0..20).map(|_| Box::pin(stack.clone().oneshot(request()))).collect();
    for call in &mut calls {
        assert!(futures_util::poll!(call.as_mut()).is_pending());
    }
    let mut number = 0;
    calls.retain(|_| {
        number += 1;
        number % 3 == 0
    });
    let answers = tokio::time::timeout(Duration::from_secs(10), join_all(calls)).await.expect("nobody hangs");
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

/// `axum::serve` makes the service anew for each connection.
#[tokio::test]
async fn a_bulkhead_holds_over_all_connections_of_a_server() {
    let (entered, mut enters) = mpsc::unbounded_channel();
    let leave = Arc::new(tokio::sync::Notify::new());
    let handler = {
        let leave = Arc::clone(&leave);
        move || {
            entered.send(()).unwrap();
            let leave = Arc::clone(&leave);
            async move {
                leave.notified().await;
                "done"
            }
        }
    };
    let bulkhead = BulkheadLayer::new(BulkheadPolicy { limit: 1, ..Default::default() }).unwrap();
    let layers = ServiceBuilder::new().layer(RespondLayer::new()).layer(bulkhead);
    let app = Router::new().route("/", get(handler)).layer(layers);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let status = async || {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer[9..12].to_owned()
    };
    let first = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer[9..12].to_owned()
    });
    enters.recv().await.unwrap();
    assert_eq!(status().await, "503", "on a connection of its own");
    leave.notify_one();
    assert_eq!(first.await.unwrap(), "200");
    server.abort();
}

/// One timer serves the limits nested in a task. A set of futures polls only those that were woken: it must not serve those.
#[tokio::test(start_paused = true)]
async fn a_time_limit_inside_a_set_of_futures_fires() {
    let start = Instant::now();
    let inner = AttemptTimeoutLayer::new(Duration::from_millis(100))
        .layer(service_fn(|_: Request| std::future::pending::<Result<http::Response<()>, Infallible>>()));
    let outer = DeadlineLayer::new(Duration::from_secs(1)).layer(service_fn(move |_: Request| {
        let inner = inner.clone();
        async move {
            let mut calls: FuturesUnordered<_> = (0..3).map(|_| inner.clone().oneshot(request())).collect();
            calls.next().await.unwrap()
        }
    }));
    assert_eq!(outer.oneshot(request()).await.unwrap_err().kind(), ErrorKind::AttemptTimeout);
    assert_eq!(start.elapsed(), Duration::from_millis(100));
}

/// A layer in between may carry a call off to a task of its own after it was polled here.
#[tokio::test(start_paused = true)]
async fn a_time_limit_carried_off_to_another_task_fires() {
    let start = Instant::now();
    let inner = AttemptTimeoutLayer::new(Duration::from_millis(100))
        .layer(service_fn(|_: Request| std::future::pending::<Result<http::Response<()>, Infallible>>()));
    let outer = DeadlineLayer::new(Duration::from_secs(1)).layer(service_fn(move |_: Request| {
        let mut call = Box::pin(inner.clone().oneshot(request()));
        async move {
            assert!(call.as_mut().now_or_never().is_none());
            std::future::poll_fn(|cx| {
                assert!(call.as_mut().poll(cx).is_pending(), "asks the deadline's timer for a poll");
                Poll::Ready(())
            })
            .await;
            Ok::<_, Infallible>(tokio::spawn(call))
        }
    }));
    let carried = outer.oneshot(request()).await.unwrap();
    assert_eq!(carried.await.unwrap().unwrap_err().kind(), ErrorKind::AttemptTimeout);
    assert_eq!(start.elapsed(), Duration::from_millis(100));
}

/// A call inside that is dropped has asked for a poll that nobody needs any more.
#[tokio::test(start_paused = true)]
async fn a_deadline_fires_though_the_time_limit_inside_is_dropped_in_the_same_poll() {
    let start = Instant::now();
    let inner = AttemptTimeoutLayer::new(Duration::from_millis(100))
        .layer(service_fn(|_: Request| std::future::pending::<Result<http::Response<()>, Infallible>>()));
    let outer = DeadlineLayer::new(Duration::from_secs(1)).layer(service_fn(move |_: Request| {
        let mut call = Some(Box::pin(inner.clone().oneshot(request())));
        std::future::poll_fn(move |cx| {
            if let Some(mut call) = call.take() {
                assert!(call.as_mut().poll(cx).is_pending());
            }
            Poll::<Result<http::Response<()>, Infallible>>::Pending
        })
    }));
    assert_eq!(outer.oneshot(request()).await.unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(start.elapsed(), Duration::from_secs(1));
}

/// Of two calls in one task each has its own time.
#[tokio::test(start_paused = true)]
async fn nested_time_limits_each_fire_at_their_time() {
    let start = Instant::now();
    let slow = |limit: u64| {
        AttemptTimeoutLayer::new(Duration::from_millis(limit))
            .layer(service_fn(|_: Request| std::future::pending::<Result<http::Response<()>, Infallible>>()))
    };
    let (short, long) = (slow(100), slow(300));
    let outer = DeadlineLayer::new(Duration::from_secs(1)).layer(service_fn(move |_: Request| {
        let (short, long) = (short.clone(), long.clone());
        async move {
            let short = async {
                short.oneshot(request()).await.unwrap_err();
                start.elapsed()
            };
            let long = async {
                long.oneshot(request()).await.unwrap_err();
                start.elapsed()
            };
            Ok::<_, Infallible>(futures_util::join!(short, long))
        }
    }));
    let times = outer.oneshot(request()).await.unwrap();
    assert_eq!(times, (Duration::from_millis(100), Duration::from_millis(300)));
}
