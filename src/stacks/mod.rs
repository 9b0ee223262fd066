//! The three hops, assembled.
//!
//! | hop | function | who calls whom |
//! |---|---|---|
//! | server to server | [`server_to_server`] | a service of yours calls another one of yours |
//! | legacy to server | [`legacy_to_server`] | callers that cannot be changed, through a gateway of yours |
//! | server to external server | [`external`] | a service of yours calls somebody else's |
//!
//! Each is the same layers in an order of its own, with the reason for each place beside it. Each gives a
//! [`ServiceBuilder`], so that you can add layers of your own per endpoint, and [`hopvine::build`](crate::build) puts it
//! round a connector:
//!
//! ```
//! use hopvine::{Directory, connect::http::HttpClient, stacks::{self, Hop}};
//! use http::Request;
//! use http_body_util::Full;
//! use bytes::Bytes;
//!
//! let directory = Directory::fixed([("catalog", ["http://127.0.0.1:8081".parse()?, "http://127.0.0.1:8082".parse()?])]);
//! let hop = Hop::new("catalog.item", directory.service("catalog"));
//! let catalog = hopvine::build::<Request<Full<Bytes>>, _, _>(stacks::server_to_server(hop)?, HttpClient::new());
//! assert_eq!(
//!     hopvine::layers_of(&catalog),
//!     [
//!         "ClientTrace", "CircuitBreaker", "Bulkhead", "Deadline", "Retry", "Discover", "Balance", "AttemptTrace",
//!         "OutlierDetection", "DeadlineHeader", "AttemptTimeout", "HttpService",
//!     ],
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Defaults
//!
//! Call deadline 2 s (external 10 s), attempt timeout 1 s (external 5 s), at most 3 attempts with full jitter of 25 ms
//! doubling to 250 ms, a retry budget of 20 % of the successes and 10 a second, 256 calls in flight without a wait, a breaker that looks at
//! 10 s and 20 calls, opens at 50 % for 5 s growing to 60 s, ejection after 5 failures in a row for 30 s and more, of a third of the
//! endpoints at most and never the last. [`Hop`] changes each of them, while calls run too.

use std::time::Duration;

use tower::ServiceBuilder;
use tower_layer::{Identity, Stack};

use crate::{
    EndpointHandle, Live, PolicyError,
    connect::{PerEndpointLayer, per_endpoint},
    layers::{
        attempt_timeout::{AttemptTimeoutLayer, AttemptTimeoutPolicy},
        balance::{BalanceLayer, DiscoverLayer, P2cPeakEwma},
        bulkhead::BulkheadLayer,
        circuit_breaker::CircuitBreakerLayer,
        deadline::{DeadlineHeaderLayer, DeadlineLayer, DeadlinePolicy, ServerDeadlineLayer, ServerDeadlinePolicy},
        outlier::OutlierDetectionLayer,
        pushback::PushbackLayer,
        retry::RetryLayer,
        trace::{AttemptTraceLayer, ClientTraceLayer, ServerTraceLayer},
    },
    live::IntoLive as _,
};

mod hop;

pub use hop::Hop;

/// The type of a [`ServiceBuilder`] with these layers, the outermost first.
macro_rules! layers {
    (@ $done:ty;) => { ServiceBuilder<$done> };
    (@ $done:ty; $next:ty, $($rest:ty,)*) => { layers!(@ Stack<$next, $done>; $($rest,)*) };
    ($($layer:ty,)*) => { layers!(@ Identity; $($layer,)*) };
}

/// A service of yours calls another one of yours.
///
/// Trace and deadline travel, both ways trusted.
#[allow(clippy::type_complexity, reason = "the list of the layers")]
pub fn server_to_server<F>(
    hop: Hop<F>,
) -> Result<
    layers![
        ClientTraceLayer,
        F,
        CircuitBreakerLayer,
        BulkheadLayer,
        DeadlineLayer,
        RetryLayer,
        DiscoverLayer,
        BalanceLayer<P2cPeakEwma>,
        AttemptTraceLayer,
        OutlierDetectionLayer,
        DeadlineHeaderLayer,
        PerEndpointLayer<impl Fn(&EndpointHandle) -> AttemptTimeoutLayer + Clone + Send + Sync + 'static>,
    ],
    PolicyError,
