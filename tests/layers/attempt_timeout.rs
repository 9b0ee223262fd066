//! The attempt timeout.

use std::{
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use hopvine::{
    Context, EndpointHandle, Error, ErrorKind, Live, NewService, Outcome,
    connect::per_endpoint,
    context::{self, DropCause},
    endpoint::Group,
    layers::attempt_timeout::{AttemptTimeoutLayer, AttemptTimeoutPolicy},
};
use tokio::time::Instant;
use tower::{Service, ServiceExt, service_fn};
use tower_layer::Layer;

use crate::support::{Answer, Query, drop_after};

const MS: fn(u64) -> Duration = Duration::from_millis;

fn hangs() -> impl Service<Query, Response = Answer, Error = Error, Future: Send> + Clone {
    service_fn(async |_: Query| pending::<Result<Answer, Error>>().await)
}

fn before(deadline: Duration) -> Context {
    Context::new().with_deadline(Some(Instant::now() + deadline))
}

#[tokio::test(start_paused = true)]
async fn whose_time_ran_out_can_be_told() {
    let service = AttemptTimeoutLayer::new(MS(40)).layer(hangs());
    for (deadline, kind, took) in [
        (None, ErrorKind::AttemptTimeout, 40),
        (Some(100), ErrorKind::AttemptTimeout, 40),
        (Some(30), ErrorKind::DeadlineExceeded, 30),
        // Both: there is nothing left to try again with.
        (Some(40), ErrorKind::DeadlineExceeded, 40),
    ] {
        let start = Instant::now();
        let context = Context::new().with_deadline(deadline.map(|deadline| start + MS(deadline)));
        let error = context.scope(service.clone().oneshot(Query::read("all"))).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (kind, MS(took)), "{deadline:?}");
        assert_eq!((error.layer(), error.is_unsent()), (Some("attempt_timeout"), false));
        assert_eq!(Outcome::of_error(&error), Outcome::TimedOut);
    }
}

#[tokio::test(start_paused = true)]
async fn no_attempt_starts_after_the_calls_deadline() {
    let inner = service_fn(async |_: Query| -> Result<Answer, Error> { panic!("called") });
    let service = AttemptTimeoutLayer::new(MS(40)).layer(inner);
    let error = before(Duration::ZERO).scope(service.oneshot(Query::read("all"))).await.unwrap_err();
    assert_eq!((error.kind(), error.is_unsent()), (ErrorKind::DeadlineExceeded, true));
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_passes_and_a_failure_keeps_its_kind() {
    let service = AttemptTimeoutLayer::new(MS(40)).layer(service_fn(async |query: Query| {
        tokio::time::sleep_until(Instant::now() + MS(40)).await;
        if query.write { Err(Error::new(ErrorKind::Connect)) } else { Ok(Answer::Rows(1)) }
    }));
    assert_eq!(service.clone().oneshot(Query::read("all")).await.unwrap(), Answer::Rows(1));
    assert_eq!(service.oneshot(Query::write("all")).await.unwrap_err().kind(), ErrorKind::Connect);

    let at_once = service_fn(async |_: Query| Ok::<_, Error>(Answer::Rows(2)));
    for limit in [Duration::ZERO, Duration::MAX] {
        let answer = AttemptTimeoutLayer::new(limit).layer(at_once).oneshot(Query::read("all")).await;
        assert_eq!(answer.unwrap(), Answer::Rows(2));
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_inside_is_the_calls() {
    let told = service_fn(async |_: Query| Ok::<_, Error>(Context::current().remaining()));
    let service = AttemptTimeoutLayer::new(MS(40)).layer(told);
    assert_eq!(before(MS(100)).scope(service.oneshot(Query::read("all"))).await.unwrap(), Some(MS(100)));
}

#[tokio::test(start_paused = true)]
async fn guards_inside_see_a_timeout_as_one_and_a_cancelled_attempt_as_none() {
    struct Guard(Arc<Mutex<Vec<DropCause>>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.lock().unwrap().push(context::drop_cause());
        }
    }
    let causes = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&causes);
    let service = AttemptTimeoutLayer::new(MS(40)).layer(service_fn(move |_: Query| {
        let guard = Guard(Arc::clone(&log));
        async move {
            let _guard = guard;
            for _ in 0..5 {
                tokio::task::yield_now().await;
            }
            pending::<Result<Answer, Error>>().await
        }
    }));
    for polls in 1..=8 {
        assert!(drop_after(service.clone().oneshot(Query::read("all")), polls).await.is_none());
    }
    service.oneshot(Query::read("all")).await.unwrap_err();
    let causes = causes.lock().unwrap();
    assert_eq!((&causes[..8], &causes[8..]), (&[DropCause::Cancelled; 8][..], &[DropCause::TimedOut][..]));
}

#[tokio::test(start_paused = true)]
async fn what_was_surely_never_written_when_its_time_is_up_may_go_again() {
    struct Tells(bool);
    impl Drop for Tells {
        fn drop(&mut self) {
            context::tell_written(self.0);
        }
    }
    // One guard for each request a layer inside may have under way, and what all of them together mean.
    for (guards, unsent) in [
        (vec![], false),
        (vec![false], true),
        (vec![true], false),
        (vec![false, true], false),
        (vec![true, false], false),
    ] {
        // Of another attempt, on the same thread: no matter of this one.
        drop([Tells(false), Tells(true)]);
        let service = AttemptTimeoutLayer::new(MS(40)).layer(service_fn(|_: Query| {
            let guards: Vec<_> = guards.iter().map(|written| Tells(*written)).collect();
            async move {
                let _guards = guards;
                pending::<Result<Answer, Error>>().await
            }
        }));
        let error = service.oneshot(Query::write("all")).await.unwrap_err();
        assert_eq!((error.kind(), error.is_unsent()), (ErrorKind::AttemptTimeout, unsent), "{guards:?}");
        assert_eq!(Outcome::of_error(&error), Outcome::TimedOut);
    }
}

#[tokio::test(start_paused = true)]
async fn every_endpoint_follows_one_live_policy() {
    let live = Live::new(AttemptTimeoutPolicy { timeout: MS(40) }).unwrap();
    let timeout = AttemptTimeoutLayer::live(live.clone());
    let connector = per_endpoint(move |_| timeout.clone()).layer(|_: &EndpointHandle| hangs());
    let group = Arc::new(Group::new(2));
    let services = [1, 2].map(|port| {
        let endpoint: hopvine::Endpoint = format!("127.0.0.1:{port}").parse().unwrap();
        connector.new_service(&EndpointHandle::new("catalog".into(), endpoint.into(), Arc::clone(&group)))
    });
    for timeout in [MS(40), MS(15)] {
        live.set(AttemptTimeoutPolicy { timeout }).unwrap();
        for service in &services {
            let start = Instant::now();
            service.clone().oneshot(Query::read("all")).await.unwrap_err();
            assert_eq!(start.elapsed(), timeout);
        }
    }
    assert!(live.set(AttemptTimeoutPolicy { timeout: Duration::ZERO }).is_err());
}
