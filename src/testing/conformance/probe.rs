use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    marker::PhantomPinned,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use pin_project_lite::pin_project;
use tower::Service;

use crate::{EndpointHandle, NewService};

/// The service inside the layer under test: it takes any request, does as the suite says, and notices what is done to it.
///
/// Also a connector that makes a probe of itself for each endpoint, for layers that stand below a balancer.
pub struct Probe<Res> {
    shared: Arc<Shared<Res>>,
    /// Of this instance: a clone is not ready.
    ready: bool,
}

struct Shared<Res> {
    response: fn() -> Res,
    behaviour: Mutex<Behaviour>,
    in_flight: AtomicUsize,
    most: AtomicUsize,
}

#[derive(Default)]
struct Behaviour {
    /// How often a call pends, waking itself at once, before it answers.
    pends: usize,
    fails: bool,
    ready_gate: Gate,
    answer_gate: Gate,
}

/// Who waits for it to open.
#[derive(Default)]
struct Gate {
    shut: bool,
    waiting: Vec<Waker>,
}

impl Gate {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.shut {
            self.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

/// The error a [`Probe`] fails with: foreign to every layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeError;

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the probe fails")
    }
}

impl StdError for ProbeError {}

impl<Res> Probe<Res> {
    pub(super) fn new(response: fn() -> Res) -> Self {
        let shared =
            Shared { response, behaviour: Mutex::default(), in_flight: AtomicUsize::new(0), most: AtomicUsize::new(0) };
        Self { shared: Arc::new(shared), ready: false }
    }

    pub(super) fn pend(&self, times: usize) {
        self.behaviour().pends = times;
    }

    pub(super) fn fail(&self) {
        self.behaviour().fails = true;
    }

    /// Nobody is ready until [`open`](Self::open).
    pub(super) fn shut_readiness(&self) {
        self.behaviour().ready_gate.shut = true;
    }

    /// Nobody is answered until [`open`](Self::open).
    pub(super) fn shut_answers(&self) {
        self.behaviour().answer_gate.shut = true;
    }

    pub(super) fn open(&self) {
        let waiting = {
            let mut behaviour = self.behaviour();
            let ready = mem::take(&mut behaviour.ready_gate);
            let answer = mem::take(&mut behaviour.answer_gate);
            ready.waiting.into_iter().chain(answer.waiting)
        };
        waiting.for_each(Waker::wake);
    }

    /// Calls under way.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(SeqCst)
    }

    /// The most there were at once.
    pub fn most(&self) -> usize {
        self.shared.most.load(SeqCst)
    }

    fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.shared.behaviour.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Res, Req> Service<Req> for Probe<Res> {
    type Response = Res;
    type Error = ProbeError;
    type Future = ProbeFuture<Res>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProbeError>> {
        let polled = self.behaviour().ready_gate.poll(cx);
        self.ready |= polled.is_ready();
        polled.map(Ok)
    }

    fn call(&mut self, _: Req) -> ProbeFuture<Res> {
        assert!(mem::take(&mut self.ready), "called an instance that was not made ready");
        let under_way = self.shared.in_flight.fetch_add(1, SeqCst) + 1;
        self.shared.most.fetch_max(under_way, SeqCst);
        let pends = self.behaviour().pends;
        ProbeFuture {
            probe: UnderWay(Self { shared: Arc::clone(&self.shared), ready: false }),
            pends,
            pin: PhantomPinned,
        }
    }
}

impl<Res> NewService<EndpointHandle> for Probe<Res> {
    type Service = Self;

    fn new_service(&self, _: &EndpointHandle) -> Self {
        self.clone()
    }
}

pin_project! {
    /// Made by a [`Probe`]. Not to be moved once polled, as most futures.
    pub struct ProbeFuture<Res> {
        probe: UnderWay<Res>,
        pends: usize,
        #[pin]
        pin: PhantomPinned,
    }
}

struct UnderWay<Res>(Probe<Res>);

impl<Res> Drop for UnderWay<Res> {
    fn drop(&mut self) {
        self.0.shared.in_flight.fetch_sub(1, SeqCst);
    }
}

impl<Res> Future for ProbeFuture<Res> {
    type Output = Result<Res, ProbeError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(left) = this.pends.checked_sub(1) {
            *this.pends = left;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut behaviour = this.probe.0.behaviour();
        let fails = behaviour.fails;
        behaviour
            .answer_gate
            .poll(cx)
            .map(|()| if fails { Err(ProbeError) } else { Ok((this.probe.0.shared.response)()) })
    }
}

impl<Res> Clone for Probe<Res> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), ready: false }
    }
}

impl<Res> fmt::Debug for Probe<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl<Res> fmt::Debug for ProbeFuture<Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeFuture").field("pends", &self.pends).finish_non_exhaustive()
    }
}
