//! Registries that tell each other: what happens at one is known at all, whatever becomes of the way between them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hopvine::{
    connect::http::Tls,
    eureka::{DataCenterInfo, Instance, InstanceStatus, LeaseInfo, ReplicationResponse, json},
    monitor::PeerView,
    registry::{By, PeerPolicy, Registry, RegistryBuilder, RegistryHandle, RegistryPolicy, ServerTls, StartError},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

use crate::{
    client::{Client, fresh, registration, request},
    scripted::{Reply, Seen, Server, eventually, gzip, orders},
};

const MILLI: Duration = Duration::from_millis(1);
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A policy under which peers hear soon, and are tried again soon.
fn soon() -> RegistryPolicy {
    let peers = PeerPolicy {
        batch_wait: 20 * MILLI,
        busy_wait: 20 * MILLI,
        retry_wait: 20 * MILLI,
        max_retry_wait: 100 * MILLI,
        ..PeerPolicy::default()
    };
    RegistryPolicy { peers, ..fresh() }
}

fn with(change: impl FnOnce(&mut PeerPolicy)) -> RegistryPolicy {
    let mut policy = soon();
    change(&mut policy.peers);
    policy
}

/// An address that nobody else in these tests has, so that it may be named before somebody listens there.
fn address() -> SocketAddr {
    let ip = Ipv4Addr::new(127, fastrand::u8(1..), fastrand::u8(..), fastrand::u8(1..255));
    let socket = std::net::TcpListener::bind((ip, 0)).unwrap();
    socket.local_addr().unwrap()
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/eureka/")
}

fn builder(at: SocketAddr, peers: &[SocketAddr], policy: RegistryPolicy) -> RegistryBuilder {
    Registry::builder().policy(policy).bind(at).peers(peers.iter().map(|peer| url(*peer)))
}

async fn start(at: SocketAddr, peers: &[SocketAddr]) -> RegistryHandle {
    builder(at, peers, soon()).start().await.unwrap()
}

fn view(registry: &RegistryHandle) -> Vec<PeerView> {
    registry.monitor().snapshot().registries[0].peers.clone()
}

fn instance(app: &str, id: &str, dirty: u64) -> Instance {
    Instance {
        instance_id: Some(id.into()),
        host_name: "host1".into(),
        app: app.into(),
        ip_addr: "10.0.0.1".into(),
        data_center_info: Some(DataCenterInfo::MyOwn),
        lease_info: Some(LeaseInfo::default()),
        last_dirty_timestamp: Some(dirty),
        ..Instance::default()
    }
}

fn register(registry: &RegistryHandle, app: &str, id: &str, dirty: u64) {
    registry.store().register(instance(app, id, dirty), By::Client, registry.now()).unwrap();
}

fn beat(registry: &RegistryHandle, app: &str, id: &str) {
    registry.store().renew(app, id, hopvine::registry::store::Heartbeat::default(), By::Client, registry.now());
}

fn get(registry: &RegistryHandle, app: &str, id: &str) -> Option<Arc<Instance>> {
    registry.store().instance(app, id, registry.now())
}

/// What a registry knows, in short.
fn known(registry: &RegistryHandle) -> Vec<String> {
    let all = registry.store().all();
    let one = |instance: &Arc<Instance>| {
        let (status, overridden) = (instance.status.as_str(), instance.overridden_status.as_str());
        let colour = instance.metadata.get("colour").unwrap_or("-");
        format!("{}/{} {status} {overridden} {colour}", instance.app, instance.id())
    };
    all.instances().map(one).collect()
}

