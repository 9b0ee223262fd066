//! What Java servers told their peers, and what ours tells for the same: the same operations in the same order, field by field.

use std::{net::SocketAddr, time::Duration};

use hopvine::registry::{PeerPolicy, Registry, RegistryHandle, RegistryPolicy};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    client::{Client, fresh, registration},
    recordings::{Line, Message, lines},
    scripted::{Reply, Server, eventually},
};

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A registry with one peer, which is scripted.
async fn pair(policy: RegistryPolicy) -> (RegistryHandle, Server) {
    let peer = Server::start(|_| Reply::status(404)).await;
    let registry = Registry::builder().policy(policy).bind(LOCAL).peers([peer.url()]).start().await.unwrap();
    (registry, peer)
}

fn is_batch(request: &Message) -> bool {
    request.path == "/eureka/peerreplication/batch/"
}

fn batches(peer: &Server) -> Vec<crate::scripted::Seen> {
    peer.seen().into_iter().filter(|seen| seen.path == "/eureka/peerreplication/batch/").collect()
}

/// The operations of a batch, without what differs from run to run and from server to server.
fn items(batch: &str) -> Vec<Value> {
    let batch: Value = serde_json::from_str(batch).unwrap();
    assert_eq!(batch.as_object().unwrap().len(), 1, "{batch}");
    let mut items = batch["replicationList"].as_array().unwrap().clone();
    for item in &mut items {
        // Set by the server, each time anew.
        if let Some(instance) = item.get_mut("instanceInfo") {
            instance.as_object_mut().unwrap().remove("lastUpdatedTimestamp").unwrap();
            for time in ["registrationTimestamp", "lastRenewalTimestamp", "serviceUpTimestamp"] {
                instance["leaseInfo"].as_object_mut().unwrap().remove(time).unwrap();
            }
        }
    }
    items
}

/// The names of an operation's fields, in their order.
fn fields(item: &Value) -> Vec<String> {
    item.as_object().unwrap().keys().cloned().collect()
}

fn told(peer: &Server) -> Vec<Value> {
    batches(peer).iter().flat_map(|seen| items(&seen.body)).collect()
}

/// Plays what clients did at one Java server to ours, and compares what each told its peer.
async fn play(name: &str) {
    play_with(name, fresh()).await;
}

async fn play_with(name: &str, policy: RegistryPolicy) {
    let (registry, peer) = pair(policy).await;
    let mut client = Client::connect(registry.local_addr()).await;
    let (mut expected, mut former): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for Line { number, request, response, note } in lines(name) {
        let Some(request) = request else { continue };
        if !is_batch(&request) {
            // What a note reads at the other server, and what a client reads, changes nothing.
            if request.method != "GET" {
                let ours = client.send(&request).await;
                assert_eq!(ours.status, response.unwrap().status, "{name}:{number} {note}");
            }
            continue;
        }
        let answer = response.unwrap().body;
        peer.script(move |_| Reply::json(answer.clone()));
        let mut new = items(&request.body);
        // Their first batch to a cold peer takes longer than the 200 ms they wait, and comes twice.
        new.retain(|item| !former.contains(item) || item["action"] == "Heartbeat");
        former.clone_from(&new);
        expected.extend(new);
        eventually(&format!("{name}:{number} {note}"), || told(&peer).len() >= expected.len()).await;
        assert_eq!(told(&peer), expected, "{name}:{number}");
        let ours = batches(&peer).pop().unwrap();
        let theirs: Value = serde_json::from_str(&request.body).unwrap();
        let last: Value = serde_json::from_str(&ours.body).unwrap();
        let last_of = |batch: &Value| fields(batch["replicationList"].as_array().unwrap().last().unwrap());
        assert_eq!(last_of(&last), last_of(&theirs), "{name}:{number}");
        for header in [
            "Accept",
            "Content-Type",
            "Accept-Encoding",
            "DiscoveryIdentity-Id",
            "DiscoveryIdentity-Name",
            "DiscoveryIdentity-Version",
        ] {
            let given = ours.headers.get(header).and_then(|value| value.to_str().ok());
            assert_eq!(given, request.header(header), "{name}:{number} {header}");
        }
    }
    // Nothing is on its way that they did not tell.
    client.post("/eureka/apps/LAST", &registration("LAST", "last", "UP")).await;
    eventually("the last", || told(&peer).len() > expected.len()).await;
    let mut all = told(&peer);
    assert_eq!(all.pop().unwrap()["id"], "last", "{name}");
    assert_eq!(all, expected, "{name}");
    registry.shutdown().await;
}

#[tokio::test]
async fn each_operation_is_told_as_a_java_server_tells_it() {
    play("peer-actions").await;
}

#[tokio::test]
async fn many_operations_travel_together_and_only_the_newest_of_a_kind() {
    // All of a burst must come before it is told, however busy the machine is.
    let peers = PeerPolicy { batch_wait: Duration::from_secs(1), ..PeerPolicy::default() };
    play_with("peer-burst", RegistryPolicy { peers, ..fresh() }).await;
}

#[tokio::test]
async fn a_peer_that_lacks_an_instance_is_told_of_it_as_a_java_server_does() {
    play("peer-404-register").await;
}

