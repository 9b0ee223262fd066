//! Outlier detection: which endpoints are taken out, for how long, and how they return.

use std::{
    future::pending,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use hopvine::{
    Endpoint, EndpointHandle, Error, ErrorKind, Live, NewService, Outcome,
    connect::per_endpoint,
    context::{self, DropCause},
    endpoint::{Admission, Group},
    layers::{
        attempt_timeout::AttemptTimeoutLayer,
        outlier::{OutlierDetectionLayer, OutlierPolicy},
    },
    live::Ratio,
    outcome::Failure,
};
use http::{Response, StatusCode};
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_layer::Layer;
use tracing_subscriber::layer::SubscriberExt;

use crate::support::{Answer, Query, drop_after};

const S: fn(u64) -> Duration = Duration::from_secs;

/// What the endpoint does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Status(u16),
    Fail(ErrorKind),
    FailUnsent(ErrorKind),
    /// Answers when that time has passed.
    Late(Duration, u16),
    Hang,
}
use Does::{Fail, FailUnsent, Hang, Late, Status};

async fn scripted(does: Does) -> Result<Response<()>, Error> {
    let answer = |status| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(response)
    };
    match does {
        Status(status) => answer(status),
        Fail(kind) => Err(Error::new(kind)),
        FailUnsent(kind) => Err(Error::new(kind).unsent()),
        Late(after, status) => {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep_until(Instant::now() + after).await;
            answer(status)
        }
        Hang => pending().await,
    }
}

/// No jitter, so that times are exact.
fn policy() -> OutlierPolicy {
    OutlierPolicy { jitter: Ratio(0.0), ..Default::default() }
}

fn handles(count: u32) -> Vec<EndpointHandle> {
    let group = Arc::new(Group::new(count));
    let handle = |port: u32| {
        let endpoint: Endpoint = format!("127.0.0.1:{port}").parse().unwrap();
        EndpointHandle::new("catalog".into(), endpoint.into(), Arc::clone(&group))
    };
    (1..=count).map(handle).collect()
}

trait Watched: Service<Does, Response = Response<()>, Error = Error, Future: Send> + Clone + Send + Sync {}
impl<S: Service<Does, Response = Response<()>, Error = Error, Future: Send> + Clone + Send + Sync> Watched for S {}

fn watched(handle: &EndpointHandle, policy: OutlierPolicy) -> impl Watched + use<> {
    OutlierDetectionLayer::new(policy).unwrap().layer(|_: &EndpointHandle| service_fn(scripted)).new_service(handle)
}

async fn calls(service: &impl Watched, script: &[Does]) {
    for does in script {
        let _ = service.clone().oneshot(*does).await;
    }
}

fn now() -> u64 {
    context::nanos(context::now())
}

/// As the balancer does: takes the probe's lease where one is due.
fn lease(handle: &EndpointHandle) -> bool {
    handle.admission(now()) == Admission::Probe
        && handle.health().try_probe(now(), context::nanos(context::now() + S(10)))
}

/// How long the endpoint is out, from now.
async fn out_for(handle: &EndpointHandle) -> Duration {
    let start = Instant::now();
    while handle.admission(now()) == Admission::Closed {
        tokio::time::advance(Duration::from_millis(500)).await;
    }
    start.elapsed()
}

