//! Balancing, on the paused clock.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hopvine::{
    Directory, Endpoint, EndpointHandle, Error, ErrorKind, Monitor, ServiceHandle,
    connect::per_endpoint,
    context::{self, Context},
    discover::{Change, ChangeStream},
    endpoint::{EndpointId, Group, Status},
    layers::{
        balance::{
            BalanceLayer, DiscoverLayer, P2cLeastRequest, P2cPeakEwma, Picker, RoundRobin,
            picker::{Pick, Rank},
        },
        pushback::PushbackLayer,
    },
    monitor::Act,
    outcome::{Classify, Failure, Outcome},
    testing::{ScriptedEndpoints, ScriptedService},
};
use tokio::{sync::mpsc, time::Instant};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{Answer, Query, drop_after};

fn endpoints(count: u16) -> Vec<Endpoint> {
    (1..=count)
        .map(|port| format!("127.0.0.1:{port}").parse::<Endpoint>().unwrap().with_id(format!("e{port}")))
        .collect()
}

fn handles(count: u16) -> Vec<EndpointHandle> {
    let group: Arc<Group> = Arc::default();
    let handle = |endpoint| EndpointHandle::new("s".into(), Arc::new(endpoint), Arc::clone(&group));
    endpoints(count).into_iter().map(handle).collect()
}

fn fixed(count: u16) -> ServiceHandle {
    Directory::fixed([("s", endpoints(count))]).service("s")
}

fn pick() -> Pick {
    Pick::new(1, context::Attempt::first(), false)
}

/// A directory whose one service is told its changes by the test.
fn changing() -> (Directory, mpsc::UnboundedSender<Change<EndpointId, Endpoint>>) {
    let (changes, mut told) = mpsc::unbounded_channel();
    let stream =
        futures_util::stream::poll_fn(move |cx| told.poll_recv(cx).map(|change| change.map(Ok::<_, Infallible>)));
    (Directory::builder().service("s", ChangeStream::new(stream)).build(), changes)
}

fn insert(endpoint: Endpoint) -> Change<EndpointId, Endpoint> {
    Change::Insert(endpoint.id().clone(), endpoint)
}

fn stack<P: Picker>(
    service: ServiceHandle,
    picker: P,
    scripts: &ScriptedEndpoints<Query, Answer>,
) -> impl Service<Query, Response = Answer, Error = Error, Future: Send> + Clone + Send + Sync + 'static {
    ServiceBuilder::new().layer(DiscoverLayer::new(service)).layer(BalanceLayer::new(picker)).service(scripts.clone())
}

const PICKS: u32 = 20_000;

#[test]
fn two_choices_are_always_two_and_every_pair_is_as_likely() {
    fastrand::seed(1);
    let handles = handles(5);
    let looked = Mutex::new(Vec::new());
    let mut pairs = HashMap::<_, u32>::new();
    for _ in 0..PICKS {
        pick().cheaper_of_two(&handles, |endpoint| {
            looked.lock().unwrap().push(endpoint.number());
            0.0
        });
        let pair: Vec<_> = looked.lock().unwrap().drain(..).collect();
        assert!(pair.len() == 2 && pair[0] != pair[1]);
        *pairs.entry((pair[0], pair[1])).or_default() += 1;
    }
    let expected = f64::from(PICKS) / 20.0;
    let chi_square: f64 = pairs.values().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    assert_eq!(pairs.len(), 20);
    assert!(chi_square < 43.8, "19 degrees of freedom, 0.1 %: {chi_square}");
}

#[tokio::test(start_paused = true)]
async fn balls_in_bins_stay_level() {
    fastrand::seed(2);
    // Calls that never end: the load is what was placed.
    let scripts = ScriptedEndpoints::new();
    for port in 1..=100 {
        for _ in 0..200 {
            scripts.endpoint(&format!("e{port}")).never();
        }
    }
    let stack = stack(fixed(100), P2cLeastRequest, &scripts);
    let mut calls = Vec::new();
    for _ in 0..10_000 {
        let mut call = Box::pin(stack.clone().call_once(Query::read("q")));
        assert!(futures_util::poll!(call.as_mut()).is_pending());
        calls.push(call);
    }
    let most = (1..=100).map(|port| scripts.endpoint(&format!("e{port}")).in_flight()).max().unwrap();
    assert!(most <= 104, "at most 4 above the average of 100: {most}");
}

