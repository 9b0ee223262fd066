//! The peers' layers, set up like ours.

use std::{future, sync::Arc, time::Duration};

use tower::{
    BoxError, Service, ServiceBuilder,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::ServiceList,
    load::{CompleteOnResponse, Load, PeakEwma, PendingRequests},
    retry::{
        Policy,
        budget::{Budget, TpsBudget},
    },
};
use tower_resilience::{
    bulkhead::BulkheadLayer,
    circuitbreaker::CircuitBreakerLayer,
    fallback::FallbackLayer,
    outlier::{OutlierDetectionLayer, OutlierDetector},
    retry::{RetryBudgetBuilder, RetryLayer},
    timelimiter::{FixedTimeout, TimeLimiterLayer},
};

use crate::bare::{Answer, Bare, Fault};

/// tower's retry: every error, with its budget.
#[derive(Clone)]
pub(crate) struct Again {
    budget: Arc<TpsBudget>,
}

impl Again {
    pub(crate) fn new() -> Self {
        Self { budget: Arc::new(TpsBudget::new(Duration::from_secs(10), 10, 0.2)) }
    }
}

impl<Req: Clone, Res, E> Policy<Req, Res, E> for Again {
    type Future = future::Ready<()>;

    fn retry(&mut self, _: &mut Req, result: &mut Result<Res, E>) -> Option<Self::Future> {
        if result.is_ok() {
            self.budget.deposit();
            return None;
        }
        self.budget.withdraw().then(|| future::ready(()))
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// By its last hundred calls, its default: a window by time keeps every call, and costs several microseconds each under load.
pub(crate) fn circuit_breaker() -> CircuitBreakerLayer {
    CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_size(100)
        .minimum_number_of_calls(20)
        .build()
        .expect("valid")
}

pub(crate) fn deadline() -> TimeLimiterLayer<FixedTimeout> {
    TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(1)).build()
}

pub(crate) fn bulkhead() -> BulkheadLayer {
    BulkheadLayer::builder().max_concurrent_calls(256).reject_when_full().build().expect("valid")
}

pub(crate) fn retry<Req, Res, E>() -> RetryLayer<Req, Res, E> {
    let budget = RetryBudgetBuilder::new().token_bucket().build().expect("valid");
    RetryLayer::builder().max_attempts(3).exponential_backoff(Duration::from_millis(25)).budget(budget).build()
}

pub(crate) fn fallback<Req, Res>(answer: Res) -> FallbackLayer<Req, Res, Fault>
where
    Req: Clone + Send + Sync + 'static,
    Res: Clone + Send + Sync + 'static,
{
    FallbackLayer::value(answer)
}

pub(crate) fn outlier() -> OutlierDetectionLayer {
    let detector = OutlierDetector::new();
    detector.register("e1", 5);
    OutlierDetectionLayer::builder().detector(detector).instance_name("e1").build().expect("valid")
}

/// tower's balancer, of so many endpoints, by what `load` makes of each.
pub(crate) fn p2c<Req, S>(count: usize, load: impl Fn() -> S) -> Balance<ServiceList<Vec<S>>, Req>
where
    S: Service<Req> + Load<Metric: std::fmt::Debug>,
    S::Error: Into<BoxError>,
{
    let services: Vec<S> = (0..count).map(|_| load()).collect();
    Balance::new(ServiceList::new::<Req>(services))
}

/// An endpoint by its calls in flight.
pub(crate) fn pending(bare: Bare) -> PendingRequests<Bare> {
    PendingRequests::new(bare, CompleteOnResponse::default())
}

/// An endpoint by the peak EWMA of its latency.
pub(crate) fn peak_ewma(bare: Bare) -> PeakEwma<Bare> {
    const DECAY: f64 = 10e9;
    PeakEwma::new(bare, Duration::from_millis(1), DECAY, CompleteOnResponse::default())
}

/// What the peers have of a stack: a time limit, bulkhead, retry, circuit breaker and the balancer, behind the buffer that makes it one that can be cloned.
pub(crate) fn stack<Req, Res>(
    bare: Bare,
) -> impl Service<Req, Response = Res, Error: std::fmt::Debug> + Clone + Send + 'static
where
    Bare: Service<Req, Response = Res, Error = Fault, Future = Answer<Res>>,
    Req: Clone + Send + Sync + 'static,
    Res: Unpin + Send + Sync + 'static,
{
    ServiceBuilder::new()
        .layer(deadline())
        .layer(bulkhead())
        .layer(retry())
        .layer(circuit_breaker())
        .service(Buffer::new(p2c(10, move || peak_ewma(bare)), 1024))
}
