//! A restart does not begin empty, nor with rubbish.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use hopvine::{
    eureka::InstanceStatus,
    monitor::SnapshotView,
    registry::{By, Registry, RegistryHandle, RegistryPolicy, SnapshotPolicy, StartError, store::Heartbeat},
};

use crate::{
    client::{Client, fresh, registration},
    scripted::{Reply, Server, eventually},
};

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const MILLI: Duration = Duration::from_millis(1);

fn policy() -> RegistryPolicy {
    RegistryPolicy { snapshot: SnapshotPolicy { interval: MILLI, ..SnapshotPolicy::default() }, ..fresh() }
}

async fn start(path: &Path) -> RegistryHandle {
    Registry::builder().policy(policy()).bind(LOCAL).snapshot(path).start().await.unwrap()
}

fn view(registry: &RegistryHandle) -> SnapshotView {
    registry.monitor().snapshot().registries[0].snapshot.clone().unwrap()
}

fn known(registry: &RegistryHandle) -> Vec<String> {
    registry
        .store()
        .all()
        .instances()
        .map(|instance| format!("{} {}", instance.id(), instance.status.as_str()))
        .collect()
}

async fn register(registry: &RegistryHandle, id: &str) {
    let mut client = Client::connect(registry.local_addr()).await;
    let answer = client.post("/eureka/apps/ORDERS", &registration("ORDERS", id, "UP")).await;
    assert_eq!(answer.status, 204);
}

/// What the file says of when things stood so, in milliseconds since 1970.
fn dated(path: &Path) -> u64 {
    let head = fs::read_to_string(path).unwrap();
    let head: serde_json::Value = serde_json::from_str(head.lines().next().unwrap()).unwrap();
    head["saved_at"].as_u64().unwrap()
}

/// A file that a registry left, which knew two instances.
async fn left(folder: &Path) -> PathBuf {
    let path = folder.join("registry.json");
    let registry = start(&path).await;
    register(&registry, "i1").await;
    register(&registry, "i2").await;
    let (store, now) = (registry.store(), registry.now());
    assert!(store.set_status("ORDERS", "i2", InstanceStatus::OutOfService, None, By::Client, now).unwrap());
    registry.shutdown().await;
    path
}

#[tokio::test]
async fn a_restart_begins_with_what_was_known_and_each_has_a_whole_lease() {
    let folder = tempfile::tempdir().unwrap();
    let path = left(folder.path()).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left beside it");

    let registry = start(&path).await;
    assert_eq!(known(&registry), ["i1 UP", "i2 OUT_OF_SERVICE"]);
    let mut client = Client::connect(registry.local_addr()).await;
    assert!(client.get("/eureka/apps").await.body.contains("\"i1\""), "it is served at once");
    let instance = registry.store().instance("ORDERS", "i1", registry.now()).unwrap();
    assert!(instance.lease_info.unwrap().registration_timestamp + 10_000 > registry.now().0);
    // An operator's word outlives the restart, and can be taken back.
    assert_eq!(client.delete("/eureka/apps/ORDERS/i2/status?value=UP").await.status, 200);
    assert_eq!(known(&registry), ["i1 UP", "i2 UP"]);
    // Who lives says so, and is not asked to register again.
    assert_eq!(client.put("/eureka/apps/ORDERS/i1?status=UP&lastDirtyTimestamp=1700000000000").await.status, 200);
    registry.shutdown().await;
}

#[tokio::test]
async fn a_registry_that_restarts_again_and_again_does_not_keep_the_dead_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let path = left(folder.path()).await;
    let age = |minutes: u64| {
        let file = fs::read_to_string(&path).unwrap();
        let at = file.find("\"saved_at\":").unwrap() + "\"saved_at\":".len();
        let end = at + file[at..].find(',').unwrap();
        let saved: u64 = file[at..end].parse().unwrap();
        fs::write(&path, format!("{}{}{}", &file[..at], saved - minutes * 60_000, &file[end..])).unwrap();
    };
    for (minutes, newcomer) in [(6, "i3"), (3, "i4")] {
        age(minutes);
        let registry = start(&path).await;
        register(&registry, newcomer).await;
        registry.shutdown().await;
    }
    // What is known of some is ten minutes old.
    age(2);
    let registry = start(&path).await;
    assert_eq!(known(&registry), [""; 0]);
    drop(registry);

    // Those who were heard of are not taken out with them.
    let path = left(folder.path()).await;
    let registry = start(&path).await;
    assert_eq!(known(&registry).len(), 2);
    let mut short = policy();
    short.snapshot.max_age = MILLI;
    registry.store().policy().set(short).unwrap();
    let mut client = Client::connect(registry.local_addr()).await;
    let written = || view(&registry).age.is_some() && !fs::read_to_string(&path).unwrap().contains("\"i2\"");
    eventually("the silent one is left out", || {
        registry
            .store()
            .register(
                hopvine::eureka::Instance { instance_id: Some("i9".into()), app: "A".into(), ..Default::default() },
                By::Client,
                registry.now(),
            )
            .unwrap();
        registry.store().renew("ORDERS", "i1", Heartbeat::default(), By::Client, registry.now());
        written()
    })
    .await;
    assert_eq!(client.get("/eureka/apps/ORDERS/i2").await.status, 200, "it is still here");
    assert!(fs::read_to_string(&path).unwrap().contains("\"i1\""));
    registry.shutdown().await;
}

