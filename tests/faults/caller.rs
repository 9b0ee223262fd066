//! The stack under test, what its calls look like to their caller, and what of it is in somebody's hands.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use hopvine::{
    BoxStack, Directory, EndpointHandle, Error, ErrorKind, Live, Monitor, NewService,
    connect::{
        http::{ClientBody, HttpClient, HttpPolicy, HttpService, PoolStats, Version},
        per_endpoint,
    },
    context,
    layers::{
        attempt_timeout::{AttemptTimeoutLayer, AttemptTimeoutPolicy},
        balance::{
            BalanceLayer, DiscoverLayer, Picker,
            picker::{Pick, Rank},
        },
        bulkhead::{BulkheadLayer, BulkheadPolicy},
        deadline::DeadlineLayer,
        outlier::{OutlierDetectionLayer, OutlierPolicy},
        retry::{Budget, BudgetPolicy, ReplayBody, RetryLayer, RetryPolicy},
    },
    live::Ratio,
    monitor::EndpointView,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tower::{ServiceBuilder, ServiceExt};

use super::{server::Server, wait::eventually};

pub(crate) type Body = Full<Bytes>;

/// No test waits this long; what ends by this clock ended by no other.
const LONG: Duration = Duration::from_secs(60);

/// How long an attempt may take at an endpoint that is slow on purpose.
const SHORT: Duration = Duration::from_millis(150);

/// How long a connection may take to an endpoint where none comes about.
const CONNECT: Duration = Duration::from_millis(300);

const TOKENS: u32 = 10;

/// A caller of the first of some servers, and of the next one where that fails.
pub(crate) struct Caller {
    stack: BoxStack<Request<Body>, Response<ClientBody>>,
    monitor: Monitor,
    budget: Budget,
    attempt: Live<AttemptTimeoutPolicy>,
    pools: Arc<Mutex<Pools>>,
}

type Pools = HashMap<SocketAddr, HttpService<ReplayBody<Body>>>;

/// What a caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A response, whole.
    Whole,
    /// A head, and a body that breaks.
    BrokenBody,
    /// A head, and a body that goes on and on.
    EndlessBody,
    /// An error of this kind. The request may have run.
    Failed(ErrorKind),
    /// An error of this kind. The request surely never ran.
    Unsent(ErrorKind),
}

/// By the order of ids, so that it is known who is asked first.
struct InOrder;

impl Picker for InOrder {
    fn pick(&self, endpoints: &[EndpointHandle], pick: &Pick) -> Option<usize> {
        let ranks = endpoints.iter().map(|endpoint| pick.rank(endpoint)).enumerate();
        ranks.min_by_key(|(_, rank)| *rank).filter(|(_, rank)| *rank < Rank::Unusable).map(|(index, _)| index)
    }
}

impl Caller {
    pub(crate) fn new(servers: &[&Server]) -> Self {
        let policy = HttpPolicy { connect_timeout: CONNECT, ..Default::default() };
        Self::with(servers, policy)
    }

    /// With this policy at the first server. The others are always given time.
    pub(crate) fn with(servers: &[&Server], policy: HttpPolicy) -> Self {
        let first = client(servers[0], policy);
        let others = client(servers[0], HttpPolicy { connect_timeout: LONG, ..Default::default() });
        let endpoints = servers.iter().enumerate().map(|(number, server)| server.endpoint(&number.to_string()));
        let monitor = Monitor::new();
        let directory = Directory::fixed([("s", endpoints.collect::<Vec<_>>())]);
        let budget = BudgetPolicy { ratio: Ratio(0.0), cap: TOKENS, start: TOKENS, refill_per_second: 0 };
        let budget = Budget::new(budget).unwrap();
        let attempts = u32::try_from(servers.len()).unwrap();
        let retry =
            RetryPolicy { max_attempts: attempts, backoff_base: Duration::from_millis(1), ..Default::default() };
        let attempt = Live::new(AttemptTimeoutPolicy { timeout: LONG }).unwrap();
        let timeout = AttemptTimeoutLayer::live(attempt.clone());
        let pools = Arc::<Mutex<Pools>>::default();
        let made = Arc::clone(&pools);
        let is_first = |endpoint: &EndpointHandle| endpoint.endpoint().id().as_str() == "0";
        let layers = ServiceBuilder::new()
            .layer(BulkheadLayer::new(BulkheadPolicy::default()).unwrap().name("s").monitor(&monitor))
            .layer(DeadlineLayer::new(LONG))
            .layer(RetryLayer::new(retry).unwrap().budget(budget.clone()).name("s").monitor(&monitor))
            .layer(DiscoverLayer::new(directory.service("s")))
            .layer(BalanceLayer::new(InOrder).monitor(&monitor))
            .layer(
                OutlierDetectionLayer::new(OutlierPolicy { consecutive_failures: 100, ..Default::default() }).unwrap(),
            )
            .layer(per_endpoint(
                move |endpoint| {
                    if is_first(endpoint) { timeout.clone() } else { AttemptTimeoutLayer::new(LONG) }
                },
            ));
        let stack = BoxStack::build(layers, move |endpoint: &EndpointHandle| {
            let service = if is_first(endpoint) { &first } else { &others }.new_service(endpoint);
            let hopvine::endpoint::Address::Socket(address) = *endpoint.endpoint().address() else {
                panic!("an address is given")
            };
            made.lock().unwrap().insert(address, service.clone());
            service
        });
        Self { stack, monitor, budget, attempt, pools }
    }

