//! Errors as responses.

use std::{
    convert::Infallible,
    future::{pending, poll_fn, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use axum::{Router, body::Body, routing::get};
use bytes::Bytes;
use hopvine::{
    Error, ErrorKind, Live,
    context::{self, DropCause},
    layers::{
        deadline::{DeadlineLayer, ServerDeadlineLayer, ServerDeadlinePolicy},
        respond::{ErrorResponse, RespondLayer, to_response},
    },
};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_layer::Layer;

use crate::support::drop_after;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn plain() -> Request<Body> {
    Request::get("/").body(Body::empty()).unwrap()
}

fn grpc() -> Request<Body> {
    Request::post("/").header("content-type", "application/grpc").body(Body::empty()).unwrap()
}

fn header<'a, B>(response: &'a Response<B>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

async fn text<B: http_body::Body<Data = Bytes, Error: std::fmt::Debug>>(response: Response<B>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

const TABLE: [(ErrorKind, u16, &str); 9] = [
    (ErrorKind::CircuitOpen, 503, "14"),
    (ErrorKind::BulkheadFull, 503, "14"),
    (ErrorKind::RateLimited, 429, "8"),
    (ErrorKind::NoService, 503, "14"),
    (ErrorKind::NoEndpoint, 503, "14"),
    (ErrorKind::Connect, 503, "14"),
    (ErrorKind::AttemptTimeout, 504, "4"),
    (ErrorKind::DeadlineExceeded, 504, "4"),
    (ErrorKind::Upstream, 502, "2"),
];

/// An error that knows things the caller must not.
fn telling(kind: ErrorKind) -> Error {
    Error::new(kind)
        .with_service("secret-service".into())
        .with_endpoint("10.9.8.7:65".into())
        .with_layer("secret-layer")
        .with_source("secret source")
}

#[tokio::test]
async fn every_kind_of_error_has_its_http_status_and_tells_nothing_of_the_inside() {
    for (kind, status, _) in TABLE {
        let service = RespondLayer::new()
            .layer(service_fn(move |_: Request<Body>| ready(Err::<Response<Body>, _>(telling(kind)))));
        let Ok(response) = service.oneshot(plain()).await;
        assert_eq!(response.status(), status, "{kind:?}");
        assert_eq!(header(&response, "content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(header(&response, "retry-after"), None);
        assert_eq!(header(&response, "grpc-status"), None);
        let hint = response.body().size_hint().exact().unwrap();
        let shown = format!("{:?}", response.headers());
        let body = text(response).await;
        assert!(!body.is_empty() && hint == body.len() as u64);
        for secret in ["secret", "10.9", "65"] {
            assert!(!body.contains(secret) && !shown.contains(secret), "{body}");
        }
    }
}

#[tokio::test]
async fn every_kind_of_error_has_its_grpc_status_in_the_head_and_no_body() {
    for (kind, _, code) in TABLE {
        let service = RespondLayer::new()
            .layer(service_fn(move |_: Request<Body>| ready(Err::<Response<Body>, _>(telling(kind)))));
        let Ok(response) = service.oneshot(grpc()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "grpc-status"), Some(code), "{kind:?}");
        assert_eq!(header(&response, "content-type"), Some("application/grpc"));
        let message = header(&response, "grpc-message").unwrap();
        // What the protocol lets stand unescaped.
        assert!(message.bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'%'), "{message}");
        assert!(!message.contains("secret"));
        assert!(response.body().is_end_stream());
        assert_eq!(text(response).await, "");
    }
    let unsent = to_response(&Error::new(ErrorKind::Upstream).unsent(), true);
    assert_eq!(header(&unsent, "grpc-status"), Some("14"));
}

#[test]
fn who_is_grpc() {
    for (content_type, grpc) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("Application/GRPC;charset=utf-8", true),
        ("application/grpc-web", false),
        ("application/grpc-web+proto", false),
        ("application/json", false),
        ("application/grp", false),
        ("", false),
    ] {
        let headers = [(http::header::CONTENT_TYPE, content_type.parse().unwrap())].into_iter().collect();
        assert_eq!(hopvine::request::is_grpc(&headers), grpc, "{content_type}");
    }
}

#[test]
fn callers_are_told_when_to_ask_again_never_too_early() {
    for (wait, seconds, milliseconds) in
        [(MS(0), "0", "0"), (MS(1), "1", "1"), (MS(1000), "1", "1000"), (MS(1001), "2", "1001")]
    {
        let error = Error::new(ErrorKind::CircuitOpen).with_retry_after(wait);
        assert_eq!(header(&to_response(&error, false), "retry-after"), Some(seconds));
        assert_eq!(header(&to_response(&error, true), "grpc-retry-pushback-ms"), Some(milliseconds));
    }
    let fraction = Error::new(ErrorKind::RateLimited).with_retry_after(Duration::from_nanos(1_500_001));
    assert_eq!(header(&to_response(&fraction, true), "grpc-retry-pushback-ms"), Some("2"));
}

#[tokio::test]
async fn a_response_passes_unchanged_with_body_and_trailers() {
    let service = RespondLayer::new().layer(service_fn(async |_: Request<Body>| {
        let (mut sender, body) = http_body_util::channel::Channel::<Bytes, Infallible>::new(4);
        sender.send_data(Bytes::from_static(b"one ")).await.unwrap();
        sender.send_data(Bytes::from_static(b"two")).await.unwrap();
        let trailers = [(http::HeaderName::from_static("x-end"), "3".parse().unwrap())].into_iter().collect();
        sender.send_trailers(trailers).await.unwrap();
        drop(sender);
        Ok::<_, Infallible>(Response::builder().status(418).header("x-mine", "1").body(body).unwrap())
    }));
    let Ok(response) = service.oneshot(plain()).await;
    assert_eq!((response.status().as_u16(), header(&response, "x-mine")), (418, Some("1")));
    let whole = response.into_body().collect().await.unwrap();
    assert_eq!(whole.trailers().unwrap()["x-end"], "3");
    assert_eq!(whole.to_bytes(), "one two");
}

#[tokio::test]
async fn an_error_inside_a_foreign_one_keeps_its_kind_and_a_foreign_one_is_a_bad_gateway() {
    let foreign = |error: BoxError| {
        let mut error = Some(error);
        RespondLayer::new().layer(service_fn(move |_: Request<Body>| {
            std::future::ready(Err::<Response<Body>, _>(error.take().unwrap()))
        }))
    };
    let Ok(response) = foreign(std::io::Error::other(Error::new(ErrorKind::RateLimited)).into()).oneshot(plain()).await;
    assert_eq!(response.status(), 429);
    let Ok(response) = foreign("a text".into()).oneshot(plain()).await;
    assert_eq!(response.status(), 502);
    let Ok(response) = foreign(tower::timeout::error::Elapsed::new().into()).oneshot(plain()).await;
    assert_eq!(response.status(), 504);
}

#[tokio::test]
async fn a_service_that_will_never_be_ready_is_asked_once_and_answered_for() {
    #[derive(Clone)]
    struct Dead {
        asked: bool,
    }
    impl Service<Request<Body>> for Dead {
        type Response = Response<Body>;
        type Error = Error;
        type Future = std::future::Pending<Result<Response<Body>, Error>>;

        fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> Poll<Result<(), Error>> {
            assert!(!std::mem::replace(&mut self.asked, true), "polled after an error");
            Poll::Ready(Err(Error::new(ErrorKind::Connect)))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            panic!("called though it is not ready")
        }
    }
    let mut service = RespondLayer::new().layer(Dead { asked: false });
    for _ in 0..3 {
        let Ok(response) = service.ready().await.unwrap().call(plain()).await;
        assert_eq!(response.status(), 503);
    }
    let Ok(response) = service.clone().oneshot(plain()).await;
    assert_eq!(response.status(), 503);
}

#[tokio::test]
async fn readiness_is_waited_for() {
    let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
    handle.allow(0);
    let mut service = RespondLayer::new().layer(service);
    let waits = poll_fn(|cx| Poll::Ready(service.poll_ready(cx).is_pending())).await;
    assert!(waits);
    let failed = async {
        let Ok(response) = service.ready().await.unwrap().call(plain()).await;
        response.status()
    };
    let serve = async {
        handle.allow(1);
        handle.next_request().await.unwrap().1.send_error("broken");
    };
    assert_eq!(tokio::join!(failed, serve).0, 502);
}

async fn refused() -> Result<&'static str, ErrorResponse> {
    Err(Error::new(ErrorKind::CircuitOpen).with_retry_after(MS(2500)))?;
    Ok("never")
}

/// As a user writes it: a router whose layers stand in one builder.
fn app(policy: impl hopvine::live::IntoLive<ServerDeadlinePolicy>) -> Router {
    let stack = DeadlineLayer::new(MS(30)).layer(service_fn(async |(): ()| pending::<Result<&str, Error>>().await));
    Router::new()
        .route("/quick", get(async || "here"))
        .route("/hangs", get(pending::<()>))
        .route("/hangs-too", get(pending::<()>))
        .route("/calls", get(move || async move { stack.oneshot(()).await.map_err(ErrorResponse::from) }))
        .route("/refused", get(refused))
        .layer(ServiceBuilder::new().layer(RespondLayer::new()).layer(ServerDeadlineLayer::new(policy).unwrap()))
}

async fn ask(app: &Router, path: &str, timeout: Option<&str>) -> Response<Body> {
    let mut request = Request::get(path);
    if let Some(timeout) = timeout {
        request = request.header("x-request-timeout-ms", timeout);
    }
    app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_axum_router_answers_timeouts_and_refusals_with_responses() {
    let app = app(ServerDeadlinePolicy::default());
    let response = ask(&app, "/quick", Some("100")).await;
    assert_eq!((response.status().as_u16(), &*text(response).await), (200, "here"));

    let start = tokio::time::Instant::now();
    let response = ask(&app, "/hangs", Some("100")).await;
    assert_eq!((response.status().as_u16(), start.elapsed()), (504, MS(100)));
    assert_eq!(text(response).await, "deadline exceeded");

    let response = ask(&app, "/calls", Some("100")).await;
    assert_eq!(response.status(), 504);
    let response = ask(&app, "/refused", None).await;
    assert_eq!((response.status().as_u16(), header(&response, "retry-after")), (503, Some("3")));
    assert_eq!(ask(&app, "/nowhere", None).await.status(), 404);
}

#[tokio::test(start_paused = true)]
async fn every_route_and_connection_follows_the_one_policy() {
    let live = Live::new(ServerDeadlinePolicy::default()).unwrap();
    let app = app(live.clone());
    for default in [MS(10_000), MS(60)] {
        live.set(ServerDeadlinePolicy { default, ..Default::default() }).unwrap();
        for path in ["/hangs", "/hangs-too"] {
            let start = tokio::time::Instant::now();
            // As `axum::serve` does: a fresh clone per connection.
            assert_eq!(ask(&app, path, None).await.status(), 504);
            assert_eq!(start.elapsed(), default);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_leaves_nothing_behind() {
    let held = Arc::new(());
    let clone = Arc::clone(&held);
    let app = Router::new().route(
        "/",
        get(move || {
            let clone = Arc::clone(&clone);
            async move {
                tokio::task::yield_now().await;
                pending::<()>().await;
                drop(clone);
            }
        }),
    );
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .layer(ServerDeadlineLayer::new(ServerDeadlinePolicy::default()).unwrap());
    let app = app.layer(layers);
    let before = Arc::strong_count(&held);
    for polls in 0..6 {
        assert!(drop_after(app.clone().oneshot(plain()), polls).await.is_none());
        assert_eq!(Arc::strong_count(&held), before);
    }
}

#[tokio::test]
async fn a_tonic_client_sees_a_refusal_as_a_grpc_status() {
    use tonic::transport::{Endpoint, Server, server::TcpIncoming};
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let refuses = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&refuses);
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .layer(ServerDeadlineLayer::new(ServerDeadlinePolicy::default()).unwrap())
        .map_result(move |result: Result<Response<tonic::body::Body>, Error>| {
            if switch.load(Relaxed) {
                return Err(telling(ErrorKind::RateLimited).with_retry_after(MS(1500)));
            }
            result
        })
        .map_err(|never: Infallible| match never {});
    let server = Server::builder().layer(layers).add_service(health).serve_with_incoming(TcpIncoming::from(listener));
    let server = tokio::spawn(server);

    let talk = async {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let mut client = HealthClient::new(channel);
        client.check(HealthCheckRequest::default()).await.unwrap();
        refuses.store(true, Relaxed);
        let status = client.check(HealthCheckRequest::default()).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (tonic::Code::ResourceExhausted, "rate limited"));
        assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "1500");
    };
    tokio::time::timeout(Duration::from_secs(10), talk).await.unwrap();
    server.abort();
}

/// A tonic server has a timer of its own for `grpc-timeout`, outside every layer. If that one ended the call, its guards
/// would see a cancelled call, and the caller `CANCELLED`. The client here is a bare one: tonic's has such a timer too.
#[tokio::test]
async fn in_a_tonic_server_our_deadline_comes_before_tonics() {
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tonic::transport::{Server, server::TcpIncoming};

    struct Guard(Arc<Mutex<Vec<DropCause>>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(context::drop_cause());
        }
    }

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let causes = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&causes);
    let layers = ServiceBuilder::new()
        .layer(RespondLayer::new())
        .layer(ServerDeadlineLayer::new(ServerDeadlinePolicy::default()).unwrap())
        .map_future(move |_| {
            let guard = Guard(Arc::clone(&log));
            async move {
                let _guard = guard;
                pending::<Result<Response<tonic::body::Body>, Infallible>>().await
            }
        });
    let server = Server::builder().layer(layers).add_service(health).serve_with_incoming(TcpIncoming::from(listener));
    let server = tokio::spawn(server);

    let talk = async {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        for timeout in ["0m", "1m", "2m", "3m", "1500u", "2999u", "7m", "10m", "12345u", "999n"] {
            // An empty message, in its frame.
            let message = http_body_util::Full::new(Bytes::from_static(&[0; 5]));
            let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("grpc-timeout", timeout)
                .body(message)
                .unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(header(&response, "grpc-status"), Some("4"), "{timeout}: {:?}", response.headers());
            assert_eq!(header(&response, "grpc-message"), Some("deadline exceeded"));
        }
        connection.abort();
    };
    tokio::time::timeout(Duration::from_secs(10), talk).await.unwrap();
    // The first came too late to be called at all.
    assert_eq!(*causes.lock().unwrap(), [DropCause::TimedOut; 9]);
    server.abort();
}
