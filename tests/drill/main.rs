//! The drill's phases over real sockets: the assembled stacks against real servers that die, hang, recover, join and
//! throttle. Also that one stack serves axum, a bare client and a generated tonic client.

#[path = "../support/wait.rs"]
mod wait;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
    routing::any,
};
use hopvine::{
    BoxStack, Directory, Endpoint, EndpointHandle, ErrorKind, Live, Monitor, NewService,
    connect::http::{ClientBody, HttpClient, Version},
    context,
    discover::{Change, ChangeStream},
    layers::{
        circuit_breaker::CircuitBreakerPolicy,
        deadline::{ServerDeadlineLayer, ServerDeadlinePolicy},
        fallback::FallbackLayer,
        respond::{RespondLayer, to_response},
        trace::ServerTraceLayer,
    },
    stacks::{self, Hop},
};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::Instant};
use tower::{ServiceBuilder, ServiceExt};
use wait::eventually;

type Stack = BoxStack<Request<Body>, http::Response<ClientBody>>;

/// What an instance does, and what it saw.
#[derive(Clone, Default)]
struct Instance {
    calls: Arc<AtomicUsize>,
    in_flight: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    /// Milliseconds an answer takes.
    delay: Arc<AtomicU64>,
    /// Seconds of `Retry-After`; 0: it answers.
    throttle: Arc<AtomicU64>,
}

struct Served {
    address: SocketAddr,
    // Dropped, the instance is dead: connections broken, port closed.
    _tasks: JoinSet<()>,
}

struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

async fn answer(State(instance): State<Instance>, headers: HeaderMap) -> Response {
    instance.calls.fetch_add(1, SeqCst);
    let now = instance.in_flight.fetch_add(1, SeqCst) + 1;
    instance.most.fetch_max(now, SeqCst);
    let _in_flight = InFlight(Arc::clone(&instance.in_flight));
    let throttle = instance.throttle.load(SeqCst);
    if throttle > 0 {
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", throttle.to_string())]).into_response();
    }
    let delay = Duration::from_millis(instance.delay.load(SeqCst));
    tokio::time::sleep_until(Instant::now() + delay).await;
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned();
    format!("{} {}", header("traceparent"), header("x-request-timeout-ms")).into_response()
}

impl Instance {
    async fn serve(&self) -> Served {
        serve(Router::new().fallback(any(answer)).with_state(self.clone())).await
    }

    fn calls(&self) -> usize {
        self.calls.load(SeqCst)
    }
}

async fn serve(app: Router) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            let app = app.clone();
            connections.spawn(async move {
                let service = hyper_util::service::TowerToHyperService::new(app);
                let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(socket), service).await;
            });
        }
    });
    Served { address, _tasks: tasks }
}

fn get() -> Request<Body> {
    Request::get("/").body(Body::empty()).unwrap()
}

