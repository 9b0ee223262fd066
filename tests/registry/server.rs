//! Who may do what, and how much of it.

use std::{net::SocketAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hopvine::{
    Monitor,
    registry::{Registry, RegistryLimits, RegistryPolicy, ServerTls, StartError},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    client::{Client, PATIENCE, fresh, registration, request, start},
    recordings::Message,
};

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn limited(limit: impl FnOnce(&mut RegistryLimits)) -> RegistryPolicy {
    let mut policy = fresh();
    limit(&mut policy.limits);
    policy
}

async fn register(client: &mut Client, app: &str, id: &str) -> Message {
    client.post(&format!("/eureka/apps/{app}"), &registration(app, id, "UP")).await
}

fn with_credential(mut message: Message, credential: Option<&str>) -> Message {
    if let Some(credential) = credential {
        message.headers.push(("Authorization".into(), format!("Basic {}", STANDARD.encode(credential))));
    }
    message
}

#[tokio::test]
async fn only_who_knows_the_password_is_served() {
    let registry = Registry::builder().policy(fresh()).bind(LOCAL).credential("ann", "s3cret").start().await.unwrap();
    let mut client = Client::connect(registry.local_addr()).await;
    let get = || request("GET", "/eureka/apps", &[], "");
    for wrong in [None, Some("ann:wrong!"), Some("ann:s3cre"), Some("ann"), Some("")] {
        let answer = client.send(&with_credential(get(), wrong)).await;
        assert_eq!((answer.status, &*answer.body), (401, ""), "{wrong:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Basic realm=\"eureka\""));
    }
    assert_eq!(client.send(&with_credential(get(), Some("ann:s3cret"))).await.status, 200);
    assert_eq!(registry.store().counters().view().refused_credentials, 5);
    assert!(!format!("{registry:?}").contains("s3cret"));
    registry.shutdown().await;
}