    /// Whether attempts at the first server are cut short.
    pub(crate) fn hurry(&self, hurry: bool) {
        let timeout = if hurry { SHORT } else { LONG };
        self.attempt.set(AttemptTimeoutPolicy { timeout }).unwrap();
    }

    pub(crate) fn call(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<ClientBody>, Error>> + Send + use<> {
        self.stack.clone().oneshot(request)
    }

    /// Calls, reads, and says what that was like.
    pub(crate) async fn see(&self, request: Request<Body>) -> Seen {
        let response = match self.call(request).await {
            Ok(response) => response,
            Err(error) => {
                println!("{error:?}");
                assert!(!error.is_rejected(), "no layer here refuses: {error:?}");
                assert_eq!(error.is_timeout(), error.kind() == ErrorKind::AttemptTimeout);
                let last = self.endpoints().len() - 1;
                let endpoint = error.endpoint().map(str::to_owned);
                assert!(endpoint.is_some_and(|id| id.parse::<usize>().unwrap() <= last), "{error:?}");
                return if error.is_unsent() { Seen::Unsent(error.kind()) } else { Seen::Failed(error.kind()) };
            }
        };
        let mut body = response.into_body();
        let mut text = Vec::new();
        for _ in 0..10 {
            match body.frame().await {
                None => {
                    assert_eq!(text, b"good");
                    return Seen::Whole;
                }
                Some(Ok(frame)) => text.extend_from_slice(frame.data_ref().expect("no trailers")),
                Some(Err(error)) => {
                    assert_eq!(error.kind(), ErrorKind::Upstream);
                    assert!(!error.is_unsent(), "it has answered, so it has run: {error:?}");
                    return Seen::BrokenBody;
                }
            }
        }
        Seen::EndlessBody
    }

    /// Its endpoints, the first one first.
    pub(crate) fn endpoints(&self) -> Vec<EndpointView> {
        self.monitor.snapshot().endpoints
    }

    /// Retries sent so far.
    pub(crate) fn retries(&self) -> u64 {
        let retries = &self.monitor.snapshot().retries[0];
        retries.attempts - retries.calls
    }

    /// The first server's connections.
    pub(crate) fn stats(&self, server: &Server) -> PoolStats {
        self.pools.lock().unwrap().get(&server.address).map(HttpService::stats).unwrap_or_default()
    }

    /// Waits until everything calls had is given back.
    pub(crate) async fn settled(&self, servers: &[&Server]) {
        let what = || {
            let snapshot = self.monitor.snapshot();
            let in_flight: u32 = snapshot.endpoints.iter().map(|endpoint| endpoint.in_flight).sum();
            let bulkhead = &snapshot.bulkheads[0];
            let budget = self.budget.balance(context::now_nanos()) + self.retries() as f64;
            let pools = self.pools.lock().unwrap();
            let pools: Vec<_> = servers
                .iter()
                .map(|server| {
                    let stats = pools.get(&server.address).map(HttpService::stats).unwrap_or_default();
                    (stats, server.open())
                })
                .collect();
            // What is open is idle, and the server has it open, too.
            let clean = pools.iter().all(|(stats, open)| {
                (stats.waiting, stats.dialing) == (0, 0) && stats.open == stats.idle && stats.open == *open
            });
            let settled = in_flight == 0
                && (bulkhead.in_flight, bulkhead.waiting) == (0, 0)
                && (budget - f64::from(TOKENS)).abs() < 1e-6
                && clean;
            (settled, format!("in flight {in_flight}, {bulkhead:?}, budget {budget}, {pools:?}"))
        };
        let last = Mutex::new(String::new());
        eventually("everything is given back", || {
            let (settled, now) = what();
            let mut last = last.lock().unwrap();
            if *last != now {
                println!("{now}");
                *last = now;
            }
            settled
        })
        .await;
    }
}

fn client(server: &Server, policy: HttpPolicy) -> HttpClient<ReplayBody<Body>> {
    let builder = HttpClient::builder().version(server.version).policy(policy);
    let builder = match &server.authority {
        None => builder,
        Some(authority) => builder.tls(authority.tls()),
    };
    builder.build().unwrap()
}

pub(crate) fn get() -> Request<Body> {
    Request::get("/").body(Body::default()).unwrap()
}

pub(crate) fn post() -> Request<Body> {
    Request::post("/").body(Body::from("once")).unwrap()
}

pub(crate) const VERSIONS: [Version; 2] = [Version::Http1, Version::Http2];
