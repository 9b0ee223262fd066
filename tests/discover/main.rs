//! Sources and the directory.

#![allow(clippy::unnecessary_wraps, reason = "what a source may say, errors included")]

mod dns;
mod file;
#[path = "../support/name_server.rs"]
mod name_server;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt};
use hopvine::{
    Directory, Endpoint, Monitor, ServiceHandle,
    discover::{AddressFilter, Change, ChangeStream, Snapshot, Source, Subscriber},
    endpoint::{EndpointId, Status},
};
use proptest::prelude::*;
use tokio::{sync::mpsc, time::Instant};
use tower::{Service, ServiceExt};

type Told = Result<Change<EndpointId, Endpoint>, String>;

fn endpoint(id: &str, port: u16) -> Endpoint {
    Endpoint::from(std::net::SocketAddr::from(([127, 0, 0, 1], port))).with_id(id)
}

fn insert(endpoint: Endpoint) -> Told {
    Ok(Change::Insert(endpoint.id().clone(), endpoint))
}

fn remove(id: &str) -> Told {
    Ok(Change::Remove(EndpointId::new(id)))
}

fn told() -> (mpsc::UnboundedSender<Told>, ChangeStream) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let stream = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
    (sender, ChangeStream::new(stream.map(|told: Told| told)))
}

fn ids(service: &ServiceHandle) -> Vec<String> {
    service.snapshot().endpoints().iter().map(|endpoint| endpoint.id().to_string()).collect()
}

/// Counts what it is told.
#[derive(Default)]
struct Counting {
    published: AtomicUsize,
    sets: Mutex<Vec<Vec<String>>>,
}

impl Subscriber for Counting {
    fn prepare(&self, _: &[Arc<Endpoint>]) {}

    fn publish(&self, snapshot: &Snapshot) {
        self.published.fetch_add(1, Relaxed);
        let ids = snapshot.endpoints().iter().map(|endpoint| endpoint.id().to_string()).collect();
        self.sets.lock().unwrap().push(ids);
    }
}

