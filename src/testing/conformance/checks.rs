use std::{
    error::Error as StdError,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use tower::{BoxError, Service, ServiceExt as _};

use super::{Conformance, Probe, ProbeError, ProbeFuture};

/// How often a call pends, where it is dropped at each of its await points.
const PENDS: usize = 3;

/// Calls at once, where many wait.
const MANY: usize = 8;

/// Counts how often it is woken.
#[derive(Default)]
struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl<M, S, Req, Res> Conformance<M, Req, Res>
where
    M: Fn(Probe<Res>) -> S,
    S: Service<Req, Response = Res> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    Req: Send + 'static,
    Res: Send + 'static,
{
    fn service(&self) -> (Probe<Res>, S) {
        let probe = Probe::new(self.response);
        let service = (self.make)(probe.clone());
        (probe, service)
    }

    fn call(&self, service: &S) -> impl Future<Output = Result<Res, BoxError>> + Send + use<M, S, Req, Res> {
        call(service, self.request)
    }

    /// No call is under way: nothing is held, and a call goes through.
    async fn is_whole(&self, probe: &Probe<Res>, service: &S, after: &str) {
        assert_eq!(probe.in_flight(), 0, "{after}: a call is still under way inside");
        if let Err(missing) = (self.given_back)() {
            panic!("{after}: {missing}");
        }
        let answer = self.call(service).await;
        assert!(answer.is_ok(), "{after}: the next call is refused: {}", text(answer));
    }

    pub(super) async fn answers(&self) {
        let (probe, service) = self.service();
        for _ in 0..3 {
            self.is_whole(&probe, &service, "a plain call").await;
        }
        // Called again and again on one instance, as `ServiceExt::ready` does.
        let mut service = service;
        for _ in 0..3 {
            let called = service.ready().await.map_err(Into::into).expect("ready").call((self.request)()).await;
            called.map_err(Into::into).expect("an answer");
        }
    }

    /// Readiness is asked of the instance that is called ([`Probe`] panics otherwise), and waited for.
    pub(super) async fn drives_readiness(&self) {
        let (probe, service) = self.service();
        probe.shut_readiness();
        let mut call = pin!(self.call(&service));
        assert!(futures_util::poll!(call.as_mut()).is_pending(), "called before it was ready");
        assert_eq!(probe.in_flight(), 0, "called before it was ready");
        probe.open();
        call.await.expect("an answer once it is ready");
        self.is_whole(&probe, &service, "after a wait for readiness").await;

        // Half of those who wait for readiness go away; the others are served.
        probe.shut_readiness();
        let within = self.limit.unwrap_or(MANY).min(MANY);
        let mut calls: Vec<_> = (0..within).map(|_| Box::pin(self.call(&service))).collect();
        for call in &mut calls {
            assert!(futures_util::poll!(call.as_mut()).is_pending(), "called before it was ready");
        }
        let mut number = 0;
        calls.retain(|_| {
            number += 1;
            number % 2 == 0
        });
        probe.open();
        for call in calls {
            call.await.expect("an answer for who still waits");
        }
        self.is_whole(&probe, &service, "after some who waited for readiness left").await;
    }

    /// Each of many tasks that wait for an answer is woken.
    pub(super) async fn passes_wake_ups_on(&self) {
        let (probe, service) = self.service();
        probe.shut_answers();
        let within = self.limit.unwrap_or(MANY).min(MANY);
        let tasks: Vec<_> = (0..within).map(|_| tokio::spawn(call(&service, self.request))).collect();
        while probe.in_flight() < within {
            tokio::task::yield_now().await;
        }
        probe.open();
        for task in tasks {
            task.await.expect("no panic").expect("an answer for each who waits");
        }
        self.is_whole(&probe, &service, "after many waited at once").await;
    }

    /// A call that waits is polled when something has happened, not before.
    pub(super) async fn is_not_woken_without_cause(&self) {
        let (probe, service) = self.service();
        probe.shut_answers();
        let woken = Arc::new(Counting::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut call = Box::pin(self.call(&service));
        let mut rounds = 0;
        loop {
            let before = woken.0.load(SeqCst);
            assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending(), "answered out of nothing");
            tokio::task::yield_now().await;
            if woken.0.load(SeqCst) == before {
                break;
            }
            rounds += 1;
            assert!(rounds < 10, "woken again and again though nothing happened");
        }
        probe.open();
        assert!(woken.0.load(SeqCst) > 0, "not woken by the answer");
        let Poll::Ready(answer) = call.as_mut().poll(&mut Context::from_waker(&waker)) else {
            panic!("pends though the answer is there");
        };
        answer.expect("an answer");
        self.is_whole(&probe, &service, "after a wait").await;
    }

    pub(super) async fn gives_everything_back(&self) {
        let (probe, service) = self.service();
        let within = self.limit.unwrap_or(MANY).min(MANY);
        for polls in 0..=PENDS {
            probe.pend(PENDS);
            // As many as there may be, so that one that is not given back shows.
            let mut calls: Vec<_> = (0..within).map(|_| Box::pin(self.call(&service))).collect();
            for _ in 0..polls {
                for call in &mut calls {
                    let polled = futures_util::poll!(call.as_mut());
                    assert!(polled.is_pending(), "ended too early: what an earlier call held was not given back");
                }
                tokio::task::yield_now().await;
            }
            drop(calls);
            probe.pend(0);
            self.is_whole(&probe, &service, &format!("dropped after {polls} polls")).await;
        }
        // Made ready and never called.
        let mut ready: Vec<_> = (0..within).map(|_| service.clone()).collect();
        for service in &mut ready {
            service.ready().await.map_err(Into::into).expect("ready");
        }
        drop(ready);
        self.is_whole(&probe, &service, "made ready and never called").await;
    }

    /// Over two services of one layer value.
    pub(super) async fn admits_no_more_than_its_limit(&self) {
        let Some(limit) = self.limit else { return };
        let (probe, first) = self.service();
        let second = (self.make)(probe.clone());
        probe.shut_answers();
        let mut calls: Vec<_> =
            (0..2 * limit).map(|number| Box::pin(self.call([&first, &second][number % 2]))).collect();
        for call in &mut calls {
            // Some are refused.
            let _ = futures_util::poll!(call.as_mut());
        }
        assert_eq!(probe.in_flight(), limit, "calls at once of two services, and the limit is {limit}");
        drop(calls);
        probe.open();
        self.is_whole(&probe, &second, "after a full house left").await;

        // Each cloned for each call, on threads of their own.
        probe.pend(1);
        std::thread::scope(|scope| {
            for service in [&first, &second, &first, &second] {
                let request = self.request;
                scope.spawn(move || {
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
                    runtime.block_on(async {
                        for _ in 0..100 {
                            let calls = (0..=limit).map(|_| service.clone().oneshot(request()));
                            // Some are refused, or wait.
                            for answer in futures_util::future::join_all(calls).await {
                                drop(answer);
                            }
                        }
                    });
                });
            }
        });
        assert!(probe.most() <= limit, "{} calls at once, and the limit is {limit}", probe.most());
        assert!(probe.most() > 0, "none got through");
        if let Err(missing) = (self.given_back)() {
            panic!("after a contest: {missing}");
        }
    }

    pub(super) async fn keeps_errors(&self) {
        if !self.keeps_errors {
            return;
        }
        let (probe, service) = self.service();
        probe.fail();
        let Err(error) = self.call(&service).await else { panic!("an error became an answer") };
        assert!(holds_the_error(&*error), "the error inside got lost: {error:?}");
        if let Err(missing) = (self.given_back)() {
            panic!("after an error: {missing}");
        }
    }

    pub(super) fn is_no_larger_than_said(&self) {
        let own = size_of::<S::Future>().saturating_sub(size_of::<ProbeFuture<Res>>());
        if let Some(most) = self.future_size {
            assert!(own <= most, "its future adds {own} bytes, and {most} were said");
        }
    }
}

/// One call, as most are made: on a clone.
fn call<S, Req>(
    service: &S,
    request: fn() -> Req,
) -> impl Future<Output = Result<S::Response, BoxError>> + Send + use<S, Req>
where
    S: Service<Req> + Clone + Send,
    S::Error: Into<BoxError>,
    S::Future: Send,
    Req: Send,
{
    let call = service.clone().oneshot(request());
    async move { call.await.map_err(Into::into) }
}

fn holds_the_error(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<ProbeError>() {
            return true;
        }
        next = error.source();
    }
    false
}

fn text<T>(answer: Result<T, BoxError>) -> String {
    answer.err().map(|error| error.to_string()).unwrap_or_default()
}
