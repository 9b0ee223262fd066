use std::{
    future::{Future, pending},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI32, AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use hopvine::{
    Error, ErrorKind, Live, Monitor,
    context::enter_deadline,
    layers::bulkhead::{BulkheadLayer, BulkheadPolicy},
    monitor::BulkheadView,
};
use tokio::{
    sync::Notify,
    time::{Instant, advance},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};

use crate::support::{Answer, Query, drop_after};

const SECOND: Duration = Duration::from_secs(1);

type Call = Pin<Box<dyn Future<Output = Result<Answer, Error>> + Send>>;

/// A bulkhead round a backend whose calls end when they are told to.
struct Stand {
    layer: BulkheadLayer,
    monitor: Monitor,
    gate: Arc<Notify>,
    /// What has reached the backend.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Stand {
    fn new(policy: BulkheadPolicy) -> Self {
        Self::live(&Live::new(policy).expect("valid"))
    }

    fn live(policy: &Live<BulkheadPolicy>) -> Self {
        let monitor = Monitor::new();
        let layer = BulkheadLayer::new(policy.clone()).expect("valid").name("report").monitor(&monitor);
        Self { layer, monitor, gate: Arc::default(), seen: Arc::default() }
    }

    /// A call, polled once.
    fn start(&self, text: &str) -> Call {
        let mut call = self.call(text);
        let _ = poll(&mut call);
        call
    }

    fn call(&self, text: &str) -> Call {
        let (gate, seen) = (Arc::clone(&self.gate), Arc::clone(&self.seen));
        let backend = service_fn(move |query: Query| {
            let gate = Arc::clone(&gate);
            seen.lock().expect("no panic").push(query.text);
            async move {
                gate.notified().await;
                Ok::<_, BoxError>(Answer::Rows(1))
            }
        });
        Box::pin(self.layer.layer(backend).call(Query::read(text)))
    }

    /// Ends the call that has run longest.
    fn end_one(&self) {
        self.gate.notify_one();
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic").clone()
    }

    fn view(&self) -> BulkheadView {
        self.monitor.snapshot().bulkheads.pop().expect("registered")
    }

    fn counts(&self) -> (u32, u32) {
        let view = self.view();
        (view.in_flight, view.waiting)
    }
}

fn poll(call: &mut Call) -> Poll<Result<Answer, Error>> {
    call.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn limit(limit: u32) -> BulkheadPolicy {
    BulkheadPolicy { limit, ..BulkheadPolicy::default() }
}

fn waiting(limit: u32) -> BulkheadPolicy {
    BulkheadPolicy { limit, max_wait: SECOND, max_waiting: 3 }
}

#[tokio::test(start_paused = true)]
async fn a_call_beyond_the_limit_is_refused_at_once_and_never_reaches_the_backend() {
    let stand = Stand::new(limit(2));
    let calls = [stand.start("a"), stand.start("b")];
    let Poll::Ready(Err(error)) = poll(&mut stand.call("c")) else { panic!("not refused") };
    assert_eq!((error.kind(), error.layer()), (ErrorKind::BulkheadFull, Some("bulkhead")));
    assert_eq!(error.service(), Some("report"));
    assert!(error.is_rejected() && error.is_unsent());
    assert_eq!(stand.seen(), ["a", "b"]);
    let seen = stand.view();
    assert_eq!((&*seen.name, seen.limit, seen.in_flight, seen.waiting, seen.rejected), ("report", 2, 2, 0, 1));
    drop(calls);
    assert_eq!(stand.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_place_is_free_with_the_response_even_if_its_future_is_kept() {
    let stand = Stand::new(limit(1));
    let mut call = stand.start("a");
    stand.end_one();
    assert!(matches!(poll(&mut call), Poll::Ready(Ok(Answer::Rows(1)))));
    let _next = stand.start("b");
    assert_eq!(stand.seen(), ["a", "b"]);
    drop(call);
    assert_eq!(stand.counts(), (1, 0), "given back once only");
}

#[tokio::test(start_paused = true)]
async fn errors_and_panics_give_the_place_back() {
    let layer = BulkheadLayer::new(limit(1)).expect("valid");
    for _ in 0..3 {
        let failing = service_fn(|_: Query| async { Err::<Answer, _>(io::Error::other("disk on fire")) });
        let error = layer.layer(failing).oneshot(Query::default()).await.expect_err("an error");
        assert_eq!((error.kind(), error.layer()), (ErrorKind::Upstream, None));
        let panicking = service_fn(|_: Query| -> std::future::Ready<Result<Answer, BoxError>> { panic!("on purpose") });
        let mut service = layer.layer(panicking);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(service.call(Query::default()))))
            .expect_err("panics");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_await_point_gives_everything_back() {
    for polls in 0..=20 {
        let stand = Stand::new(waiting(1));
        let lingering = service_fn(|_: Query| async {
            for _ in 0..15 {
                tokio::task::yield_now().await;
            }
            Ok::<_, BoxError>(Answer::Rows(1))
        });
        // The second waits for the first, so that both parts are dropped at each of their points.
        let first = drop_after(stand.layer.layer(lingering).call(Query::default()), polls);
        let second = drop_after(stand.layer.layer(lingering).call(Query::default()), polls);
        let (first, second) = tokio::join!(first, second);
        assert_eq!((first.is_some(), second.is_some()), (polls > 15, false), "{polls} polls");
        assert_eq!(stand.counts(), (0, 0), "{polls} polls");
        assert_eq!(stand.layer.layer(lingering).oneshot(Query::default()).await.ok(), Some(Answer::Rows(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_their_order_and_nobody_overtakes() {
    let stand = Stand::new(waiting(1));
    let calls: Vec<_> = ["a", "b", "c", "d"].map(|text| tokio::spawn(stand.start(text))).into();
    assert_eq!((stand.seen(), stand.counts()), (vec!["a".to_owned()], (1, 3)));
    let Poll::Ready(Err(error)) = poll(&mut stand.call("e")) else { panic!("the queue is bounded") };
    assert_eq!(error.kind(), ErrorKind::BulkheadFull);
    for call in calls {
        stand.end_one();
        assert_eq!(call.await.expect("no panic").expect("an answer"), Answer::Rows(1));
    }
    assert_eq!((stand.seen().concat(), stand.counts()), ("abcd".to_owned(), (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_whose_turn_has_come_is_not_overtaken_before_it_runs() {
    let stand = Stand::new(waiting(1));
    let first = stand.start("first");
    let mut second = stand.start("second");
    drop(first); // the place is the second's now, which has not been polled yet
    let mut third = stand.start("third");
    assert_eq!(stand.seen(), ["first"]);
    let _ = poll(&mut second);
    let _ = poll(&mut third);
    assert_eq!(stand.seen(), ["first", "second"]);
    assert_eq!(stand.counts(), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_waiter_leaves_the_queue_and_eats_no_place() {
    let stand = Stand::new(waiting(1));
    let first = stand.start("first");
    let (leaver, granted, mut last) = (stand.start("leaver"), stand.start("granted"), stand.start("last"));
    drop(leaver);
    assert_eq!(stand.counts(), (1, 2));
    drop(first); // to `granted`
    drop(granted); // which leaves without having noticed
    let _ = poll(&mut last);
    assert_eq!((stand.seen(), stand.counts()), (vec!["first".to_owned(), "last".to_owned()], (1, 0)));
    drop(last);
    assert_eq!(stand.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_max_wait() {
    let stand = Stand::new(waiting(1));
    let _first = stand.start("first");
    let started = Instant::now();
    let error = stand.call("second").await.expect_err("no place");
    assert_eq!((error.kind(), started.elapsed()), (ErrorKind::BulkheadFull, SECOND));
    assert_eq!((stand.view().rejected, stand.counts()), (1, (1, 0)), "and is out of the queue");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_past_the_deadline_of_its_call() {
    let stand = Stand::new(waiting(1));
    let _first = stand.start("first");
    let started = Instant::now();
    let call = {
        let _deadline = enter_deadline(Some(started + SECOND / 4));
        stand.call("second")
    };
    let error = call.await.expect_err("no place");
    assert_eq!((error.kind(), started.elapsed()), (ErrorKind::DeadlineExceeded, SECOND / 4));
    assert!(error.is_unsent() && error.is_timeout() && !error.is_rejected());
    let mut late = {
        let _deadline = enter_deadline(Some(started + SECOND / 4));
        stand.call("late")
    };
    let Poll::Ready(Err(error)) = poll(&mut late) else { panic!("there is no time left to wait") };
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    let call = {
        let _deadline = enter_deadline(Some(Instant::now() + 10 * SECOND));
        stand.call("third")
    };
    assert_eq!(call.await.expect_err("no place").kind(), ErrorKind::BulkheadFull, "its wait ended first");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_comes_with_the_end_of_the_wait_is_taken() {
    let stand = Stand::new(waiting(1));
    let first = stand.start("first");
    let mut second = stand.start("second");
    advance(SECOND).await;
    drop(first);
    assert!(poll(&mut second).is_pending(), "calls, rather than refuses");
    assert_eq!(stand.seen(), ["first", "second"]);
}

#[tokio::test(start_paused = true)]
async fn the_limit_can_be_raised_and_lowered_while_calls_run() {
    let live = Live::new(waiting(1)).expect("valid");
    let stand = Stand::live(&live);
    let mut calls: Vec<_> = ["a", "b", "c"].map(|text| stand.start(text)).into();
    live.set(waiting(3)).expect("valid");
    for call in &mut calls {
        let _ = poll(call);
    }
    assert_eq!((stand.seen().concat(), stand.counts()), ("abc".to_owned(), (3, 0)), "raised: those who wait come in");

    live.set(waiting(1)).expect("valid");
    let mut next = stand.start("d");
    for running in [2, 1] {
        drop(calls.pop());
        let _ = poll(&mut next);
        assert_eq!(stand.counts(), (running, 1), "lowered: too many still run");
    }
    drop(calls.pop());
    let _ = poll(&mut next);
    assert_eq!((stand.seen().concat(), stand.counts()), ("abcd".to_owned(), (1, 0)));

    live.set(limit(1)).expect("valid");
    assert!(matches!(poll(&mut stand.call("e")), Poll::Ready(Err(_))), "and the wait can be switched off");
    drop(next);
    let _last = stand.start("f");
    assert_eq!(stand.seen().concat(), "abcdf");
    assert_eq!(live.set(limit(0)).expect_err("bad").field(), "limit");
    assert_eq!(stand.view().limit, 1);
}

#[test]
fn a_bad_policy_is_refused_by_the_name_of_its_field() {
    assert_eq!(BulkheadLayer::new(limit(0)).expect_err("bad").field(), "limit");
    let forever = BulkheadPolicy { max_wait: Duration::MAX, ..BulkheadPolicy::default() };
    assert_eq!(BulkheadLayer::new(forever).expect_err("bad").field(), "max_wait");
    let policy: BulkheadPolicy = serde_json::from_str(r#"{"limit": 8, "max_wait": "50ms"}"#).expect("parses");
    assert_eq!(policy, BulkheadPolicy { limit: 8, max_wait: Duration::from_millis(50), max_waiting: 256 });
    assert!(serde_json::from_str::<BulkheadPolicy>(r#"{"limits": 8}"#).is_err());
}

#[tokio::test(start_paused = true)]
async fn all_routes_made_by_one_layer_share_its_places_and_two_layers_do_not() {
    let hang = service_fn(|_: http::Request<()>| pending::<Result<http::Response<()>, io::Error>>());
    let answer = service_fn(|_: http::Request<()>| async { Ok::<_, io::Error>(http::Response::new(())) });
    let layer = BulkheadLayer::new(limit(1)).expect("valid");
    let other = BulkheadLayer::new(limit(1)).expect("valid");
    let held = layer.layer(hang).call(http::Request::new(()));
    let refused = layer.clone().layer(answer).oneshot(http::Request::new(())).await;
    assert_eq!(refused.expect_err("full").kind(), ErrorKind::BulkheadFull);
    assert!(other.layer(answer).oneshot(http::Request::new(())).await.is_ok());
    drop(held);
    assert!(layer.layer(answer).oneshot(http::Request::new(())).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_calls_the_instance_that_was_made_ready() {
    struct Picky {
        ready: bool,
        made: Arc<AtomicU32>,
    }
    impl Clone for Picky {
        fn clone(&self) -> Self {
            self.made.fetch_add(1, SeqCst);
            Self { ready: false, made: Arc::clone(&self.made) }
        }
    }
    impl Service<Query> for Picky {
        type Response = Answer;
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            self.ready = true;
            Poll::Ready(Ok(()))
        }
        fn call(&mut self, query: Query) -> Self::Future {
            assert!(std::mem::take(&mut self.ready), "called without having been ready");
            if query.write { Box::pin(pending()) } else { Box::pin(std::future::ready(Ok(Answer::Rows(1)))) }
        }
    }
    let made = Arc::new(AtomicU32::new(0));
    let layer = BulkheadLayer::new(waiting(1)).expect("valid");
    let mut service = layer.layer(Picky { ready: false, made: Arc::clone(&made) });
    let running = service.ready().await.expect("ready").call(Query::write("first"));
    assert_eq!(made.load(SeqCst), 0, "a call that need not wait clones nothing");
    let waits = tokio::spawn(service.ready().await.expect("ready").call(Query::read("second")));
    tokio::task::yield_now().await;
    drop(running);
    assert_eq!(waits.await.expect("no panic").expect("an answer"), Answer::Rows(1));
    service.ready().await.expect("ready").call(Query::read("third")).await.expect("the clone works on");
}

#[test]
fn threads_never_run_more_calls_than_there_are_places() {
    let layer =
        BulkheadLayer::new(BulkheadPolicy { limit: 2, max_wait: 3600 * SECOND, max_waiting: 8 }).expect("valid");
    let (inside, most, done) = (Arc::new(AtomicI32::new(0)), AtomicI32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (layer, inside, most, done) = (&layer, &inside, &most, &done);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
                runtime.block_on(async {
                    for _ in 0..2_000 {
                        let inside = Arc::clone(inside);
                        let backend = service_fn(|(): ()| {
                            let inside = Arc::clone(&inside);
                            async move {
                                most.fetch_max(inside.fetch_add(1, SeqCst) + 1, SeqCst);
                                tokio::task::yield_now().await;
                                inside.fetch_sub(1, SeqCst);
                                Ok::<_, BoxError>(())
                            }
                        });
                        let call = layer.layer(backend).call(());
                        if random.u8(..4) == 0 {
                            drop(call); // before its backend has begun
                        } else {
                            // A lost wake-up would show here.
                            let ended = tokio::time::timeout(10 * SECOND, call).await;
                            ended.expect("not woken").expect("a place");
                            done.fetch_add(1, SeqCst);
                        }
                    }
                });
            });
        }
    });
    assert!((1..=2).contains(&most.into_inner()), "over-admitted");
    assert!(done.into_inner() > 5_000);
    assert!(format!("{layer:?}").contains("in_flight: 0, waiting: 0"));
}

#[tokio::test(start_paused = true)]
async fn what_is_made_can_be_shared_sent_and_printed() {
    fn check<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: &T) {}
    let monitor = Monitor::new();
    let layer = BulkheadLayer::new(limit(1)).expect("valid").monitor(&monitor);
    check(&layer);
    assert_eq!(monitor.snapshot().bulkheads[0].name, "bulkhead", "without a name of its own");
    let answer = service_fn(|_: Query| async { Ok::<_, BoxError>(Answer::Rows(1)) });
    let mut service = layer.layer(tower::util::BoxCloneSyncService::new(answer));
    check(&service);
    let call = service.call(Query::default());
    assert!(format!("{call:?}").contains("calling"));
    tokio::spawn(call).await.expect("no panic").expect("an answer");
}
