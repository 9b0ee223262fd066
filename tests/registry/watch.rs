//! Push: whoever watches learns of each change at once, and an instance whose watch breaks is out in seconds.

use std::time::Duration;

use hopvine::{
    eureka::{ActionType, Applications, Instance, Limits, json},
    registry::{By, RegistryHandle, RegistryPolicy},
};
use tokio::time::Instant;

use crate::client::{Client, PATIENCE, fresh, registration, request, start};

/// A watch, and what it has read and not yet given.
struct Watch {
    client: Client,
    read: Vec<u8>,
}

impl Watch {
    async fn begin(registry: &RegistryHandle, query: &str) -> (Self, String) {
        let mut client = Client::connect(registry.local_addr()).await;
        client.write(&request("GET", &format!("/hopvine/v1/watch{query}"), &[], "")).await;
        let head = client.read_head().await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("application/x-ndjson")));
        let mut watch = Self { client, read: Vec::new() };
        let first = watch.line().await.unwrap();
        (watch, first)
    }

    /// The next line that says something; `None` if the watch has ended.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let line = String::from_utf8(line).unwrap().trim().to_owned();
                if line.is_empty() {
                    continue;
                }
                return Some(line);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.client.chunk()).await.expect("a line in time")?;
            self.read.extend(chunk);
        }
    }

    /// The next changes: `ORDERS/i1 ADDED UP`, with the hash.
    async fn changes(&mut self) -> (Vec<String>, String) {
        let line = self.line().await.expect("a line");
        let delta = json::read_applications(line.as_bytes(), &Limits::default()).unwrap();
        (told(&delta), delta.hash.to_string())
    }

    /// Reads until this was told.
    async fn until(&mut self, change: &str) {
        while !self.changes().await.0.iter().any(|told| told == change) {}
    }
}

fn told(delta: &Applications) -> Vec<String> {
    let one = |instance: &hopvine::eureka::Instance| {
        let action = instance.action_type.map_or("", ActionType::as_str);
        format!("{}/{} {action} {}", instance.app, instance.id(), instance.status)
    };
    delta.instances().map(|instance| one(instance)).collect()
}

async fn register(client: &mut Client, app: &str, id: &str) {
    assert_eq!(client.post(&format!("/eureka/apps/{app}"), &registration(app, id, "UP")).await.status, 204);
}

/// Waits until this holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::task::yield_now().await;
    }
}

fn pushed() -> RegistryPolicy {
    RegistryPolicy { expel_on_disconnect: true, suspicion: Duration::from_millis(200), ..fresh() }
}