const BROKEN: Does = Status(500);
const WELL: Does = Status(200);

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_eject_and_four_do_not() {
    let all = handles(2);
    let service = watched(&all[0], policy());
    calls(&service, &[BROKEN, BROKEN, BROKEN, BROKEN, WELL, BROKEN, BROKEN, BROKEN, BROKEN]).await;
    assert_eq!(all[0].admission(now()), Admission::Open);
    calls(&service, &[BROKEN]).await;
    assert_eq!(all[0].admission(now()), Admission::Closed);
    assert_eq!((all[0].group().ejected(), all[1].admission(now())), (1, Admission::Open));
    assert_eq!(out_for(&all[0]).await, S(30));
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_failure_counts_and_what_says_nothing_neither_counts_nor_resets() {
    let failures =
        [BROKEN, Fail(ErrorKind::Connect), Fail(ErrorKind::Upstream), Fail(ErrorKind::AttemptTimeout), Status(503)];
    let silent = [
        Status(429),
        Fail(ErrorKind::NoEndpoint),
        Fail(ErrorKind::BulkheadFull),
        FailUnsent(ErrorKind::DeadlineExceeded),
    ];
    let all = handles(2);
    let service = watched(&all[0], policy());
    for failure in &failures {
        assert_eq!(all[0].admission(now()), Admission::Open, "before {failure:?}");
        calls(&service, &silent).await;
        assert!(drop_after(service.clone().oneshot(Hang), 2).await.is_none());
        calls(&service, &[*failure]).await;
    }
    assert_eq!(all[0].admission(now()), Admission::Closed);

    let service = watched(&all[1], policy());
    for _ in 0..10 {
        calls(&service, &silent).await;
        // A caller's mistake says nothing against the endpoint either: a success.
        calls(&service, &[Status(404), Fail(ErrorKind::DeadlineExceeded)]).await;
    }
    assert_eq!(all[1].admission(now()), Admission::Open);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_is_ejected_by_the_timeouts_inside_and_outside() {
    let all = handles(3);
    let policy = OutlierPolicy { max_ejected: Ratio(1.0), ..policy() };
    // Inside, as an error.
    let connector = ServiceBuilder::new()
        .layer(OutlierDetectionLayer::new(policy.clone()).unwrap())
        .layer(per_endpoint(|_| AttemptTimeoutLayer::new(S(1))))
        .service(|_: &EndpointHandle| service_fn(scripted));
    let service = connector.new_service(&all[0]);
    for _ in 0..5 {
        assert_eq!(service.clone().oneshot(Hang).await.unwrap_err().kind(), ErrorKind::AttemptTimeout);
    }
    assert_eq!(all[0].admission(now()), Admission::Closed);

    // Outside, as the cause of a drop, at any await point.
    let service = watched(&all[1], policy);
    for polls in 1..=5 {
        assert_eq!(all[1].admission(now()), Admission::Open);
        let mut call = Box::pin(service.clone().oneshot(Late(S(1), 200)));
        for _ in 0..polls {
            assert!(futures_util::poll!(call.as_mut()).is_pending());
        }
        let _cause = context::enter_drop_cause(DropCause::TimedOut);
        drop(call);
    }
    assert_eq!(all[1].admission(now()), Admission::Closed);

    // A cancelled one is none, at any await point.
    let service = watched(&all[2], OutlierPolicy { consecutive_failures: 1, ..self::policy() });
    for polls in 0..20 {
        assert!(drop_after(service.clone().oneshot(Late(S(1), 500)), polls).await.is_none());
    }
    assert_eq!(all[2].admission(now()), Admission::Open);
}

#[tokio::test(start_paused = true)]
async fn ejections_in_a_row_last_longer_and_health_is_forgiven() {
    let all = handles(2);
    let service = watched(&all[0], policy());
    calls(&service, &[BROKEN; 5]).await;
    for seconds in [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300] {
        assert_eq!(out_for(&all[0]).await, S(seconds));
        assert!(lease(&all[0]));
        calls(&service, &[BROKEN]).await;
    }

    // Back, then 5 failures: 30, 60, 90; then two healthy intervals: 60.
    let all = handles(2);
    let service = watched(&all[0], policy());
    for seconds in [30, 60, 90] {
        calls(&service, &[BROKEN; 5]).await;
        assert_eq!(out_for(&all[0]).await, S(seconds));
        assert!(lease(&all[0]));
        calls(&service, &[WELL]).await;
        assert_eq!((all[0].admission(now()), all[0].group().ejected()), (Admission::Open, 0));
    }
    tokio::time::advance(S(20)).await;
    calls(&service, &[BROKEN; 5]).await;
    assert_eq!(out_for(&all[0]).await, S(60));
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_failed_together_does_not_return_in_one_second() {
    fastrand::seed(7);
    let all = handles(40);
    let mut lengths = Vec::new();
    for handle in &all {
        let policy = OutlierPolicy { max_ejected: Ratio(1.0), ..Default::default() };
        calls(&watched(handle, policy), &[BROKEN; 5]).await;
    }
    let start = Instant::now();
    for handle in &all[..39] {
        while handle.admission(now()) == Admission::Closed {
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        lengths.push(start.elapsed());
    }
    // Each is asked after the one before, so these are the running maxima.
    let first = context::nanos(start) + 27_000_000_000;
    assert!(all.iter().all(|handle| handle.admission(first - 1) != Admission::Probe));
    assert!(*lengths.last().unwrap() > S(31) && *lengths.last().unwrap() <= S(33) + Duration::from_millis(100));
    let early = all.iter().filter(|handle| handle.admission(context::nanos(start + S(29))) == Admission::Probe).count();
    assert!((5..35).contains(&early), "{early}");
    assert_eq!(all[0].group().ejected(), 39, "never the last");
}

#[tokio::test(start_paused = true)]
async fn a_probe_dropped_at_any_await_point_leaves_the_next_call_to_probe() {
    let all = handles(2);
    let service = watched(&all[0], policy());
    calls(&service, &[BROKEN; 5]).await;
    out_for(&all[0]).await;
    for polls in 0..20 {
        assert!(lease(&all[0]), "{polls}");
        let mut service = service.clone();
        let call = service.ready().await.unwrap().call(Late(S(1), 200));
        assert_eq!(all[0].admission(now()), Admission::Closed, "one at a time");
        assert!(drop_after(call, polls).await.is_none());
    }
    assert!(lease(&all[0]));
    calls(&service, &[Late(S(1), 200)]).await;
    assert_eq!(all[0].admission(now()), Admission::Open);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_refused_on_our_side_is_given_back_and_one_that_is_throttled_waits() {
    let all = handles(2);
    let service = watched(&all[0], policy());
    calls(&service, &[BROKEN; 5]).await;
    out_for(&all[0]).await;
    assert!(lease(&all[0]));
    calls(&service, &[Fail(ErrorKind::BulkheadFull)]).await;
    assert!(lease(&all[0]));
    calls(&service, &[Status(429)]).await;
    assert_eq!(out_for(&all[0]).await, S(10), "until the lease ends");
    assert!(all[0].health().is_ejected());
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_hangs_shuts_nobody_out_and_counts_when_a_timer_drops_it() {
    let all = handles(2);
    let service = watched(&all[0], policy());
    calls(&service, &[BROKEN; 5]).await;
    out_for(&all[0]).await;
    assert!(lease(&all[0]));
    let mut hanging = Box::pin(service.clone().oneshot(Hang));
    assert!(futures_util::poll!(hanging.as_mut()).is_pending());
    assert_eq!(out_for(&all[0]).await, S(10), "the lease");
    assert!(lease(&all[0]));
    {
        let _cause = context::enter_drop_cause(DropCause::TimedOut);
        drop(hanging);
    }
    assert_eq!(out_for(&all[0]).await, S(60), "it failed its probe");
}

#[tokio::test(start_paused = true)]
async fn a_call_sent_in_a_panic_changes_nothing_before_the_time_is_over() {
    let all = handles(2);
    let service = watched(&all[0], policy());
    calls(&service, &[BROKEN; 5]).await;
    tokio::time::advance(S(10)).await;
    calls(&service, &[WELL, BROKEN, BROKEN, BROKEN, BROKEN, BROKEN, WELL, Status(429)]).await;
    assert!(drop_after(service.clone().oneshot(Hang), 2).await.is_none());
    assert_eq!(out_for(&all[0]).await, S(20));

    // From then on it is as good as the probe, and does not take the probe's lease from it.
    assert!(lease(&all[0]));
    let mut probe = pin!(service.clone().oneshot(Late(S(1), 500)));
    assert!(futures_util::poll!(probe.as_mut()).is_pending());
    assert!(drop_after(service.clone().oneshot(Hang), 2).await.is_none());
    assert_eq!(all[0].admission(now()), Admission::Closed, "the probe has its lease still");
    calls(&service, &[WELL]).await;
    assert_eq!(all[0].admission(now()), Admission::Open);
    probe.await.unwrap();
    assert_eq!(all[0].admission(now()), Admission::Open, "what the probe shows is of before the return");
    calls(&service, &[BROKEN; 4]).await;
    assert_eq!(all[0].admission(now()), Admission::Open);
}

#[tokio::test(start_paused = true)]
async fn a_late_result_of_before_the_ejection_says_nothing_after_it() {
    let all = handles(2);
    let service = watched(&all[0], policy());
    let mut late: Vec<_> = (0..8).map(|_| Box::pin(service.clone().oneshot(Late(S(60), 500)))).collect();
    let mut well = Box::pin(service.clone().oneshot(Late(S(10), 200)));
    for call in late.iter_mut().chain([&mut well]) {
        assert!(futures_util::poll!(call.as_mut()).is_pending());
    }
    calls(&service, &[BROKEN; 5]).await;
    well.await.unwrap();
    assert!(all[0].health().is_ejected(), "an answer to an older call is no probe");
    out_for(&all[0]).await;
    assert!(lease(&all[0]));
    calls(&service, &[WELL]).await;
    for call in late {
        call.await.unwrap();
    }
    assert_eq!(all[0].admission(now()), Admission::Open);
}

#[tokio::test(start_paused = true)]
async fn never_the_last_and_never_more_than_the_cap() {
    let alone = handles(1);
    calls(&watched(&alone[0], policy()), &[BROKEN; 50]).await;
    assert_eq!(alone[0].admission(now()), Admission::Open);

    let all = handles(20);
    let services: Vec<_> = all.iter().map(|handle| watched(handle, policy())).collect();
    fastrand::seed(20);
    for _ in 0..2_000 {
        let index = fastrand::usize(..20);
        if all[index].admission(now()) == Admission::Open {
            calls(&services[index], &[BROKEN]).await;
        }
        assert!(all[0].group().ejected() <= 6);
    }
    assert_eq!(all[0].group().ejected(), 6);
    assert_eq!(all.iter().filter(|handle| handle.health().is_ejected()).count(), 6);

    // A place that becomes free is taken by the next failure of one that was waiting for it.
    let ejected = all.iter().position(|handle| handle.health().is_ejected()).unwrap();
    let waiting = all.iter().position(|handle| !handle.health().is_ejected()).unwrap();
    assert!(all[ejected].restore());
    calls(&services[waiting], &[BROKEN]).await;
    assert!(all[waiting].health().is_ejected());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_comes_back_is_as_it_was() {
    let all = handles(2);
    calls(&watched(&all[0], policy()), &[BROKEN; 3]).await;
    // Another service of the same endpoint, as after a removal and return.
    let again = watched(&all[0], policy());
    calls(&again, &[BROKEN; 2]).await;
    assert!(all[0].health().is_ejected());
    assert_eq!(out_for(&all[0]).await, S(30));
    assert!(!all[1].health().is_ejected());
}

#[tokio::test(start_paused = true)]
async fn policies_change_while_calls_run_and_bad_ones_are_refused() {
    let live = Live::new(policy()).unwrap();
    let all = handles(2);
    let layer = OutlierDetectionLayer::new(live.clone()).unwrap();
    let service = layer.layer(|_: &EndpointHandle| service_fn(scripted)).new_service(&all[0]);
    calls(&service, &[BROKEN]).await;
    live.set(OutlierPolicy { consecutive_failures: 2, base: S(7), ..policy() }).unwrap();
    calls(&service, &[BROKEN]).await;
    assert_eq!(out_for(&all[0]).await, S(7));

    for (field, bad) in [
        ("consecutive_failures", OutlierPolicy { consecutive_failures: 0, ..policy() }),
        ("base", OutlierPolicy { base: S(0), ..policy() }),
        ("healthy_interval", OutlierPolicy { healthy_interval: S(0), ..policy() }),
        ("max_ejected", OutlierPolicy { max_ejected: Ratio(1.1), ..policy() }),
        ("jitter", OutlierPolicy { jitter: Ratio(f64::NAN), ..policy() }),
    ] {
        assert_eq!(OutlierDetectionLayer::new(bad).unwrap_err().field(), field);
    }
    let read: OutlierPolicy = serde_json::from_str(r#"{ "base": "5s", "max_ejected": 0.5 }"#).unwrap();
    assert_eq!((read.base, read.max_ejected, read.max), (S(5), Ratio(0.5), S(300)));
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_no_http_and_a_classifier_of_ones_own() {
    let all = handles(3);
    let policy = OutlierPolicy { max_ejected: Ratio(1.0), ..policy() };
    let layer = OutlierDetectionLayer::new(policy).unwrap();
    let connector = |_: &EndpointHandle| {
        service_fn(async |query: Query| {
            Ok::<_, Error>(if query.write {
                Answer::Broken
            } else {
                Answer::Rows(query.text.len().try_into().unwrap())
            })
        })
    };
    let service = layer.clone().layer(connector).new_service(&all[0]);
    for _ in 0..5 {
        assert_eq!(service.clone().oneshot(Query::write("x")).await.unwrap(), Answer::Broken);
    }
    assert!(all[0].health().is_ejected());

    let empty_is_bad = layer.classify(|result: Result<&Answer, &Error>| match result {
        Ok(Answer::Rows(0)) => Outcome::Failure(Failure::Other),
        _ => Outcome::Success,
    });
    let service = empty_is_bad.layer(connector).new_service(&all[1]);
    for _ in 0..5 {
        assert_eq!(service.clone().oneshot(Query::read("")).await.unwrap(), Answer::Rows(0));
    }
    assert!(all[1].health().is_ejected());
}

#[test]
fn threads_that_fail_together_eject_once() {
    for _ in 0..50 {
        let all = handles(10);
        let ejections = Arc::new(AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let service = watched(&all[0], policy());
                let (handle, ejections) = (&all[0], &ejections);
                scope.spawn(move || {
                    let before = handle.health().generation();
                    for _ in 0..20 {
                        futures_util::FutureExt::now_or_never(calls(&service, &[BROKEN]));
                    }
                    ejections.fetch_max(handle.health().generation() - before, Relaxed);
                });
            }
        });
        assert_eq!((all[0].group().ejected(), all[0].health().generation()), (1, 1));
        assert!(ejections.load(Relaxed) <= 1);
    }
}

/// Counts events of `hopvine::outlier`.
struct Events(Arc<AtomicU32>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Events {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        if event.metadata().target() == "hopvine::outlier" {
            self.0.fetch_add(1, Relaxed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_ejection_and_a_return_are_told_once() {
    async fn eject_and_return(told: &AtomicU32) -> [u32; 2] {
        let all = handles(2);
        let service = watched(&all[0], policy());
        calls(&service, &[BROKEN; 12]).await;
        let ejected = told.swap(0, Relaxed);
        out_for(&all[0]).await;
        assert!(lease(&all[0]));
        calls(&service, &[WELL; 12]).await;
        [ejected, told.swap(0, Relaxed)]
    }
    let told = Arc::new(AtomicU32::new(0));
    // An event that is first met by a thread without subscriber, while there is just one elsewhere, is switched off for
    // all of them. So meet them first, and let there be two.
    eject_and_return(&told).await;
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let subscriber = tracing_subscriber::registry().with(Events(Arc::clone(&told)));
    let _subscriber = tracing::subscriber::set_default(subscriber);
    tracing::callsite::rebuild_interest_cache();
    assert_eq!(eject_and_return(&told).await, [1, 1]);
}