#[tokio::test]
async fn a_client_cannot_pass_for_a_peer() {
    let builder =
        Registry::builder().policy(fresh()).bind(LOCAL).credential("ann", "client").peer_credential("bob", "peer");
    let registry = builder.start().await.unwrap();
    let mut client = Client::connect(registry.local_addr()).await;
    let json = [("Content-Type", "application/json")];
    let batch = || request("POST", "/eureka/peerreplication/batch/", &json, r#"{"replicationList":[]}"#);
    let single = || request("PUT", "/eureka/apps/A/b", &[("x-netflix-discovery-replication", "true")], "");
    let get = || request("GET", "/eureka/apps", &[], "");
    let mut status = async |message, credential| client.send(&with_credential(message, Some(credential))).await.status;
    assert_eq!(status(batch(), "ann:client").await, 403);
    assert_eq!(status(single(), "ann:client").await, 403);
    assert_eq!(status(batch(), "bob:peer").await, 200);
    assert_eq!(status(single(), "bob:peer").await, 404);
    assert_eq!(status(get(), "ann:client").await, 200);
    assert_eq!(status(get(), "bob:peer").await, 200);
    registry.shutdown().await;
}

#[tokio::test]
async fn each_limit_refuses_what_is_beyond_it_and_counts_it() {
    let policy = limited(|limits| {
        limits.instances = 4;
        limits.instances_per_application = 2;
        limits.overrides = 1;
        limits.document.metadata_bytes = 100;
        limits.batch_items = 2;
        limits.body_bytes = 1500;
    });
    let registry = start(policy).await;
    let mut client = Client::connect(registry.local_addr()).await;
    for (app, id) in [("A", "1"), ("A", "2"), ("B", "1"), ("C", "1")] {
        assert_eq!(register(&mut client, app, id).await.status, 204);
    }
    assert_eq!(register(&mut client, "A", "2").await.status, 204, "again is no more");
    let full = register(&mut client, "B", "2").await;
    assert_eq!(full.status, 503);
    assert!(full.body.contains("limits.instances allows: 4"), "{}", full.body);
    assert!(full.header("retry-after").is_some());
    let full = register(&mut client, "A", "3").await;
    assert_eq!(full.status, 503);
    client.delete("/eureka/apps/C/1").await;
    let full = register(&mut client, "A", "3").await;
    assert!(full.body.contains("limits.instances_per_application allows: 2"), "{}", full.body);

    assert_eq!(client.put("/eureka/apps/A/1/status?value=OUT_OF_SERVICE").await.status, 200);
    let full = client.put("/eureka/apps/A/2/status?value=OUT_OF_SERVICE").await;
    assert_eq!(full.status, 503);
    assert!(full.body.contains("limits.overrides"), "{}", full.body);

    let huge = registration("A", "1", "UP")
        .replace("\"vipAddress\"", &format!("\"metadata\":{{\"a\":\"{}\"}},\"vipAddress\"", "x".repeat(200)));
    let refused = client.post("/eureka/apps/A", &huge).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("100"), "{}", refused.body);
    let refused = client.put(&format!("/eureka/apps/A/1/metadata?a={}", "x".repeat(200))).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("limits.document.metadata_bytes allows: 100"), "{}", refused.body);

    let refused = client.post("/eureka/apps/A", &" ".repeat(1501)).await;
    assert_eq!(refused.status, 413);
    let mut client = Client::connect(registry.local_addr()).await;
    let chunked = [("Content-Type", "application/json"), ("Transfer-Encoding", "chunked")];
    let refused = client.send(&request("POST", "/eureka/apps/A", &chunked, &" ".repeat(1501))).await;
    assert_eq!(refused.status, 413);

    let mut client = Client::connect(registry.local_addr()).await;
    let cancel = r#"{"appName":"A","id":"9","action":"Cancel"}"#;
    let two =
        client.post("/eureka/peerreplication/batch/", &format!(r#"{{"replicationList":[{cancel},{cancel}]}}"#)).await;
    assert_eq!(two.body, r#"{"responseList":[{"statusCode":404},{"statusCode":404}]}"#);
    let three = client
        .post("/eureka/peerreplication/batch/", &format!(r#"{{"replicationList":[{cancel},{cancel},{cancel}]}}"#))
        .await;
    assert_eq!(three.status, 400);
    assert!(three.body.contains("limits.batch_items"), "{}", three.body);

    let counts = registry.store().counters().view();
    assert_eq!(counts.refused_instances, 2);
    assert_eq!(counts.refused_instances_per_application, 1);
    assert_eq!(counts.refused_overrides, 1);
    assert_eq!((counts.refused_metadata, counts.refused_documents), (1, 1));
    assert_eq!((counts.refused_bodies, counts.refused_batches), (2, 1));
    registry.shutdown().await;
}

#[tokio::test]
async fn a_connection_that_sends_half_a_head_is_closed() {
    let policy = limited(|limits| limits.head_time = Duration::from_millis(200));
    let registry = start(policy).await;
    for half in ["", "GET /eureka/apps HTTP/1.1\r\nHost: "] {
        let mut stream = TcpStream::connect(registry.local_addr()).await.unwrap();
        stream.write_all(half.as_bytes()).await.unwrap();
        let closed = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 64])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    }
    assert_eq!(registry.store().counters().view().refused_heads, 2);
    // One between two requests is idle, not slow.
    let mut client = Client::connect(registry.local_addr()).await;
    client.get("/eureka/apps").await;
    let mut other = TcpStream::connect(registry.local_addr()).await.unwrap();
    other.write_all(b"GET").await.unwrap();
    assert!(matches!(tokio::time::timeout(PATIENCE, other.read(&mut [0; 64])).await.unwrap(), Ok(0) | Err(_)));
    assert_eq!(client.get("/eureka/apps").await.status, 200);
    registry.shutdown().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let policy = limited(|limits| {
        limits.head_time = Duration::from_millis(200);
        limits.idle_time = Duration::from_millis(300);
    });
    let registry = start(policy).await;
    let mut client = Client::connect(registry.local_addr()).await;
    client.get("/eureka/apps").await;
    assert!(client.is_closed().await);
    assert_eq!(registry.store().counters().view().refused_heads, 0);
    registry.shutdown().await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_without_end() {
    let policy = limited(|limits| limits.body_time = Duration::from_millis(100));
    let registry = start(policy).await;
    let mut stream = TcpStream::connect(registry.local_addr()).await.unwrap();
    stream.write_all(b"POST /eureka/apps/A HTTP/1.1\r\nHost: r\r\nContent-Length: 10\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
    registry.shutdown().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_others_to_end() {
    let registry = start(limited(|limits| limits.connections = 2)).await;
    let mut first = Client::connect(registry.local_addr()).await;
    let mut second = Client::connect(registry.local_addr()).await;
    assert_eq!((first.get("/eureka/apps").await.status, second.get("/eureka/apps").await.status), (200, 200));
    let mut third = Client::connect(registry.local_addr()).await;
    third.write(&request("GET", "/eureka/apps", &[], "")).await;
    assert_eq!(registry.monitor().snapshot().registries[0].connections, 2);
    drop(first);
    assert_eq!(tokio::time::timeout(PATIENCE, third.read(false)).await.unwrap().status, 200);
    assert!(registry.store().counters().view().refused_connections > 0);
    registry.shutdown().await;
}

#[tokio::test]
async fn a_stop_lets_requests_end_and_closes_what_is_idle() {
    let registry = start(fresh()).await;
    let address = registry.local_addr();
    let mut idle = Client::connect(address).await;
    idle.get("/eureka/apps").await;
    let mut busy = TcpStream::connect(address).await.unwrap();
    let body = registration("A", "1", "UP");
    let head = format!(
        "POST /eureka/apps/A HTTP/1.1\r\nHost: r\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    busy.write_all(head.as_bytes()).await.unwrap();
    // Its head is read when a request that came later is answered.
    idle.get("/eureka/apps").await;
    let store = std::sync::Arc::clone(registry.store());
    let stop = tokio::spawn(registry.shutdown());
    assert!(idle.is_closed().await);
    busy.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, busy.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 204"), "{}", String::from_utf8_lossy(&answer));
    tokio::time::timeout(PATIENCE, stop).await.unwrap().unwrap();
    assert_eq!(store.counted().instances, 1);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_dropped_handle_stops_the_registry() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    client.get("/eureka/apps").await;
    drop(registry);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_address_in_use_and_a_bad_policy_are_told() {
    let registry = start(fresh()).await;
    let taken = Registry::builder().bind(registry.local_addr()).start().await.unwrap_err();
    assert!(matches!(taken, StartError::Bind(address, _) if address == registry.local_addr()), "{taken}");
    let policy = RegistryPolicy { eviction_interval: Duration::ZERO, ..RegistryPolicy::default() };
    let bad = Registry::builder().policy(policy).start().await.unwrap_err();
    assert!(bad.to_string().contains("eviction_interval"), "{bad}");
    registry.shutdown().await;
}

#[tokio::test]
async fn a_monitor_sees_the_registry_as_long_as_it_runs() {
    let monitor = Monitor::new();
    let registry =
        Registry::builder().policy(fresh()).bind(LOCAL).name("east").monitor(&monitor).start().await.unwrap();
    let mut client = Client::connect(registry.local_addr()).await;
    register(&mut client, "A", "1").await;
    let view = monitor.snapshot().registries.remove(0);
    assert_eq!((&*view.name, view.instances, view.connections), ("east", 1, 1));
    assert_eq!((view.expected_instances, view.renewals_threshold, view.eviction_allowed), (2, 3, false));
    assert!(view.counts.contains(&("registrations", 1)));
    registry.shutdown().await;
    assert!(monitor.snapshot().registries.is_empty());
}

#[test]
fn a_policy_is_written_as_people_write_it() {
    let policy: RegistryPolicy = toml_like(
        r#"{"eviction_interval": "5s", "exact_leases": true, "limits": {"instances": 7, "idle_time": "1m"}}"#,
    );
    assert_eq!(policy.eviction_interval, Duration::from_secs(5));
    assert_eq!((policy.limits.instances, policy.limits.idle_time), (7, Duration::from_secs(60)));
    assert!(serde_json::from_str::<RegistryPolicy>(r#"{"evict": "5s"}"#).unwrap_err().to_string().contains("evict"));
}

fn toml_like(text: &str) -> RegistryPolicy {
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn tls_asks_clients_for_their_certificate_if_told_so() {
    use std::sync::Arc;
    use tokio_rustls::{TlsConnector, rustls};

    let authority = rcgen::CertifiedIssuer::self_signed(
        {
            let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
            parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            parameters
        },
        rcgen::KeyPair::generate().unwrap(),
    )
    .unwrap();
    let issue = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate =
            rcgen::CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        (certificate, key)
    };
    let (certificate, key) = issue("localhost");
    let tls = ServerTls::new(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let tls = tls.client_roots(authority.pem().as_bytes()).unwrap();
    let registry = Registry::builder().policy(fresh()).bind(LOCAL).tls(tls).start().await.unwrap();

    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let config = || {
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
    };
    let ask = async |config: rustls::ClientConfig| -> std::io::Result<String> {
        let stream = TcpStream::connect(registry.local_addr()).await?;
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(b"GET /eureka/apps HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let (certificate, key) = issue("client");
    let known = config().with_client_auth_cert(vec![certificate.der().clone()], key.into()).unwrap();
    assert!(ask(known).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(ask(config().with_no_client_auth()).await.is_err());
    registry.shutdown().await;
}
