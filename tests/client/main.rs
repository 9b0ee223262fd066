//! The HTTP client over real sockets.

#[path = "../support/certificates.rs"]
mod certificates;
mod servers;
mod tls;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use hopvine::{
    Directory, Endpoint, EndpointHandle, ErrorKind, NewService,
    connect::http::{EgressProxy, HttpClient, HttpPolicy, HttpService, Version},
    layers::balance::{BalanceLayer, DiscoverLayer, RoundRobin},
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, channel::Channel};
use servers::{Server, eventually, raw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{ServiceBuilder, ServiceExt};

type Body = Full<Bytes>;
type Service = HttpService<Body>;

fn handle(endpoint: impl Into<Endpoint>) -> EndpointHandle {
    EndpointHandle::new("s".into(), Arc::new(endpoint.into()), Arc::default())
}

fn client(server: &Server) -> Service {
    HttpClient::new().new_service(&handle(server.address))
}

fn with(server: &Server, version: Version, policy: HttpPolicy) -> Service {
    HttpClient::builder().version(version).policy(policy).build().unwrap().new_service(&handle(server.address))
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::default()).unwrap()
}

fn post(body: &'static str) -> Request<Body> {
    Request::post("/echo").body(Body::from(body)).unwrap()
}

async fn text(service: &Service, request: Request<Body>) -> String {
    let response = service.clone().oneshot(request).await.unwrap();
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn calls_one_after_the_other_share_a_connection() {
    let server = Server::start().await;
    let service = client(&server);
    for _ in 0..10 {
        assert_eq!(text(&service, post("hello")).await, "hello");
        assert_eq!(text(&service, get("/")).await, "hello from the server");
    }
    let head = Request::builder().method(Method::HEAD).uri("/").body(Body::default()).unwrap();
    assert!(service.clone().oneshot(head).await.unwrap().status().is_success());
    assert_eq!(text(&service, get("/")).await, "hello from the server");
    assert_eq!(server.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn the_bound_on_connections_holds_and_waiters_are_served_though_some_go_away() {
    let server = Server::start().await;
    let service = with(&server, Version::Http1, HttpPolicy { max_connections: 2, ..Default::default() });
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..40 {
        let service = service.clone();
        calls.spawn(async move {
            if number % 3 == 0 {
                // Goes away while it waits, or while it is served.
                let _ = tokio::time::timeout(Duration::from_millis(5), service.oneshot(get("/slow"))).await;
            } else {
                assert_eq!(text(&service, get("/slow")).await, "slow");
            }
        });
    }
    calls.join_all().await;
    assert!(server.most.load(SeqCst) <= 2 + 14, "a call given up closes its connection: {}", server.most.load(SeqCst));
    eventually(|| service.stats().waiting == 0 && service.stats().open <= 2).await;
    assert_eq!(text(&service, get("/")).await, "hello from the server");
}

#[tokio::test]
async fn a_connection_whose_body_is_unread_is_not_used_again() {
    let server = Server::start().await;
    let service = client(&server);
    let response = service.clone().oneshot(get("/large")).await.unwrap();
    assert_eq!(service.stats().idle, 0, "it is in use as long as the body is");
    drop(response);
    assert_eq!(text(&service, get("/")).await, "hello from the server");
    assert_eq!(server.connections.load(SeqCst), 2);
    eventually(|| service.stats().open == 1).await;
}

#[tokio::test]
async fn a_connection_the_server_closed_is_no_callers_trouble() {
    let server = Server::start().await;
    let service = client(&server);
    for round in 1..=5 {
        assert_eq!(text(&service, post("hello")).await, "hello");
        assert_eq!(server.connections.load(SeqCst), round);
        server.drop_connections();
        eventually(|| service.stats().open == 0).await;
    }
}

#[tokio::test]
async fn connection_close_is_honoured() {
    let server = Server::start().await;
    let service = client(&server);
    for _ in 0..3 {
        assert_eq!(text(&service, get("/close")).await, "closing");
    }
    assert_eq!(server.connections.load(SeqCst), 3);
}

#[tokio::test]
async fn nothing_answers_where_nobody_listens() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let service: Service = HttpClient::new().new_service(&handle(nobody));
    let error = service.oneshot(post("hello")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_unsent()), (ErrorKind::Connect, true));
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("refused"), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_never_comes_about_ends_in_time() {
    // A full backlog: the kernel answers no further handshake.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    for _ in 0..3 {
        let connecting = tokio::net::TcpStream::connect(address);
        if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), connecting).await {
            held.push(stream);
        }
    }
    let policy = HttpPolicy { connect_timeout: Duration::from_millis(200), ..Default::default() };
    let client = HttpClient::<Body>::builder().policy(policy).build().unwrap();
    let service = client.new_service(&handle(address));
    let calls = (0..3).map(|_| tokio::spawn(service.clone().oneshot(get("/"))));
    for call in calls.collect::<Vec<_>>() {
        let error = tokio::time::timeout(Duration::from_secs(10), call).await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
    }
}

