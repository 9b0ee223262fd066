//! Retry: what is tried again, when, and who pays.

use std::{
    collections::HashSet,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::poll;
use hopvine::{
    Context, Error, ErrorKind, Live, Monitor, Outcome,
    context::{self, CallFacts, Ended},
    layers::retry::{Budget, BudgetPolicy, ReplayBody, Retry, RetryLayer, RetryPolicy},
    live::{Policy, Ratio},
    outcome::{Classified, Classify, Failure, Pushback, Standard},
    request::Idempotency,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::{Answer, Query};

/// When each attempt began, in milliseconds since the log was made, and which number it was told.
#[derive(Clone)]
struct Log {
    start: Instant,
    attempts: Arc<Mutex<Vec<(u64, u32)>>>,
}

impl Log {
    fn new() -> Self {
        Self { start: Instant::now(), attempts: Arc::default() }
    }

    /// A service that keeps this log; `answer` is told which attempt it is, counted from 0 over all calls.
    fn service<Req, Res, Fut, F>(
        &self,
        answer: F,
    ) -> impl Service<Req, Response = Res, Error = Error, Future = Fut> + Clone + use<Req, Res, Fut, F>
    where
        F: Fn(usize, Req) -> Fut + Clone,
        Fut: Future<Output = Result<Res, Error>>,
    {
        let log = self.clone();
        service_fn(move |request| {
            let mut attempts = log.attempts.lock().unwrap();
            attempts.push((log.elapsed(), context::attempt().number()));
            answer(attempts.len() - 1, request)
        })
    }

    fn elapsed(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn times(&self) -> Vec<u64> {
        self.attempts.lock().unwrap().iter().map(|(at, _)| *at).collect()
    }

    fn numbers(&self) -> Vec<u32> {
        self.attempts.lock().unwrap().iter().map(|(_, number)| *number).collect()
    }

    fn len(&self) -> usize {
        self.attempts.lock().unwrap().len()
    }
}

fn policy(max_attempts: u32) -> RetryPolicy {
    RetryPolicy { max_attempts, ..RetryPolicy::default() }
}

fn layer(max_attempts: u32) -> RetryLayer {
    RetryLayer::new(policy(max_attempts)).unwrap()
}

/// A budget that time does not pay into.
fn budget(thousandths: u32, start: u32) -> Budget {
    let ratio = Ratio(f64::from(thousandths) / 1000.0);
    Budget::new(BudgetPolicy { ratio, cap: 100, start, refill_per_second: 0 }).unwrap()
}

/// Thousandths of a token.
fn balance(budget: &Budget) -> u64 {
    (budget.balance(context::nanos(Instant::now())) * 1000.0).round() as u64
}

fn facts(attempts: u32, ended: Ended) -> CallFacts {
    CallFacts { attempts, ended }
}

fn status<B: Default>(status: u16, headers: &[(&str, &str)]) -> Response<B> {
    let response = Response::builder().status(status);
    let response = headers.iter().fold(response, |response, (name, value)| response.header(*name, *value));
    response.body(B::default()).unwrap()
}

fn get() -> Request<Empty<Bytes>> {
    Request::get("/").body(Empty::new()).unwrap()
}

fn post(body: &str) -> Request<Full<Bytes>> {
    Request::post("/").body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
}

type Sent<B> = Request<ReplayBody<B>>;

fn within<F: Future>(deadline: Duration, call: F) -> impl Future<Output = F::Output> {
    Context::new().with_deadline(Some(Instant::now() + deadline)).scope(call)
}

// What is tried again.

#[tokio::test(start_paused = true)]
async fn a_call_that_succeeds_is_left_alone() {
    let log = Log::new();
    let upstream = log.service(|_, query: Query| async move { Ok(Answer::Rows(query.text.len() as u32)) });
    let answer = layer(3).layer(upstream).oneshot(Query::read("four")).await.unwrap();
    assert_eq!(context::last_call(), facts(1, Ended::Answered));
    assert_eq!((answer, log.numbers()), (Answer::Rows(4), vec![1]));
}

#[tokio::test(start_paused = true)]
async fn a_failed_read_is_tried_again_and_each_attempt_knows_its_number() {
    let log = Log::new();
    let upstream = log.service(|n, query: Query| async move {
        assert_eq!(query, Query::read("q"));
        Ok(if n < 2 { Answer::Broken } else { Answer::Rows(1) })
    });
    let answer = layer(3).layer(upstream).oneshot(Query::read("q")).await.unwrap();
    assert_eq!(context::last_call(), facts(3, Ended::Answered));
    assert_eq!((answer, log.numbers()), (Answer::Rows(1), vec![1, 2, 3]));
    assert_eq!(context::attempt().number(), 1, "the caller's own facts are untouched");
}

#[tokio::test(start_paused = true)]
async fn the_last_response_or_error_is_what_the_caller_gets() {
    let log = Log::new();
    let upstream = log.service(|_, _: Query| async { Ok(Answer::Broken) });
    assert_eq!(layer(3).layer(upstream).oneshot(Query::read("q")).await.unwrap(), Answer::Broken);
    assert_eq!(context::last_call(), facts(3, Ended::AttemptsExhausted));

    let log = Log::new();
    let upstream = log.service(|n, _: Query| async move {
        Err::<Answer, _>(Error::new(ErrorKind::AttemptTimeout).with_endpoint(format!("{n}").into()))
    });
    let error = layer(2).layer(upstream).oneshot(Query::read("q")).await.unwrap_err();
    assert_eq!(context::last_call(), facts(2, Ended::AttemptsExhausted));
    assert_eq!((error.kind(), error.attempts(), error.endpoint()), (ErrorKind::AttemptTimeout, 2, Some("1")));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_have_run_is_not_made_twice() {
    let log = Log::new();
    let upstream = log.service(|_, _: Query| async { Err::<Answer, _>(Error::new(ErrorKind::Upstream)) });
    let error = layer(3).layer(upstream).oneshot(Query::write("q")).await.unwrap_err();
    assert_eq!(context::last_call(), facts(1, Ended::NotIdempotent));
    assert_eq!((error.attempts(), log.len()), (1, 1));

    // POST with a reset after it was sent.
    let log = Log::new();
    let upstream = log.service(|_, request: Sent<Full<Bytes>>| async {
        request.into_body().collect().await.unwrap();
        Err::<Response<Bytes>, _>(Error::from_any(std::io::Error::other("connection reset")))
    });
    layer(3).layer(upstream).oneshot(post("order 7")).await.unwrap_err();
    assert_eq!((log.len(), context::last_call().ended), (1, Ended::NotIdempotent));
}

#[tokio::test(start_paused = true)]
async fn a_post_that_says_it_may_run_twice_is_tried_again_with_its_body() {
    let extension = |mut request: Request<Full<Bytes>>| {
        request.extensions_mut().insert(Idempotency(true));
        request
    };
    let header = |mut request: Request<Full<Bytes>>| {
        request.headers_mut().insert("idempotency-key", "a".parse().unwrap());
        request
    };
    for request in [extension(post("order 7")), header(post("order 7"))] {
        let log = Log::new();
        let upstream = log.service(|n, request: Sent<Full<Bytes>>| async move {
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "order 7");
            Ok(status::<Bytes>(if n == 0 { 502 } else { 201 }, &[]))
        });
        assert_eq!(layer(3).layer(upstream).oneshot(request).await.unwrap().status(), 201);
        assert_eq!(log.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_post_refused_at_one_endpoint_runs_exactly_once_at_the_next() {
    let (log, executions, monitor) = (Log::new(), Arc::new(AtomicU32::new(0)), Monitor::new());
    let counted = Arc::clone(&executions);
    let upstream = log.service(move |n, request: Sent<Full<Bytes>>| {
        let executions = Arc::clone(&counted);
        async move {
            assert!(!request.headers().contains_key("grpc-previous-rpc-attempts"), "no server saw it before");
            if n == 0 {
                return Err(Error::new(ErrorKind::Connect));
            }
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), "order 7");
            executions.fetch_add(1, Relaxed);
            Ok(status::<Bytes>(201, &[]))
        }
    });
    let budget = budget(0, 10);
    let service = layer(3).budget(budget.clone()).name("orders").monitor(&monitor).layer(upstream);
    let mut request = post("order 7");
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    assert_eq!(service.clone().oneshot(request).await.unwrap().status(), 201);
    assert_eq!(context::last_call(), facts(2, Ended::Answered));
    assert_eq!(executions.load(Relaxed), 1);
    assert_eq!((log.times(), log.numbers()), (vec![0, 0], vec![1, 2]), "at once");
    assert_eq!(balance(&budget), 9_000, "paid for");
    let view = &monitor.snapshot().retries[0];
    assert_eq!((&*view.name, view.calls, view.attempts, view.requeues, view.refused), ("orders", 1, 2, 1, 0));
    assert!((view.budget - 9.0).abs() < 1e-9);
}

#[tokio::test(start_paused = true)]
async fn requeues_end_with_the_attempts() {
    let log = Log::new();
    let upstream = log.service(|_, _: Query| async {
        // Refused by the server before it ran: REFUSED_STREAM.
        Err::<Answer, _>(Error::new(ErrorKind::Upstream).unsent())
    });
    let error = layer(5).layer(upstream).oneshot(Query::write("q")).await.unwrap_err();
    assert_eq!(context::last_call(), facts(5, Ended::AttemptsExhausted));
    assert_eq!((error.attempts(), log.times()), (5, vec![0; 5]));
}

#[tokio::test(start_paused = true)]
async fn what_a_layer_on_this_side_refused_is_not_tried_again() {
    for kind in [ErrorKind::NoEndpoint, ErrorKind::BulkheadFull, ErrorKind::RateLimited, ErrorKind::CircuitOpen] {
        let log = Log::new();
        let upstream = log.service(move |_, _: Query| async move { Err::<Answer, _>(Error::new(kind)) });
        let error = layer(3).layer(upstream).oneshot(Query::read("q")).await.unwrap_err();
        assert_eq!((error.kind(), log.len(), context::last_call().ended), (kind, 1, Ended::Answered));
    }
}

#[tokio::test(start_paused = true)]
async fn the_response_head_commits_whatever_becomes_of_its_body() {
    let log = Log::new();
    let upstream = log.service(|_, _: Sent<Empty<Bytes>>| async {
        let (mut body, channel) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(1);
        tokio::spawn(async move {
            body.send_data("half a".into()).await.unwrap();
            body.abort(std::io::Error::other("connection reset"));
        });
        Ok(Response::new(channel))
    });
    let response = layer(3).layer(upstream).oneshot(get()).await.unwrap();
    assert_eq!(context::last_call(), facts(1, Ended::Answered));
    response.into_body().collect().await.unwrap_err();
    assert_eq!(log.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_would_be_the_same_again_is_taken_as_it_is() {
    for code in [400, 404, 501, 505] {
        let log = Log::new();
        let upstream = log.service(move |_, _: Sent<Empty<Bytes>>| async move { Ok(status::<Bytes>(code, &[])) });
        assert_eq!(layer(3).layer(upstream).oneshot(get()).await.unwrap().status(), code);
        assert_eq!((log.len(), context::last_call().ended), (1, Ended::Answered));
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_server_is_told_how_many_attempts_it_may_have_seen() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Log::new();
    let told = Arc::clone(&seen);
    let upstream = log.service(move |n, request: Sent<Empty<Bytes>>| {
        let header = request.headers().get("grpc-previous-rpc-attempts");
        told.lock().unwrap().push(header.map(|value| value.to_str().unwrap().to_owned()));
        // The second never left: it is no attempt that a server saw.
        let unsent = n == 1;
        async move {
            if unsent {
                Err(Error::new(ErrorKind::Connect))
            } else {
                Ok(status::<Bytes>(200, &[("grpc-status", "14")]))
            }
        }
    });
    let request = Request::put("/").header("content-type", "application/grpc").body(Empty::<Bytes>::new()).unwrap();
    layer(5).layer(upstream).oneshot(request).await.unwrap();
    let seen: Vec<_> = seen.lock().unwrap().iter().map(|told| told.as_deref().map(|n| n.parse().unwrap())).collect();
    assert_eq!(seen, [None, Some(1), Some(1), Some(2), Some(3)]);
}

// The body.

#[tokio::test(start_paused = true)]
async fn a_body_that_outgrew_the_limit_is_sent_once_and_costs_no_token() {
    for (length, attempts, ended) in
        [(64 * 1024, 3, Ended::AttemptsExhausted), (64 * 1024 + 1, 1, Ended::NotReplayable)]
    {
        let log = Log::new();
        let upstream = log.service(move |_, request: Sent<Full<Bytes>>| async move {
            assert_eq!(request.into_body().collect().await.unwrap().to_bytes().len(), length);
            Ok(status::<Bytes>(503, &[]))
        });
        let request = Request::put("/").body(Full::new(Bytes::from(vec![7; length]))).unwrap();
        let budget = budget(0, 10);
        assert_eq!(layer(3).budget(budget.clone()).layer(upstream).oneshot(request).await.unwrap().status(), 503);
        assert_eq!(context::last_call(), facts(attempts, ended));
        assert_eq!(balance(&budget), u64::from(11 - attempts) * 1000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_still_coming_in_is_continued_by_the_next_attempt() {
    let (mut sender, channel) = http_body_util::channel::Channel::<Bytes>::new(1);
    let (log, cut_off) = (Log::new(), Arc::new(AtomicU32::new(0)));
    let told = Arc::clone(&cut_off);
    let upstream = log.service(move |n, request: Sent<_>| {
        let told = Arc::clone(&told);
        async move {
            let mut body: ReplayBody<http_body_util::channel::Channel<Bytes>> = request.into_body();
            if n == 0 {
                body.frame().await.unwrap().unwrap();
                // An early answer, while a connection of its own keeps the body.
                tokio::spawn(async move {
                    assert!(body.frame().await.unwrap().is_err());
                    told.fetch_add(1, Relaxed);
                });
                tokio::task::yield_now().await;
                return Ok(status(500, &[]));
            }
            Ok(Response::new(body.collect().await.unwrap().to_bytes()))
        }
    });
    let request = Request::put("/").body(channel).unwrap();
    let call = tokio::spawn(layer(3).layer(upstream).oneshot(request));
    for chunk in ["one ", "two ", "three"] {
        sender.send_data(chunk.into()).await.unwrap();
        tokio::time::advance(Duration::from_millis(20)).await;
    }
    drop(sender);
    assert_eq!(call.await.unwrap().unwrap().into_body(), "one two three");
    assert_eq!(cut_off.load(Relaxed), 1, "the connection of the first attempt stopped reading");
}

// When.

#[tokio::test(start_paused = true)]
async fn waits_are_spread_over_their_range_and_follow_the_seed() {
    fastrand::seed(3);
    let mut waits = [HashSet::new(), HashSet::new()];
    for _ in 0..200 {
        let log = Log::new();
        let upstream = log.service(|_, _: Query| async { Ok(Answer::Broken) });
        layer(3).layer(upstream).oneshot(Query::read("q")).await.unwrap();
        let times = log.times();
        waits[0].insert(times[1] - times[0]);
        waits[1].insert(times[2] - times[1]);
    }
    // Up to 25 and 50 ms; the timer rounds up to whole milliseconds.
    for (waits, most) in waits.iter().zip([25, 50]) {
        assert!(waits.iter().all(|wait| *wait <= most));
        assert!(waits.len() > 20, "{waits:?}");
    }

    let run = async || {
        fastrand::seed(9);
        let log = Log::new();
        let upstream = log.service(|_, _: Query| async { Ok(Answer::Broken) });
        layer(5).layer(upstream).oneshot(Query::read("q")).await.unwrap();
        log.times()
    };
    assert_eq!(run().await, run().await);
}

#[tokio::test(start_paused = true)]
async fn a_server_is_asked_again_when_it_said() {
    let grpc = |pushback: Option<&'static str>| {
        move || {
            let mut response = status::<Bytes>(200, &[("grpc-status", "14")]);
            if let Some(pushback) = pushback {
                response.headers_mut().insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
            }
            response
        }
    };
    for (pushback, expected) in [
        (Some("0"), Some(0..=0)),
        (Some("500"), Some(500..=500)),
        (Some("-1"), None),
        (Some("abc"), None),
        (None, Some(0..=25)),
    ] {
        let (log, answer) = (Log::new(), grpc(pushback));
        let upstream = log.service(move |n, _: Sent<Empty<Bytes>>| {
            let response = if n == 0 { answer() } else { status(200, &[]) };
            async { Ok(response) }
        });
        layer(3).layer(upstream).oneshot(get()).await.unwrap();
        match expected {
            Some(range) => assert!(range.contains(&log.times()[1]), "{pushback:?}: {:?}", log.times()),
            None => assert_eq!((log.len(), context::last_call().ended), (1, Ended::PushedBack)),
        }
    }

    for (code, wait, expected) in [(429, "2", 2_000), (503, "1", 1_000), (500, "3", 3_000), (429, "86400", 300_000)] {
        let log = Log::new();
        let upstream = log.service(move |n, _: Sent<Empty<Bytes>>| async move {
            Ok(if n == 0 { status::<Bytes>(code, &[("retry-after", wait)]) } else { status(200, &[]) })
        });
        layer(3).layer(upstream).oneshot(get()).await.unwrap();
        assert_eq!(log.times(), [0, expected]);
    }

    // Throttled, without a word when: a wait of our own.
    let log = Log::new();
    let upstream = log.service(|_, _: Sent<Empty<Bytes>>| async { Ok(status::<Bytes>(429, &[])) });
    layer(2).layer(upstream).oneshot(get()).await.unwrap();
    assert!(log.times()[1] <= 25);

    // Throttled, and may have run: not again.
    let log = Log::new();
    let upstream = log.service(|_, _: Sent<Full<Bytes>>| async { Ok(status::<Bytes>(429, &[("retry-after", "1")])) });
    layer(2).layer(upstream).oneshot(post("order 7")).await.unwrap();
    assert_eq!((log.len(), context::last_call().ended), (1, Ended::NotIdempotent));
}

#[tokio::test(start_paused = true)]
async fn after_a_wait_the_server_chose_our_own_begin_again_from_the_base() {
    fastrand::seed(1);
    let mut longest = [0; 4];
    for _ in 0..100 {
        let log = Log::new();
        let upstream = log.service(|n, _: Sent<Empty<Bytes>>| async move {
            let pushback: &[_] = if n == 2 { &[("retry-after", "1")] } else { &[] };
            Ok(status::<Bytes>(500, pushback))
        });
        let service = layer(5).budget(budget(0, 100)).layer(upstream);
        service.oneshot(get()).await.unwrap();
        for (longest, pair) in longest.iter_mut().zip(log.times().windows(2)) {
            *longest = (pair[1] - pair[0]).max(*longest);
        }
    }
    assert!(longest[0] <= 25 && (26..=50).contains(&longest[1]), "{longest:?}");
    assert_eq!(longest[2], 1_000);
    assert!(longest[3] <= 25, "{longest:?}");
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_begun_that_the_deadline_would_cut_off() {
    let log = Log::new();
    let budget = budget(0, 10);
    let upstream = log.service(|_, _: Sent<Empty<Bytes>>| async { Ok(status::<Bytes>(429, &[("retry-after", "1")])) });
    let service = layer(3).budget(budget.clone()).layer(upstream);
    let response = within(Duration::from_secs(1), service.oneshot(get())).await.unwrap();
    assert_eq!((response.status().as_u16(), context::last_call()), (429, facts(1, Ended::DeadlineNear)));
    assert_eq!((log.elapsed(), balance(&budget)), (0, 10_000));
}

/// T1: deadline 100 ms, attempt timeout 40 ms, backoff up to 10 ms.
#[tokio::test(start_paused = true)]
async fn one_deadline_holds_over_attempts_and_waits() {
    fastrand::seed(11);
    let log = Log::new();
    let upstream = log.service(|_, _: Query| async {
        let own = Instant::now() + Duration::from_millis(40);
        tokio::time::sleep_until(own.min(context::deadline().unwrap())).await;
        Err::<Answer, _>(Error::new(ErrorKind::AttemptTimeout))
    });
    let ten = Duration::from_millis(10);
    let policy = RetryPolicy { max_attempts: 5, backoff_base: ten, backoff_max: ten, ..RetryPolicy::default() };
    let service = RetryLayer::new(policy).unwrap().layer(upstream);
    let error = within(Duration::from_millis(100), service.oneshot(Query::read("q"))).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::AttemptTimeout, 3));
    assert_eq!(context::last_call(), facts(3, Ended::DeadlineNear));
    let times = log.times();
    assert!((40..=50).contains(&times[1]) && (times[1] + 40..100).contains(&times[2]), "{times:?}");
    assert_eq!(log.elapsed(), 100, "cut off exactly there");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_made_in_the_same_poll_as_the_last_one_reads_the_clock_anew() {
    let (log, read) = (Log::new(), Arc::new(Mutex::new(Vec::new())));
    let times = Arc::clone(&read);
    let upstream = log.service(move |_, _: Query| {
        times.lock().unwrap().push(context::now());
        poll_fn(|cx| {
            context::now();
            // Sets the paused clock forward within this very poll.
            let _ = pin!(tokio::time::advance(Duration::from_secs(1))).poll(cx);
            Poll::Ready(Err::<Answer, _>(Error::new(ErrorKind::Connect)))
        })
    });
    layer(2).layer(upstream).oneshot(Query::read("q")).await.unwrap_err();
    let read = read.lock().unwrap();
    assert_eq!(read[1] - read[0], Duration::from_secs(1));
}

/// Something held as long as it lives.
struct Held(Arc<AtomicU32>);

impl Held {
    fn new(held: &Arc<AtomicU32>) -> Self {
        held.fetch_add(1, Relaxed);
        Self(Arc::clone(held))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Classified for Held {
    fn outcome(&self) -> Outcome {
        Outcome::Failure(Failure::Other)
    }
}

#[tokio::test(start_paused = true)]
async fn the_connection_of_a_bad_response_is_free_before_the_wait() {
    let (log, lent) = (Log::new(), Arc::new(AtomicU32::new(0)));
    let connections = Arc::clone(&lent);
    let upstream = log.service(move |_, _: Query| {
        let connection = Held::new(&connections);
        async move { Ok(connection) }
    });
    let mut call = Box::pin(layer(2).layer(upstream).oneshot(Query::read("q")));
    assert!(poll!(call.as_mut()).is_pending());
    assert_eq!((log.len(), lent.load(Relaxed)), (1, 0), "waiting, and nothing held");
    let last = call.await.unwrap();
    assert_eq!((log.len(), lent.load(Relaxed)), (2, 1));
    drop(last);
}

// Who pays.

#[tokio::test(start_paused = true)]
async fn no_retry_without_a_token() {
    let (log, monitor) = (Log::new(), Monitor::new());
    let upstream = log.service(|n, _: Query| async move {
        // A requeue is paid for, too.
        if n == 0 { Ok(Answer::Broken) } else { Err(Error::new(ErrorKind::Connect)) }
    });
    let service = layer(3).budget(budget(200, 0)).monitor(&monitor).layer(upstream);
    assert_eq!(service.clone().oneshot(Query::read("q")).await.unwrap(), Answer::Broken);
    assert_eq!(context::last_call(), facts(1, Ended::BudgetExhausted));
    let error = service.clone().oneshot(Query::read("q")).await.unwrap_err();
    assert_eq!((error.kind(), context::last_call()), (ErrorKind::Connect, facts(1, Ended::BudgetExhausted)));
    let view = &monitor.snapshot().retries[0];
    assert_eq!((&*view.name, view.calls, view.attempts, view.refused), ("retry", 2, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn every_success_pays_its_share_and_no_more() {
    for (thousandths, retries) in [(0, 4), (300, 7), (700, 11), (1000, 14)] {
        let log = Log::new();
        let upstream = log.service(|_, query: Query| async move {
            Ok(if query.text == "good" { Answer::Rows(1) } else { Answer::Broken })
        });
        let service = layer(2).budget(budget(thousandths, 4)).layer(upstream);
        for _ in 0..10 {
            service.clone().oneshot(Query::read("good")).await.unwrap();
        }
        let before = log.len();
        for _ in 0..50 {
            service.clone().oneshot(Query::read("bad")).await.unwrap();
        }
        assert_eq!(log.len() - before - 50, retries, "{thousandths}/1000 of 10 successes, and 4 at the start");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_succeeds_pays_in_but_not_as_much_as_it_cost() {
    let log = Log::new();
    let upstream =
        log.service(|n, _: Query| async move { Ok(if n % 2 == 0 { Answer::Broken } else { Answer::Rows(1) }) });
    let budget = budget(200, 2);
    let service = layer(3).budget(budget.clone()).layer(upstream);
    service.oneshot(Query::read("q")).await.unwrap();
    assert_eq!(balance(&budget), 1_200);
}

#[tokio::test(start_paused = true)]
async fn time_pays_for_a_few_retries_and_can_be_switched_off() {
    for (refill, expected) in [(10, 10), (0, 0)] {
        let policy = BudgetPolicy { ratio: Ratio(0.0), start: 0, refill_per_second: refill, ..BudgetPolicy::default() };
        let log = Log::new();
        let upstream = log.service(|_, _: Query| async { Ok(Answer::Broken) });
        let none = Duration::ZERO;
        let retry = RetryPolicy { max_attempts: 2, backoff_base: none, backoff_max: none, ..RetryPolicy::default() };
        let service = RetryLayer::new(retry).unwrap().budget(Budget::new(policy).unwrap()).layer(upstream);
        service.clone().oneshot(Query::read("q")).await.unwrap();
        assert_eq!(log.len(), 1, "a new one has nothing yet");
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..50 {
            service.clone().oneshot(Query::read("q")).await.unwrap();
        }
        assert_eq!(log.len() - 51, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn one_budget_pays_for_all_layers_of_a_service() {
    let budget = budget(0, 3);
    let log = Log::new();
    let upstream = log.service(|_, _: Query| async { Ok(Answer::Broken) });
    let read = layer(2).budget(budget.clone()).layer(upstream.clone());
    let write = layer(2).budget(budget.clone()).layer(upstream);
    for _ in 0..3 {
        read.clone().oneshot(Query::read("q")).await.unwrap();
        write.clone().oneshot(Query::read("q")).await.unwrap();
    }
    assert_eq!(log.len(), 6 + 3);
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_layer_is_shared_by_the_services_it_makes() {
    let monitor = Monitor::new();
    let layer = layer(2).budget(budget(0, 1)).monitor(&monitor);
    let log = Log::new();
    let upstream = log.service(|_, _: Query| async { Ok(Answer::Broken) });
    let routes = [layer.layer(upstream.clone()), layer.clone().layer(upstream)];
    for route in &routes {
        route.clone().oneshot(Query::read("q")).await.unwrap();
    }
    let views = monitor.snapshot().retries;
    assert_eq!((views.len(), views[0].calls, views[0].attempts, views[0].refused), (1, 2, 3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_never_left_this_side_costs_nothing() {
    let log = Log::new();
    let upstream = log.service(|n, _: Query| async move {
        if n == 0 { Ok(Answer::Broken) } else { Err(Error::new(ErrorKind::NoEndpoint)) }
    });
    let budget = budget(0, 5);
    let service = layer(3).budget(budget.clone()).layer(upstream);
    let error = service.oneshot(Query::read("q")).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts(), balance(&budget)), (ErrorKind::NoEndpoint, 2, 5_000));
}

// Cancellation.

/// Attempts that take 20 ms, of which the first two fail; waits of up to 250 ms.
#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_point_gives_back_what_was_not_sent() {
    fastrand::seed(5);
    let mut ends = HashSet::new();
    for polls in 0..100 {
        let (log, in_flight) = (Log::new(), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&in_flight);
        let upstream = log.service(move |n, _: Query| {
            let held = Held::new(&counted);
            async move {
                let _held = held;
                tokio::time::sleep_until(Instant::now() + Duration::from_millis(20)).await;
                Ok(if n < 2 { Answer::Broken } else { Answer::Rows(1) })
            }
        });
        let base = Duration::from_millis(250);
        let policy = RetryPolicy { backoff_base: base, backoff_max: base, ..RetryPolicy::default() };
        let budget = budget(0, 10);
        let service = RetryLayer::new(policy).unwrap().budget(budget.clone()).layer(upstream);
        let mut call = Box::pin(service.oneshot(Query::read("q")));
        let mut ready = false;
        for _ in 0..polls {
            ready = poll!(call.as_mut()).is_ready();
            if ready {
                break;
            }
            tokio::time::advance(Duration::from_millis(7)).await;
        }
        ends.insert((log.len(), in_flight.load(Relaxed), ready));
        drop(call);
        assert_eq!(in_flight.load(Relaxed), 0);
        let sent = log.len().saturating_sub(1) as u64;
        assert_eq!(balance(&budget), 10_000 - 1_000 * sent, "dropped after {polls} polls");
    }
    // Before the call, in each attempt, in each wait, and not at all.
    let expected =
        [(0, 0, false), (1, 1, false), (1, 0, false), (2, 1, false), (2, 0, false), (3, 1, false), (3, 0, true)];
    assert_eq!(ends, HashSet::from(expected));
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_while_it_waits_for_readiness_gives_its_token_back() {
    let (mock, mut handle) = tower_test::mock::pair::<Query, Answer>();
    let budget = budget(0, 10);
    let none = Duration::ZERO;
    let policy = RetryPolicy { backoff_base: none, backoff_max: none, ..RetryPolicy::default() };
    let service = RetryLayer::new(policy).unwrap().budget(budget.clone()).layer(mock);
    handle.allow(1);
    let mut call = Box::pin(service.oneshot(Query::read("q")));
    assert!(poll!(call.as_mut()).is_pending());
    handle.next_request().await.unwrap().1.send_response(Answer::Broken);
    assert!(poll!(call.as_mut()).is_pending());
    assert_eq!(balance(&budget), 9_000);
    drop(call);
    assert_eq!(balance(&budget), 10_000);
}

// Readiness.

#[tokio::test(start_paused = true)]
async fn each_attempt_waits_until_the_service_inside_is_ready() {
    let (mock, mut handle) = tower_test::mock::pair::<Query, Answer>();
    let none = Duration::ZERO;
    let policy = RetryPolicy { backoff_base: none, backoff_max: none, ..RetryPolicy::default() };
    let mut service = RetryLayer::new(policy).unwrap().layer(mock);
    handle.allow(0);
    assert!(
        poll!(Box::pin(ServiceExt::<Query>::ready(&mut service))).is_pending(),
        "the caller sees that it is not ready"
    );
    handle.allow(1);
    let mut call = Box::pin(ServiceExt::<Query>::ready(&mut service).await.unwrap().call(Query::read("q")));
    assert!(poll!(call.as_mut()).is_pending());
    handle.next_request().await.unwrap().1.send_response(Answer::Broken);
    assert!(poll!(call.as_mut()).is_pending());
    assert!(poll!(Box::pin(handle.next_request())).is_pending(), "no second request yet");
    handle.allow(1);
    let (answered, ()) = futures_util::join!(call, async {
        handle.next_request().await.unwrap().1.send_response(Answer::Rows(2));
    });
    assert_eq!(answered.unwrap(), Answer::Rows(2));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_dies_between_two_attempts_ends_the_call() {
    let (mock, mut handle) = tower_test::mock::pair::<Query, Answer>();
    let budget = budget(0, 10);
    let mut call = Box::pin(layer(3).budget(budget.clone()).layer(mock).oneshot(Query::read("q")));
    handle.allow(1);
    let (result, ()) = futures_util::join!(call.as_mut(), async {
        let (_, respond) = handle.next_request().await.unwrap();
        handle.send_error("gone");
        respond.send_response(Answer::Broken);
    });
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Upstream, 1));
    assert_eq!(balance(&budget), 10_000, "never sent, and back before the future is dropped");
    drop(call);
}

/// Panics unless the very instance that is called was ready; a clone is not.
struct Strict {
    ready: bool,
    clones: Arc<AtomicU32>,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Relaxed);
        Self { ready: false, clones: Arc::clone(&self.clones) }
    }
}

impl Service<Query> for Strict {
    type Response = Answer;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Answer, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _query: Query) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called an instance that was not made ready");
        std::future::ready(Ok(Answer::Broken))
    }
}

#[tokio::test(start_paused = true)]
async fn the_instance_that_was_made_ready_is_the_one_called() {
    let clones = Arc::new(AtomicU32::new(0));
    for (max_attempts, cloned) in [(5, 4), (1, 0)] {
        let strict = Strict { ready: false, clones: Arc::clone(&clones) };
        let mut service = layer(max_attempts).layer(strict);
        for _ in 0..3 {
            clones.store(0, Relaxed);
            poll_fn(|cx| Service::<Query>::poll_ready(&mut service, cx)).await.unwrap();
            service.call(Query::read("q")).await.unwrap();
            assert_eq!(context::last_call(), facts(max_attempts, Ended::AttemptsExhausted));
            assert_eq!(clones.load(Relaxed), cloned, "one for each further attempt, none for the first");
        }
    }
}

// Settings.

#[tokio::test(start_paused = true)]
async fn a_new_policy_holds_from_the_next_call_on() {
    let live = Live::new(policy(1)).unwrap();
    let log = Log::new();
    let upstream = log.service(|_, _: Query| async { Ok(Answer::Broken) });
    let service = RetryLayer::new(live.clone()).unwrap().name("a").layer(upstream);
    service.clone().oneshot(Query::read("q")).await.unwrap();
    assert_eq!(log.len(), 1);
    live.set(policy(4)).unwrap();
    service.clone().oneshot(Query::read("q")).await.unwrap();
    assert_eq!(log.len(), 1 + 4);
    assert_eq!(live.set(policy(6)).unwrap_err().field(), "max_attempts");
    service.clone().oneshot(Query::read("q")).await.unwrap();
    assert_eq!(log.len(), 5 + 4, "the last good one stays");
}

#[tokio::test(start_paused = true)]
async fn a_new_budget_policy_holds_at_once() {
    let live = Live::new(BudgetPolicy { refill_per_second: 0, ..BudgetPolicy::default() }).unwrap();
    let budget = Budget::new(live.clone()).unwrap();
    assert_eq!(balance(&budget), 10_000);
    live.set(BudgetPolicy { cap: 2, start: 0, ratio: Ratio(1.0), refill_per_second: 0 }).unwrap();
    assert_eq!(balance(&budget), 2_000);
    budget.deposit();
    assert_eq!(balance(&budget), 2_000, "no more than the cap");
    budget.withdraw(0).unwrap().spend();
    drop(budget.withdraw(0).unwrap());
    assert_eq!(balance(&budget), 1_000);
}

#[test]
fn a_bad_setting_is_refused_by_its_name() {
    let second = Duration::from_secs(1);
    let retry = [
        (policy(0), "max_attempts"),
        (RetryPolicy { backoff_base: second, ..policy(3) }, "backoff_base"),
        (RetryPolicy { backoff_max: second * 3601, ..policy(3) }, "backoff_max"),
    ];
    for (policy, field) in retry {
        assert_eq!(RetryLayer::new(policy).unwrap_err().field(), field);
    }
    let default = BudgetPolicy::default();
    let budget = [
        (BudgetPolicy { ratio: Ratio(1.1), ..default.clone() }, "ratio"),
        (BudgetPolicy { ratio: Ratio(0.0004), ..default.clone() }, "ratio"),
        (BudgetPolicy { start: 101, ..default.clone() }, "start"),
        (BudgetPolicy { refill_per_second: 100_001, ..default.clone() }, "refill_per_second"),
    ];
    for (policy, field) in budget {
        assert_eq!(Budget::new(policy).unwrap_err().field(), field);
    }
    for thousandths in 0..=1000 {
        BudgetPolicy { ratio: Ratio(f64::from(thousandths) / 1000.0), ..default.clone() }.validate().unwrap();
    }
}

#[test]
fn settings_are_read_as_people_write_them() {
    let read: RetryPolicy = serde_json::from_str(r#"{"max_attempts": 2, "backoff_base": "5ms"}"#).unwrap();
    assert_eq!(read, RetryPolicy { backoff_base: Duration::from_millis(5), ..policy(2) });
    serde_json::from_str::<RetryPolicy>(r#"{"max_atempts": 2}"#).unwrap_err();
    let read: BudgetPolicy = serde_json::from_str(r#"{"ratio": 0.1}"#).unwrap();
    assert_eq!(read, BudgetPolicy { ratio: Ratio(0.1), ..BudgetPolicy::default() });
}

#[tokio::test(start_paused = true)]
async fn a_classifier_of_my_own_decides_and_its_wait_is_bounded() {
    struct Impatient;
    impl Classify<Answer> for Impatient {
        fn classify(&self, result: Result<&Answer, &Error>) -> Outcome {
            // To this one an answer without rows is no answer.
            match result {
                Ok(Answer::Rows(0)) => Outcome::Throttled(None),
                result => Standard.classify(result),
            }
        }
        fn pushback(&self, _answer: &Answer) -> Option<Pushback> {
            Some(Pushback::After(Duration::MAX))
        }
    }
    let log = Log::new();
    let upstream = log.service(|n, _: Query| async move { Ok(Answer::Rows(n as u32)) });
    let answer = layer(3).classify(Impatient).layer(upstream).oneshot(Query::read("q")).await.unwrap();
    assert_eq!((answer, log.times()), (Answer::Rows(1), vec![0, 300_000]));
}

#[test]
fn a_stack_with_retries_can_be_cloned_shared_and_spawned() {
    fn check<S, Req>(_: &S)
    where
        S: Service<Req, Error = Error> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
    }
    #[derive(Clone)]
    struct Upstream;
    impl<Req> Service<Req> for Upstream {
        type Response = Answer;
        type Error = tower::BoxError;
        type Future = std::future::Ready<Result<Answer, tower::BoxError>>;

        fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), tower::BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _request: Req) -> Self::Future {
            std::future::ready(Ok(Answer::Rows(1)))
        }
    }
    let service: Retry<Upstream> = layer(3).layer(Upstream);
    check::<_, Query>(&service);
    check::<_, Request<Full<Bytes>>>(&service);
    assert!(!format!("{:?}", layer(3)).is_empty());
}
