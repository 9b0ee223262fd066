//! What is read is rendered once a change, not once a request.

use std::time::Duration;

use hopvine::registry::{RegistryHandle, RegistryPolicy};

use crate::client::{Client, fresh, registration, request, start};

const ZIPPED: [(&str, &str); 2] = [("Accept", "application/json"), ("Accept-Encoding", "gzip")];

fn rendered(registry: &RegistryHandle) -> u64 {
    registry.store().counters().view().rendered
}

async fn registered(client: &mut Client, app: &str, ids: std::ops::Range<usize>) {
    for id in ids {
        let answer = client.post(&format!("/eureka/apps/{app}"), &registration(app, &format!("i{id}"), "UP")).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }
}

#[tokio::test]
async fn a_hundred_readers_cost_one_rendering() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    registered(&mut client, "ORDERS", 0..3).await;
    let before = rendered(&registry);
    for _ in 0..100 {
        let answer = client.send(&request("GET", "/eureka/apps/", &ZIPPED, "")).await;
        assert!(answer.body.contains("\"UP_3_\""), "{}", answer.body);
    }
    assert_eq!(rendered(&registry) - before, 1);
    // Nobody read the other variants, so that they were not made.
    client.send(&request("GET", "/eureka/apps/", &[], "")).await;
    assert_eq!(rendered(&registry) - before, 2);
    registry.shutdown().await;
}

#[tokio::test]
async fn a_heartbeat_makes_no_document_old() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    registered(&mut client, "ORDERS", 0..1).await;
    client.get("/eureka/apps").await;
    let before = rendered(&registry);
    assert_eq!(client.put("/eureka/apps/ORDERS/i0?status=UP&lastDirtyTimestamp=1700000000000").await.status, 200);
    client.get("/eureka/apps").await;
    assert_eq!(rendered(&registry), before);
    registry.shutdown().await;
}

#[tokio::test]
async fn while_changes_come_a_document_is_rendered_at_most_once_in_an_interval() {
    let policy = RegistryPolicy { render_interval: Duration::from_secs(60), ..RegistryPolicy::default() };
    let registry = start(policy.clone()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    registered(&mut client, "ORDERS", 0..1).await;
    assert!(client.get("/eureka/apps").await.body.contains("UP_1_"), "the first read is new");
    let before = rendered(&registry);
    registered(&mut client, "ORDERS", 1..20).await;
    assert!(client.get("/eureka/apps").await.body.contains("UP_1_"), "still believed");
    assert_eq!(rendered(&registry), before);
    // The policy is live: a shorter interval holds from the next rendering on, and an application is a document of its own.
    assert!(client.get("/eureka/apps/ORDERS").await.body.contains("i19"));
    registry.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_of_an_old_document_do_not_all_render_it() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    registered(&mut client, "ORDERS", 0..200).await;
    let before = rendered(&registry);
    let address = registry.local_addr();
    let readers: Vec<_> = (0..32)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                client.send(&request("GET", "/eureka/apps/delta", &ZIPPED, "")).await.body
            })
        })
        .collect();
    for reader in readers {
        assert!(reader.await.unwrap().contains("UP_200_"));
    }
    assert_eq!(rendered(&registry) - before, 1);
    registry.shutdown().await;
}

#[tokio::test]
async fn names_that_nobody_has_are_not_kept() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    registered(&mut client, "ORDERS", 0..1).await;
    let before = rendered(&registry);
    for number in 0..100 {
        assert_eq!(client.get(&format!("/eureka/apps/NONE{number}")).await.status, 404);
        assert!(client.get(&format!("/eureka/vips/none{number}")).await.body.contains("\"application\":[]"));
    }
    assert_eq!(rendered(&registry), before);
    assert!(client.get("/eureka/vips/orders").await.body.contains("\"i0\""));
    assert_eq!(rendered(&registry), before + 1);
    registry.shutdown().await;
}

#[tokio::test]
async fn deltas_are_numbered_one_after_the_other() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    for number in 1..5 {
        registered(&mut client, "ORDERS", number..number + 1).await;
        let delta = client.get("/eureka/apps/delta").await.body;
        assert!(delta.starts_with(&format!(r#"{{"applications":{{"versions__delta":"{number}""#)), "{delta}");
        assert_eq!(client.get("/eureka/apps/delta").await.body, delta);
    }
    registry.shutdown().await;
}

#[tokio::test]
async fn head_tells_the_length_and_sends_nothing() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    let head = client.send(&request("HEAD", "/eureka/apps", &[("Accept", "application/json")], "")).await;
    let whole = client.get("/eureka/apps").await;
    assert_eq!((head.status, head.header("content-length")), (200, whole.header("content-length")));
    registry.shutdown().await;
}