#[tokio::test]
async fn a_call_given_up_gives_everything_back() {
    let server = raw(async |mut socket| {
        // Reads, and never answers.
        let mut buffer = [0; 1024];
        while socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    for version in [Version::Http1, Version::Http2] {
        let client = HttpClient::<Body>::builder().version(version).build().unwrap();
        let service = client.new_service(&handle(server));
        for polls in 0..5u64 {
            let call = service.clone().oneshot(get("/"));
            let _ = tokio::time::timeout(Duration::from_millis(polls * 5), call).await;
        }
        eventually(|| {
            let stats = service.stats();
            stats.waiting == 0 && stats.open == stats.idle
        })
        .await;
    }
}

#[tokio::test]
async fn what_broke_after_it_was_sent_is_not_sent_again() {
    let server = raw(async |mut socket| {
        let mut buffer = [0; 1024];
        let _ = socket.read(&mut buffer).await;
    })
    .await;
    let service: Service = HttpClient::new().new_service(&handle(server));
    let error = service.oneshot(post("once")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_unsent()), (ErrorKind::Upstream, false));
}

#[tokio::test]
async fn garbage_and_endless_heads_are_errors() {
    for answer in
        [b"not http at all\r\n\r\n".to_vec(), [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 200_000]].concat()]
    {
        let server = raw(move |mut socket| {
            let answer = answer.clone();
            async move {
                let mut buffer = [0; 1024];
                let _ = socket.read(&mut buffer).await;
                let _ = socket.write_all(&answer).await;
                let _ = socket.read(&mut buffer).await;
            }
        })
        .await;
        let service: Service = HttpClient::new().new_service(&handle(server));
        let call = tokio::time::timeout(Duration::from_secs(10), service.oneshot(get("/")));
        assert_eq!(call.await.unwrap().unwrap_err().kind(), ErrorKind::Upstream);
    }
}

#[tokio::test]
async fn http2_calls_share_one_connection_and_open_another_when_it_is_full() {
    let server = Server::start().await;
    let service = with(&server, Version::Http2, HttpPolicy::default());
    let calls = (0..50).map(|_| {
        let service = service.clone();
        tokio::spawn(async move { text(&service, get("/slow")).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), "slow");
    }
    assert_eq!(server.connections.load(SeqCst), 1);
    eventually(|| service.stats().idle == 1).await;
    // The server allows 100 streams at once.
    let calls = (0..150).map(|_| {
        let service = service.clone();
        tokio::spawn(async move { text(&service, get("/slow")).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), "slow");
    }
    assert_eq!(server.connections.load(SeqCst), 2);
}

#[tokio::test]
async fn a_server_that_goes_away_loses_no_http2_call() {
    let server = Server::start().await;
    let service = with(&server, Version::Http2, HttpPolicy::default());
    for round in 1..=5 {
        let slow = tokio::spawn({
            let service = service.clone();
            async move { text(&service, get("/slow")).await }
        });
        eventually(|| server.in_flight.load(SeqCst) == 1).await;
        // GOAWAY: what is under way finishes, what comes goes elsewhere.
        server.goaway();
        assert_eq!(slow.await.unwrap(), "slow");
        assert_eq!(text(&service, post("hello")).await, "hello");
        assert!(server.connections.load(SeqCst) >= round);
    }
}

#[tokio::test]
async fn nobody_hangs_behind_a_connection_that_dies() {
    let server = Server::start().await;
    for version in [Version::Http1, Version::Http2] {
        let service = with(&server, version, HttpPolicy { max_connections: 4, ..Default::default() });
        let calls = (0..100).map(|_| tokio::spawn(service.clone().oneshot(get("/slow"))));
        let calls: Vec<_> = calls.collect();
        eventually(|| server.in_flight.load(SeqCst) > 0).await;
        server.drop_connections();
        for call in calls {
            // Broken or served: answered it is.
            let _ = tokio::time::timeout(Duration::from_secs(10), call).await.expect("hangs").unwrap();
        }
        assert_eq!(text(&service, post("hello")).await, "hello");
    }
}

#[tokio::test]
async fn a_removed_endpoint_keeps_no_idle_connection() {
    let server = Server::start().await;
    let (changes, mut told) = tokio::sync::mpsc::unbounded_channel();
    let stream =
        futures_util::stream::poll_fn(move |cx| told.poll_recv(cx).map(|change| change.map(Ok::<_, std::io::Error>)));
    let stream = hopvine::discover::ChangeStream::new(stream);
    let directory = Directory::builder().service("s", stream).build();
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(directory.service("s")))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .service(HttpClient::<Body>::new());
    let endpoint = Endpoint::from(server.address);
    let id = endpoint.id().clone();
    changes.send(hopvine::discover::Change::Insert(id.clone(), endpoint)).unwrap();
    let response = stack.clone().oneshot(get("/")).await.unwrap();
    response.into_body().collect().await.unwrap();
    assert_eq!(server.open.load(SeqCst), 1);
    changes.send(hopvine::discover::Change::Remove(id)).unwrap();
    eventually(|| server.open.load(SeqCst) == 0).await;
    drop(stack);
}

#[tokio::test]
async fn connections_are_opened_ahead_and_closed_when_idle_or_old() {
    let server = Server::start().await;
    let policy = HttpPolicy { warm_up: 3, idle_timeout: Duration::from_millis(300), ..Default::default() };
    let service = with(&server, Version::Http1, policy);
    eventually(|| server.open.load(SeqCst) == 3).await;
    assert_eq!(text(&service, get("/")).await, "hello from the server");
    eventually(|| server.open.load(SeqCst) == 0).await;

    let policy = HttpPolicy { max_lifetime: Duration::from_millis(100), ..Default::default() };
    let service = with(&server, Version::Http1, policy);
    text(&service, get("/")).await;
    eventually(|| server.open.load(SeqCst) == 0).await;
    drop(service);
}

#[test]
fn several_runtimes_use_one_service() {
    let main = tokio::runtime::Runtime::new().unwrap();
    let server = main.block_on(Server::start());
    let service = client(&server);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        for _ in 0..5 {
                            assert_eq!(text(&service, post("hello")).await, "hello");
                        }
                    });
                });
            }
        });
    }
    assert_eq!(server.connections.load(SeqCst), 6, "one for each runtime, none from one that has ended");
}