> {
    let parts = Parts::of(&hop, Duration::from_secs(2), Duration::from_secs(1))?;
    Ok(ServiceBuilder::new()
        // Outermost: sees each call as its caller does, fallback included.
        .layer(parts.client_trace)
        // Outside the breaker: inside, an open one would never reach it. Not inside the deadline, whose time is spent when it is needed.
        .layer(hop.fallback)
        // Outside retry, so that it sees one result a call; outside the bulkhead, so that an open one takes no places.
        .layer(parts.circuit_breaker)
        // Outside the deadline, inside the breaker: a place is held as long as the call, retries and waits included.
        .layer(parts.bulkhead)
        // Inside those two, which see its timeout as an error; outside retry, whose waits count.
        .layer(parts.deadline)
        // Above the balancer, so that the next attempt goes elsewhere.
        .layer(parts.retry)
        .layer(DiscoverLayer::new(hop.service))
        // The wall: above it per call, below it per endpoint.
        .layer(parts.balance)
        // Only here the endpoint is known; outermost, so that its span is round all that happens to the attempt.
        .layer(AttemptTraceLayer::new().propagation(hop.settings.propagation))
        // Outside the timeout, which it must see as one.
        .layer(parts.outlier_detection)
        // Per attempt: later ones have less time left.
        .layer(DeadlineHeaderLayer::new())
        // Innermost: what it ends, everybody outside sees as an error.
        .layer(parts.attempt_timeout))
}

/// Callers that cannot be changed reach a service of yours through a gateway of yours.
///
/// What they say of trace, baggage and deadline is taken out of their requests and not believed, unless the hop is
/// [`trusted`](Hop::trusted); a deadline of theirs is then still cut to the hop's own. Below that it is [`server_to_server`].
#[allow(clippy::type_complexity, reason = "the list of the layers")]
pub fn legacy_to_server<F>(
    hop: Hop<F>,
) -> Result<
    layers![
        ServerTraceLayer,
        ServerDeadlineLayer,
        ClientTraceLayer,
        F,
        CircuitBreakerLayer,
        BulkheadLayer,
        DeadlineLayer,
        RetryLayer,
        DiscoverLayer,
        BalanceLayer<P2cPeakEwma>,
        AttemptTraceLayer,
        OutlierDetectionLayer,
        DeadlineHeaderLayer,
        PerEndpointLayer<impl Fn(&EndpointHandle) -> AttemptTimeoutLayer + Clone + Send + Sync + 'static>,
    ],
    PolicyError,
> {
    let parts = Parts::of(&hop, Duration::from_secs(2), Duration::from_secs(1))?;
    let most = hop.settings.deadline.as_ref().map_or(Duration::from_secs(2), |live| live.get().timeout);
    let trace = ServerTraceLayer::new().propagation(hop.settings.propagation);
    // The fallback may take as long again as the call that failed.
    let most = most.saturating_mul(2);
    let deadline = ServerDeadlineLayer::new(ServerDeadlinePolicy { default: most, maximum: most })?;
    let (trace, deadline) =
        if hop.settings.trusted { (trace, deadline) } else { (trace.untrusted(), deadline.untrusted()) };
    Ok(ServiceBuilder::new()
        // The edge: before anything else looks at the request.
        .layer(trace)
        .layer(deadline)
        // From here on as between servers.
        .layer(parts.client_trace)
        .layer(hop.fallback)
        .layer(parts.circuit_breaker)
        .layer(parts.bulkhead)
        .layer(parts.deadline)
        .layer(parts.retry)
        .layer(DiscoverLayer::new(hop.service))
        .layer(parts.balance)
        .layer(AttemptTraceLayer::new().propagation(hop.settings.propagation))
        .layer(parts.outlier_detection)
        .layer(DeadlineHeaderLayer::new())
        .layer(parts.attempt_timeout))
}

/// A service of yours calls somebody else's.
///
/// Trace and baggage do not leave, nor does the deadline, unless the hop is [`trusted`](Hop::trusted). Longer times; and an endpoint that asks to be left
/// alone is.
#[allow(clippy::type_complexity, reason = "the list of the layers")]
pub fn external<F>(
    hop: Hop<F>,
) -> Result<
    layers![
        ClientTraceLayer,
        F,
        CircuitBreakerLayer,
        BulkheadLayer,
        DeadlineLayer,
        RetryLayer,
        DiscoverLayer,
        BalanceLayer<P2cPeakEwma>,
        AttemptTraceLayer,
        PushbackLayer,
        OutlierDetectionLayer,
        DeadlineHeaderLayer,
        PerEndpointLayer<impl Fn(&EndpointHandle) -> AttemptTimeoutLayer + Clone + Send + Sync + 'static>,
    ],
    PolicyError,
> {
    let parts = Parts::of(&hop, Duration::from_secs(10), Duration::from_secs(5))?;
    let (attempt_trace, deadline_header) = (AttemptTraceLayer::new(), DeadlineHeaderLayer::new());
    let (attempt_trace, deadline_header) = if hop.settings.trusted {
        (attempt_trace.propagation(hop.settings.propagation), deadline_header)
    } else {
        (attempt_trace.no_headers(), deadline_header.withheld())
    };
    Ok(ServiceBuilder::new()
        // Per call as between servers, for the same reasons.
        .layer(parts.client_trace)
        .layer(hop.fallback)
        .layer(parts.circuit_breaker)
        .layer(parts.bulkhead)
        .layer(parts.deadline)
        .layer(parts.retry)
        .layer(DiscoverLayer::new(hop.service))
        .layer(parts.balance)
        // Takes our headers out, so that nothing of ours leaves.
        .layer(attempt_trace)
        // Their limits are set for us, not for one of our callers: what they ask for holds for all calls.
        .layer(PushbackLayer::new())
        .layer(parts.outlier_detection)
        // How long our callers wait is ours to know.
        .layer(deadline_header)
        .layer(parts.attempt_timeout))
}