async fn text(response: http::Response<ClientBody>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn endpoints(served: &[&Served]) -> Vec<Endpoint> {
    served.iter().map(|served| Endpoint::from(served.address)).collect()
}

fn quick() -> CircuitBreakerPolicy {
    CircuitBreakerPolicy {
        window: Duration::from_secs(2),
        minimum_calls: 10,
        open_time: Duration::from_secs(2),
        open_time_max: Duration::from_secs(2),
        ..Default::default()
    }
}

#[tokio::test]
async fn an_instance_that_dies_is_no_callers_trouble() {
    let instances = [Instance::default(), Instance::default(), Instance::default()];
    let dying = instances[0].serve().await;
    let (second, third) = (instances[1].serve().await, instances[2].serve().await);
    let monitor = Monitor::new();
    let directory = Directory::fixed([("s", endpoints(&[&dying, &second, &third]))]);
    let hop = Hop::new("s.call", directory.service("s")).monitor(&monitor);
    let stack = Stack::build(stacks::server_to_server(hop).unwrap(), HttpClient::new());
    let mut dying = Some(dying);
    for call in 0..300 {
        if call == 100 {
            dying = None;
        }
        let response = stack.clone().oneshot(get()).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        text(response).await;
    }
    drop(dying);
    let seen = monitor.snapshot();
    assert_eq!(seen.breakers[0].state, "closed");
    assert!(seen.retries[0].attempts <= seen.retries[0].calls + 20, "{:?}", seen.retries);
    assert!(seen.endpoints.iter().all(|endpoint| endpoint.in_flight == 0));
}

#[tokio::test]
async fn a_service_that_hangs_is_cut_off_and_its_caller_answers_at_once_until_it_is_back() {
    let instance = Instance::default();
    let served = instance.serve().await;
    let monitor = Monitor::new();
    let directory = Directory::fixed([("s", endpoints(&[&served]))]);
    let breaker = Live::new(quick()).unwrap();
    let hop = Hop::new("s.call", directory.service("s"))
        .monitor(&monitor)
        .deadline(Duration::from_secs(1))
        .unwrap()
        .attempt_timeout(Duration::from_millis(250))
        .unwrap()
        .circuit_breaker(breaker.clone())
        .unwrap()
        .fallback(FallbackLayer::new(async |_why| {
            Ok::<_, hopvine::Error>(http::Response::new(ClientBody::from("cached")))
        }));
    let stack = Stack::build(stacks::server_to_server(hop).unwrap(), HttpClient::new());
    let state = || monitor.snapshot().breakers[0].state;
    for _ in 0..10 {
        assert_ne!(text(stack.clone().oneshot(get()).await.unwrap()).await, "cached");
    }

    instance.delay.store(60_000, SeqCst);
    let calls = (0..40).map(|_| tokio::spawn(stack.clone().oneshot(get())));
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(text(call.await.unwrap().unwrap()).await, "cached");
    }
    assert_eq!(state(), "open");
    let before = instance.calls();
    for _ in 0..50 {
        assert_eq!(text(stack.clone().oneshot(get()).await.unwrap()).await, "cached");
    }
    assert_eq!(instance.calls(), before, "an open breaker sends nothing");
    eventually("calls given up are over at the server", || instance.in_flight.load(SeqCst) == 0).await;

    instance.delay.store(20, SeqCst);
    instance.most.store(0, SeqCst);
    eventually("the open time is over", || monitor.snapshot().breakers[0].open_for.is_none_or(|left| left.is_zero()))
        .await;
    let calls = (0..100).map(|_| tokio::spawn(stack.clone().oneshot(get())));
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert!(instance.most.load(SeqCst) <= 5, "probes at once: {}", instance.most.load(SeqCst));
    // A probe may have been too late on a busy machine: callers go on to call.
    let closes = async {
        while state() != "closed" {
            stack.clone().oneshot(get()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), closes).await.expect("it closes");
    assert_ne!(text(stack.clone().oneshot(get()).await.unwrap()).await, "cached");
}

#[tokio::test]
async fn an_instance_that_joins_gets_calls_and_one_that_leaves_gets_none() {
    let instances = [Instance::default(), Instance::default()];
    let (first, second) = (instances[0].serve().await, instances[1].serve().await);
    let (changes, mut told) = mpsc::unbounded_channel();
    let stream =
        futures_util::stream::poll_fn(move |cx| told.poll_recv(cx).map(|change| change.map(Ok::<_, std::io::Error>)));
    let directory = Directory::builder().service("s", ChangeStream::new(stream)).build();
    let service = directory.service("s");
    let stack = Stack::build(stacks::server_to_server(Hop::new("s", service.clone())).unwrap(), HttpClient::new());
    let endpoint = |served: &Served| Endpoint::from(served.address);
    let insert = |served: &Served| Change::Insert(endpoint(served).id().clone(), endpoint(served));
    changes.send(insert(&first)).unwrap();
    // The first call waits for the first endpoint.
    stack.clone().oneshot(get()).await.unwrap();
    let mut versions = service.watch();
    changes.send(insert(&second)).unwrap();
    versions.changed().await.unwrap();
    let load = async |count: usize| {
        let calls = (0..count).map(|_| tokio::spawn(stack.clone().oneshot(get())));
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap().unwrap();
        }
    };
    // One call at first, until it is known what it is like.
    load(20).await;
    assert!(instances[1].calls() >= 1);
    load(200).await;
    assert!(instances[1].calls() >= 50, "{}", instances[1].calls());
    let mut versions = service.watch();
    changes.send(Change::Remove(endpoint(&first).id().clone())).unwrap();
    versions.changed().await.unwrap();
    let before = instances[0].calls();
    load(100).await;
    assert_eq!(instances[0].calls(), before);
}

