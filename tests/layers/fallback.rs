//! Fallback: when it answers, what it knows, and what the caller gets if it cannot.

use std::{
    collections::HashSet,
    future::{Future, Ready, poll_fn, ready},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::poll;
use hopvine::{
    Error, ErrorKind, Monitor, Outcome,
    context::{self, CallFacts, Ended},
    layers::{
        fallback::{Fallback, FallbackLayer, Function, Keeping, Other, Why},
        retry::{RetryLayer, RetryPolicy},
    },
    monitor::FallbackView,
    outcome::{Classified, Failure},
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::{Answer, Query};

/// A service that always ends like this.
fn always<Req, Res>(
    result: Result<Res, ErrorKind>,
) -> impl Service<Req, Response = Res, Error = Error, Future: Send> + Clone
where
    Res: Clone + Send,
{
    service_fn(move |_: Req| ready(result.clone().map_err(Error::new)))
}

/// A fallback that answers with 7 rows, and keeps why it was asked.
#[allow(clippy::type_complexity, reason = "a layer of a closure, and what it saw")]
fn seven() -> (FallbackLayer<Function<impl Fn(Why) -> Ready<Result<Answer, Error>>>>, Arc<Mutex<Vec<Why>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let layer = FallbackLayer::new(move |why| {
        log.lock().unwrap().push(why);
        ready(Ok(Answer::Rows(7)))
    });
    (layer, asked)
}

/// How a call of `read` ends with this fallback round this service.
async fn outcome<S: Service<Query>>(service: S) -> Result<S::Response, S::Error> {
    service.oneshot(Query::read("q")).await
}

#[tokio::test(start_paused = true)]
async fn a_call_that_succeeds_never_sees_the_fallback() {
    let (layer, asked) = seven();
    assert_eq!(outcome(layer.layer(always(Ok(Answer::Rows(1))))).await.unwrap(), Answer::Rows(1));
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_any_kind_and_a_bad_response_are_answered_and_it_knows_why() {
    let (layer, asked) = seven();
    let ends = [
        (Err(ErrorKind::CircuitOpen), Outcome::Ignored),
        (Err(ErrorKind::NoEndpoint), Outcome::Ignored),
        (Err(ErrorKind::DeadlineExceeded), Outcome::TimedOut),
        (Err(ErrorKind::Connect), Outcome::Failure(Failure::Connect)),
        (Ok(Answer::Broken), Outcome::Failure(Failure::Other)),
    ];
    for (end, judged) in ends {
        assert_eq!(outcome(layer.layer(always(end.clone()))).await.unwrap(), Answer::Rows(7));
        let why = asked.lock().unwrap().pop().unwrap();
        assert_eq!((why.error(), why.outcome()), (end.err(), judged));
        assert_eq!((why.attempts(), why.layer(), why.retry_after()), (0, None, None));
    }

    let service = service_fn(|_: Query| async {
        let error = Error::new(ErrorKind::CircuitOpen).with_layer("circuit_breaker");
        Err(error.with_retry_after(Duration::from_secs(5)))
    });
    outcome(layer.layer(service)).await.unwrap();
    let why = asked.lock().unwrap().pop().unwrap();
    assert_eq!((why.layer(), why.retry_after()), (Some("circuit_breaker"), Some(Duration::from_secs(5))));
}

#[tokio::test(start_paused = true)]
async fn only_what_the_classifier_calls_bad_is_answered() {
    let layer = FallbackLayer::new(|why: Why| async move {
        Ok::<_, Error>(Response::builder().status(203).body(why.retry_after()).unwrap())
    });
    for (status, answered) in [(200, false), (404, false), (429, true), (500, true), (503, true)] {
        let service = service_fn(|()| async move {
            Ok::<_, Error>(Response::builder().status(status).header("retry-after", "9").body(None).unwrap())
        });
        let response = layer.layer(service).oneshot(()).await.unwrap();
        assert_eq!(response.status() == 203, answered, "{status}");
        if status == 429 {
            assert_eq!(response.into_body(), Some(Duration::from_secs(9)));
        }
    }

    let (layer, _) = seven();
    let layer = layer.classify(|result: Result<&Answer, &Error>| match result {
        Ok(Answer::Rows(0)) => Outcome::Failure(Failure::Other),
        _ => Outcome::Success,
    });
    assert_eq!(outcome(layer.layer(always(Ok(Answer::Rows(0))))).await.unwrap(), Answer::Rows(7));
    assert_eq!(outcome(layer.layer(always(Ok(Answer::Broken)))).await.unwrap(), Answer::Broken);
}

#[tokio::test(start_paused = true)]
async fn a_condition_of_mine_leaves_the_other_failures_to_the_caller() {
    let (layer, asked) = seven();
    let layer = layer.when(|why| why.error() == Some(ErrorKind::CircuitOpen));
    let error = outcome(layer.layer(always(Err(ErrorKind::Connect)))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(asked.lock().unwrap().is_empty());
    assert_eq!(outcome(layer.layer(always(Err(ErrorKind::CircuitOpen)))).await.unwrap(), Answer::Rows(7));
}

#[tokio::test(start_paused = true)]
async fn it_can_keep_a_key_of_each_request() {
    let layer = FallbackLayer::keeping(
        |query: &Query| query.text.len() as u32,
        |length, _| async move { Ok::<_, Error>(Answer::Rows(length)) },
    );
    let answer = layer.layer(always(Ok(Answer::Broken))).oneshot(Query::read("five!")).await.unwrap();
    assert_eq!(answer, Answer::Rows(5));
}

#[tokio::test(start_paused = true)]
async fn if_it_fails_too_the_caller_gets_what_the_call_itself_ended_with() {
    let monitor = Monitor::new();
    let layer = FallbackLayer::new(|_| async { Err::<Answer, _>(std::io::Error::other("cache is down")) })
        .name("catalog")
        .monitor(&monitor);
    let refused = layer.layer(always(Err(ErrorKind::CircuitOpen)));
    assert_eq!(outcome(refused).await.unwrap_err().kind(), ErrorKind::CircuitOpen);
    assert_eq!(outcome(layer.layer(always(Ok(Answer::Broken)))).await.unwrap(), Answer::Broken);
    let view = FallbackView { name: "catalog".into(), answered: 0, failed: 2 };
    assert_eq!(monitor.snapshot().fallbacks, [view]);
}

#[tokio::test(start_paused = true)]
async fn its_counts_are_shared_by_the_services_a_layer_makes() {
    let monitor = Monitor::new();
    let (layer, _) = seven();
    let layer = layer.monitor(&monitor).name("catalog");
    for layer in [layer.clone(), layer.clone()] {
        outcome(layer.layer(always(Ok(Answer::Broken)))).await.unwrap();
        outcome(layer.layer(always(Ok(Answer::Rows(1))))).await.unwrap();
    }
    let view = FallbackView { name: "catalog".into(), answered: 2, failed: 0 };
    assert_eq!(monitor.snapshot().fallbacks, [view]);
}

// Another service.

#[tokio::test(start_paused = true)]
async fn another_service_gets_the_whole_request_again() {
    let read = |request: Request<hopvine::layers::retry::ReplayBody<Full<Bytes>>>, status| async move {
        let (head, body) = request.into_parts();
        let text = format!("{} {:?}", head.uri, body.collect().await.unwrap().to_bytes());
        Ok::<_, Error>(Response::builder().status(status).body(text).unwrap())
    };
    let layer = FallbackLayer::service(service_fn(move |request| read(request, 200)));
    let service = layer.layer(service_fn(move |request| read(request, 500)));
    let request = Request::post("/orders").body(Full::new(Bytes::from("order 7"))).unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), &**response.body()), (200, "/orders b\"order 7\""));
}

#[tokio::test(start_paused = true)]
async fn a_body_too_long_to_keep_leaves_the_call_its_own_result() {
    let monitor = Monitor::new();
    let read = |request: Request<hopvine::layers::retry::ReplayBody<Full<Bytes>>>, status| async move {
        request.into_body().collect().await.unwrap();
        Ok::<_, Error>(Response::builder().status(status).body(()).unwrap())
    };
    let layer = FallbackLayer::service(service_fn(move |request| read(request, 200))).replay_limit(6).monitor(&monitor);
    let service = layer.layer(service_fn(move |request| read(request, 500)));
    let request = Request::post("/orders").body(Full::new(Bytes::from("order 7"))).unwrap();
    assert_eq!(service.clone().oneshot(request).await.unwrap().status(), 500);
    assert_eq!(monitor.snapshot().fallbacks[0].failed, 1);
}

#[tokio::test(start_paused = true)]
async fn another_service_is_waited_for_until_it_is_ready() {
    let (mock, mut handle) = tower_test::mock::pair::<Query, Answer>();
    handle.allow(0);
    let mut call = Box::pin(outcome(FallbackLayer::service(mock).layer(always(Ok(Answer::Broken)))));
    assert!(poll!(call.as_mut()).is_pending());
    assert!(poll!(Box::pin(handle.next_request())).is_pending());
    handle.allow(1);
    let (answer, ()) = futures_util::join!(call, async {
        let (query, respond) = handle.next_request().await.unwrap();
        assert_eq!(query, Query::read("q"));
        respond.send_response(Answer::Rows(2));
    });
    assert_eq!(answer.unwrap(), Answer::Rows(2));
}

// The context.

#[tokio::test(start_paused = true)]
async fn it_has_the_time_of_the_caller_and_not_what_the_call_left_of_its_own() {
    let (callers, own) = (Instant::now() + Duration::from_secs(2), Instant::now() + Duration::from_millis(10));
    let layer = FallbackLayer::new(|_| {
        let asked = context::deadline();
        async move { Ok::<_, Error>(Response::new((asked, context::deadline()))) }
    });
    let service = service_fn(move |()| {
        let _own = context::enter_deadline(Some(own));
        async { Err(Error::new(ErrorKind::DeadlineExceeded)) }
    });
    let call = {
        let _callers = context::enter_deadline(Some(callers));
        layer.layer(service).call(())
    };
    // Polled where another deadline, or none, is in force.
    let _spent = context::enter_deadline(Some(own));
    assert_eq!(*call.await.unwrap().body(), (Some(callers), Some(callers)));
}

#[tokio::test(start_paused = true)]
async fn what_it_does_may_take_long_and_reads_a_clock_of_its_own() {
    let layer = FallbackLayer::new(|_| {
        poll_fn(|cx| {
            let before = context::now();
            // Sets the paused clock forward within this very poll.
            let _ = pin!(tokio::time::advance(Duration::from_secs(1))).poll(cx);
            Poll::Ready(Ok::<_, Error>(Response::new(context::now() - before)))
        })
    });
    let mut call = pin!(layer.layer(always(Err(ErrorKind::CircuitOpen))).oneshot(()));
    let took = poll_fn(|cx| {
        let _clock = context::enter_clock();
        let before = context::now();
        let took = call.as_mut().poll(cx);
        took.map(|took| (took, context::now() - before))
    });
    let second = Duration::from_secs(1);
    let (inside, outside) = took.await;
    assert_eq!((inside.unwrap().into_body(), outside), (second, second));
}

#[tokio::test(start_paused = true)]
async fn it_knows_how_the_attempts_ended_and_so_does_the_caller() {
    let (layer, asked) = seven();
    let retry = RetryLayer::new(RetryPolicy::default()).unwrap();
    let service = layer.layer(retry.layer(always(Ok(Answer::Broken))));
    outcome(service).await.unwrap();
    let why = asked.lock().unwrap().pop().unwrap();
    assert_eq!((why.attempts(), why.ended()), (3, Ended::AttemptsExhausted));
    assert_eq!(context::last_call(), CallFacts { attempts: 3, ended: Ended::AttemptsExhausted });

    // What that call left behind is not taken for this one's, which nobody retries.
    outcome(layer.layer(always(Ok(Answer::Broken)))).await.unwrap();
    assert_eq!(asked.lock().unwrap().pop().unwrap().attempts(), 0);

    // Nor is what the fallback's own calls leave taken for the call's.
    let retry = RetryLayer::new(RetryPolicy::default()).unwrap();
    let layer = FallbackLayer::service(retry.layer(always(Ok(Answer::Rows(1)))));
    outcome(layer.layer(retry.layer(always(Ok(Answer::Broken))))).await.unwrap();
    assert_eq!(context::last_call(), CallFacts { attempts: 3, ended: Ended::AttemptsExhausted });
}

#[tokio::test(start_paused = true)]
async fn its_own_calls_start_with_fresh_attempt_facts() {
    let numbers = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&numbers);
    let layer = FallbackLayer::new(move |_| {
        let asked = context::attempt().number();
        let log = Arc::clone(&log);
        async move {
            log.lock().unwrap().push((asked, context::attempt().number()));
            Ok::<_, Error>(Answer::Broken)
        }
    });
    let retry = RetryLayer::new(RetryPolicy::default()).unwrap();
    outcome(retry.layer(layer.layer(always(Ok(Answer::Broken))))).await.unwrap();
    assert_eq!(*numbers.lock().unwrap(), [(1, 1); 3]);
}