/// The layers all hops have, with the hop's settings or its defaults.
struct Parts<T> {
    client_trace: ClientTraceLayer,
    circuit_breaker: CircuitBreakerLayer,
    bulkhead: BulkheadLayer,
    deadline: DeadlineLayer,
    retry: RetryLayer,
    balance: BalanceLayer<P2cPeakEwma>,
    outlier_detection: OutlierDetectionLayer,
    attempt_timeout: PerEndpointLayer<T>,
}

impl Parts<()> {
    fn of<F>(
        hop: &Hop<F>,
        deadline: Duration,
        attempt_timeout: Duration,
    ) -> Result<
        Parts<impl Fn(&EndpointHandle) -> AttemptTimeoutLayer + Clone + Send + Sync + 'static + use<F>>,
        PolicyError,
    > {
        let (command, settings) = (&*hop.command, &hop.settings);
        let monitor = settings.monitor.as_ref().unwrap_or(hop.service.monitor());
        let deadline = match &settings.deadline {
            Some(live) => live.clone(),
            None => Live::new(DeadlinePolicy { timeout: deadline })?,
        };
        let attempt_timeout = AttemptTimeoutLayer::live(match &settings.attempt_timeout {
            Some(live) => live.clone(),
            None => Live::new(AttemptTimeoutPolicy { timeout: attempt_timeout })?,
        });
        let retry = RetryLayer::new(or_default(settings.retry.as_ref())?)?;
        let retry = match &settings.budget {
            Some(budget) => retry.budget(budget.clone()),
            None => retry,
        };
        Ok(Parts {
            client_trace: ClientTraceLayer::new(command).monitor(monitor),
            circuit_breaker: CircuitBreakerLayer::new(command, or_default(settings.circuit_breaker.as_ref())?)?
                .monitor(monitor),
            bulkhead: BulkheadLayer::new(or_default(settings.bulkhead.as_ref())?)?.name(command).monitor(monitor),
            deadline: DeadlineLayer::live(deadline),
            retry: retry.name(command).monitor(monitor),
            balance: BalanceLayer::new(P2cPeakEwma::default()).monitor(monitor),
            outlier_detection: OutlierDetectionLayer::new(or_default(settings.outlier_detection.as_ref())?)?,
            attempt_timeout: per_endpoint(move |_| attempt_timeout.clone()),
        })
    }
}

fn or_default<P: crate::Policy + Default>(set: Option<&Live<P>>) -> Result<Live<P>, PolicyError> {
    set.map_or_else(|| P::default().into_live(), |live| Ok(live.clone()))
}

#[cfg(all(test, feature = "http"))]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;

    use super::*;
    use crate::{Directory, build, connect::http::HttpClient, layers_of};

    const PER_CALL: [&str; 5] = ["ClientTrace", "CircuitBreaker", "Bulkhead", "Deadline", "Retry"];

    /// As the reasons beside them say: a place is held through all retries, the breaker sees that the deadline has passed, ...
    #[test]
    fn no_layer_of_a_hop_changes_its_place() {
        let directory = Directory::fixed([("s", ["http://127.0.0.1:1".parse().expect("an endpoint")])]);
        let hop = || Hop::new("s", directory.service("s"));
        let client = HttpClient::new;
        let between = build::<http::Request<Full<Bytes>>, _, _>(server_to_server(hop()).expect("valid"), client());
        let legacy = build::<http::Request<Full<Bytes>>, _, _>(legacy_to_server(hop()).expect("valid"), client());
        let outside = build::<http::Request<Full<Bytes>>, _, _>(external(hop()).expect("valid"), client());

        let balanced = ["Discover", "Balance", "AttemptTrace"];
        let per_endpoint = ["OutlierDetection", "DeadlineHeader", "AttemptTimeout", "HttpService"];
        assert_eq!(layers_of(&between), [&PER_CALL[..], &balanced, &per_endpoint].concat());
        assert_eq!(
            layers_of(&legacy),
            [&["ServerTrace", "ServerDeadline"], &PER_CALL[..], &balanced, &per_endpoint].concat()
        );
        assert_eq!(layers_of(&outside), [&PER_CALL[..], &balanced, &["Pushback"], &per_endpoint].concat());
    }
}