async fn pass(time: Duration) {
    tokio::time::sleep_until(Instant::now() + time).await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_failures_leave_no_gap() {
    let (sender, stream) = told();
    let monitor = Monitor::new();
    let directory = Directory::builder().monitor(&monitor).service("s", stream).build();
    let service = directory.service("s");
    sender.send(insert(endpoint("a", 1))).unwrap();
    sender.send(insert(endpoint("b", 2))).unwrap();
    directory.ready(Duration::from_secs(1)).await.unwrap();
    let counting = Arc::new(Counting::default());
    service.subscribe(&counting);
    for number in 0..100 {
        sender.send(Err(format!("failure {number}"))).unwrap();
        pass(Duration::from_millis(100)).await;
    }
    let view = monitor.snapshot().directories[0].services[0].clone();
    assert_eq!(view.error.as_deref(), Some("failure 99"));
    assert!(view.stale_for.unwrap() > Duration::from_secs(9), "{view:?}");
    sender.send(insert(endpoint("c", 3))).unwrap();
    sender.send(remove("a")).unwrap();
    pass(Duration::from_millis(100)).await;
    assert_eq!(*counting.sets.lock().unwrap(), [vec!["a", "b"], vec!["b", "c"]]);
    assert_eq!(monitor.snapshot().directories[0].services[0].stale_for, None);
    drop(sender);
    pass(Duration::from_millis(100)).await;
    assert_eq!(ids(&service), ["b", "c"], "a source that ends leaves its last set");
    assert!(monitor.snapshot().directories[0].services[0].error.is_some());
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_flaps_are_few_changes() {
    let (sender, stream) = told();
    let directory = Directory::builder().service("s", stream).build();
    let service = directory.service("s");
    sender.send(insert(endpoint("a", 1))).unwrap();
    sender.send(insert(endpoint("b", 2))).unwrap();
    service.ready(Duration::from_secs(1)).await.unwrap();
    let counting = Arc::new(Counting::default());
    service.subscribe(&counting);
    for flap in 0..10_000 {
        sender.send(remove("a")).unwrap();
        sender.send(insert(endpoint("a", 1))).unwrap();
        if flap % 10 == 0 {
            pass(Duration::from_millis(1)).await;
        }
    }
    pass(Duration::from_millis(100)).await;
    assert!(counting.published.load(Relaxed) <= 21, "{}", counting.published.load(Relaxed));
    assert_eq!(ids(&service), ["a", "b"]);
}

#[tokio::test]
async fn a_hundred_thousand_endpoints_do_not_hold_the_executor() {
    let all: Vec<Endpoint> = (0..100_000u32)
        .map(|number| {
            let address = std::net::Ipv4Addr::from(0x0a00_0000 + number);
            Endpoint::from(std::net::SocketAddr::from((address, 80)))
        })
        .collect();
    let sets = futures_util::stream::iter([Ok::<_, Infallible>(all)]).chain(futures_util::stream::pending());
    let directory = Directory::builder().service("s", ChangeStream::sets(sets)).build();
    let service = directory.service("s");
    let chunks = Arc::new(Chunks::default());
    service.subscribe(&chunks);
    let turns = Arc::new(AtomicUsize::new(0));
    let other = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    service.ready(Duration::from_secs(10)).await.unwrap();
    other.abort();
    assert_eq!(service.snapshot().endpoints().len(), 100_000);
    assert!(chunks.largest.load(Relaxed) <= 1024);
    assert!(turns.load(Relaxed) >= 97, "others had {} turns", turns.load(Relaxed));
}

#[derive(Default)]
struct Chunks {
    largest: AtomicUsize,
}

impl Subscriber for Chunks {
    fn prepare(&self, chunk: &[Arc<Endpoint>]) {
        self.largest.fetch_max(chunk.len(), Relaxed);
    }

    fn publish(&self, _: &Snapshot) {}
}

#[tokio::test(start_paused = true)]
async fn addresses_nobody_can_be_sent_to_are_refused() {
    let (sender, stream) = told();
    let monitor = Monitor::new();
    let filter = AddressFilter::default().deny("127.0.0.9/32".parse().unwrap());
    let directory = Directory::builder().monitor(&monitor).filter(filter).service("s", stream).build();
    for address in [
        "127.0.0.1:80",
        "0.0.0.0:80",
        "224.0.0.1:80",
        "169.254.1.1:80",
        "127.0.0.1:0",
        "127.0.0.9:80",
        "[::]:80",
        "[fe80::1]:80",
    ] {
        let endpoint = Endpoint::from(address.parse::<std::net::SocketAddr>().unwrap());
        sender.send(insert(endpoint)).unwrap();
    }
    directory.ready(Duration::from_secs(1)).await.unwrap();
    assert_eq!(ids(&directory.service("s")), ["127.0.0.1:80"]);
    assert_eq!(monitor.snapshot().directories[0].services[0].refused, 7);
}

#[tokio::test(start_paused = true)]
async fn a_source_runs_as_long_as_somebody_holds_its_service() {
    let (sender, stream) = told();
    let directory = Directory::builder().service("s", stream).build();
    let service = directory.service("s");
    drop(directory);
    sender.send(insert(endpoint("a", 1))).unwrap();
    service.ready(Duration::from_secs(1)).await.unwrap();
    drop(service);
    pass(Duration::from_millis(1)).await;
    assert!(sender.is_closed(), "nobody listens any more");

    let (sender, stream) = told();
    let directory = Directory::builder().service("s", stream).build();
    directory.shutdown().await;
    assert!(sender.is_closed());
}

/// Any service has one endpoint; counts the streams under way.
struct Named {
    running: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Source for Named {
    fn lists(&self, service: &str) -> bool {
        service.starts_with("known")
    }

    fn discover(&self, service: &str) -> ChangeStream {
        self.running.fetch_add(1, Relaxed);
        let running = Running(Arc::clone(&self.running));
        let set = vec![endpoint(service, 1)];
        ChangeStream::sets(
            futures_util::stream::iter([Ok::<_, Infallible>(set)]).chain(futures_util::stream::pending()).map(
                move |set| {
                    let _ = &running;
                    set
                },
            ),
        )
    }
}

#[tokio::test(start_paused = true)]
async fn services_by_name_are_followed_while_used_and_bounded() {
    let running = Arc::new(AtomicUsize::new(0));
    let directory = Directory::builder().source(Named { running: Arc::clone(&running) }).most(2).build();
    assert!(directory.get("unknown").is_none());
    let first = directory.get("known-1").unwrap();
    let again = directory.get("known-1").unwrap();
    first.ready(Duration::from_secs(1)).await.unwrap();
    assert_eq!((ids(&again), running.load(Relaxed)), (vec!["known-1".to_owned()], 1));
    let second = directory.get("known-2").unwrap();
    assert!(directory.get("known-3").is_none(), "the bound");
    drop((first, again, second));
    pass(Duration::from_millis(1)).await;
    assert_eq!(running.load(Relaxed), 0);
    let back = directory.service("known-1");
    assert_eq!(ids(&back), ["known-1"], "what is known is there at once");
    pass(Duration::from_millis(1)).await;
    assert_eq!(running.load(Relaxed), 1);
    let missing = Directory::builder().service("silent", told().1).build().ready(Duration::from_secs(2)).await;
    assert_eq!(missing.unwrap_err().services(), ["silent"]);
}

#[tokio::test(start_paused = true)]
async fn replay_tells_each_identity_once() {
    let (sender, stream) = told();
    let directory = Directory::builder().service("s", stream).build();
    let service = directory.service("s");
    sender.send(insert(endpoint("a", 1))).unwrap();
    sender.send(insert(endpoint("down", 9).with_status(Status::Down))).unwrap();
    service.ready(Duration::from_secs(1)).await.unwrap();
    let mut changes = service.discover();
    let mut next = async || {
        pass(Duration::from_millis(100)).await;
        let mut seen = Vec::new();
        while let Some(Some(Ok(change))) = changes.next().now_or_never() {
            seen.push(match change {
                Change::Insert(id, endpoint) => format!("+{id} {}", endpoint.address()),
                Change::Remove(id) => format!("-{id}"),
            });
        }
        seen
    };
    assert_eq!(next().await, ["+a 127.0.0.1:1"]);
    sender.send(insert(endpoint("a", 1).with_weight(5))).unwrap();
    assert_eq!(next().await, [""; 0], "a weight is no news to tower's balancers");
    sender.send(insert(endpoint("a", 2))).unwrap();
    assert_eq!(next().await, ["-a", "+a 127.0.0.1:2"]);
    sender.send(insert(endpoint("a", 2).with_status(Status::Draining))).unwrap();
    assert_eq!(next().await, ["-a"]);
    drop(sender);
    assert_eq!(next().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn tower_s_own_balancer_runs_on_it() {
    use tower::{balance::p2c::Balance, load::Constant, service_fn};

    let (sender, stream) = told();
    let directory = Directory::builder().service("s", stream).build();
    let discover = directory.service("s").discover().map(|change| {
        Ok::<_, Infallible>(match change.unwrap_or_else(|never| match never {}) {
            Change::Insert(id, endpoint) => {
                let port = endpoint.address().port();
                let service = service_fn(move |(): ()| async move { Ok::<_, tower::BoxError>(port) });
                Change::Insert(id, Constant::new(service, 1))
            }
            Change::Remove(id) => Change::Remove(id),
        })
    });
    let mut balance = Balance::new(Box::pin(discover));
    let mut ports = async || {
        pass(Duration::from_millis(100)).await;
        let mut ports = BTreeMap::new();
        for _ in 0..100 {
            *ports.entry(balance.ready().await.unwrap().call(()).await.unwrap()).or_insert(0) += 1;
        }
        ports.into_keys().collect::<Vec<_>>()
    };
    sender.send(insert(endpoint("a", 1))).unwrap();
    sender.send(insert(endpoint("b", 2))).unwrap();
    assert_eq!(ports().await, [1, 2]);
    sender.send(Err("a failure".to_owned())).unwrap();
    sender.send(remove("a")).unwrap();
    sender.send(insert(endpoint("c", 3))).unwrap();
    assert_eq!(ports().await, [2, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_published_is_what_was_told(steps in prop::collection::vec((0u8..8, 0u8..4, any::<bool>()), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (sender, stream) = told();
            let directory = Directory::builder().service("s", stream).build();
            let service = directory.service("s");
            let mut model = BTreeMap::new();
            for (id, what, wait) in steps {
                let id = format!("e{id}");
                let told = match what {
                    0 => { model.remove(&id); remove(&id) }
                    weight => {
                        let endpoint = endpoint(&id, u16::from(weight)).with_weight(u32::from(weight));
                        model.insert(id, endpoint.clone());
                        insert(endpoint)
                    }
                };
                sender.send(told).unwrap();
                if wait {
                    pass(Duration::from_millis(60)).await;
                    let published: Vec<_> = service.snapshot().endpoints().iter().map(|endpoint| (**endpoint).clone()).collect();
                    assert_eq!(published, model.values().cloned().collect::<Vec<_>>());
                }
            }
        });
    }
}
