//! Layers that break a rule each: the suite says so, and says which.

use std::{
    future::{Future, ready},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use futures_util::FutureExt as _;
use hopvine::testing::conformance::{Conformance, Probe};
use tower::{BoxError, Service};

use crate::support::{Query, Rows, query, rows};

type Answer = Pin<Box<dyn Future<Output = Result<Rows, BoxError>> + Send>>;

/// How it is broken.
#[derive(Clone)]
enum Fault {
    CallsAClone,
    ClaimsToBeReady,
    Spins,
    HidesTheError,
    LosesAPlace(Arc<AtomicUsize>),
    LeavesTheWaker,
}

#[derive(Clone)]
struct Broken {
    inner: Probe<Rows>,
    fault: Fault,
}

impl Service<Query> for Broken {
    type Response = Rows;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if matches!(self.fault, Fault::ClaimsToBeReady) {
            return Poll::Ready(Ok(()));
        }
        Service::<Query>::poll_ready(&mut self.inner, cx).map_err(Into::into)
    }

    fn call(&mut self, query: Query) -> Answer {
        match &self.fault {
            Fault::CallsAClone => Box::pin(self.inner.clone().call(query).map(|answer| answer.map_err(Into::into))),
            Fault::HidesTheError => {
                Box::pin(self.inner.call(query).map(|answer| answer.map_err(|_| "something went wrong".into())))
            }
            Fault::LosesAPlace(places) => {
                if places.fetch_sub(1, SeqCst) == 1 {
                    places.fetch_add(1, SeqCst);
                    return Box::pin(ready(Err("full".into())));
                }
                let (call, places) = (self.inner.call(query), Arc::clone(places));
                Box::pin(async move {
                    let answer = call.await;
                    // Not if it is dropped before.
                    places.fetch_add(1, SeqCst);
                    answer.map_err(Into::into)
                })
            }
            Fault::Spins => {
                let mut call = Box::pin(self.inner.call(query));
                Box::pin(std::future::poll_fn(move |cx| {
                    cx.waker().wake_by_ref();
                    call.as_mut().poll(cx).map_err(Into::into)
                }))
            }
            Fault::LeavesTheWaker => {
                let mut call = Box::pin(self.inner.call(query));
                Box::pin(std::future::poll_fn(move |_| {
                    call.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).map_err(Into::into)
                }))
            }
            Fault::ClaimsToBeReady => Box::pin(self.inner.call(query).map(|answer| answer.map_err(Into::into))),
        }
    }
}

/// What the suite says of it.
async fn verdict(fault: Fault) -> String {
    let make = move |inner| Broken { inner, fault: fault.clone() };
    let suite = Conformance::new(make, query, rows);
    let check = tokio::time::timeout(std::time::Duration::from_secs(10), suite.check());
    match AssertUnwindSafe(check).catch_unwind().await {
        Ok(Ok(())) => "conforms".to_owned(),
        Ok(Err(_)) => "hangs".to_owned(),
        Err(panic) => panic
            .downcast::<String>()
            .map_or_else(|panic| (*panic.downcast::<&str>().unwrap()).to_owned(), |text| *text),
    }
}

#[tokio::test(start_paused = true)]
async fn the_suite_finds_what_is_broken() {
    for (fault, says) in [
        (Fault::CallsAClone, "not made ready"),
        (Fault::ClaimsToBeReady, "not made ready"),
        (Fault::Spins, "woken again and again"),
        (Fault::HidesTheError, "got lost"),
        (Fault::LosesAPlace(Arc::new(AtomicUsize::new(20))), "not given back"),
        (Fault::LeavesTheWaker, "hangs"),
    ] {
        let verdict = verdict(fault).await;
        assert!(verdict.contains(says), "{verdict:?} instead of {says:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_one_per_service_is_found() {
    // `layer()` makes a new one each time, as under `axum::serve` one per connection.
    let make = |inner: Probe<Rows>| tower::limit::ConcurrencyLimit::new(inner, 3);
    let suite = Conformance::new(make, query, rows).limit(3);
    let panic = AssertUnwindSafe(suite.check()).catch_unwind().await.unwrap_err();
    assert!(panic.downcast::<String>().unwrap().contains("the limit is 3"));
}