#[tokio::test]
async fn bodies_stream_both_ways_with_trailers() {
    let server = Server::start().await;
    let client = HttpClient::<Channel<Bytes>>::builder().version(Version::Http2).build().unwrap();
    let service = client.new_service(&handle(server.address));
    let (mut sender, body) = Channel::new(4);
    let response = service.oneshot(Request::post("/echo").body(body).unwrap()).await.unwrap();
    let mut body = response.into_body();
    for chunk in ["one", "two", "three"] {
        sender.send_data(Bytes::from(chunk)).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), chunk);
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("sum", "3".parse().unwrap());
    sender.send_trailers(trailers.clone()).await.unwrap();
    drop(sender);
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap(), trailers);
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn both_address_families_are_reached_by_name_and_by_number() {
    let server = Server::start_at("[::1]:0").await;
    let service = client(&server);
    assert_eq!(text(&service, get("/")).await, "hello from the server");
    // `localhost` may be both; this one listens on one of them.
    let server = Server::start().await;
    let by_name: Endpoint = format!("localhost:{}", server.address.port()).parse().unwrap();
    let service: Service = HttpClient::new().new_service(&handle(by_name));
    assert_eq!(text(&service, get("/")).await, "hello from the server");
}

#[tokio::test]
async fn a_proxy_is_asked_as_it_wants_to_be() {
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let told = Arc::clone(&seen);
    let proxy = raw(move |mut socket| {
        let told = Arc::clone(&told);
        async move {
            let mut buffer = [0; 2048];
            let read = socket.read(&mut buffer).await.unwrap_or(0);
            *told.lock().unwrap() = String::from_utf8_lossy(&buffer[..read]).into_owned();
            let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
            let _ = socket.write_all(answer).await;
            let _ = socket.read(&mut buffer).await;
        }
    })
    .await;
    let proxy: EgressProxy = format!("http://shop:s%20ecret@{proxy}").parse().unwrap();
    let client = HttpClient::<Body>::builder().proxy(proxy).build().unwrap();

    let plain: Endpoint = "http://192.0.2.1:8080".parse().unwrap();
    let response = client.new_service(&handle(plain)).oneshot(get("/a")).await.unwrap();
    assert_eq!(response.status(), StatusCode::PROXY_AUTHENTICATION_REQUIRED);
    let asked = seen.lock().unwrap().to_ascii_lowercase();
    assert!(asked.starts_with("get http://192.0.2.1:8080/a http/1.1\r\n"), "{asked}");
    assert!(asked.contains("proxy-authorization: basic c2hvcdpzigvjcmv0\r\n"), "{asked}");

    let secure: Endpoint = "https://192.0.2.1:8443".parse().unwrap();
    let error = client.new_service(&handle(secure)).oneshot(get("/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("407"), "{error:?}");
    assert!(seen.lock().unwrap().starts_with("CONNECT 192.0.2.1:8443 HTTP/1.1\r\n"));
    assert!("http://shop:secret@".parse::<EgressProxy>().unwrap_err().to_string().find("secret").is_none());
}

#[test]
fn settings_that_cannot_work_are_named() {
    for (policy, field) in [
        (HttpPolicy { connect_timeout: Duration::ZERO, ..Default::default() }, "connect_timeout"),
        (HttpPolicy { max_connections: 0, ..Default::default() }, "max_connections"),
        (HttpPolicy { warm_up: 1000, ..Default::default() }, "warm_up"),
        (HttpPolicy { max_head: 10, ..Default::default() }, "max_head"),
    ] {
        let error = HttpClient::<Body>::builder().policy(policy).build().unwrap_err();
        assert_eq!(error.field(), field);
    }
}