// Cancellation.

#[derive(Debug)]
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
async fn dropped_at_any_point_it_holds_nothing_and_counts_nothing() {
    let mut ends = HashSet::new();
    for polls in 0..5 {
        let (calls, answers) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let (lent, answering) = (Arc::clone(&calls), Arc::clone(&answers));
        let monitor = Monitor::new();
        let layer = FallbackLayer::new(move |_| {
            let held = Held::new(&answering);
            async {
                tokio::task::yield_now().await;
                Ok::<_, Error>(held)
            }
        })
        .monitor(&monitor);
        let service = layer.layer(service_fn(move |_: Query| {
            let held = Held::new(&lent);
            async {
                tokio::task::yield_now().await;
                Ok::<_, Error>(held)
            }
        }));
        let answered = crate::support::drop_after(
            async {
                let mut call = pin!(service.oneshot(Query::read("q")));
                poll_fn(|cx| {
                    let result = call.as_mut().poll(cx);
                    ends.insert((calls.load(Relaxed), answers.load(Relaxed), result.is_ready()));
                    result
                })
                .await
            },
            polls,
        )
        .await;
        assert_eq!(calls.load(Relaxed), 0, "the bad response is gone, with its connection");
        assert_eq!(answers.load(Relaxed), u32::from(answered.is_some()));
        let view = monitor.snapshot().fallbacks.remove(0);
        assert_eq!((view.answered, view.failed), (u64::from(answered.is_some()), 0));
    }
    // In the call, in the answer with the bad response still at hand, answered.
    assert_eq!(ends, HashSet::from([(1, 0, false), (1, 1, false), (0, 1, true)]));
}