#[tokio::test]
async fn each_change_is_told_with_the_hash_of_all() {
    let registry = start(RegistryPolicy::default()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    let (mut watch, first) = Watch::begin(&registry, "").await;
    assert_eq!(first, r#"{"version":0,"apps__hashcode":""}"#);
    register(&mut client, "ORDERS", "i1").await;
    assert_eq!(watch.changes().await, (vec!["ORDERS/i1 ADDED UP".to_owned()], "UP_1_".to_owned()));
    client.put("/eureka/apps/ORDERS/i1/status?value=OUT_OF_SERVICE").await;
    let (told, hash) = watch.changes().await;
    assert_eq!((told, &*hash), (vec!["ORDERS/i1 MODIFIED OUT_OF_SERVICE".to_owned()], "OUT_OF_SERVICE_1_"));
    client.delete("/eureka/apps/ORDERS/i1").await;
    assert_eq!(watch.changes().await, (vec!["ORDERS/i1 DELETED OUT_OF_SERVICE".to_owned()], String::new()));
    registry.shutdown().await;
}

#[tokio::test]
async fn a_copy_kept_by_lines_is_the_registry() {
    let registry = start(RegistryPolicy { render_interval: Duration::from_millis(5), ..fresh() }).await;
    let mut client = Client::connect(registry.local_addr()).await;
    let (mut watch, _) = Watch::begin(&registry, "").await;
    let mut copy = Applications::default();
    for number in 0..60 {
        register(&mut client, ["A", "B", "C"][number % 3], &format!("i{}", number % 20)).await;
        if number % 4 == 3 {
            client.delete(&format!("/eureka/apps/{}/i{}", ["A", "B", "C"][number % 3], number % 20)).await;
        }
    }
    register(&mut client, "LAST", "i").await;
    while copy.application("LAST").is_none() {
        let line = watch.line().await.unwrap();
        let delta = json::read_applications(line.as_bytes(), &Limits::default()).unwrap();
        assert!(copy.apply(&delta), "whole after each line");
    }
    let ids = |all: &Applications| {
        let mut ids: Vec<_> = all.instances().map(|it| format!("{}/{}", it.app, it.id())).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&copy), ids(&registry.store().all()));
    registry.shutdown().await;
}

#[tokio::test]
async fn what_changed_just_before_is_told_too_since_a_document_may_not_show_it_yet() {
    let policy = RegistryPolicy { render_interval: Duration::from_secs(60), ..RegistryPolicy::default() };
    let registry = start(policy).await;
    let mut client = Client::connect(registry.local_addr()).await;
    client.get("/eureka/apps").await;
    register(&mut client, "ORDERS", "i1").await;
    let (mut watch, _) = Watch::begin(&registry, "").await;
    assert!(!client.get("/eureka/apps").await.body.contains("i1"), "old, as the interval allows");
    watch.until("ORDERS/i1 ADDED UP").await;
    registry.shutdown().await;
}

#[tokio::test]
async fn a_watcher_of_some_applications_hears_of_no_others() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    let (mut watch, _) = Watch::begin(&registry, "?app=stock&app=ORDERS").await;
    for (app, id) in [("CATALOG", "c"), ("STOCK", "s"), ("CATALOG", "d"), ("ORDERS", "o")] {
        register(&mut client, app, id).await;
    }
    let mut heard = Vec::new();
    while !heard.contains(&"ORDERS/o ADDED UP".to_owned()) {
        heard.extend(watch.changes().await.0);
    }
    heard.dedup();
    assert_eq!(heard, ["STOCK/s ADDED UP", "ORDERS/o ADDED UP"]);
    registry.shutdown().await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_cut_off_and_holds_up_nobody() {
    let mut policy = RegistryPolicy { render_interval: Duration::from_millis(1), ..RegistryPolicy::default() };
    policy.limits.watcher_lines = 2;
    let registry = start(policy).await;
    let mut slow = Client::connect_narrow(registry.local_addr()).await;
    slow.write(&request("GET", "/hopvine/v1/watch", &[], "")).await;
    assert_eq!(slow.read_head().await.status, 200);
    // Each line is more than the buffers between hold, which are the system's.
    let one = json::read_instance(registration("ORDERS", "i1", "UP").as_bytes(), &Limits::default()).unwrap();
    let huge = Instance { metadata: [("a", "x".repeat(200_000))].into_iter().collect(), ..one };
    let end = Instant::now() + PATIENCE;
    while registry.store().counters().view().slow_watchers == 0 {
        assert!(Instant::now() < end);
        registry.store().register(huge.clone(), By::Client, registry.now()).unwrap();
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(1)).await;
    }
    assert!(slow.is_closed().await);
    assert_eq!(registry.monitor().snapshot().registries[0].watchers, 0);
    registry.shutdown().await;
}

#[tokio::test]
async fn watchers_are_bounded() {
    let mut policy = fresh();
    policy.limits.watchers = 1;
    let registry = start(policy).await;
    let (watch, _) = Watch::begin(&registry, "").await;
    let mut client = Client::connect(registry.local_addr()).await;
    let refused = client.get("/hopvine/v1/watch").await;
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("limits.watchers"));
    drop(watch);
    until("the place is free again", || registry.monitor().snapshot().registries[0].watchers == 0).await;
    Watch::begin(&registry, "").await;
    registry.shutdown().await;
}