/// `oneshot` without the wait for readiness, which a balancer does not need.
trait CallOnce: Service<Query> + Sized {
    fn call_once(mut self, query: Query) -> Self::Future {
        self.call(query)
    }
}

impl<S: Service<Query>> CallOnce for S {}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_at_once_attracts_no_traffic() {
    fastrand::seed(3);
    let scripts = ScriptedEndpoints::new();
    for port in 1..=10 {
        scripts
            .endpoint(&format!("e{port}"))
            .otherwise(move |_: &Query| Ok(if port == 1 { Answer::Broken } else { Answer::Rows(port) }));
    }
    let stack = stack(fixed(10), P2cPeakEwma::default(), &scripts);
    let mut broken = 0;
    for _ in 0..10_000 {
        broken += u32::from(stack.clone().oneshot(Query::read("q")).await.unwrap() == Answer::Broken);
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert!(broken <= 50, "at most 0.5 %: {broken} of 10 000");
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_counts_at_once_and_is_forgiven_in_time() {
    let handles = handles(2);
    let picker = P2cPeakEwma::default();
    let second = |seconds: u64| 1_000_000_000 * seconds;
    let decay = Duration::from_secs(10);
    for _ in 0..100 {
        picker.observe(&handles[0], Outcome::Success, Duration::from_millis(40), second(1));
    }
    picker.observe(&handles[0], Outcome::Success, Duration::from_millis(400), second(1));
    for after in [0, 5, 10, 20] {
        let expected = 400e6 * (-(after as f64) / 10.0).exp();
        let cost = handles[0].load().cost(second(1 + after), decay);
        assert!((cost / expected - 1.0).abs() < 0.01, "after {after} s: {cost}, not {expected}");
    }
    picker.observe(&handles[0], Outcome::Cancelled, Duration::from_millis(1), second(1));
    assert!(handles[0].load().cost(second(1), decay) > 399e6, "a short cancelled call lowers no estimate");
    picker.observe(&handles[1], Outcome::Failure(Failure::Other), Duration::from_millis(1), second(1));
    assert!(handles[1].load().cost(second(1), decay) > 4.9e9, "a failure counts as 5 s");
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_is_probed_when_its_time_is_over_however_bad_its_average_still_is() {
    fastrand::seed(12);
    let handles = handles(6);
    let picker = P2cPeakEwma::default();
    let second = |seconds: u64| 1_000_000_000 * seconds;
    picker.observe(&handles[0], Outcome::TimedOut, Duration::from_millis(150), second(1));
    assert!(handles[0].eject(second(31), 2));
    for handle in &handles[1..] {
        picker.observe(handle, Outcome::Success, Duration::from_millis(3), second(31));
    }
    let probed = |now, attempt| {
        let picks = (0..100).map(|_| picker.pick(&handles, &Pick::new(now, attempt, false)));
        picks.filter(|picked| *picked == Some(0)).count()
    };
    assert_eq!(probed(second(31) - 1, context::Attempt::first()), 0, "it is ejected");
    let picks = probed(second(31), context::Attempt::first());
    assert!((20..=46).contains(&picks), "every call that draws it, a third, would probe: {picks}");
    let mut elsewhere = context::Attempt::first();
    {
        let _attempt = context::enter_attempt(&mut elsewhere);
        drop(stack(fixed(1), RoundRobin::default(), &ScriptedEndpoints::new()).call_once(Query::read("q")));
    }
    assert_eq!(probed(second(31), elsewhere), 0, "a call that failed elsewhere has no attempt to give away");
    assert!(handles[0].health().try_probe(second(31), second(41)));
    assert_eq!(probed(second(31), context::Attempt::first()), 0, "its probe is under way");
}

/// Else a third of the calls of three endpoints would go to a slow one, because another one is ejected.
#[tokio::test(start_paused = true)]
async fn a_slow_endpoint_gets_no_calls_for_being_drawn_beside_an_ejected_one() {
    fastrand::seed(13);
    let picker = P2cPeakEwma::default();
    for (count, ejected) in [(3, 1), (6, 2), (100, 33)] {
        let handles = handles(count);
        let second = |seconds: u64| 1_000_000_000 * seconds;
        for handle in &handles {
            picker.observe(handle, Outcome::Success, Duration::from_millis(3), second(1));
        }
        for handle in &handles[..ejected] {
            assert!(handle.eject(second(31), u32::MAX));
        }
        picker.observe(&handles[ejected], Outcome::TimedOut, Duration::from_millis(150), second(1));
        let mut attempt = context::Attempt::first();
        let slow = |attempt| {
            let picks = (0..10_000).map(|_| picker.pick(&handles, &Pick::new(second(2), attempt, false)).unwrap());
            picks.filter(|picked| *picked == ejected).count()
        };
        assert!(slow(attempt) <= 5, "{count}: {} of 10 000", slow(attempt));
        {
            let _attempt = context::enter_attempt(&mut attempt);
            drop(stack(fixed(1), RoundRobin::default(), &ScriptedEndpoints::new()).call_once(Query::read("q")));
        }
        assert!(slow(attempt) <= 5, "a second attempt of {count}: {} of 10 000", slow(attempt));
    }
}

#[tokio::test(start_paused = true)]
async fn weights_share_the_load() {
    fastrand::seed(4);
    let endpoints = [endpoints(2)[0].clone(), endpoints(2)[1].clone().with_weight(3)];
    let scripts = ScriptedEndpoints::new();
    for port in 1..=2 {
        for _ in 0..500 {
            scripts.endpoint(&format!("e{port}")).never();
        }
    }
    let stack = stack(Directory::fixed([("s", endpoints)]).service("s"), P2cLeastRequest, &scripts);
    let mut calls = Vec::new();
    for _ in 0..400 {
        let mut call = Box::pin(stack.clone().call_once(Query::read("q")));
        assert!(futures_util::poll!(call.as_mut()).is_pending());
        calls.push(call);
    }
    let heavy = scripts.endpoint("e2").in_flight();
    assert!((295..=305).contains(&heavy), "three in four: {heavy}");
}

#[tokio::test(start_paused = true)]
async fn clones_made_per_call_take_turns() {
    let scripts = ScriptedEndpoints::new();
    for port in 1..=4 {
        scripts.endpoint(&format!("e{port}")).otherwise(|_: &Query| Ok(Answer::Rows(1)));
    }
    let stack = stack(fixed(4), RoundRobin::default(), &scripts);
    for _ in 0..40 {
        stack.clone().oneshot(Query::read("q")).await.unwrap();
    }
    assert_eq!([1, 2, 3, 4].map(|port| scripts.endpoint(&format!("e{port}")).calls()), [10; 4]);
}

#[tokio::test(start_paused = true)]
async fn finished_and_cancelled_calls_leave_nothing_in_flight() {
    let monitor = Monitor::new();
    let scripts = ScriptedEndpoints::new();
    for port in 1..=3 {
        for _ in 0..40 {
            scripts.endpoint(&format!("e{port}")).respond_after(Duration::from_millis(5), Answer::Rows(1));
        }
    }
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(fixed(3)))
        .layer(BalanceLayer::new(RoundRobin::default()).monitor(&monitor))
        .service(scripts.clone());
    for polls in 1..=20 {
        drop_after(stack.clone().oneshot(Query::read("q")), polls).await;
        stack.clone().oneshot(Query::read("q")).await.unwrap();
    }
    let seen = monitor.snapshot().endpoints;
    assert!(seen.iter().all(|endpoint| endpoint.in_flight == 0), "{seen:?}");
    let all: u64 = seen.iter().map(|endpoint| endpoint.counts.total()).sum();
    let cancelled: u64 = seen.iter().map(|endpoint| endpoint.counts.cancelled).sum();
    assert_eq!((all, cancelled), (40, 20));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_ever_for_an_empty_service() {
    let (directory, changes) = changing();
    let scripts = ScriptedEndpoints::new();
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(directory.service("s")))
        .layer(BalanceLayer::new(RoundRobin::default()).max_wait(Duration::from_secs(3)))
        .service(scripts.clone());
    let start = Instant::now();
    let calls = (0..100).map(|_| tokio::spawn(stack.clone().oneshot(Query::read("q"))));
    for call in calls.collect::<Vec<_>>() {
        let error = call.await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.service()), (ErrorKind::NoEndpoint, Some("s")));
    }
    assert_eq!(start.elapsed(), Duration::from_secs(3));

