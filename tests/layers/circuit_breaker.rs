use std::{
    collections::BTreeSet,
    future::{Future, pending},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use hopvine::{
    Error, ErrorKind, Live, Monitor, Outcome, PolicyError,
    context::{DropCause, enter_drop_cause},
    layers::circuit_breaker::{Breaker, CircuitBreaker, CircuitBreakerLayer, CircuitBreakerPolicy, State},
    live::Ratio,
    monitor::{Act, BreakerView},
    outcome::Failure,
};
use tokio::time::{Instant, advance, sleep_until};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use crate::support::{Answer, Query, drop_after};

const SECOND: Duration = Duration::from_secs(1);

/// Does what the query says.
async fn backend(query: Query) -> Result<Answer, BoxError> {
    match &*query.text {
        "ok" => Ok(Answer::Rows(1)),
        "broken" => Ok(Answer::Broken),
        "refused" => Err(Error::new(ErrorKind::BulkheadFull).into()),
        "attempt timeout" => Err(Error::new(ErrorKind::AttemptTimeout).into()),
        "slow" => {
            sleep_until(Instant::now() + SECOND).await;
            Ok(Answer::Rows(1))
        }
        "hang" => pending().await,
        other => Err(io::Error::other(other.to_owned()).into()),
    }
}

fn behind<S: Service<Query> + Clone>(layer: &CircuitBreakerLayer, inner: S) -> CircuitBreaker<S> {
    layer.layer(inner)
}

/// One call to the backend through this breaker.
async fn ask(layer: &CircuitBreakerLayer, text: &str) -> Result<Answer, Error> {
    behind(layer, service_fn(backend)).oneshot(Query::read(text)).await
}

/// A call under way, already polled once.
fn start(
    layer: &CircuitBreakerLayer,
    text: &str,
) -> std::pin::Pin<Box<impl Future<Output = Result<Answer, Error>> + use<>>> {
    let mut future = Box::pin(behind(layer, service_fn(backend)).oneshot(Query::read(text)));
    let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    future
}

async fn many(layer: &CircuitBreakerLayer, count: u32, text: &str) {
    for _ in 0..count {
        let _ = ask(layer, text).await;
    }
}

fn layer() -> CircuitBreakerLayer {
    CircuitBreakerLayer::new("catalog.item", CircuitBreakerPolicy::default()).expect("valid")
}

/// An open breaker at the end of its open time.
async fn at_the_probes(policy: CircuitBreakerPolicy) -> CircuitBreakerLayer {
    let layer = CircuitBreakerLayer::new("catalog.item", policy).expect("valid");
    many(&layer, 20, "broken").await;
    let wait = refusal(&layer).await.retry_after().expect("open");
    advance(wait + Duration::from_millis(1)).await;
    layer
}

async fn refusal(layer: &CircuitBreakerLayer) -> Error {
    ask(layer, "ok").await.expect_err("refused")
}

fn view(monitor: &Monitor) -> BreakerView {
    monitor.snapshot().breakers.pop().expect("registered")
}

fn is_admitted(result: &Result<Answer, Error>) -> bool {
    !matches!(result, Err(error) if error.kind() == ErrorKind::CircuitOpen)
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_half_of_its_calls_is_refused_at_once_and_says_until_when() {
    let layer = layer();
    many(&layer, 10, "ok").await;
    many(&layer, 9, "broken").await;
    assert_eq!(layer.breaker().state(), State::Closed, "19 calls say nothing");
    many(&layer, 1, "broken").await;
    assert_eq!(layer.breaker().state(), State::Open, "10 of 20 is the threshold");

    let error = refusal(&layer).await;
    assert_eq!((error.kind(), error.layer()), (ErrorKind::CircuitOpen, Some("circuit_breaker")));
    assert_eq!(error.service(), Some("catalog.item"));
    assert!(error.is_rejected() && error.is_unsent());
    let wait = error.retry_after().expect("known");
    assert!((4.49..5.51).contains(&wait.as_secs_f64()), "{wait:?}");
    advance(SECOND).await;
    let rest = refusal(&layer).await.retry_after().expect("known");
    assert_eq!(rest, wait.checked_sub(SECOND).expect("more than a second"), "what remains");
}

#[tokio::test(start_paused = true)]
async fn a_success_that_completes_the_minimum_opens_it_if_the_rest_failed() {
    let layer = layer();
    many(&layer, 19, "broken").await;
    many(&layer, 1, "ok").await;
    assert_eq!(layer.breaker().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn failures_older_than_the_window_do_not_count() {
    let layer = layer();
    many(&layer, 19, "broken").await;
    advance(11 * SECOND).await;
    many(&layer, 10, "ok").await;
    many(&layer, 9, "broken").await;
    assert_eq!(layer.breaker().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_http_answer_counts_as_the_table_says() {
    async fn opens(status: u16, retry_after: bool) -> bool {
        let layer = layer();
        let inner = service_fn(move |_: http::Request<()>| async move {
            let mut response = http::Response::builder().status(status);
            if retry_after {
                response = response.header("retry-after", "1");
            }
            response.body(()).map_err(io::Error::other)
        });
        for _ in 0..20 {
            let response = layer.layer(inner).oneshot(http::Request::new(())).await.expect("an answer");
            assert_eq!(response.status(), status, "passes through");
        }
        layer.breaker().state() == State::Open
    }
    for (status, retry_after, bad) in [
        (200, false, false),
        (404, false, false),
        (500, false, true),
        (503, false, true),
        (503, true, true),
        (429, false, true),
        (429, true, true),
    ] {
        assert_eq!(opens(status, retry_after).await, bad, "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_classifier_of_the_users_own_decides_what_fails() {
    let layer = CircuitBreakerLayer::new("catalog.item", CircuitBreakerPolicy::default()).expect("valid").classify(
        |result: Result<&u32, &Error>| match result {
            Ok(0) => Outcome::Failure(Failure::Other),
            _ => Outcome::Success,
        },
    );
    for _ in 0..20 {
        let _ = layer.layer(service_fn(|(): ()| async { Err::<u32, _>(io::Error::other("fine")) })).oneshot(()).await;
    }
    assert_eq!(layer.breaker().state(), State::Closed);
    for _ in 0..20 {
        let _ = layer.layer(service_fn(|(): ()| async { Ok::<_, io::Error>(0) })).oneshot(()).await;
    }
    assert_eq!(layer.breaker().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_recovered_command_is_closed_by_four_probes_of_at_most_five_at_once() {
    let layer = at_the_probes(CircuitBreakerPolicy::default()).await;
    let mut probes: Vec<_> = (0..5).map(|_| start(&layer, "slow")).collect();
    let error = refusal(&layer).await;
    assert_eq!(error.retry_after(), None, "nobody knows");
    assert_eq!(layer.breaker().state(), State::HalfOpen);
    for probe in probes.drain(..4) {
        probe.await.expect("an answer");
    }
    assert_eq!(layer.breaker().state(), State::Closed, "the fifth cannot change it");
    many(&layer, 100, "ok").await;
    drop(probes);
    assert!(ask(&layer, "ok").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_command_still_broken_is_left_alone_after_two_failed_probes() {
    let layer = at_the_probes(CircuitBreakerPolicy::default()).await;
    many(&layer, 3, "ok").await;
    many(&layer, 1, "broken").await;
    assert_eq!(layer.breaker().state(), State::HalfOpen);
    many(&layer, 1, "broken").await;
    assert_eq!(layer.breaker().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_late_result_from_before_the_trip_decides_nothing() {
    let layer = layer();
    let late_success: Vec<_> = (0..5).map(|_| start(&layer, "slow")).collect();
    let late_failure: Vec<_> = (0..5).map(|_| start(&layer, "hang")).collect();
    many(&layer, 20, "broken").await;
    advance(6 * SECOND).await;
    let probe = start(&layer, "hang");
    assert_eq!(layer.breaker().state(), State::HalfOpen);
    for call in late_success {
        assert_eq!(call.await.expect("its caller gets it all the same"), Answer::Rows(1));
    }
    assert_eq!(layer.breaker().state(), State::HalfOpen, "not closed");
    {
        let _cause = enter_drop_cause(DropCause::TimedOut);
        drop(late_failure);
    }
    assert_eq!(layer.breaker().state(), State::HalfOpen, "not opened");
    drop(probe);
    many(&layer, 4, "ok").await;
    assert_eq!(layer.breaker().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_dropped_at_any_await_point_does_not_keep_it_half_open() {
    for polls in 0..=20 {
        let layer = at_the_probes(CircuitBreakerPolicy::default()).await;
        let lingering = service_fn(|_: Query| async {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            Ok::<_, BoxError>(Answer::Rows(1))
        });
        for _ in 0..7 {
            let mut service = behind(&layer, lingering);
            let ready = service.ready().await.expect("ready");
            let call = ready.call(Query::read("dropped"));
            assert!(drop_after(call, polls).await.is_none(), "dropped before it was ready");
            assert_eq!(layer.breaker().state(), State::HalfOpen);
        }
        many(&layer, 3, "ok").await;
        assert!(ask(&layer, "ok").await.is_ok(), "after {polls} polls");
        assert_eq!(layer.breaker().state(), State::Closed, "after {polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn probes_that_nobody_polls_nor_drops_are_replaced_after_their_lease() {
    let layer = at_the_probes(CircuitBreakerPolicy::default()).await;
    let lost: Vec<_> = (0..5).map(|_| start(&layer, "hang")).collect();
    advance(Duration::from_millis(9_900)).await;
    assert_eq!(refusal(&layer).await.kind(), ErrorKind::CircuitOpen);
    advance(Duration::from_millis(200)).await;
    many(&layer, 3, "ok").await;
    drop(lost);
    assert_eq!(layer.breaker().state(), State::HalfOpen);
    many(&layer, 1, "ok").await;
    assert_eq!(layer.breaker().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_call_panics_gives_its_place_back() {
    let layer = at_the_probes(CircuitBreakerPolicy::default()).await;
    for _ in 0..6 {
        let broken = service_fn(|_: Query| -> std::future::Ready<Result<Answer, BoxError>> { panic!("on purpose") });
        let mut service = behind(&layer, broken);
        let call = std::panic::AssertUnwindSafe(|| drop(service.call(Query::default())));
        std::panic::catch_unwind(call).expect_err("panics");
    }
    assert!(ask(&layer, "ok").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn timeouts_open_it_as_a_value_and_as_a_drop_with_that_cause() {
    let by_value = layer();
    many(&by_value, 20, "attempt timeout").await;
    assert_eq!(by_value.breaker().state(), State::Open);

    let by_drop = layer();
    for _ in 0..20 {
        let call = start(&by_drop, "hang");
        let _cause = enter_drop_cause(DropCause::TimedOut);
        drop(call);
    }
    assert_eq!(by_drop.breaker().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn callers_that_leave_neither_open_it_nor_dilute_the_failures() {
    let monitor = Monitor::new();
    let layer = layer().monitor(&monitor);
    for _ in 0..100 {
        drop(start(&layer, "hang"));
    }
    assert_eq!((layer.breaker().state(), view(&monitor).calls), (State::Closed, 0));
    many(&layer, 10, "ok").await;
    many(&layer, 10, "broken").await;
    assert_eq!(layer.breaker().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_layers_inside_count_for_nothing_and_give_a_probe_back() {
    let monitor = Monitor::new();
    let layer = layer().monitor(&monitor);
    many(&layer, 100, "refused").await;
    assert_eq!((layer.breaker().state(), view(&monitor).calls), (State::Closed, 0));

    let layer = at_the_probes(CircuitBreakerPolicy::default()).await;
    many(&layer, 20, "refused").await;
    assert_eq!(layer.breaker().state(), State::HalfOpen);
    many(&layer, 4, "ok").await;
    assert_eq!(layer.breaker().state(), State::Closed);
}

fn with_slow_calls() -> CircuitBreakerPolicy {
    CircuitBreakerPolicy { slow_call: Some(SECOND / 2), slow_rate: Ratio(0.5), ..CircuitBreakerPolicy::default() }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_turned_slow_is_refused_though_it_answers() {
    let layer = CircuitBreakerLayer::new("catalog.item", with_slow_calls()).expect("valid");
    many(&layer, 10, "ok").await;
    let slow: Vec<_> = (0..10).map(|_| start(&layer, "slow")).collect();
    for call in slow {
        assert!(call.await.is_ok());
    }
    assert_eq!(layer.breaker().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn slow_calls_are_noticed_even_if_their_callers_leave_early_and_probes_too() {
    let monitor = Monitor::new();
    let layer = CircuitBreakerLayer::new("catalog.item", with_slow_calls()).expect("valid").monitor(&monitor);
    let calls: Vec<_> = (0..20).map(|_| start(&layer, "hang")).collect();
    advance(SECOND / 2).await;
    drop(calls); // not longer than the threshold
    assert_eq!(layer.breaker().state(), State::Closed);
    let calls: Vec<_> = (0..20).map(|_| start(&layer, "hang")).collect();
    advance(Duration::from_millis(501)).await;
    drop(calls);
    assert_eq!(layer.breaker().state(), State::Open);
    let seen = view(&monitor);
    assert_eq!((seen.calls, seen.failure_rate, seen.slow_rate), (0, 0.0, 1.0), "slow, and neither success nor failure");

    advance(6 * SECOND).await;
    let probes: Vec<_> = (0..2).map(|_| start(&layer, "slow")).collect();
    for probe in probes {
        assert!(probe.await.is_ok());
    }
    assert_eq!(layer.breaker().state(), State::Open, "slow probes do not close it");
}

#[tokio::test(start_paused = true)]
async fn without_a_threshold_no_call_is_slow() {
    let layer = layer();
    let calls: Vec<_> = (0..40).map(|_| start(&layer, "slow")).collect();
    for call in calls {
        assert!(call.await.is_ok());
    }
    assert_eq!(layer.breaker().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_open_time_grows_while_it_stays_broken_and_starts_anew_after_a_calm_window() {
    fastrand::seed(7);
    let layer = layer();
    many(&layer, 20, "broken").await;
    let mut exact = BTreeSet::new();
    for base in [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0] {
        let wait = refusal(&layer).await.retry_after().expect("open");
        assert!((base * 0.9..=base * 1.1 + 0.001).contains(&wait.as_secs_f64()), "{wait:?} for {base}");
        exact.insert(wait);
        advance(wait).await;
        assert_eq!(layer.breaker().state(), State::Open);
        many(&layer, 2, "broken").await;
    }
    assert_eq!(exact.len(), 7, "jittered");

    let close = async || {
        let wait = refusal(&layer).await.retry_after().expect("open");
        advance(wait).await;
        many(&layer, 4, "ok").await;
        assert_eq!(layer.breaker().state(), State::Closed);
    };
    close().await;
    advance(9 * SECOND).await;
    many(&layer, 20, "broken").await;
    assert!(refusal(&layer).await.retry_after().expect("open") > 50 * SECOND, "flapping is not calm");
    close().await;
    advance(10 * SECOND + Duration::from_millis(1)).await;
    many(&layer, 20, "broken").await;
    assert!(refusal(&layer).await.retry_after().expect("open") < 6 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_longer_open_time_needs_no_second_setting() {
    let policy = CircuitBreakerPolicy { open_time: 120 * SECOND, ..CircuitBreakerPolicy::default() };
    let layer = CircuitBreakerLayer::new("catalog.item", policy).expect("valid");
    many(&layer, 20, "broken").await;
    for _ in 0..3 {
        let wait = refusal(&layer).await.retry_after().expect("open");
        assert!((107.9..132.1).contains(&wait.as_secs_f64()), "{wait:?}");
        advance(wait).await;
        many(&layer, 2, "broken").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_operators_word_holds_until_it_is_released() {
    let layer = layer();
    let breaker: Breaker = layer.breaker();
    breaker.force_open();
    assert_eq!((refusal(&layer).await.retry_after(), breaker.state()), (None, State::ForcedOpen));
    advance(3600 * SECOND).await;
    assert!(!is_admitted(&ask(&layer, "ok").await), "not by time");
    breaker.force_closed();
    many(&layer, 100, "broken").await;
    assert_eq!(breaker.state(), State::ForcedClosed);
    assert!(ask(&layer, "ok").await.is_ok(), "not by failures");
    breaker.release();
    assert_eq!(breaker.state(), State::Closed);
    many(&layer, 19, "broken").await;
    assert_eq!(breaker.state(), State::Closed, "what was counted before is forgotten");
    many(&layer, 1, "broken").await;
    assert_eq!(breaker.state(), State::Open);
    breaker.release();
    assert_eq!(breaker.state(), State::Open, "it was not forced");
}

#[tokio::test(start_paused = true)]
async fn the_monitor_shows_it_and_steers_it() {
    let monitor = Monitor::new();
    let layer = layer().monitor(&monitor);
    many(&layer, 15, "ok").await;
    many(&layer, 5, "broken").await;
    let seen = view(&monitor);
    assert_eq!((&*seen.name, seen.state, seen.calls, seen.failure_rate), ("catalog.item", "closed", 20, 0.25));
    many(&layer, 10, "broken").await;
    let _ = ask(&layer, "ok").await;
    let seen = view(&monitor);
    assert_eq!((seen.state, seen.opened, seen.rejected), ("open", 1, 1));
    let wait = seen.open_for.expect("open");
    advance(wait).await;
    let probe = start(&layer, "hang");
    let seen = view(&monitor);
    assert_eq!((seen.state, seen.probes, seen.open_for), ("half_open", 1, None));
    drop(probe);
    assert_eq!(view(&monitor).probes, 0);

    for (act, state) in [(Act::ForceOpen, "forced_open"), (Act::ForceClosed, "forced_closed"), (Act::Release, "closed")]
    {
        assert!(monitor.act("catalog.item", act));
        assert_eq!(view(&monitor).state, state);
    }
    assert!(!monitor.act("catalog.item", Act::Drain("a".to_owned())), "not its business");
    assert_eq!(monitor.journal().len(), 4);
    drop(layer);
    assert!(monitor.snapshot().breakers.is_empty(), "gone with its layer");
}

#[tokio::test(start_paused = true)]
async fn a_policy_swapped_while_running_is_followed() {
    let monitor = Monitor::new();
    let live = Live::new(CircuitBreakerPolicy::default()).expect("valid");
    let layer = CircuitBreakerLayer::new("catalog.item", live.clone()).expect("valid").monitor(&monitor);
    many(&layer, 12, "ok").await;
    many(&layer, 5, "broken").await;
    live.set(CircuitBreakerPolicy { minimum_calls: 10, failure_rate: Ratio(0.3), ..Default::default() })
        .expect("valid");
    many(&layer, 1, "broken").await;
    assert_eq!(layer.breaker().state(), State::Open, "6 of 18 by the new rules");
    layer.breaker().force_open();
    layer.breaker().release();

    many(&layer, 5, "broken").await;
    live.set(CircuitBreakerPolicy { window: 2 * SECOND, minimum_calls: 10, ..Default::default() }).expect("valid");
    assert_eq!(view(&monitor).calls, 0, "a window of another length starts empty");
    many(&layer, 5, "broken").await;
    let longer = 2 * SECOND + Duration::from_millis(1);
    live.set(CircuitBreakerPolicy { window: longer, minimum_calls: 10, ..Default::default() }).expect("valid");
    assert_eq!(view(&monitor).calls, 0, "even if it is hardly another");
    many(&layer, 9, "broken").await;
    assert_eq!(layer.breaker().state(), State::Closed);
    advance(3 * SECOND).await;
    many(&layer, 9, "broken").await;
    assert_eq!(layer.breaker().state(), State::Closed, "two seconds back");
    many(&layer, 1, "broken").await;
    assert_eq!(layer.breaker().state(), State::Open);

    let refused = live.set(CircuitBreakerPolicy { probes: 0, ..Default::default() }).expect_err("bad");
    assert_eq!((refused.field(), live.get().minimum_calls), ("probes", 10));
}

#[test]
fn a_bad_policy_is_refused_by_the_name_of_its_field() {
    fn field(change: impl FnOnce(&mut CircuitBreakerPolicy)) -> Option<&'static str> {
        let mut policy = CircuitBreakerPolicy::default();
        change(&mut policy);
        CircuitBreakerLayer::new("catalog.item", policy).err().map(|error: PolicyError| error.field())
    }
    assert_eq!(field(|_| {}), None);
    assert_eq!(field(|policy| policy.window = Duration::ZERO), Some("window"));
    assert_eq!(field(|policy| policy.minimum_calls = 0), Some("minimum_calls"));
    assert_eq!(field(|policy| policy.failure_rate = Ratio(0.0)), Some("failure_rate"));
    assert_eq!(field(|policy| policy.failure_rate = Ratio(1.1)), Some("failure_rate"));
    assert_eq!(field(|policy| policy.slow_rate = Ratio(f64::NAN)), Some("slow_rate"));
    assert_eq!(field(|policy| policy.slow_call = Some(Duration::ZERO)), Some("slow_call"));
    assert_eq!(field(|policy| policy.open_time = Duration::ZERO), Some("open_time"));
    assert_eq!(field(|policy| policy.open_time_max = Duration::MAX), Some("open_time_max"));
    assert_eq!(field(|policy| policy.open_time_max = Duration::ZERO), None, "no growth");
    assert_eq!(field(|policy| policy.probes = 101), Some("probes"));
    assert_eq!(field(|policy| policy.probe_lease = Duration::ZERO), Some("probe_lease"));
}

#[test]
fn a_policy_is_written_in_humane_units_and_a_misspelt_field_is_an_error() {
    let policy = CircuitBreakerPolicy { slow_call: Some(SECOND / 2), ..CircuitBreakerPolicy::default() };
    let text = serde_json::to_string(&policy).expect("serialises");
    assert!(text.contains(r#""open_time":"5s""#) && text.contains(r#""slow_call":"500ms""#), "{text}");
    assert_eq!(serde_json::from_str::<CircuitBreakerPolicy>(&text).expect("parses"), policy);
    assert!(serde_json::from_str::<CircuitBreakerPolicy>(r#"{"windwo": "1s"}"#).is_err());
}

#[tokio::test(start_paused = true)]
async fn all_routes_made_by_one_layer_share_a_breaker_and_two_layers_do_not() {
    let layer = layer();
    let other = self::layer();
    let routes = [layer.clone(), layer];
    for call in 0..20 {
        let _ = behind(&routes[call % 2].clone(), service_fn(backend)).oneshot(Query::read("broken")).await;
    }
    assert!(!is_admitted(&ask(&routes[0], "ok").await));
    assert!(!is_admitted(&ask(&routes[1], "ok").await));
    assert!(is_admitted(&ask(&other, "ok").await));
    assert_eq!(other.layer(service_fn(backend)).breaker().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_instance_that_was_made_ready_is_the_one_called() {
    struct Picky {
        ready: bool,
    }
    impl Clone for Picky {
        fn clone(&self) -> Self {
            Self { ready: false }
        }
    }
    impl Service<Query> for Picky {
        type Response = Answer;
        type Error = BoxError;
        type Future = std::future::Ready<Result<Answer, BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            self.ready = true;
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, _: Query) -> Self::Future {
            assert!(std::mem::take(&mut self.ready), "called without having been ready");
            std::future::ready(Ok(Answer::Rows(1)))
        }
    }
    let layer = layer();
    let mut service = behind(&layer, Picky { ready: false });
    for _ in 0..2 {
        service.ready().await.expect("ready").call(Query::default()).await.expect("an answer");
    }
    layer.breaker().force_open();
    service.ready().await.expect("ready, though open").call(Query::default()).await.expect_err("refused");
    layer.breaker().release();
    // A readiness that a refusal did not use is still there.
    service.call(Query::default()).await.expect("an answer");
}

/// An operator who reads "rejected" must not look for callers whom nobody turned away.
#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_get_ready_fails_the_breaker_and_is_not_counted_as_turned_away() {
    #[derive(Clone, Debug)]
    struct Gone;
    impl Service<Query> for Gone {
        type Response = Answer;
        type Error = BoxError;
        type Future = std::future::Ready<Result<Answer, BoxError>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Err(io::Error::other("gone").into()))
        }
        fn call(&mut self, _: Query) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    let monitor = Monitor::new();
    let layer = layer().monitor(&monitor);
    let mut service = behind(&layer, Gone);
    for _ in 0..50 {
        let error = service.ready().await.expect_err("gone");
        assert_eq!(std::error::Error::source(&error).map(ToString::to_string).as_deref(), Some("gone"));
    }
    let seen = view(&monitor);
    assert_eq!((seen.state, seen.opened, seen.rejected), ("open", 1, 0));
}

#[tokio::test(start_paused = true)]
async fn an_error_from_inside_keeps_what_it_was() {
    let error = ask(&layer(), "disk on fire").await.expect_err("an error");
    assert_eq!((error.kind(), error.layer()), (ErrorKind::Upstream, None));
    assert_eq!(std::error::Error::source(&error).map(ToString::to_string).as_deref(), Some("disk on fire"));
    let error = ask(&layer(), "attempt timeout").await.expect_err("an error");
    assert!(error.is_timeout() && std::error::Error::source(&error).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_made_can_be_shared_sent_and_printed() {
    fn check<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    fn sent<T: Send + 'static>(value: T) -> T {
        value
    }
    let layer = layer();
    check(&layer);
    check(&layer.breaker());
    let mut service = layer.layer(tower::util::BoxCloneSyncService::new(service_fn(backend)));
    check(&service);
    let call = sent(service.call(Query::read("ok")));
    assert!(format!("{layer:?} {:?} {call:?}", layer.breaker()).contains("catalog.item"));
    tokio::spawn(call).await.expect("no panic").expect("an answer");
}

#[tokio::test]
async fn threads_get_at_most_five_probes_between_them() {
    // Real time, since a paused clock belongs to one thread: the open time is short, and waited for by its condition.
    for _ in 0..20 {
        let policy = CircuitBreakerPolicy { open_time: Duration::from_millis(1), ..CircuitBreakerPolicy::default() };
        let layer = CircuitBreakerLayer::new("catalog.item", policy).expect("valid");
        many(&layer, 20, "broken").await;
        let started = Instant::now();
        let admitted = AtomicU32::new(0);
        let held = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // Until the probes have begun, then a bounded number of times more.
                    let mut after = 0;
                    while after < 50 {
                        assert!(started.elapsed() < 10 * SECOND, "stuck open");
                        let inner = service_fn(|_: Query| {
                            admitted.fetch_add(1, SeqCst);
                            pending::<Result<Answer, BoxError>>()
                        });
                        let call = layer.layer(inner).call(Query::default());
                        held.lock().expect("no panic").push(call);
                        after += u32::from(admitted.load(SeqCst) > 0);
                        std::thread::yield_now();
                    }
                });
            }
        });
        drop(held);
        assert_eq!(admitted.into_inner(), 5);
    }
}

/// Collects `to` of each event of ours.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<(tracing::Level, String)>>>);

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Events {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        struct To(String);
        impl tracing::field::Visit for To {
            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                if field.name() == "to" {
                    value.clone_into(&mut self.0);
                }
            }
            fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
        }
        if event.metadata().target() == "hopvine::circuit_breaker" {
            let mut to = To(String::new());
            event.record(&mut to);
            self.0.lock().expect("no panic").push((*event.metadata().level(), to.0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_transition_is_told_once_and_calls_are_not() {
    use tracing_subscriber::layer::SubscriberExt;
    async fn go_round() {
        let layer = at_the_probes(CircuitBreakerPolicy::default()).await;
        many(&layer, 50, "ok").await;
        layer.breaker().force_open();
        layer.breaker().force_open();
        layer.breaker().release();
        many(&layer, 50, "ok").await;
    }
    // While there is only one subscriber, tracing lets the thread that is the first to reach an event decide for all whether
    // anybody wants it. So there are two, and each event has been reached once before the one that counts asks for them.
    let _other = tracing::Dispatch::new(tracing_subscriber::registry());
    go_round().await;
    let events = Events::default();
    let _told = tracing::subscriber::set_default(tracing_subscriber::registry().with(events.clone()));
    go_round().await;
    let told = events.0.lock().expect("no panic").clone();
    let (warn, info) = (tracing::Level::WARN, tracing::Level::INFO);
    let expected = [(warn, "open"), (info, "half_open"), (info, "closed"), (warn, "forced_open"), (info, "closed")];
    assert_eq!(told, expected.map(|(level, to)| (level, to.to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_polled_takes_nothing_with_it() {
    let layer = at_the_probes(CircuitBreakerPolicy::default()).await;
    for _ in 0..20 {
        let mut service = behind(&layer, service_fn(backend));
        let _call = service.call(Query::read("ok"));
        assert_eq!(layer.breaker().state(), State::HalfOpen);
    }
    many(&layer, 4, "ok").await;
    assert_eq!(layer.breaker().state(), State::Closed);
}