#[tokio::test]
async fn peers_know_better_than_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = left(folder.path()).await;
    let peer = Registry::builder().policy(fresh()).bind(LOCAL).start().await.unwrap();
    let url = format!("http://{}/eureka/", peer.local_addr());
    let with_peer = || Registry::builder().policy(policy()).bind(LOCAL).snapshot(&path).peers([&url]).start();
    let registry = with_peer().await.unwrap();
    assert_eq!(known(&registry).len(), 2, "the peer has nothing");
    drop(registry);
    register(&peer, "i3").await;
    let registry = with_peer().await.unwrap();
    assert_eq!(known(&registry), ["i3 UP"]);
    registry.shutdown().await;
    peer.shutdown().await;

    let silent = Server::start(|_| Reply::status(500)).await;
    let registry = Registry::builder().policy(policy()).bind(LOCAL).snapshot(&path).peers([silent.url()]);
    let registry = registry.start().await.unwrap();
    assert_eq!(known(&registry), ["i3 UP"], "written at the last stop");
    drop(registry);
}

#[tokio::test]
async fn a_bad_file_is_set_aside_and_the_registry_starts_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = left(folder.path()).await;
    let good = fs::read_to_string(&path).unwrap();
    let bad = [
        ("cut off", good[..good.len() - 10].to_owned()),
        ("changed", good.replace("10.0.0.1", "10.0.0.9")),
        ("of another version", good.replacen(r#""eureka_snapshot":1"#, r#""eureka_snapshot":2"#, 1)),
        ("empty", String::new()),
        ("no head", "{\n".to_owned()),
        ("another document", "[1]\n[2]".to_owned()),
    ];
    for (what, bad) in bad {
        fs::write(&path, &bad).unwrap();
        let registry = start(&path).await;
        assert_eq!(known(&registry), [""; 0], "{what}");
        assert!(!path.exists(), "{what}");
        let aside = folder.path().join("registry.json.bad");
        assert_eq!(fs::read_to_string(&aside).unwrap(), bad, "{what}");
        register(&registry, "i9").await;
        registry.shutdown().await;
        assert!(fs::read_to_string(&path).unwrap().contains("\"i9\""), "{what}: kept again");
    }
}

#[tokio::test]
async fn a_file_that_is_too_old_is_not_used_and_one_too_long_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = left(folder.path()).await;
    let good = fs::read_to_string(&path).unwrap();
    let at = good.find("\"saved_at\":").unwrap() + "\"saved_at\":".len();
    let end = at + good[at..].find(',').unwrap();
    let saved: u64 = good[at..end].parse().unwrap();
    for (minutes, expected) in [(9, 2), (11, 0)] {
        let older = format!("{}{}{}", &good[..at], saved - minutes * 60_000, &good[end..]);
        fs::write(&path, older).unwrap();
        let registry = start(&path).await;
        assert_eq!(known(&registry).len(), expected, "{minutes} min");
        assert!(path.exists(), "age is no fault");
        drop(registry);
    }
    fs::write(&path, &good).unwrap();
    let mut short = policy();
    short.snapshot.max_bytes = 100;
    let registry = Registry::builder().policy(short).bind(LOCAL).snapshot(&path).start().await.unwrap();
    assert_eq!(known(&registry), [""; 0]);
    registry.shutdown().await;
}

#[tokio::test]
async fn a_crash_while_it_is_written_leaves_the_former_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = left(folder.path()).await;
    let draft = folder.path().join("registry.json.new");
    fs::write(&draft, "half of a new one").unwrap();
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o644)).unwrap();
    let registry = start(&path).await;
    assert_eq!(known(&registry).len(), 2);
    register(&registry, "i3").await;
    registry.shutdown().await;
    assert!(!draft.exists());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let registry = start(&path).await;
    assert_eq!(known(&registry).len(), 3);
    drop(registry);
}