#[test]
fn a_stack_with_a_fallback_can_be_cloned_shared_and_spawned() {
    fn check<S, Req>(_: &S)
    where
        S: Service<Req, Error = Error> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
    }
    let answer = |_: Why| ready(Ok::<_, Error>(Answer::Rows(1)));
    let service: Fallback<_, Function<_>> = FallbackLayer::new(answer).layer(Upstream);
    check::<_, Query>(&service);
    let keep = |query: &Query| query.text.clone();
    let service: Fallback<_, Keeping<_, _>> =
        FallbackLayer::keeping(keep, |_, _| ready(Ok::<_, Error>(Answer::Rows(1)))).layer(Upstream);
    check::<_, Query>(&service);
    let service: Fallback<_, Other<_>> = FallbackLayer::service(Upstream).layer(Upstream);
    check::<_, Query>(&service);
    check::<_, Request<Full<Bytes>>>(&service);
}

#[derive(Clone)]
struct Upstream;

impl<Req> Service<Req> for Upstream {
    type Response = Answer;
    type Error = tower::BoxError;
    type Future = Ready<Result<Answer, tower::BoxError>>;

    fn poll_ready(&mut self, _cx: &mut std::task::Context<'_>) -> Poll<Result<(), tower::BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Req) -> Self::Future {
        ready(Ok(Answer::Rows(1)))
    }
}