#[tokio::test]
async fn what_a_peer_told_is_told_to_nobody() {
    play("peer-no-second-hop").await;
}

#[tokio::test]
async fn the_life_of_a_client_is_told_as_a_java_server_tells_it() {
    play("peer-start-copy-jersey3").await;
}

/// The odd replies after which the same is told again; a Java server does so for the first alone, and gives up what the others were answers to.
const AGAIN: [&str; 4] = ["503", "200, result without a statusCode", "500", "429"];

#[tokio::test]
async fn odd_replies_lead_to_what_they_lead_a_java_server_to() {
    let peers = PeerPolicy {
        batch_wait: Duration::from_millis(20),
        busy_wait: Duration::from_millis(20),
        retry_wait: Duration::from_millis(20),
        ..PeerPolicy::default()
    };
    let (registry, peer) = pair(RegistryPolicy { peers, ..fresh() }).await;
    let mut client = Client::connect(registry.local_addr()).await;
    let good = |seen: &crate::scripted::Seen| {
        let answers = vec![r#"{"statusCode":200}"#; items(&seen.body).len()];
        Reply::json(format!(r#"{{"responseList":[{}]}}"#, answers.join(",")))
    };
    let mut notes: Vec<String> = Vec::new();
    for Line { request, response, note, .. } in lines("peer-odd-replies") {
        if notes.contains(&note) {
            continue;
        }
        let id = items(&request.unwrap().body)[0]["id"].as_str().unwrap().to_owned();
        let Message { status, body, .. } = response.unwrap();
        let (odd, about) = (note.clone(), id.clone());
        let mut is_first = true;
        peer.script(move |seen| {
            if std::mem::take(&mut is_first) && seen.body.contains(&about) {
                let json = vec![("content-type", "application/json".to_owned())];
                return Reply::Whole(status, json, body.clone().into_bytes());
            }
            good(seen)
        });
        let times = |id: &str| told(&peer).iter().filter(|item| item["id"] == id).count();
        client.post("/eureka/apps/ORDERS", &registration("ORDERS", &id, "UP")).await;
        let again = AGAIN.contains(&&*odd);
        eventually(&odd, || times(&id) == 1 + usize::from(again)).await;
        // Nor is it told again with what comes next.
        let next = format!("after-{id}");
        client.post("/eureka/apps/ORDERS", &registration("ORDERS", &next, "UP")).await;
        eventually(&odd, || times(&next) == 1).await;
        assert_eq!(times(&id), 1 + usize::from(again), "{odd}");
        notes.push(note);
    }
    assert_eq!(notes.len(), 10);
    registry.shutdown().await;
}

#[tokio::test]
async fn a_peer_that_is_slow_is_waited_for_and_told_once() {
    // A Java server gives up after 200 ms what arrives after 300, and tells it three times more.
    let recorded = lines("peer-slow-and-dead");
    let is_heard = |line: &&Line| line.response.is_some() && line.request.as_ref().is_some_and(is_batch);
    assert_eq!(recorded.iter().take(5).filter(is_heard).count(), 4);

    let (registry, peer) = pair(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    peer.script(|_| {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            tokio::time::sleep_until(Instant::now() + Duration::from_millis(300)).await;
            let _ = sender.send(r#"{"responseList":[{"statusCode":200}]}"#.to_owned());
        });
        Reply::Push(receiver)
    });
    for id in ["i1", "i2"] {
        client.post("/eureka/apps/ORDERS", &registration("ORDERS", id, "UP")).await;
        eventually("heard", || told(&peer).iter().any(|item| item["id"] == id)).await;
    }
    let sent = || registry.monitor().snapshot().registries[0].peers[0].sent == 2;
    eventually("answered", sent).await;
    assert_eq!(told(&peer).len(), 2);
    registry.shutdown().await;
}

#[tokio::test]
async fn a_peer_that_hangs_up_is_not_hammered() {
    let listener = tokio::net::TcpListener::bind(LOCAL).await.unwrap();
    let url = format!("http://{}/eureka/", listener.local_addr().unwrap());
    let peers = PeerPolicy {
        retry_wait: Duration::from_millis(50),
        max_retry_wait: Duration::from_millis(200),
        ..PeerPolicy::default()
    };
    let policy = RegistryPolicy { peers, ..fresh() };
    let starting = tokio::spawn(Registry::builder().policy(policy).bind(LOCAL).peers([url]).start());
    while !starting.is_finished() {
        let hang_up = async { drop(listener.accept().await) };
        let _ = tokio::time::timeout(Duration::from_millis(10), hang_up).await;
    }
    let registry = starting.await.unwrap().unwrap();
    let mut client = Client::connect(registry.local_addr()).await;
    client.post("/eureka/apps/ORDERS", &registration("ORDERS", "i1", "UP")).await;
    drop(listener.accept().await.unwrap());
    let began = Instant::now();
    for _ in 1..8 {
        let next = tokio::time::timeout(Duration::from_secs(10), listener.accept()).await;
        drop(next.expect("it is tried again").unwrap());
    }
    // Each try is on two connections at most, so that these are four: after 50, 100 and 200 ms, a quarter less by chance.
    assert!(began.elapsed() >= Duration::from_millis(260), "{:?}", began.elapsed());
    drop(listener);
    registry.shutdown().await;
}