#[tokio::test]
async fn a_stop_ends_watches_and_expels_nobody() {
    let registry = start(pushed()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    register(&mut client, "ORDERS", "i1").await;
    let (mut watch, _) = Watch::begin(&registry, "?instance=ORDERS%2Fi1").await;
    let store = std::sync::Arc::clone(registry.store());
    registry.shutdown().await;
    while watch.line().await.is_some() {}
    assert_eq!(store.counted().instances, 1);
}

#[tokio::test]
async fn an_instance_whose_watch_breaks_is_out_and_others_learn_of_it() {
    let registry = start(pushed()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    register(&mut client, "ORDERS", "i1").await;
    register(&mut client, "ORDERS", "i2").await;
    let (own, _) = Watch::begin(&registry, "?instance=ORDERS%2Fi1&app=NONE").await;
    let (_other, _) = Watch::begin(&registry, "?instance=orders/i2&app=NONE").await;
    let (mut watch, _) = Watch::begin(&registry, "").await;
    drop(own);
    watch.until("ORDERS/i1 DELETED UP").await;
    assert_eq!(registry.store().counters().view().expelled, 1);
    assert!(registry.store().application("ORDERS").unwrap().instances.iter().all(|instance| instance.id() == "i2"));
    registry.shutdown().await;
}

#[tokio::test]
async fn an_instance_whose_watch_breaks_is_out_while_a_change_waits_to_be_told() {
    let registry = start(RegistryPolicy { render_interval: Duration::from_secs(60), ..pushed() }).await;
    let mut client = Client::connect(registry.local_addr()).await;
    register(&mut client, "ORDERS", "i1").await;
    register(&mut client, "ORDERS", "i2").await;
    let (_other, _) = Watch::begin(&registry, "?instance=ORDERS/i2").await;
    let (own, _) = Watch::begin(&registry, "?instance=ORDERS/i1").await;
    let (mut watch, _) = Watch::begin(&registry, "").await;
    watch.until("ORDERS/i1 ADDED UP").await;
    register(&mut client, "ORDERS", "i3").await;
    drop(own);
    until("it is out", || registry.store().counters().view().expelled == 1).await;
    registry.shutdown().await;
}

#[tokio::test]
async fn one_that_comes_back_at_once_stays_and_so_does_one_whose_registry_was_not_asked() {
    let registry = start(pushed()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    for id in ["back", "gone", "still"] {
        register(&mut client, "ORDERS", id).await;
    }
    let (back, _) = Watch::begin(&registry, "?instance=ORDERS/back").await;
    let (gone, _) = Watch::begin(&registry, "?instance=ORDERS/gone").await;
    let (_still, _) = Watch::begin(&registry, "?instance=ORDERS/still").await;
    drop(back);
    until("it is noticed", || registry.monitor().snapshot().registries[0].watchers == 2).await;
    let (_back, _) = Watch::begin(&registry, "?instance=ORDERS/back").await;
    drop(gone);
    let (mut watch, _) = Watch::begin(&registry, "").await;
    watch.until("ORDERS/gone DELETED UP").await;
    assert_eq!(registry.store().counted().instances, 2);
    registry.shutdown().await;

    let registry = start(RegistryPolicy { suspicion: Duration::ZERO, ..fresh() }).await;
    let mut client = Client::connect(registry.local_addr()).await;
    register(&mut client, "ORDERS", "i1").await;
    let (own, _) = Watch::begin(&registry, "?instance=ORDERS/i1").await;
    drop(own);
    until("it is noticed", || registry.monitor().snapshot().registries[0].watchers == 0).await;
    let (mut watch, _) = Watch::begin(&registry, "").await;
    register(&mut client, "ORDERS", "i2").await;
    watch.until("ORDERS/i2 ADDED UP").await;
    assert_eq!(registry.store().counted().instances, 2, "nobody asked for it");
    registry.shutdown().await;
}

#[tokio::test]
async fn the_restart_of_a_proxy_expels_nobody() {
    let registry = start(pushed()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    let mut own = Vec::new();
    for id in 0..10 {
        register(&mut client, "ORDERS", &format!("i{id}")).await;
        own.push(Watch::begin(&registry, &format!("?instance=ORDERS/i{id}")).await);
    }
    // One of another service that is alone tells when the suspicion is over for all.
    register(&mut client, "STOCK", "s").await;
    let (mut watch, _) = Watch::begin(&registry, "").await;
    drop(own);
    until("all are noticed", || registry.monitor().snapshot().registries[0].watchers == 1).await;
    let (stock, _) = Watch::begin(&registry, "?instance=STOCK/s").await;
    drop(stock);
    watch.until("STOCK/s DELETED UP").await;
    assert_eq!(registry.store().counted().instances, 10);
    registry.shutdown().await;
}