    // The caller's deadline is shorter than the wait.
    let soon = Context::new().with_deadline(Some(Instant::now() + Duration::from_millis(20)));
    let error = soon.scope(stack.clone().oneshot(Query::read("q"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);

    // One that waits is served as soon as there is an endpoint.
    scripts.endpoint("e1").respond(Answer::Rows(1));
    let waiting = tokio::spawn(stack.clone().oneshot(Query::read("q")));
    tokio::time::sleep_until(Instant::now() + Duration::from_secs(1)).await;
    changes.send(insert(endpoints(1)[0].clone())).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Answer::Rows(1));
}

#[tokio::test(start_paused = true)]
async fn with_too_few_usable_endpoints_all_of_them_are_used() {
    fastrand::seed(5);
    let monitor = Monitor::new();
    let scripts = ScriptedEndpoints::new();
    for port in 1..=10 {
        scripts.endpoint(&format!("e{port}")).otherwise(|_: &Query| Ok(Answer::Rows(1)));
    }
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(fixed(10)))
        .layer(BalanceLayer::new(P2cLeastRequest).monitor(&monitor))
        .service(scripts.clone());
    let calls = || [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(|port| scripts.endpoint(&format!("e{port}")).calls());
    let run = async |count: usize| {
        let before = calls();
        for _ in 0..count {
            stack.clone().oneshot(Query::read("q")).await.unwrap();
        }
        let after = calls();
        std::array::from_fn::<usize, 10, _>(|index| after[index] - before[index])
    };
    for port in 1..=5 {
        assert!(monitor.act("s", Act::Eject(format!("e{port}"))));
    }
    assert_eq!(run(500).await[..5], [0; 5], "half of them are usable: no panic");
    monitor.act("s", Act::Eject("e6".to_owned()));
    let shares = run(20_000).await;
    assert!(shares.iter().all(|calls| (1800..=2200).contains(calls)), "each a tenth: {shares:?}");
    monitor.act("s", Act::Restore("e6".to_owned()));
    assert!(run(500).await[..5].iter().any(|calls| *calls > 0), "below 60 % it goes on");
    monitor.act("s", Act::Restore("e5".to_owned()));
    assert_eq!(run(500).await[..4], [0; 4], "at 60 % it ends");
    monitor.act("s", Act::Drain("e7".to_owned()));
    for port in 1..=5 {
        monitor.act("s", Act::Eject(format!("e{port}")));
    }
    assert_eq!(run(500).await[6], 0, "what is drained stays out, in a panic too");
    assert_eq!(monitor.journal().len(), 14);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_up_gets_no_calls() {
    let mut all = endpoints(3);
    all[0] = all[0].clone().with_status(Status::Down);
    all[1] = all[1].clone().with_status(Status::Draining);
    let scripts = ScriptedEndpoints::new();
    scripts.endpoint("e3").otherwise(|_: &Query| Ok(Answer::Rows(3)));
    let stack = stack(Directory::fixed([("s", all)]).service("s"), P2cLeastRequest, &scripts);
    for _ in 0..50 {
        assert_eq!(stack.clone().oneshot(Query::read("q")).await.unwrap(), Answer::Rows(3));
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_of_weight_keeps_history_and_a_removed_endpoint_is_let_go() {
    let (directory, changes) = changing();
    let made = Arc::new(AtomicUsize::new(0));
    let alive = Arc::new(());
    let numbers = Arc::new(Mutex::new(Vec::new()));
    let connector = {
        let (made, alive, numbers) = (Arc::clone(&made), Arc::clone(&alive), Arc::clone(&numbers));
        move |endpoint: &EndpointHandle| {
            made.fetch_add(1, Relaxed);
            numbers.lock().unwrap().push(endpoint.number());
            let pinned = Arc::clone(&alive);
            service_fn(move |_: Query| {
                let _pinned = Arc::clone(&pinned);
                async { Ok::<_, Error>(Answer::Rows(1)) }
            })
        }
    };
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(directory.service("s")))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .service(connector);
    let service = directory.service("s");
    let mut versions = service.watch();
    let mut change = async |change| {
        changes.send(change).unwrap();
        versions.changed().await.unwrap();
    };
    let one = endpoints(1)[0].clone();
    change(insert(one.clone())).await;
    stack.clone().oneshot(Query::read("q")).await.unwrap();
    change(insert(one.clone().with_weight(7).with_zone("b"))).await;
    stack.clone().oneshot(Query::read("q")).await.unwrap();
    assert_eq!(made.load(Relaxed), 1, "the same service, with its connections");

    let idle = stack.clone();
    change(Change::Remove(one.id().clone())).await;
    assert_eq!(
        Arc::strong_count(&alive),
        2,
        "only the connector's own: no idle clone of the stack pins the endpoint's service"
    );
    change(insert(one.clone())).await;
    idle.oneshot(Query::read("q")).await.unwrap();
    assert_eq!(made.load(Relaxed), 2);
    let numbers = numbers.lock().unwrap();
    assert_eq!(numbers[0], numbers[1], "what was learned of it is still there");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_was_drained_before_it_left_gets_calls_when_it_is_back() {
    let (directory, changes) = changing();
    let scripts = ScriptedEndpoints::new();
    scripts.endpoint("e1").otherwise(|_: &Query| Ok(Answer::Rows(1)));
    let service = directory.service("s");
    let stack = stack(service.clone(), P2cLeastRequest, &scripts);
    let one = endpoints(1)[0].clone();
    let mut versions = service.watch();
    for change in [insert(one.clone().with_status(Status::Draining)), Change::Remove(one.id().clone()), insert(one)] {
        changes.send(change).unwrap();
        versions.changed().await.unwrap();
    }
    assert_eq!(stack.oneshot(Query::read("q")).await.unwrap(), Answer::Rows(1));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_removed_under_a_call_still_answers_it() {
    let (directory, changes) = changing();
    let scripts = ScriptedEndpoints::new();
    scripts.endpoint("e1").respond_after(Duration::from_secs(1), Answer::Rows(1));
    let service = directory.service("s");
    let stack = stack(service.clone(), RoundRobin::default(), &scripts);
    changes.send(insert(endpoints(1)[0].clone())).unwrap();
    service.ready(Duration::from_secs(1)).await.unwrap();
    let mut call = Box::pin(stack.oneshot(Query::read("q")));
    assert!(futures_util::poll!(call.as_mut()).is_pending());
    let mut versions = service.watch();
    changes.send(Change::Remove(endpoints(1)[0].id().clone())).unwrap();
    versions.changed().await.unwrap();
    assert_eq!(call.await.unwrap(), Answer::Rows(1));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_breaks_while_getting_ready_is_made_anew() {
    let made = Arc::new(AtomicUsize::new(0));
    let connector = {
        let made = Arc::clone(&made);
        move |_: &EndpointHandle| Fragile { broken: made.fetch_add(1, Relaxed) == 0 }
    };
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(fixed(1)))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .service(connector);
    let error = stack.clone().oneshot(Query::read("q")).await.unwrap_err();
    assert!(error.is_unsent() && error.endpoint() == Some("e1"), "{error:?}");
    assert_eq!(stack.oneshot(Query::read("q")).await.unwrap(), Answer::Rows(1));
}

#[derive(Clone)]
struct Fragile {
    broken: bool,
}

impl Service<Query> for Fragile {
    type Response = Answer;
    type Error = Error;
    type Future = std::future::Ready<Result<Answer, Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Error>> {
        std::task::Poll::Ready(if self.broken { Err(Error::new(ErrorKind::Upstream)) } else { Ok(()) })
    }

    fn call(&mut self, _: Query) -> Self::Future {
        std::future::ready(Ok(Answer::Rows(1)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_never_gets_ready_does_not_hold_the_call() {
    let connector = |_: &EndpointHandle| {
        tower::limit::ConcurrencyLimit::new(service_fn(|_: Query| std::future::pending::<Result<Answer, Error>>()), 1)
    };
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(fixed(1)))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .service(connector);
    let mut first = Box::pin(stack.clone().oneshot(Query::read("q")));
    assert!(futures_util::poll!(first.as_mut()).is_pending());
    let start = Instant::now();
    let error = stack.oneshot(Query::read("q")).await.unwrap_err();
    assert_eq!((error.kind(), error.endpoint()), (ErrorKind::NoEndpoint, Some("e1")));
    assert_eq!(start.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn nobody_calls_an_endpoint_before_the_time_it_asked_for() {
    let scripts = ScriptedEndpoints::<Query, Answer>::new();
    scripts.endpoint("e1").respond(Answer::Broken).respond(Answer::Rows(1));
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(fixed(1)))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .layer(PushbackLayer::new().classify(|result: Result<&Answer, &Error>| match result {
            Ok(Answer::Broken) => Outcome::Throttled(Some(Duration::from_secs(7))),
            _ => Outcome::Success,
        }))
        .service(scripts.clone());
    assert_eq!(stack.clone().oneshot(Query::read("q")).await.unwrap(), Answer::Broken);
    tokio::time::advance(Duration::from_secs(2)).await;
    let error = stack.clone().oneshot(Query::read("q")).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::RateLimited, Some(Duration::from_secs(5))));
    assert_eq!(scripts.endpoint("e1").calls(), 1);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(stack.oneshot(Query::read("q")).await.unwrap(), Answer::Rows(1));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_asked_by_http_or_grpc_is_left_alone_as_long_as_it_says() {
    for (status, said) in [
        (429, [("retry-after", "7")].as_slice()),
        (503, &[("retry-after", "7")]),
        (200, &[("grpc-status", "8"), ("grpc-retry-pushback-ms", "7000")]),
    ] {
        let mut throttled = http::Response::builder().status(status);
        for (name, value) in said {
            throttled = throttled.header(*name, *value);
        }
        let scripts = ScriptedEndpoints::<http::Request<()>, http::Response<()>>::new();
        scripts.endpoint("e1").respond(throttled.body(()).unwrap());
        let stack = ServiceBuilder::new()
            .layer(DiscoverLayer::new(fixed(1)))
            .layer(BalanceLayer::new(RoundRobin::default()))
            .layer(PushbackLayer::new())
            .service(scripts.clone());
        stack.clone().oneshot(http::Request::new(())).await.unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        let error = stack.oneshot(http::Request::new(())).await.unwrap_err();
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::RateLimited, Some(Duration::from_secs(5))));
    }
}

#[test]
fn a_call_prefers_what_it_has_not_tried() {
    let handles = handles(3);
    let mut attempt = context::Attempt::first();
    let rank = |attempt: &context::Attempt, index: usize| Pick::new(1, *attempt, false).rank(&handles[index]);
    assert_eq!(rank(&attempt, 0), Rank::Fresh);
    {
        let _attempt = context::enter_attempt(&mut attempt);
        let picker = P2cLeastRequest;
        let _ = picker.pick(&handles, &pick());
    }
    handles[1].health().hold(100);
    assert_eq!(rank(&attempt, 1), Rank::Unusable);
}

#[tokio::test(start_paused = true)]
async fn the_service_may_be_named_by_the_request() {
    let directory = Directory::fixed([("a", endpoints(1)), ("b", endpoints(1))]);
    let made = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&made);
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::by(&directory, |query: &Query| query.text.clone()).most(1))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .service(move |endpoint: &EndpointHandle| {
            counted.fetch_add(1, Relaxed);
            let service = endpoint.service().to_string();
            service_fn(move |query: Query| {
                let right = query.text == service;
                async move { Ok::<_, Error>(if right { Answer::Rows(1) } else { Answer::Broken }) }
            })
        });
    for name in ["a", "a", "b", "a"] {
        assert_eq!(stack.clone().oneshot(Query::read(name)).await.unwrap(), Answer::Rows(1));
    }
    assert_eq!(made.load(Relaxed), 3, "only one at a time: a, b, and a again");
    let error = stack.oneshot(Query::read("nobody")).await.unwrap_err();
    assert_eq!((error.kind(), error.service()), (ErrorKind::NoService, Some("nobody")));
}

#[tokio::test(start_paused = true)]
async fn surviving_endpoints_keep_their_state_over_many_changes() {
    fastrand::seed(6);
    let (directory, changes) = changing();
    let service = directory.service("s");
    let monitor = Monitor::new();
    let numbers = Arc::new(Mutex::new(HashMap::<String, u32>::new()));
    let seen = Arc::clone(&numbers);
    let stack = ServiceBuilder::new()
        .layer(DiscoverLayer::new(service.clone()))
        .layer(BalanceLayer::new(RoundRobin::default()).eager().monitor(&monitor))
        .service(move |endpoint: &EndpointHandle| {
            let id = endpoint.endpoint().id().to_string();
            let before = seen.lock().unwrap().insert(id.clone(), endpoint.number());
            assert!(before.is_none_or(|before| before == endpoint.number()), "{id} lost its state");
            service_fn(|_: Query| async { Ok::<_, Error>(Answer::Rows(1)) })
        });
    let all = endpoints(200);
    let mut versions = service.watch();
    for round in 0..100 {
        for _ in 0..1000 {
            let endpoint = &all[fastrand::usize(..all.len())];
            let change = match fastrand::u8(..3) {
                0 => Change::Remove(endpoint.id().clone()),
                _ => insert(endpoint.clone().with_weight(fastrand::u32(1..5))),
            };
            changes.send(change).unwrap();
        }
        if round == 0 {
            service.ready(Duration::from_secs(1)).await.unwrap();
        }
        let _ = tokio::time::timeout(Duration::from_millis(60), versions.changed()).await;
    }
    tokio::time::sleep_until(Instant::now() + Duration::from_secs(5)).await;
    let listed = service.snapshot().endpoints().len();
    assert_eq!(monitor.snapshot().endpoints.len(), listed);
    stack.oneshot(Query::read("q")).await.unwrap();
}

#[tokio::test]
async fn tower_http_layers_fit_in_both_places() {
    use bytes::Bytes;
    use http::{HeaderValue, Request, Response, header::HeaderName};
    use http_body_util::Empty;
    use tower_http::{set_header::SetRequestHeaderLayer, timeout::TimeoutLayer, trace::TraceLayer};

    let name = HeaderName::from_static("x-per-endpoint");
    let value = HeaderValue::from_static("yes");
    let stack = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(TimeoutLayer::with_status_code(http::StatusCode::GATEWAY_TIMEOUT, Duration::from_secs(1)))
        .layer(DiscoverLayer::new(fixed(2)))
        .layer(BalanceLayer::new(P2cPeakEwma::default()))
        .layer(per_endpoint(move |_| SetRequestHeaderLayer::overriding(name.clone(), value.clone())))
        .service(|_: &EndpointHandle| {
            service_fn(|request: Request<Empty<Bytes>>| async move {
                let body = Bytes::copy_from_slice(request.headers()["x-per-endpoint"].as_bytes());
                Ok::<_, Error>(Response::new(http_body_util::Full::new(body)))
            })
        });
    let call = tokio::spawn(stack.oneshot(Request::new(Empty::new())));
    assert!(call.await.unwrap().unwrap().status().is_success());
}

#[test]
fn one_classification_is_a_closure_away() {
    fn is_classify<C: Classify<Answer>>(_: C) {}
    is_classify(|_: Result<&Answer, &Error>| Outcome::Success);
    let _ = ScriptedService::<Query, Answer>::new();
}