/// A way to a registry that can be cut.
struct Gate {
    address: SocketAddr,
    open: Arc<AtomicBool>,
    /// Whether something passes, as of now.
    passes: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Gate {
    async fn before(behind: SocketAddr) -> Self {
        let listener = TcpListener::bind(LOCAL).await.unwrap();
        let (address, open) = (listener.local_addr().unwrap(), Arc::new(AtomicBool::new(true)));
        let passes = Arc::new(AtomicBool::new(true));
        let (is_open, now_passes) = (Arc::clone(&open), Arc::clone(&passes));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                // A cut way ends what is under way.
                let accepted = tokio::time::timeout(5 * MILLI, listener.accept()).await;
                if !is_open.load(Relaxed) {
                    drop(accepted);
                    connections.shutdown().await;
                    now_passes.store(false, Relaxed);
                    continue;
                }
                now_passes.store(true, Relaxed);
                if let Ok(Ok((mut near, _))) = accepted {
                    connections.spawn(async move {
                        let Ok(mut far) = TcpStream::connect(behind).await else { return };
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    });
                }
            }
        });
        Self { address, open, passes, task }
    }

    /// Returns when it is so: what happens after a cut is told to nobody.
    async fn open(&self, open: bool) {
        self.open.store(open, Relaxed);
        eventually("the gate moves", || self.passes.load(Relaxed) == open).await;
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn what_clients_do_at_one_registry_is_known_at_all_and_told_once() {
    let at = [address(), address(), address()];
    let a = start(at[0], &at).await; // each has the same list, with itself in it
    let b = start(at[1], &at).await;
    let c = start(at[2], &at).await;
    assert_eq!(view(&a).len(), 2);
    let mut client = Client::connect(a.local_addr()).await;
    let both = async |what: &str, expected: &[&str]| {
        for other in [&b, &c] {
            eventually(what, || known(other) == expected).await;
        }
    };

    client.post("/eureka/apps/ORDERS", &registration("ORDERS", "i1", "UP")).await;
    both("registered", &["ORDERS/i1 UP UNKNOWN -"]).await;
    let former = get(&b, "ORDERS", "i1").unwrap().lease_info.unwrap().last_renewal_timestamp;
    client.put("/eureka/apps/ORDERS/i1?status=UP&lastDirtyTimestamp=1700000000000").await;
    let renewed = || get(&b, "ORDERS", "i1").unwrap().lease_info.unwrap().last_renewal_timestamp > former;
    eventually("heard of", renewed).await;
    client.put("/eureka/apps/ORDERS/i1/status?value=OUT_OF_SERVICE").await;
    both("overridden", &["ORDERS/i1 OUT_OF_SERVICE OUT_OF_SERVICE -"]).await;
    client.put("/eureka/apps/ORDERS/i1/metadata?colour=blue").await;
    both("metadata", &["ORDERS/i1 OUT_OF_SERVICE OUT_OF_SERVICE blue"]).await;
    client.delete("/eureka/apps/ORDERS/i1/status?value=UP").await;
    both("no longer overridden", &["ORDERS/i1 UP UNKNOWN blue"]).await;
    client.delete("/eureka/apps/ORDERS/i1").await;
    both("left", &[]).await;

    eventually("answers are counted", || view(&a).iter().all(|peer| peer.sent == 6)).await;
    for told in [view(&b), view(&c)] {
        assert!(told.iter().all(|peer| peer.sent + peer.failed == 0), "told again: {told:?}");
    }
    assert!(view(&a).iter().all(|peer| peer.reachable_for.is_some() && peer.error.is_none() && peer.queued == 0));
    for registry in [a, b, c] {
        registry.shutdown().await;
    }
}

#[tokio::test]
async fn of_two_that_know_an_instance_differently_the_newer_is_believed_by_both() {
    let at = [address(), address()];
    let (a, b) = (start(at[0], &at).await, start(at[1], &at).await);
    let by_peer = |registry: &RegistryHandle, id: &str, dirty| {
        registry.store().register(instance("ORDERS", id, dirty), By::Peer, registry.now()).unwrap();
    };
    // What a peer says is not told on, so they differ.
    by_peer(&a, "older", 1);
    by_peer(&b, "older", 2);
    b.store().set_status("ORDERS", "older", InstanceStatus::OutOfService, None, By::Peer, b.now()).unwrap();
    by_peer(&a, "newer", 2);
    by_peer(&b, "newer", 1);
    by_peer(&a, "unknown", 1);
    for id in ["older", "newer", "unknown"] {
        beat(&a, "ORDERS", id);
    }
    let dirty = |registry: &RegistryHandle, id: &str| {
        get(registry, "ORDERS", id).and_then(|instance| instance.last_dirty_timestamp)
    };
    eventually("the peer's is taken", || dirty(&a, "older") == Some(2)).await;
    eventually("with its override", || get(&a, "ORDERS", "older").unwrap().status == InstanceStatus::OutOfService)
        .await;
    eventually("ours is told", || dirty(&b, "newer") == Some(2) && dirty(&b, "unknown") == Some(1)).await;
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn an_echo_of_a_heartbeat_does_not_undo_what_happened_meanwhile() {
    let echo = |seen: &Seen| {
        let answer = |item: &serde_json::Value| {
            let is_heartbeat = item["action"] == "Heartbeat";
            let instance = is_heartbeat.then(|| Arc::new(instance("ORDERS", "i1", 1)));
            ReplicationResponse { status_code: if is_heartbeat { 409 } else { 200 }, instance }
        };
        let answers: Vec<_> = operations(&seen.body).iter().map(answer).collect();
        let mut document = Vec::new();
        json::write_replication_responses(&answers, &mut document);
        Reply::json(String::from_utf8(document).unwrap())
    };
    let server = Server::start(move |seen| if seen.body.is_empty() { Reply::status(404) } else { echo(seen) }).await;
    let a = builder(LOCAL, &[server.address], soon()).start().await.unwrap();
    register(&a, "ORDERS", "i1", 1);
    let blue = vec![("colour".to_owned(), "blue".to_owned())];
    assert_eq!(a.store().add_metadata("ORDERS", "i1", blue, By::Client, a.now()), Ok(true));
    beat(&a, "ORDERS", "i1");
    eventually("answered", || told(&server).contains(&"Heartbeat i1".to_owned()) && view(&a)[0].sent >= 2).await;
    assert_eq!(known(&a), ["ORDERS/i1 UP UNKNOWN blue"]);
    // One that left does not come back by it either.
    beat(&a, "ORDERS", "i1");
    a.store().cancel("ORDERS", "i1", By::Client, a.now());
    eventually("left", || told(&server).contains(&"Cancel i1".to_owned()) && view(&a)[0].queued == 0).await;
    let sent = view(&a)[0].sent;
    register(&a, "STOCK", "i2", 1);
    eventually("the next", || view(&a)[0].sent > sent && told(&server).contains(&"Register i2".to_owned())).await;
    assert_eq!(known(&a), ["STOCK/i2 UP UNKNOWN -"]);
    a.shutdown().await;
}

#[tokio::test]
async fn a_peer_that_comes_back_empty_is_full_again_after_one_round_of_heartbeats() {
    let at = [address(), address()];
    let (a, b) = (start(at[0], &at[1..]).await, start(at[1], &[]).await);
    for id in ["i1", "i2"] {
        register(&a, "ORDERS", id, 1);
    }
    eventually("told", || known(&b).len() == 2).await;
    b.shutdown().await;
    beat(&a, "ORDERS", "i1");
    eventually("failing", || view(&a)[0].failing_for.is_some()).await;
    let down = view(&a).remove(0);
    assert!(down.error.is_some() && down.reachable_for.is_none(), "{down:?}");
    register(&a, "ORDERS", "i3", 1);

    let b = start(at[1], &[]).await;
    beat(&a, "ORDERS", "i2");
    eventually("back", || known(&b).len() == 3).await;
    eventually("seen to be back", || view(&a)[0].reachable_for.is_some()).await;
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn what_could_not_be_told_in_time_or_found_no_room_is_told_when_the_peer_can_be_reached() {
    let b = start(LOCAL, &[]).await;
    let gate = Gate::before(b.local_addr()).await;
    let policy = with(|peers| {
        peers.queue = 40;
        peers.batch_items = 10;
        peers.task_time = 100 * MILLI;
    });
    let a = builder(LOCAL, &[gate.address], policy).start().await.unwrap();
    for number in 0..30 {
        register(&a, "ORDERS", &format!("i{number}"), 1);
    }
    let set = |id: &str| a.store().set_status("ORDERS", id, InstanceStatus::OutOfService, None, By::Client, a.now());
    set("i1").unwrap();
    eventually("told", || known(&a) == known(&b)).await;

    gate.open(false).await;
    for number in 0..10 {
        a.store().cancel("ORDERS", &format!("i{number}"), By::Client, a.now());
        a.store()
            .set_status("ORDERS", &format!("i{}", number + 10), InstanceStatus::Down, None, By::Client, a.now())
            .unwrap();
        let blue = vec![("colour".to_owned(), "blue".to_owned())];
        a.store().add_metadata("ORDERS", &format!("i{}", number + 20), blue, By::Client, a.now()).unwrap();
    }
    register(&a, "ORDERS", "i1", 1); // left with its override, and is back without
    for number in 0..30 {
        register(&a, "STOCK", &format!("i{number}"), 1);
    }
    let debts = || {
        let peer = view(&a).remove(0);
        peer.queued == 0 && peer.owed > 50 && peer.failing_for.is_some()
    };
    eventually("too old, or without room", debts).await;
    assert_eq!(view(&a)[0].dropped, 0);
    assert_ne!(known(&a), known(&b));

    gate.open(true).await;
    eventually("told after all", || known(&a) == known(&b)).await;
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn what_is_more_than_a_peer_takes_at_once_is_told_in_parts() {
    let mut policy = soon();
    policy.limits.batch_bytes = 100_000;
    let b = builder(LOCAL, &[], policy.clone()).start().await.unwrap();
    let a = builder(LOCAL, &[b.local_addr()], policy).start().await.unwrap();
    let text = "x".repeat(8000);
    for number in 0..100 {
        let mut large = instance("ORDERS", &format!("i{number}"), 1);
        large.metadata = [("a", text.clone()), ("b", text.clone()), ("c", text.clone())].into_iter().collect();
        a.store().register(large, By::Client, a.now()).unwrap();
    }
    eventually("told", || known(&a) == known(&b)).await;
    eventually("answers are counted", || view(&a)[0].sent == 100).await;
    assert_eq!(view(&a)[0].failed, 0);
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn a_stop_tells_peers_what_they_were_not_told_yet() {
    let b = start(LOCAL, &[]).await;
    let a = builder(LOCAL, &[b.local_addr()], with(|peers| peers.batch_wait = 20_000 * MILLI)).start().await.unwrap();
    register(&a, "ORDERS", "i1", 1);
    register(&a, "ORDERS", "i2", 1);
    a.store().cancel("ORDERS", "i2", By::Client, a.now());
    assert_eq!(known(&b), [""; 0]);
    a.shutdown().await;
    assert_eq!(known(&b), ["ORDERS/i1 UP UNKNOWN -"]);
    b.shutdown().await;
}

#[tokio::test]
async fn evictions_are_not_told_since_peers_have_leases_of_their_own() {
    let server = Server::start(|seen| Reply::json(answers(&seen.body))).await;
    let mut policy = soon();
    policy.self_preservation = false;
    policy.eviction_interval = 10 * MILLI;
    let a = builder(LOCAL, &[server.address], policy).start().await.unwrap();
    let mut short = instance("ORDERS", "i1", 1);
    short.lease_info = Some(LeaseInfo { duration_in_secs: 1, ..LeaseInfo::default() });
    a.store().register(short, By::Client, a.now()).unwrap();
    eventually("evicted", || known(&a).is_empty()).await;
    register(&a, "ORDERS", "i2", 1);
    a.store().cancel("ORDERS", "i2", By::Client, a.now());
    eventually("the next is told", || told(&server).contains(&"Cancel i2".to_owned())).await;
    assert_eq!(told(&server), ["Register i1", "Register i2", "Cancel i2"]);
    a.shutdown().await;
}

/// A peer's answer to a batch: all went well.
fn answers(batch: &str) -> String {
    let items = operations(batch).len();
    format!(r#"{{"responseList":[{}]}}"#, vec![r#"{"statusCode":200}"#; items].join(","))
}

fn operations(batch: &str) -> Vec<serde_json::Value> {
    let batch: serde_json::Value = serde_json::from_str(batch).unwrap_or_default();
    batch["replicationList"].as_array().cloned().unwrap_or_default()
}

/// What a scripted peer was told: `Register i1`.
fn told(server: &Server) -> Vec<String> {
    let batches = server.seen().into_iter().filter(|seen| seen.path.contains("peerreplication"));
    let one =
        |item: serde_json::Value| format!("{} {}", item["action"].as_str().unwrap(), item["id"].as_str().unwrap());
    batches.flat_map(|seen| operations(&seen.body)).map(one).collect()
}

#[tokio::test]
async fn a_registry_starts_with_what_a_peer_knows_and_tells_nobody_of_it() {
    let at = [address(), address()];
    let a = builder(at[0], &at, soon()).start().await.unwrap();
    register(&a, "ORDERS", "i1", 1);
    register(&a, "STOCK", "i2", 1);
    a.store().set_status("STOCK", "i2", InstanceStatus::OutOfService, None, By::Client, a.now()).unwrap();

    let b = builder(at[1], &at, soon()).start().await.unwrap();
    assert_eq!(known(&b), ["ORDERS/i1 UP UNKNOWN -", "STOCK/i2 OUT_OF_SERVICE OUT_OF_SERVICE -"]);
    let lease = get(&b, "ORDERS", "i1").unwrap().lease_info.unwrap();
    assert_eq!(lease.duration_in_secs, 90);
    assert!(lease.registration_timestamp >= b.now().0 - 10_000, "a whole new lease: {lease:?}");
    assert_eq!(b.store().counted().expected, 2);
    let told = view(&b);
    assert_eq!((told.len(), told[0].sent, told[0].queued), (1, 0, 0), "nothing of it is told back");
    // The override is one that can be taken back.
    assert!(b.store().clear_status("STOCK", "i2", InstanceStatus::Up, None, By::Client, b.now()));
    eventually("at both", || known(&a)[1] == "STOCK/i2 UP UNKNOWN -").await;
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn all_peers_are_asked_until_one_has_something() {
    let empty = start(LOCAL, &[]).await;
    let broken = Server::start(|_| Reply::json("{")).await;
    let bomb = Server::start(|_| Reply::gzip(vec![b' '; 1 << 20])).await;
    let full = Server::start(|_| Reply::json(orders(&[1, 2]))).await;
    let peers = [address(), empty.local_addr(), broken.address, bomb.address, full.address];
    let valid = orders(&[1, 2]).replace(
        r#""port":"#,
        r#""dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},"port":"#,
    );
    full.script(move |_| Reply::json(valid.clone()));
    let registry = builder(LOCAL, &peers, with(|peers| peers.sync_bytes = 100_000)).start().await.unwrap();
    assert_eq!(known(&registry), ["ORDERS/orders-1 UP UNKNOWN -", "ORDERS/orders-2 UP UNKNOWN -"]);
    assert_eq!(full.lines(), ["GET /apps/"]);
    registry.shutdown().await;
    empty.shutdown().await;
}

#[tokio::test]
async fn one_instance_beyond_the_limits_does_not_cost_a_start_the_others() {
    let of = |id: &str, host: &str| registration("ORDERS", id, "UP").replace("host1", host);
    let inner = |instance: String| instance[r#"{"instance":"#.len()..instance.len() - 1].to_owned();
    let instances = [inner(of("i1", "host1")), inner(of("i2", &"x".repeat(9000)))].join(",");
    let list = format!(r#"{{"applications":{{"application":[{{"name":"ORDERS","instance":[{instances}]}}]}}}}"#);
    let peer = Server::start(move |_| Reply::json(list.clone())).await;
    let registry = builder(LOCAL, &[peer.address], soon()).start().await.unwrap();
    assert_eq!(known(&registry), ["ORDERS/i1 UP UNKNOWN -"]);
    assert_eq!(registry.store().counters().view().refused_documents, 1);
    registry.shutdown().await;
}

#[tokio::test]
async fn registries_that_start_at_once_do_not_wait_for_each_other() {
    let at = [address(), address()];
    let began = Instant::now();
    let (a, b) = tokio::join!(start(at[0], &at), start(at[1], &at));
    assert!(began.elapsed() < PeerPolicy::default().sync_timeout, "{:?}", began.elapsed());
    for registry in [&a, &b] {
        let mut client = Client::connect(registry.local_addr()).await;
        assert_eq!(client.get("/eureka/apps").await.status, 200);
    }
    register(&a, "ORDERS", "i1", 1);
    eventually("told", || known(&b).len() == 1).await;
    a.shutdown().await;
    b.shutdown().await;
}

#[tokio::test]
async fn nobody_reads_an_empty_list_while_a_registry_is_still_learning() {
    let silent = Server::start(|_| Reply::Never).await;
    let (at, before) = (address(), Instant::now());
    let policy = with(|peers| {
        peers.sync_timeout = 2000 * MILLI;
        peers.sync_retries = 1;
        peers.sync_retry_wait = 10 * MILLI;
        peers.empty_wait = 1000 * MILLI;
    });
    let starting = tokio::spawn(builder(at, &[silent.address], policy).start());
    eventually("it is asked", || silent.count("GET /apps/") > 0).await;
    let mut client = Client::connect(at).await;
    for path in ["/eureka/apps", "/eureka/apps/delta", "/eureka/apps/ORDERS", "/eureka/vips/orders"] {
        assert_eq!(client.get(path).await.status, 403, "{path}");
    }
    let watch = client.get("/hopvine/v1/watch").await;
    assert_eq!((watch.status, watch.header("retry-after")), (503, Some("1")));
    // Who is there is told at once, and so is known when the lists open.
    assert_eq!(client.post("/eureka/apps/ORDERS", &registration("ORDERS", "i1", "UP")).await.status, 204);
    assert_eq!(client.get("/eureka/apps/ORDERS/i1").await.status, 200);

    let registry = starting.await.unwrap().unwrap();
    assert!(before.elapsed() >= 4000 * MILLI, "both tries were waited for: {:?}", before.elapsed());
    assert_eq!(silent.count("GET /apps/"), 2);
    // It learned nothing.
    let refused = client.get("/eureka/apps").await.status;
    assert!(refused == 403 || before.elapsed() > 5000 * MILLI, "{refused}");
    let mut status = refused;
    while status == 403 && before.elapsed() < 20_000 * MILLI {
        status = client.get("/eureka/apps").await.status;
    }
    assert_eq!(status, 200);
    assert!(before.elapsed() >= 5000 * MILLI);
    registry.shutdown().await;
}

#[tokio::test]
async fn who_leaves_while_a_registry_is_still_learning_does_not_come_back() {
    let one = |id: &str| {
        let instance = registration("ORDERS", id, "UP");
        instance[r#"{"instance":"#.len()..instance.len() - 1].to_owned()
    };
    let instances: Vec<_> = ["i1", "i2", "i3", "i4", "i5"].map(one).to_vec();
    let list = instances.join(",");
    let list = format!(r#"{{"applications":{{"application":[{{"name":"ORDERS","instance":[{list}]}}]}}}}"#);
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let mut receiver = Some(receiver);
    let peer = Server::start(move |seen| {
        if let Some(receiver) = receiver.take_if(|_| seen.path.ends_with("/apps/")) {
            return Reply::Push(receiver);
        }
        let answers = vec![r#"{"statusCode":200}"#; seen.body.matches("appName").count()];
        Reply::json(format!(r#"{{"responseList":[{}]}}"#, answers.join(",")))
    });
    let peer = peer.await;
    let at = address();
    let starting = tokio::spawn(builder(at, &[peer.address], soon()).start());
    eventually("it learns", || peer.count("GET /apps/") == 1).await;
    let mut client = Client::connect(at).await;
    // One of whom nothing is known here yet; one who came and went; one who came back; one of whom a peer tells.
    assert_eq!(client.delete("/eureka/apps/ORDERS/i1").await.status, 404);
    for id in ["i2", "i3"] {
        assert_eq!(client.post("/eureka/apps/ORDERS", &registration("ORDERS", id, "UP")).await.status, 204);
        assert_eq!(client.delete(&format!("/eureka/apps/ORDERS/{id}")).await.status, 200);
    }
    assert_eq!(client.post("/eureka/apps/ORDERS", &registration("ORDERS", "i3", "UP")).await.status, 204);
    let batch = r#"{"replicationList":[{"appName":"ORDERS","id":"i4","action":"Cancel"}]}"#;
    assert_eq!(client.post("/eureka/peerreplication/batch/", batch).await.status, 200);
    sender.send(list).unwrap();
    drop(sender);
    let registry = starting.await.unwrap().unwrap();
    assert_eq!(known(&registry), ["ORDERS/i3 UP UNKNOWN -", "ORDERS/i5 UP UNKNOWN -"]);
    eventually("the peer is told", || told(&peer).contains(&"Cancel i1".to_owned())).await;
    assert!(!told(&peer).contains(&"Cancel i4".to_owned()), "{:?}", told(&peer));
    // Later, who is not here is nobody's business.
    assert_eq!(client.delete("/eureka/apps/ORDERS/i9").await.status, 404);
    registry.shutdown().await;
    assert!(!told(&peer).contains(&"Cancel i9".to_owned()), "{:?}", told(&peer));
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing_behind() {
    let silent = Server::start(|_| Reply::Never).await;
    let at = address();
    let given_up = tokio::time::timeout(200 * MILLI, builder(at, &[silent.address], soon()).start()).await;
    assert!(given_up.is_err());
    let free = async || TcpListener::bind(at).await.is_ok();
    let end = Instant::now() + 10_000 * MILLI;
    while !free().await {
        assert!(Instant::now() < end, "still listening");
        tokio::task::yield_now().await;
    }
}

type Answers = Box<dyn FnMut() -> Reply + Send>;

/// What a peer may do instead of answering well.
fn bad_peers() -> Vec<(&'static str, Answers)> {
    let push = |part: String, pause: Duration| {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            while sender.send(part.clone()).is_ok() {
                tokio::time::sleep_until(Instant::now() + pause).await;
            }
        });
        Reply::Push(receiver)
    };
    let bomb = gzip(&vec![b' '; 5 << 20]);
    let packed = ("content-encoding", "gzip".to_owned());
    let many = format!(r#"{{"responseList":[{}]}}"#, [r#"{"statusCode":200}"#; 999].join(","));
    let elsewhere = ("location", "http://127.0.0.1:1/".to_owned());
    vec![
        ("garbage", Box::new(|| Reply::json("<html>no</html>"))),
        ("another document", Box::new(|| Reply::json(orders(&[1])))),
        ("never", Box::new(|| Reply::Never)),
        ("byte by byte", Box::new(move || push("{".to_owned(), 20 * MILLI))),
        ("without end", Box::new(move || push("[".repeat(1 << 16), MILLI))),
        ("a bomb", Box::new(move || Reply::Whole(200, vec![packed.clone()], bomb.clone()))),
        ("busy", Box::new(|| Reply::status(503))),
        ("refusing", Box::new(|| Reply::status(401))),
        ("no answers", Box::new(|| Reply::json(r#"{"responseList":[]}"#))),
        ("too many answers", Box::new(move || Reply::json(many.clone()))),
        ("elsewhere", Box::new(move || Reply::Whole(302, vec![elsewhere.clone()], Vec::new()))),
    ]
}

#[tokio::test]
async fn a_peer_that_answers_badly_costs_nothing_but_its_queue() {
    let good = start(LOCAL, &[]).await;
    let mut peers = vec![good.local_addr()];
    let mut servers = Vec::new();
    let mut names = Vec::new();
    for (name, mut reply) in bad_peers() {
        names.push(name);
        let server =
            Server::start(move |seen| if seen.path.ends_with("/apps/") { Reply::status(404) } else { reply() }).await;
        peers.push(server.address);
        servers.push(server);
    }
    let policy = with(|peers| {
        peers.queue = 50;
        peers.request_timeout = 1000 * MILLI;
        peers.task_time = 10_000 * MILLI;
    });
    let registry = builder(LOCAL, &peers, policy).start().await.unwrap();
    for number in 0..200 {
        register(&registry, "ORDERS", &format!("i{number}"), 1);
    }
    for number in 0..100 {
        registry.store().cancel("ORDERS", &format!("i{number}"), By::Client, registry.now());
    }
    eventually("the good one is told", || known(&good) == known(&registry)).await;
    let failing =
        |peer: &PeerView| peer.failing_for.is_some() && peer.error.as_ref().is_some_and(|error| error.len() < 1000);
    eventually("the others are seen to fail", || view(&registry)[1..].iter().all(failing)).await;
    let told = view(&registry);
    assert!(told[0].reachable_for.is_some(), "{:?}", told[0]);
    for (peer, what) in told[1..].iter().zip(names) {
        assert!(peer.queued <= 50 && peer.owed <= 200 && peer.sent == 0, "{what}: {peer:?}");
    }
    // A stop does not wait for them.
    let before = Instant::now();
    registry.shutdown().await;
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
    good.shutdown().await;
}

#[tokio::test]
async fn a_departure_is_not_lost_by_a_peer_that_answers_with_errors_for_a_while() {
    for status in [500, 502, 429, 401, 403] {
        let peer =
            Server::start(move |seen| Reply::status(if seen.path.ends_with("/apps/") { 404 } else { status })).await;
        let registry = builder(LOCAL, &[peer.address], soon()).start().await.unwrap();
        register(&registry, "ORDERS", "i1", 1);
        eventually("not taken", || view(&registry)[0].failing_for.is_some()).await;
        registry.store().cancel("ORDERS", "i1", By::Client, registry.now());
        let tries = peer.seen().len();
        eventually("not taken either", || peer.seen().len() > tries + 1).await;
        peer.script(|seen| {
            let answers = vec![r#"{"statusCode":200}"#; seen.body.matches("appName").count()];
            Reply::json(format!(r#"{{"responseList":[{}]}}"#, answers.join(",")))
        });
        let is_told = || told(&peer).last().is_some_and(|last| last == "Cancel i1");
        eventually("told after all", || is_told() && view(&registry)[0].owed == 0).await;
        registry.shutdown().await;
    }
}

#[tokio::test]
async fn an_answer_longer_than_a_batch_may_be_is_read_and_the_batch_not_repeated() {
    let answer = |status: u16| format!(r#"{{"statusCode":{status},"x":"{}"}}"#, "x".repeat(8000));
    let peer = Server::start(move |seen| {
        let answers = vec![answer(200); seen.body.matches("appName").count()];
        Reply::json(format!(r#"{{"responseList":[{}]}}"#, answers.join(",")))
    })
    .await;
    let mut policy = soon();
    policy.limits.batch_bytes = 4096;
    let registry = builder(LOCAL, &[peer.address], policy).start().await.unwrap();
    for number in 0..20 {
        register(&registry, "ORDERS", &format!("i{number}"), 1);
    }
    eventually("told", || view(&registry)[0].sent == 20).await;
    assert_eq!(told(&peer).len(), 20, "each once");
    let batches = peer.seen().into_iter().filter(|seen| seen.path.contains("peerreplication"));
    assert!(batches.into_iter().all(|seen| seen.body.len() <= 4096));
    registry.shutdown().await;
}

#[tokio::test]
async fn a_peers_credentials_go_to_it_alone_and_are_shown_nowhere() {
    let b = Registry::builder().policy(soon()).bind(LOCAL).credential("ann", "client").peer_credential("bob", "s3cret");
    let b = b.start().await.unwrap();
    let with = |credential: &str| {
        let url = format!("http://{credential}@{}/eureka/", b.local_addr());
        Registry::builder().policy(soon()).bind(LOCAL).peers([url]).start()
    };
    let a = with("bob:s3cret").await.unwrap();
    register(&a, "ORDERS", "i1", 1);
    eventually("told", || known(&b).len() == 1).await;
    let shown = format!("http://***@{}/eureka/", b.local_addr());
    assert_eq!(view(&a)[0].url, shown);
    eventually("reachable", || view(&a)[0].reachable_for.is_some()).await;
    let status = Client::connect(a.local_addr()).await.get("/eureka/status").await.body;
    assert!(status.contains(&format!(r#""available-replicas":"{shown},""#)), "{status}");
    assert!(!format!("{a:?} {:?}", view(&a)).contains("s3cret"));

    let stranger = with("bob:wrong").await.unwrap();
    register(&stranger, "ORDERS", "i2", 1);
    eventually("refused", || view(&stranger)[0].error.is_some() && view(&stranger)[0].owed == 1).await;
    let refused = view(&stranger).remove(0);
    assert!(refused.error.as_ref().unwrap().contains("401"), "{refused:?}");
    for registry in [a, b, stranger] {
        registry.shutdown().await;
    }
}

#[tokio::test]
async fn peers_may_talk_over_tls_and_show_their_certificates() {
    let key = || rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = rcgen::CertifiedIssuer::self_signed(parameters, key()).unwrap();
    let issue = |name: &str| {
        let key = key();
        let certificate =
            rcgen::CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (certificate, key) = issue("localhost");
    let tls = ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap();
    let tls = tls.client_roots(authority.pem().as_bytes()).unwrap();
    let b = builder(LOCAL, &[], soon()).tls(tls).start().await.unwrap();
    register(&b, "STOCK", "i1", 1);

    let peer = format!("https://localhost:{}/eureka/", b.local_addr().port());
    let (certificate, key) = issue("registry");
    let roots = Tls::pem_roots(authority.pem().as_bytes()).unwrap();
    let own = roots.clone().client_certificate(certificate.as_bytes(), key.as_bytes()).unwrap();
    let start = |tls| Registry::builder().policy(soon()).bind(LOCAL).peers([&peer]).peer_tls(tls).start();
    let a = start(own).await.unwrap();
    assert_eq!(known(&a), ["STOCK/i1 UP UNKNOWN -"]);
    register(&a, "ORDERS", "i1", 1);
    eventually("told", || known(&b).len() == 2).await;

    let nobody = start(roots).await.unwrap();
    assert_eq!(known(&nobody), [""; 0]);
    register(&nobody, "ORDERS", "i2", 1);
    eventually("refused", || view(&nobody)[0].failing_for.is_some()).await;
    for registry in [a, b, nobody] {
        registry.shutdown().await;
    }
}

#[tokio::test]
async fn a_wrong_peer_is_told_by_name_and_a_password_is_not() {
    let wrong = Registry::builder().bind(LOCAL).peers(["http://a:1/eureka/, ftp://ann:s3cret@b:1/"]).start().await;
    let Err(StartError::Peers(error)) = wrong else { panic!("{wrong:?}") };
    assert_eq!(error.field(), "url");
    assert!(!error.to_string().contains("s3cret"));
    let wrong = Registry::builder().bind(LOCAL).my_url("here").start().await;
    assert!(matches!(wrong, Err(StartError::Peers(_))), "{wrong:?}");
    for (policy, field) in [
        (with(|peers| peers.batch_items = 0), "peers.batch_items"),
        (with(|peers| peers.batch_wait = 40_000 * MILLI), "peers.batch_wait"),
        (with(|peers| peers.request_timeout = Duration::ZERO), "peers.request_timeout"),
    ] {
        let wrong = builder(LOCAL, &[], policy).start().await;
        let Err(StartError::Policy(error)) = wrong else { panic!("{wrong:?}") };
        assert_eq!(error.field(), field);
    }
}

#[tokio::test]
async fn an_instance_whose_watch_broke_is_out_at_the_peers_too() {
    let b = start(LOCAL, &[]).await;
    let mut policy = soon();
    policy.expel_on_disconnect = true;
    policy.suspicion = 50 * MILLI;
    let a = builder(LOCAL, &[b.local_addr()], policy).start().await.unwrap();
    for id in ["i1", "i2", "i3"] {
        register(&a, "ORDERS", id, 1);
    }
    eventually("told", || known(&b).len() == 3).await;
    let mut watching = Client::connect(a.local_addr()).await;
    watching.write(&request("GET", "/hopvine/v1/watch?instance=ORDERS/i1", &[], "")).await;
    assert_eq!(watching.read_head().await.status, 200);
    drop(watching);
    eventually("out at both", || known(&a).len() == 2 && known(&b).len() == 2).await;
    assert!(get(&b, "ORDERS", "i1").is_none());
    a.shutdown().await;
    b.shutdown().await;
}
