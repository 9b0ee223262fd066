//! Who means harm, or does it without meaning to.

use std::sync::Arc;

use hopvine::{
    eureka::{Applications, DataCenterInfo, Instance, InstanceStatus, Limits, StatusCounts, json, xml},
    registry::{By, Moment, RegistryPolicy, Store},
};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::client::{Client, PATIENCE, fresh, registration, request, start};

fn whole(all: &Applications) -> bool {
    all.instances().map(|instance| instance.status).collect::<StatusCounts>().to_string() == *all.hash
}

#[tokio::test]
async fn odd_names_and_addresses_are_data_and_every_client_can_still_read_all() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    let odd = [
        ("169.254.169.254", "meta.internal", "i1"),
        ("127.0.0.1", "localhost", "i2"),
        ("0.0.0.0", "", "i3"),
        ("not an address", "<script>alert(1)</script>", "<i4>&\\\"'"),
        ("::1", "a\\u0000b\\u001b[31m\\r\\nX: y", "i5\\u0007"),
        ("\\ud83d\\ude00", "\\u202eexe.host", "../../etc/passwd"),
    ];
    let mut taken = 0;
    for (address, host, id) in odd {
        let body =
            registration("ORDERS", id, "UP").replace("10.0.0.1", address).replace("\"host1\"", &format!("\"{host}\""));
        let answer = client.post("/eureka/apps/ORDERS", &body).await;
        if host.is_empty() {
            assert_eq!((answer.status, &*answer.body), (400, "Missing hostname"));
        } else {
            assert_eq!(answer.status, 204, "{answer:?}");
            taken += 1;
        }
    }
    for path in ["/eureka/apps", "/eureka/apps/delta"] {
        let read = json::read_applications(client.get(path).await.body.as_bytes(), &Limits::default()).unwrap();
        assert_eq!((read.instances().count(), whole(&read)), (taken, true));
        let body = client.send(&request("GET", path, &[], "")).await.body;
        let read = xml::read_applications(body.as_bytes(), &Limits::default()).unwrap();
        assert_eq!((read.instances().count(), whole(&read)), (taken, true), "{body}");
        assert!(!body.contains(['\0', '\u{1b}', '\u{7}']) && !body.contains("<script>"));
    }
    let path = "/eureka/apps/ORDERS/..%2f..%2fetc%2fpasswd";
    assert_eq!(client.put(path).await.status, 200);
    assert_eq!(client.delete(path).await.status, 200);
    registry.shutdown().await;
}

#[tokio::test]
async fn a_document_beyond_its_limits_is_refused_with_the_reason() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    let with = |metadata: &str| {
        registration("A", "1", "UP").replace("\"vipAddress\"", &format!("\"metadata\":{metadata},\"vipAddress\""))
    };
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(8193));
    let many = format!("{{{}}}", (0..257).map(|n| format!("\"k{n}\":\"\"")).collect::<Vec<_>>().join(","));
    let large =
        format!("{{{}}}", (0..20).map(|n| format!("\"k{n}\":\"{}\"", "x".repeat(8000))).collect::<Vec<_>>().join(","));
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let deep = registration("A", "1", "UP").replace("\"vipAddress\"", &format!("\"x\":{deep},\"vipAddress\""));
    for (body, reason) in [(with(&long), "8192"), (with(&many), "256"), (with(&large), "65536"), (deep, "32")] {
        let answer = client.post("/eureka/apps/A", &body).await;
        assert_eq!(answer.status, 400);
        assert!(
            answer.body.starts_with("cannot parse request body: ") && answer.body.contains(reason),
            "{}",
            answer.body
        );
        assert!(answer.body.len() < 500, "{}", answer.body.len());
    }
    assert_eq!(registry.store().counted().instances, 0);
    registry.shutdown().await;
}

#[tokio::test]
async fn an_instance_that_says_as_much_as_may_be_does_not_make_the_list_unreadable() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    let many: Vec<_> = (0..256).map(|n| format!("\"k{n}\":\"\"")).collect();
    let instance = format!(
        r#"{{"instance":{{"hostName":"host1","app":"A","ipAddr":"10.0.0.1","status":"UP","dataCenterInfo":{{"@class":"com.netflix.appinfo.AmazonInfo","name":"Amazon","metadata":{{{}}}}}}}}}"#,
        many.join(",")
    );
    assert_eq!(client.post("/eureka/apps/A", &instance).await.status, 204);
    let read = client.get("/eureka/apps").await.body;
    let all = json::read_applications(read.as_bytes(), &Limits::default()).unwrap();
    let read = all.instances().next().unwrap();
    assert_eq!((&*read.host_name, read.id()), ("host1", "host1"));
    assert!(whole(&all));
    registry.shutdown().await;
}