#[tokio::test]
async fn it_is_written_when_something_changed_and_not_each_second() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.json");
    let registry = start(&path).await;
    register(&registry, "i1").await;
    eventually("written", || path.exists() && view(&registry).age.is_some()).await;
    let first = fs::read(&path).unwrap();
    let mut client = Client::connect(registry.local_addr()).await;
    // Heartbeats change nothing that is kept; it would be written each second.
    let quiet = || view(&registry).age.is_some_and(|age| age > 2200 * MILLI);
    client.put("/eureka/apps/ORDERS/i1").await;
    eventually("not written again", quiet).await;
    assert_eq!(fs::read(&path).unwrap(), first);
    register(&registry, "i2").await;
    eventually("written again", || fs::read(&path).unwrap() != first).await;
    registry.shutdown().await;
}

#[tokio::test]
async fn a_disk_that_fails_is_seen_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let path = inner.join("registry.json");
    let registry = start(&path).await;
    fs::remove_dir(&inner).unwrap();
    register(&registry, "i1").await;
    eventually("seen", || view(&registry).error.is_some()).await;
    assert_eq!(known(&registry), ["i1 UP"]);
    fs::create_dir(&inner).unwrap();
    eventually("written after all", || path.exists() && view(&registry).error.is_none()).await;
    registry.shutdown().await;
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_a_wrong_setting() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none/registry.json");
    let wrong = Registry::builder().bind(LOCAL).snapshot(&path).start().await;
    let Err(error @ StartError::Snapshot(..)) = wrong else { panic!("{wrong:?}") };
    assert!(error.to_string().contains("none/registry.json"), "{error}");
    let mut policy = policy();
    policy.snapshot.max_age = Duration::ZERO;
    let wrong = Registry::builder().policy(policy).bind(LOCAL).start().await;
    let Err(StartError::Policy(error)) = wrong else { panic!("{wrong:?}") };
    assert_eq!(error.field(), "snapshot.max_age");
}

#[tokio::test]
async fn a_registry_where_nothing_happened_for_long_does_not_restart_empty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.json");
    let mut short = policy();
    short.snapshot.max_age = Duration::from_secs(4);
    let registry = Registry::builder().policy(short).bind(LOCAL).snapshot(&path).start().await.unwrap();
    register(&registry, "i1").await;
    eventually("written", || path.exists() && view(&registry).age.is_some()).await;
    let first = dated(&path);
    eventually("young again", || dated(&path) > first).await;
    registry.shutdown().await;

    // At the stop it is as young as it can be, however long ago something changed.
    let registry = start(&path).await;
    assert_eq!(known(&registry), ["i1 UP"]);
    registry.store().renew("ORDERS", "i1", Heartbeat::default(), By::Client, registry.now());
    eventually("written", || view(&registry).age.is_some()).await;
    let (stopped, before) = (registry.now().0, dated(&path));
    registry.shutdown().await;
    assert!(dated(&path) + 1000 > stopped && dated(&path) > before, "{stopped} {before} {}", dated(&path));
}

#[tokio::test]
async fn who_registers_while_a_registry_learns_is_on_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = left(folder.path()).await;
    let silent = Server::start(|_| Reply::Never).await;
    let mut slow = policy();
    slow.peers.sync_timeout = Duration::from_millis(500);
    let address = {
        let probe = std::net::TcpListener::bind((std::net::Ipv4Addr::new(127, 77, fastrand::u8(..), 7), 0)).unwrap();
        probe.local_addr().unwrap()
    };
    let starting = Registry::builder().policy(slow).bind(address).snapshot(&path).peers([silent.url()]).start();
    let starting = tokio::spawn(starting);
    eventually("it learns", || silent.count("GET /apps/") == 1).await;
    let mut client = Client::connect(address).await;
    assert_eq!(client.post("/eureka/apps/ORDERS", &registration("ORDERS", "i3", "UP")).await.status, 204);
    let registry = starting.await.unwrap().unwrap();
    assert_eq!(known(&registry).len(), 3);
    eventually("on disk", || fs::read_to_string(&path).is_ok_and(|file| file.contains("\"i3\""))).await;
    registry.shutdown().await;
}

#[tokio::test]
async fn a_folder_under_the_files_name_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("registry.json");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("dear"), "to somebody").unwrap();
    let wrong = Registry::builder().bind(LOCAL).snapshot(&path).start().await;
    let Err(error @ StartError::Snapshot(..)) = wrong else { panic!("{wrong:?}") };
    assert!(error.to_string().contains("is no regular file"), "{error}");
    assert!(path.join("dear").exists());
}
