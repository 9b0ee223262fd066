//! The deadline: set per call, told to servers per attempt, taken over by servers.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use hopvine::{
    Context, Endpoint, EndpointHandle, Error, ErrorKind, Live, NewService, Outcome,
    connect::per_endpoint,
    context::{self, DropCause},
    endpoint::Group,
    layers::{
        attempt_timeout::AttemptTimeoutLayer,
        deadline::{DeadlineHeaderLayer, DeadlineLayer, DeadlinePolicy, ServerDeadlineLayer, ServerDeadlinePolicy},
    },
};
use http::{HeaderName, Request};
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_layer::Layer;

use crate::support::{Answer, Query, drop_after};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Waits as the layers do, on tokio's clock.
async fn wait(duration: Duration) {
    tokio::time::sleep_until(Instant::now() + duration).await;
}

/// Tells why it was dropped.
struct Guard(Arc<Mutex<Vec<DropCause>>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.lock().unwrap().push(context::drop_cause());
    }
}

fn remaining() -> Option<Duration> {
    Context::current().remaining()
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_when_its_deadline_passes_and_not_later() {
    let mut service = DeadlineLayer::new(MS(100)).layer(service_fn(async |_: Query| {
        wait(MS(250)).await;
        Ok::<_, Error>(Answer::Rows(1))
    }));
    let start = Instant::now();
    let error = service.ready().await.unwrap().call(Query::read("all")).await.unwrap_err();
    assert_eq!(start.elapsed(), MS(100));
    assert_eq!(
        (error.kind(), error.layer(), error.is_unsent()),
        (ErrorKind::DeadlineExceeded, Some("deadline"), false)
    );
    assert_eq!(Outcome::of_error(&error), Outcome::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_passes_unchanged_even_at_the_last_moment() {
    let service = DeadlineLayer::new(MS(100)).layer(service_fn(async |after: Duration| {
        wait(after).await;
        Ok::<_, Error>(Answer::Rows(7))
    }));
    assert_eq!(service.clone().oneshot(MS(40)).await.unwrap(), Answer::Rows(7));
    // The inner future is polled first.
    assert_eq!(service.oneshot(MS(100)).await.unwrap(), Answer::Rows(7));
}

#[tokio::test(start_paused = true)]
async fn a_callers_earlier_deadline_is_never_extended() {
    let service = DeadlineLayer::new(MS(100)).layer(service_fn(async |(): ()| {
        let told = remaining();
        wait(MS(70)).await;
        Ok::<_, Error>(told)
    }));
    let start = Instant::now();
    let near = Context::new().with_deadline(Some(start + MS(50)));
    let error = near.scope(service.clone().oneshot(())).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (ErrorKind::DeadlineExceeded, MS(50)));

    let far = Context::new().with_deadline(Some(Instant::now() + MS(500)));
    assert_eq!(far.scope(service.oneshot(())).await.unwrap(), Some(MS(100)));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_in_call_and_in_every_poll_and_nowhere_else() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let service = DeadlineLayer::new(MS(100)).layer(service_fn(move |(): ()| {
        let log = Arc::clone(&log);
        log.lock().unwrap().push(remaining());
        async move {
            log.lock().unwrap().push(remaining());
            wait(MS(30)).await;
            log.lock().unwrap().push(remaining());
            Ok::<_, Error>(())
        }
    }));
    service.oneshot(()).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [Some(MS(100)), Some(MS(100)), Some(MS(70))]);
    assert_eq!(remaining(), None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_called_after_the_deadline_and_no_endpoint_is_blamed() {
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let inner = service_fn(move |(): ()| {
        count.fetch_add(1, Relaxed);
        async { Ok::<_, Error>(()) }
    });
    let past = Context::new().with_deadline(Some(Instant::now()));
    let error = past.scope(DeadlineLayer::new(MS(100)).layer(inner.clone()).oneshot(())).await.unwrap_err();
    assert_eq!((error.kind(), error.is_unsent()), (ErrorKind::DeadlineExceeded, true));
    assert_eq!(Outcome::of_error(&error), Outcome::Ignored);

    let error = DeadlineLayer::new(Duration::ZERO).layer(inner.clone()).oneshot(()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(calls.load(Relaxed), 0);

    // Too long for the clock is no limit, and no panic.
    DeadlineLayer::new(Duration::MAX).layer(inner).oneshot(()).await.unwrap();
    assert_eq!(calls.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_guard_inside_sees_whether_time_ran_out_or_the_caller_left() {
    let causes = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&causes);
    let service = DeadlineLayer::new(MS(100)).layer(service_fn(move |(): ()| {
        let guard = Guard(Arc::clone(&log));
        async move {
            let _guard = guard;
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            pending::<Result<(), Error>>().await
        }
    }));
    for polls in 0..20 {
        assert!(drop_after(service.clone().oneshot(()), polls).await.is_none());
    }
    let cancelled = causes.lock().unwrap().len();
    // `oneshot` makes the call in its first poll.
    assert_eq!(*causes.lock().unwrap(), [DropCause::Cancelled; 19]);
    service.oneshot(()).await.unwrap_err();
    assert_eq!(causes.lock().unwrap()[cancelled..], [DropCause::TimedOut]);
    assert_eq!(context::drop_cause(), DropCause::Cancelled, "over");
}

#[tokio::test(start_paused = true)]
async fn the_call_inside_is_dropped_when_time_runs_out_though_the_caller_keeps_the_future() {
    let causes = Arc::new(Mutex::new(Vec::new()));
    let guard = Guard(Arc::clone(&causes));
    let mut guard = Some(guard);
    let mut service = DeadlineLayer::new(MS(10)).layer(service_fn(move |(): ()| {
        let guard = guard.take();
        async move {
            let _guard = guard;
            pending::<Result<(), Error>>().await
        }
    }));
    let mut call = pin!(service.ready().await.unwrap().call(()));
    call.as_mut().await.unwrap_err();
    assert_eq!(*causes.lock().unwrap(), [DropCause::TimedOut]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_call_cannot_hold_up_its_deadline() {
    // Uses up the task's budget at each poll, and is woken at once.
    let busy = service_fn(async |(): ()| {
        loop {
            tokio::task::coop::consume_budget().await;
        }
        #[allow(unreachable_code, reason = "says the type")]
        Ok::<(), Error>(())
    });
    let clock = tokio::spawn(async {
        for _ in 0..50 {
            tokio::time::advance(MS(1)).await;
        }
    });
    let error = DeadlineLayer::new(MS(20)).layer(busy).oneshot(()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    clock.abort();
}

#[tokio::test(start_paused = true)]
async fn a_new_policy_holds_for_the_calls_that_follow() {
    let live = Live::new(DeadlinePolicy::default()).unwrap();
    let layer = DeadlineLayer::live(live.clone());
    let told = service_fn(async |(): ()| Ok::<_, Error>(remaining()));
    let (one, two) = (layer.layer(told), layer.clone().layer(told));
    assert_eq!(one.clone().oneshot(()).await.unwrap(), Some(Duration::from_secs(2)));
    live.set(DeadlinePolicy { timeout: MS(300) }).unwrap();
    assert_eq!(one.oneshot(()).await.unwrap(), Some(MS(300)));
    assert_eq!(two.oneshot(()).await.unwrap(), Some(MS(300)));
    assert_eq!(live.set(DeadlinePolicy { timeout: Duration::ZERO }).unwrap_err().field(), "timeout");
}

#[tokio::test(start_paused = true)]
async fn errors_inside_keep_their_kind() {
    let service = DeadlineLayer::new(MS(100)).layer(service_fn(async |(): ()| {
        Err::<(), _>(Error::new(ErrorKind::NoEndpoint).with_service("catalog".into()))
    }));
    let error = service.oneshot(()).await.unwrap_err();
    assert_eq!((error.kind(), error.service()), (ErrorKind::NoEndpoint, Some("catalog")));
}

#[test]
fn policies_are_read_with_humane_durations() {
    let policy: DeadlinePolicy = serde_json::from_str(r#"{ "timeout": "1s 500ms" }"#).unwrap();
    assert_eq!(policy.timeout, MS(1500));
    let policy: ServerDeadlinePolicy = serde_json::from_str(r#"{ "maximum": "30s" }"#).unwrap();
    assert_eq!((policy.default, policy.maximum), (Duration::from_secs(10), Duration::from_secs(30)));
    assert!(serde_json::from_str::<DeadlinePolicy>(r#"{ "timout": "1s" }"#).is_err());
}

/// T1: deadline 100 ms, attempt timeout 40, backoff 10.
#[tokio::test(start_paused = true)]
async fn attempts_start_at_0_and_50_and_all_ends_at_100() {
    use ErrorKind::{AttemptTimeout, DeadlineExceeded};

    let start = Instant::now();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let connector = |_: &EndpointHandle| {
        let seen = Arc::clone(&seen);
        service_fn(move |request: Request<()>| {
            let told = request.headers().get("grpc-timeout").unwrap().to_str().unwrap().to_owned();
            seen.lock().unwrap().push((start.elapsed(), told));
            pending::<Result<http::Response<()>, Error>>()
        })
    };
    let per_attempt = ServiceBuilder::new()
        .layer(DeadlineHeaderLayer::new())
        .layer(per_endpoint(|_| AttemptTimeoutLayer::new(MS(40))))
        .service(connector)
        .new_service(&endpoint());
    let kinds = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&kinds);
    let retry = service_fn(move |(): ()| {
        let (per_attempt, log) = (per_attempt.clone(), Arc::clone(&log));
        async move {
            loop {
                let error = per_attempt.clone().oneshot(grpc(None)).await.unwrap_err();
                log.lock().unwrap().push((start.elapsed(), error.kind()));
                if error.kind() == ErrorKind::DeadlineExceeded {
                    return Err::<(), _>(error);
                }
                wait(MS(10)).await;
            }
        }
    });
    let error = DeadlineLayer::new(MS(100)).layer(retry).oneshot(()).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed()), (ErrorKind::DeadlineExceeded, MS(100)));
    assert_eq!(*seen.lock().unwrap(), [(MS(0), "99m".to_owned()), (MS(50), "49m".to_owned())]);
    // The third is refused by the attempt's own layer, before anything is sent.
    assert_eq!(
        *kinds.lock().unwrap(),
        [(MS(40), AttemptTimeout), (MS(90), AttemptTimeout), (MS(100), DeadlineExceeded)]
    );
}

fn endpoint() -> EndpointHandle {
    let endpoint: Endpoint = "127.0.0.1:1".parse().unwrap();
    EndpointHandle::new("catalog".into(), endpoint.into(), Arc::new(Group::new(1)))
}

fn grpc(timeout: Option<&str>) -> Request<()> {
    let mut request = Request::builder().header("content-type", "application/grpc+proto");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    request.body(()).unwrap()
}

fn plain(timeout: Option<&str>) -> Request<()> {
    let mut request = Request::builder().header("content-type", "application/json");
    if let Some(timeout) = timeout {
        request = request.header("x-request-timeout-ms", timeout);
    }
    request.body(()).unwrap()
}

/// What a server is told, `grpc-timeout` and the plain header, when `request` is sent with so much remaining.
async fn told(layer: &DeadlineHeaderLayer, left: Option<Duration>, request: Request<()>) -> [Option<String>; 2] {
    let connector = |_: &EndpointHandle| service_fn(async |request: Request<()>| Ok::<_, Error>(request));
    let service = layer.layer(connector).new_service(&endpoint());
    let deadline = left.map(|left| Instant::now() + left);
    let sent = Context::new().with_deadline(deadline).scope(service.oneshot(request)).await.unwrap();
    ["grpc-timeout", "x-request-timeout-ms"].map(|name| {
        assert!(sent.headers().get_all(name).iter().count() <= 1);
        sent.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    })
}

fn texts(grpc: Option<&str>, plain: Option<&str>) -> [Option<String>; 2] {
    [grpc.map(str::to_owned), plain.map(str::to_owned)]
}

#[tokio::test(start_paused = true)]
async fn a_server_is_told_what_remains_less_a_margin_and_never_zero() {
    let layer = DeadlineHeaderLayer::new();
    assert_eq!(told(&layer, Some(MS(250)), grpc(None)).await, texts(Some("249m"), None));
    assert_eq!(told(&layer, Some(MS(250)), plain(None)).await, texts(None, Some("249")));
    let last = Some(Duration::from_micros(300));
    assert_eq!(told(&layer, last, grpc(None)).await, texts(Some("1m"), None));
    assert_eq!(told(&layer, last, plain(None)).await, texts(None, Some("1")));
    assert_eq!(told(&layer, None, plain(None)).await, texts(None, None));

    let far = DeadlineHeaderLayer::new().margin(MS(40));
    assert_eq!(told(&far, Some(MS(250)), plain(None)).await, texts(None, Some("210")));
    let none = DeadlineHeaderLayer::new().margin(Duration::ZERO);
    assert_eq!(told(&none, Some(MS(250)), plain(None)).await, texts(None, Some("249")), "1 ms at least");
}

#[tokio::test(start_paused = true)]
async fn what_an_inbound_request_said_is_not_passed_on_stale() {
    let layer = DeadlineHeaderLayer::new();
    assert_eq!(told(&layer, Some(MS(250)), plain(Some("9000"))).await, texts(None, Some("249")));
    assert_eq!(told(&layer, None, plain(Some("9000"))).await, texts(None, None));
    assert_eq!(told(&layer, Some(MS(250)), grpc(Some("9S"))).await, texts(Some("249m"), None));
    assert_eq!(told(&layer, Some(MS(250)), grpc(Some("soon"))).await, texts(Some("249m"), None));
    // A client's own, shorter one stays.
    assert_eq!(told(&layer, Some(MS(250)), grpc(Some("100000u"))).await, texts(Some("100000u"), None));
    assert_eq!(told(&layer, None, grpc(Some("9S"))).await, texts(Some("9S"), None));

    let other = DeadlineHeaderLayer::new().header(HeaderName::from_static("x-mine"));
    let connector = |_: &EndpointHandle| service_fn(async |request: Request<()>| Ok::<_, Error>(request));
    let deadline = Context::new().with_deadline(Some(Instant::now() + MS(250)));
    let sent = deadline.scope(other.layer(connector).new_service(&endpoint()).oneshot(plain(None))).await.unwrap();
    assert_eq!(sent.headers()["x-mine"], "249");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_when_nothing_remains() {
    let connector = |_: &EndpointHandle| service_fn(async |_: Query| -> Result<(), Error> { panic!("sent") });
    let service = DeadlineHeaderLayer::new().layer(connector).new_service(&endpoint());
    let past = Context::new().with_deadline(Some(Instant::now()));
    let error = past.scope(service.oneshot(Query::read("all"))).await.unwrap_err();
    assert_eq!((error.kind(), error.is_unsent()), (ErrorKind::DeadlineExceeded, true));
}

#[tokio::test(start_paused = true)]
async fn a_request_without_headers_passes() {
    let connector = |_: &EndpointHandle| service_fn(async |query: Query| Ok::<_, Error>(query));
    let service = DeadlineHeaderLayer::new().layer(connector).new_service(&endpoint());
    let context = Context::new().with_deadline(Some(Instant::now() + MS(5)));
    assert_eq!(context.scope(service.oneshot(Query::read("all"))).await.unwrap(), Query::read("all"));
}

/// How long a handler is allowed behind this layer.
async fn allowed(layer: &ServerDeadlineLayer, request: Request<()>) -> Duration {
    let handler = service_fn(async |_: Request<()>| Ok::<_, Error>(remaining().unwrap()));
    layer.layer(handler).oneshot(request).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_handler_gets_the_time_its_caller_said_within_the_maximum() {
    let layer = ServerDeadlineLayer::new(ServerDeadlinePolicy { default: MS(700), maximum: MS(5000) }).unwrap();
    assert_eq!(allowed(&layer, grpc(Some("250m"))).await, MS(250));
    assert_eq!(allowed(&layer, grpc(Some("3S"))).await, MS(3000));
    assert_eq!(allowed(&layer, plain(Some("250"))).await, MS(250));
    assert_eq!(allowed(&layer, plain(Some("99999999999"))).await, MS(5000), "clamped");
    assert_eq!(allowed(&layer, grpc(Some("99999999H"))).await, MS(5000), "clamped");
    assert_eq!(allowed(&layer, plain(None)).await, MS(700), "default");
    assert_eq!(allowed(&layer, grpc(None)).await, MS(700), "default");
    for unreadable in ["", "-5", "1.5", "5s", "99999999999999999999999"] {
        assert_eq!(allowed(&layer, plain(Some(unreadable))).await, MS(700), "{unreadable:?}");
        assert_eq!(allowed(&layer, grpc(Some(unreadable))).await, MS(700), "{unreadable:?}");
    }
    // Each kind of request by its own header.
    let mut request = plain(None);
    request.headers_mut().insert("grpc-timeout", "5m".parse().unwrap());
    assert_eq!(allowed(&layer, request).await, MS(700));

    let mine = layer.clone().header(HeaderName::from_static("x-mine"));
    let mut request = plain(Some("5"));
    request.headers_mut().insert("x-mine", "250".parse().unwrap());
    assert_eq!(allowed(&mine, request).await, MS(250));

    let edge = layer.untrusted();
    assert_eq!(allowed(&edge, plain(Some("5"))).await, MS(5000));
    assert_eq!(allowed(&edge, plain(None)).await, MS(5000));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_no_http_gets_the_default() {
    let layer = ServerDeadlineLayer::new(ServerDeadlinePolicy::default()).unwrap();
    let handler = service_fn(async |_: Query| Ok::<_, Error>(remaining().unwrap()));
    assert_eq!(layer.layer(handler).oneshot(Query::read("all")).await.unwrap(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_too_late_does_no_work() {
    let layer = ServerDeadlineLayer::new(ServerDeadlinePolicy::default()).unwrap();
    let handler = service_fn(async |_: Request<()>| -> Result<(), Error> { panic!("called") });
    for request in [grpc(Some("0m")), plain(Some("0"))] {
        let error = layer.layer(handler).oneshot(request).await.unwrap_err();
        assert_eq!((error.kind(), error.is_unsent()), (ErrorKind::DeadlineExceeded, true));
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_is_dropped_as_timed_out_at_its_callers_deadline() {
    let causes = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&causes);
    let handler = service_fn(move |_: Request<()>| {
        let guard = Guard(Arc::clone(&log));
        async move {
            let _guard = guard;
            pending::<Result<(), Error>>().await
        }
    });
    let service = ServerDeadlineLayer::new(ServerDeadlinePolicy::default()).unwrap().layer(handler);
    let start = Instant::now();
    let error = service.clone().oneshot(plain(Some("80"))).await.unwrap_err();
    assert_eq!((error.kind(), error.layer()), (ErrorKind::DeadlineExceeded, Some("server_deadline")));
    assert_eq!(start.elapsed(), MS(80));
    assert_eq!(*causes.lock().unwrap(), [DropCause::TimedOut]);

    assert!(drop_after(service.oneshot(plain(Some("80"))), 3).await.is_none(), "the client went away");
    assert_eq!(causes.lock().unwrap()[1..], [DropCause::Cancelled]);
}

#[tokio::test(start_paused = true)]
async fn a_handler_reads_the_clock_afresh_within_one_poll() {
    let handler = service_fn(async |(): ()| {
        let before = context::now();
        // The first poll moves the clock.
        let mut advance = pin!(tokio::time::advance(MS(30)));
        assert!(futures_util::poll!(advance.as_mut()).is_pending());
        Ok::<_, Error>(context::now() - before)
    });
    let service = ServerDeadlineLayer::new(ServerDeadlinePolicy::default())
        .unwrap()
        .layer(tower::util::MapRequest::new(handler, |_: Query| ()));
    let mut call = pin!(service.oneshot(Query::read("all")));
    let took = poll_fn(|cx| {
        // As in a layer of ours outside.
        let _clock = context::enter_clock();
        context::now();
        let polled = call.as_mut().poll(cx);
        assert!(polled.is_ready());
        polled
    });
    assert_eq!(took.await.unwrap(), MS(30));
}

#[tokio::test(start_paused = true)]
async fn readiness_is_the_inner_services() {
    let (service, mut handle) = tower_test::mock::pair::<Query, Answer>();
    handle.allow(0);
    let mut service = DeadlineLayer::new(MS(10)).layer(service);
    let polled = poll_fn(|cx| Poll::Ready(Service::<Query>::poll_ready(&mut service, cx).is_pending())).await;
    assert!(polled, "not ready yet");
    handle.allow(1);
    let mut call = pin!(service.ready().await.unwrap().call(Query::read("all")));
    assert!(futures_util::poll!(call.as_mut()).is_pending());
    let (query, respond) = handle.next_request().await.unwrap();
    assert_eq!(query, Query::read("all"));
    respond.send_response(Answer::Rows(1));
    assert_eq!(call.await.unwrap(), Answer::Rows(1));
}