#[tokio::test]
async fn one_registration_beyond_the_limits_does_not_cost_a_peer_its_batch() {
    let registry = start(fresh()).await;
    let mut peer = Client::connect(registry.local_addr()).await;
    let item = |id: &str, host: &str| {
        let instance = registration("A", id, "UP").replace("host1", host);
        let instance = &instance[r#"{"instance":"#.len()..instance.len() - 1];
        format!(r#"{{"appName":"A","id":"{id}","action":"Register","instanceInfo":{instance}}}"#)
    };
    let batch = format!(r#"{{"replicationList":[{},{}]}}"#, item("i1", &"x".repeat(9000)), item("i2", "host2"));
    let answer = peer.post("/eureka/peerreplication/batch/", &batch).await;
    assert_eq!((answer.status, &*answer.body), (200, r#"{"responseList":[{"statusCode":500},{"statusCode":200}]}"#));
    assert_eq!(registry.store().counters().view().refused_documents, 1);
    registry.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_registrations_at_once_leave_the_registry_consistent() {
    const CLIENTS: usize = 16;
    const EACH: usize = 625;
    let registry = start(RegistryPolicy::default()).await;
    let address = registry.local_addr();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                for turn in 0..EACH {
                    // Each instance is registered by several clients, and again and again.
                    let (app, id) = (format!("APP{}", turn % 7), format!("i{}", (turn * 31 + number) % 300));
                    let status = ["UP", "DOWN", "STARTING"][(turn + number) % 3];
                    let answer = client.post(&format!("/eureka/apps/{app}"), &registration(&app, &id, status)).await;
                    assert_eq!(answer.status, 204);
                    if turn % 125 == 0 {
                        assert_eq!(client.get("/eureka/apps/delta").await.status, 200);
                        client.delete(&format!("/eureka/apps/{app}/{id}")).await;
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let (store, mut client) = (registry.store(), Client::connect(address).await);
    assert_eq!(store.counters().view().registrations, (CLIENTS * EACH) as u64);
    let (all, counted) = (store.all(), store.counted());
    assert!(whole(&all));
    assert_eq!((all.instances().count(), &*all.hash), (counted.instances, &*counted.hash));
    assert!(counted.changes <= 7 * 300, "{} changes for at most 2100 instances", counted.changes);
    let mut copy = all.clone();
    assert!(copy.apply(&store.delta()));
    let read = client.get("/eureka/apps").await.body;
    assert!(whole(&json::read_applications(read.as_bytes(), &Limits::default()).unwrap()));
    registry.shutdown().await;
}

#[test]
fn changes_kept_for_deltas_are_bounded_and_clients_see_what_they_missed_by_the_hash() {
    let mut policy = RegistryPolicy::default();
    policy.limits.changes = 10;
    let store = Store::new(policy, Moment(0)).unwrap();
    let copy = store.all();
    for number in 0..100 {
        let instance = Instance {
            instance_id: Some(format!("i{number}").into()),
            host_name: "host1".into(),
            app: "ORDERS".into(),
            ip_addr: "10.0.0.1".into(),
            status: InstanceStatus::Up,
            data_center_info: Some(DataCenterInfo::MyOwn),
            ..Instance::default()
        };
        store.register(instance, By::Client, Moment(number)).unwrap();
    }
    assert_eq!(store.counted().changes, 10);
    let mut copy = copy;
    assert!(!copy.apply(&store.delta()), "not whole: it reads everything");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_stop_the_server(bytes in proptest::collection::vec(any::<u8>(), 0..300), target in "/eureka/[ -~]{0,60}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let registry = start(fresh()).await;
            let target = target.replace(' ', "%20");
            let json = b"Host: r\r\nContent-Type: application/json\r\n";
            let mut well_formed = format!("POST {target} HTTP/1.1\r\n").into_bytes();
            well_formed.extend(json);
            well_formed.extend(format!("Content-Length: {}\r\n\r\n", bytes.len()).into_bytes());
            well_formed.extend(&bytes);
            for sent in [Arc::new(well_formed), Arc::new(bytes)] {
                let mut stream = TcpStream::connect(registry.local_addr()).await.unwrap();
                let _ = stream.write_all(&sent).await;
                let _ = stream.shutdown().await;
                let mut answer = Vec::new();
                let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
                assert!(!answer.starts_with(b"HTTP/1.1 500"), "{target}");
            }
            let mut client = Client::connect(registry.local_addr()).await;
            assert_eq!(client.get("/eureka/apps").await.status, 200);
            registry.shutdown().await;
        });
    }
}

/// Else clients would find out, when the registry has grown so large that none of them can read it.
#[test]
fn no_registry_takes_more_instances_than_can_be_read_in_one_document() {
    let mut policy = RegistryPolicy::default();
    policy.limits.instances = policy.limits.document.instances + 1;
    let error = Store::new(policy.clone(), Moment(0)).unwrap_err();
    assert_eq!(error.field(), "limits.instances");
    assert!(error.to_string().contains("100001") && error.to_string().contains("limits.document.instances"), "{error}");
    policy.limits.document.instances += 1;
    Store::new(policy, Moment(0)).unwrap();
}