#[tokio::test]
async fn a_server_of_others_that_throttles_is_left_alone_for_as_long_as_it_asks() {
    let instance = Instance::default();
    instance.throttle.store(1, SeqCst);
    let served = instance.serve().await;
    let directory = Directory::fixed([("bank", endpoints(&[&served]))]);
    let hop = Hop::new("bank", directory.service("bank")).deadline(Duration::from_millis(500)).unwrap();
    let stack = Stack::build(stacks::external(hop).unwrap(), HttpClient::new());
    let response = stack.clone().oneshot(get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS, "its own answer, not one of ours");
    assert_eq!(context::last_call().attempts, 1);
    instance.throttle.store(0, SeqCst);
    for _ in 0..50 {
        let error = stack.clone().oneshot(get()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited);
        assert!(error.retry_after().unwrap() <= Duration::from_secs(1));
    }
    assert_eq!(instance.calls(), 1);
    let end = Instant::now() + Duration::from_secs(10);
    while stack.clone().oneshot(get()).await.is_err() {
        assert!(Instant::now() < end);
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(20)).await;
    }
    assert_eq!(instance.calls(), 2);

    // What a caller of ours said is not passed on to others.
    let mut request = get();
    request.headers_mut().insert("x-request-timeout-ms", "400".parse().unwrap());
    let ours = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    request.headers_mut().insert("traceparent", ours.parse().unwrap());
    assert_eq!(text(stack.oneshot(request).await.unwrap()).await, "none none");
}

#[tokio::test]
async fn a_handler_s_calls_inherit_trace_and_deadline_and_its_errors_are_answers() {
    let backend = Instance::default();
    let served = backend.serve().await;
    let directory = Directory::fixed([("s", endpoints(&[&served]))]);
    let stack =
        Stack::build(stacks::server_to_server(Hop::new("s", directory.service("s"))).unwrap(), HttpClient::new());
    let inner = stack.clone();
    let app = Router::new()
        .fallback(any(async move || match inner.clone().oneshot(get()).await {
            Ok(response) => response.map(Body::new),
            Err(error) => to_response(&error, false).map(Body::new),
        }))
        .layer(
            ServiceBuilder::new()
                .layer(RespondLayer::new())
                .layer(ServerTraceLayer::new())
                .layer(ServerDeadlineLayer::new(ServerDeadlinePolicy::default()).unwrap()),
        );
    let front = serve(app).await;
    // A caller without a stack: what it says is in its headers.
    let endpoint = Arc::new(Endpoint::from(front.address));
    let caller = HttpClient::<Body>::new().new_service(&EndpointHandle::new("front".into(), endpoint, Arc::default()));
    let mut request = get();
    request.headers_mut().insert("x-request-timeout-ms", "400".parse().unwrap());
    let trace = "0af7651916cd43dd8448eb211c80319c";
    request.headers_mut().insert("traceparent", format!("00-{trace}-b7ad6b7169203331-01").parse().unwrap());
    let scoped = caller.clone().oneshot(request);
    let seen = text(scoped.await.unwrap()).await;
    let (traceparent, left) = seen.split_once(' ').unwrap();
    assert!(traceparent.contains(trace), "{seen}");
    assert!((300..400).contains(&left.parse::<u64>().unwrap()), "{seen}");

    backend.delay.store(60_000, SeqCst);
    let mut request = get();
    request.headers_mut().insert("x-request-timeout-ms", "100".parse().unwrap());
    assert_eq!(caller.oneshot(request).await.unwrap().status(), StatusCode::GATEWAY_TIMEOUT);
    eventually("what nobody waits for is over", || backend.in_flight.load(SeqCst) == 0).await;
}

#[tokio::test]
async fn a_generated_tonic_client_runs_on_the_same_stack() {
    use tonic::transport::{Server, server::TcpIncoming};
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    let mut endpoints = Vec::new();
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        endpoints.push(Endpoint::from(listener.local_addr().unwrap()));
        let (_reporter, service) = tonic_health::server::health_reporter();
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
    }
    let monitor = Monitor::new();
    let directory = Directory::fixed([("health", endpoints)]);
    let hop = Hop::new("health", directory.service("health")).monitor(&monitor);
    let connector = HttpClient::builder().version(Version::Http2).build().unwrap();
    let stack = hopvine::build::<Request<tonic::body::Body>, _, _>(stacks::server_to_server(hop).unwrap(), connector);
    let client = HealthClient::new(stack);
    let calls = (0..50).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move { client.check(HealthCheckRequest::default()).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    let missing = client.clone().check(HealthCheckRequest { service: "nobody".to_owned() }).await.unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound);
    let seen = monitor.snapshot().endpoints;
    assert!(seen.iter().all(|endpoint| endpoint.counts.success > 0), "{seen:?}");
}
