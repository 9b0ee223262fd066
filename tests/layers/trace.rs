//! Tracing: ids that travel, spans, and statistics.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use hopvine::{
    Context, Directory, EndpointHandle, Error, Monitor, NewService, context,
    layers::{
        balance::{BalanceLayer, DiscoverLayer, RoundRobin},
        deadline::DeadlineLayer,
        trace::{AttemptTraceLayer, ClientTraceLayer, ServerTraceLayer},
    },
    testing::ScriptedService,
    trace::{Format, Propagation, Sampling, TraceContext},
};
use http::{HeaderMap, Request, Response};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::support::{Answer, Query, drop_after};

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn directory() -> Directory {
    Directory::fixed([("s", ["127.0.0.1:1".parse().unwrap()])])
}

/// The headers of the last attempt, of a client stack with this attempt layer called in a server's handler.
async fn outbound(inbound: &[(&'static str, &str)], server: ServerTraceLayer, attempt: AttemptTraceLayer) -> HeaderMap {
    let seen = Arc::new(Mutex::new(HeaderMap::new()));
    let told = Arc::clone(&seen);
    let client = ServiceBuilder::new()
        .layer(ClientTraceLayer::new("c"))
        .layer(DiscoverLayer::new(directory().service("s")))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .layer(attempt)
        .service(move |_: &EndpointHandle| {
            let told = Arc::clone(&told);
            service_fn(move |request: Request<()>| {
                *told.lock().unwrap() = request.headers().clone();
                async { Ok::<_, Error>(Response::new(())) }
            })
        });
    let handler = server.layer(service_fn(move |request: Request<()>| {
        let client = client.clone();
        async move {
            tokio::task::yield_now().await;
            let mut outbound = Request::new(());
            // As a proxy does.
            *outbound.headers_mut() = request.headers().clone();
            client.oneshot(outbound).await
        }
    }));
    let mut request = Request::new(());
    for (name, value) in inbound {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    handler.oneshot(request).await.unwrap();

    seen.lock().unwrap().clone()
}

fn extract(headers: &HeaderMap) -> TraceContext {
    Propagation::default().extract(headers).unwrap()
}

#[tokio::test]
async fn a_trace_goes_on_through_a_handler_with_a_new_span_each_step() {
    let inbound = [("traceparent", PARENT), ("tracestate", "a=1,b=2")];
    let headers = outbound(&inbound, ServerTraceLayer::new(), AttemptTraceLayer::new()).await;
    let trace = extract(&headers);
    assert_eq!(trace.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_ne!(trace.span_id().to_string(), "b7ad6b7169203331");
    assert_eq!((trace.sampling(), trace.state()), (Sampling::Accepted, Some("a=1,b=2")));
}

#[tokio::test]
async fn an_untrusted_caller_decides_nothing_and_nothing_leaves_for_others() {
    let inbound = [("traceparent", PARENT), ("x-b3-sampled", "0"), ("baggage", "k=v")];
    let headers = outbound(&inbound, ServerTraceLayer::new().untrusted(), AttemptTraceLayer::new()).await;
    let trace = extract(&headers);
    assert_ne!(trace.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert!(!headers.contains_key("baggage") && !headers.contains_key("x-b3-sampled"));

    let headers = outbound(&inbound, ServerTraceLayer::new(), AttemptTraceLayer::new().no_headers()).await;
    assert!(headers.is_empty(), "{headers:?}");
}

#[tokio::test]
async fn mixed_fleets_read_one_format_and_write_several() {
    let both = Propagation::default().write(&[Format::W3c, Format::B3Multi]);
    let b3 = [("x-b3-traceid", "64fe8b2a57d3eff7"), ("x-b3-spanid", "e457b5a2e4d86bd1"), ("x-b3-sampled", "1")];
    let headers = outbound(&b3, ServerTraceLayer::new(), AttemptTraceLayer::new().propagation(both)).await;
    let span = headers["x-b3-spanid"].to_str().unwrap();
    assert_eq!(headers["x-b3-traceid"], "64fe8b2a57d3eff7", "64 bits stay 64 bits");
    assert_eq!(headers["traceparent"], *format!("00-000000000000000064fe8b2a57d3eff7-{span}-01"));
    // A malformed one falls through to the next format; ids of two are never mixed.
    let bad = [("traceparent", "00-nonsense"), b3[0], b3[1], ("b3", "nonsense")];
    let headers = outbound(&bad, ServerTraceLayer::new(), AttemptTraceLayer::new().propagation(both)).await;
    assert_eq!(headers["x-b3-traceid"], "64fe8b2a57d3eff7");
    let denied = outbound(&[("b3", "0")], ServerTraceLayer::new(), AttemptTraceLayer::new().propagation(both)).await;
    assert_eq!(denied["x-b3-sampled"], "0");
    assert!(denied["traceparent"].to_str().unwrap().ends_with("-00"));
}

/// What a real Spring service (Boot 3.5, Brave) made of headers: it went on with a trace, or began one; so do we.
fn agrees_with_spring(recorded: &str, propagation: Propagation, else_than_spring: &[&str]) {
    let mut compared = 0;
    for line in recorded.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        let body = case["response"]["body"].as_str().unwrap_or_default();
        let Ok(body) = serde_json::from_str::<serde_json::Value>(body) else { continue };
        let Some(theirs) = body["traceId"].as_str() else { continue };
        let mut headers = HeaderMap::new();
        let sent = case["request"]["headers"].as_object().unwrap();
        for (name, value) in sent {
            headers.append(name.parse::<http::HeaderName>().unwrap(), value.as_str().unwrap().parse().unwrap());
        }
        // A trace they went on with came in some header; one they began did not.
        let went_on = sent.values().any(|value| value.as_str().unwrap().contains(theirs));
        let ours = propagation.extract(&headers).map(|trace| trace.trace_id().to_string());
        let same = ours.as_ref().is_some_and(|ours| ours.ends_with(theirs));
        assert_eq!(
            same,
            went_on ^ (else_than_spring.contains(&name) && went_on),
            "{name}: {sent:?}, ours {ours:?}, theirs {theirs}"
        );
        compared += 1;
    }
    assert!(compared > 25, "{compared}");
}

#[test]
fn headers_are_read_as_spring_reads_them() {
    // It goes on with one that was cut off before the flags. (It refuses flags 02 and 03, which we take.)
    agrees_with_spring(include_str!("../golden/tracing/headers-w3c.jsonl"), Propagation::default(), &["short"]);
    let b3 = Propagation::default().read(&[Format::B3Single, Format::B3Multi]);
    agrees_with_spring(include_str!("../golden/tracing/headers-b3multi.jsonl"), b3, &[]);
}

#[tokio::test(start_paused = true)]
async fn every_call_is_counted_once_as_what_it_was() {
    let monitor = Monitor::new();
    let inner = ScriptedService::<Query, Answer>::new();
    let layer = ClientTraceLayer::new("catalog").monitor(&monitor);
    // Two services of one layer value: one command.
    let (one, other) = (layer.layer(inner.clone()), layer.layer(inner.clone()));
    inner.respond_after(Duration::from_millis(20), Answer::Rows(1)).respond(Answer::Broken);
    one.oneshot(Query::read("q")).await.unwrap();
    other.clone().oneshot(Query::read("q")).await.unwrap();
    for polls in 1..5 {
        inner.never();
        assert!(drop_after(other.clone().oneshot(Query::read("q")), polls).await.is_none());
    }
    inner.never();
    let limited = DeadlineLayer::new(Duration::from_millis(5)).layer(other);
    assert!(limited.oneshot(Query::read("q")).await.is_err());
    let command = &monitor.snapshot().commands[0];
    let counts = command.counts;
    assert_eq!((counts.success, counts.failure, counts.cancelled, counts.timed_out), (1, 1, 4, 1));
    assert_eq!(command.in_flight, 0);
    let max = command.latency.max.unwrap();
    assert!((Duration::from_millis(19)..Duration::from_millis(22)).contains(&max), "{max:?}");
}

#[tokio::test]
async fn a_call_outside_any_trace_begins_one_and_leaves_none_behind() {
    let layer = ClientTraceLayer::new("c");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let service = layer.layer(service_fn(move |_: Query| {
        let told = Arc::clone(&told);
        async move {
            tokio::task::yield_now().await;
            told.lock().unwrap().push(context::with_trace(|trace| trace.map(TraceContext::trace_id)));
            Ok::<_, Error>(Answer::Rows(1))
        }
    }));
    tokio::join!(async { service.clone().oneshot(Query::read("q")).await.unwrap() }, async {
        service.clone().oneshot(Query::read("q")).await.unwrap()
    },);
    let ours = TraceContext::root();
    let scoped = Context::new().with_trace(Some(ours.clone())).scope(service.clone().oneshot(Query::read("q")));
    tokio::spawn(scoped).await.unwrap().unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen[0].is_some() && seen[1].is_some() && seen[0] != seen[1]);
    assert_eq!(seen[2], Some(ours.trace_id()));
    assert!(context::with_trace(|trace| trace.is_none()));
}

#[test]
fn an_endpoint_layer_is_made_for_each_endpoint() {
    let connector = AttemptTraceLayer::new().layer(|endpoint: &EndpointHandle| endpoint.number());
    let handle = |port: u16| {
        let endpoint = std::net::SocketAddr::from(([127, 0, 0, 1], port)).into();
        EndpointHandle::new("s".into(), Arc::new(endpoint), Arc::default())
    };
    let (one, two) = (handle(1), handle(2));
    assert_ne!(format!("{:?}", connector.new_service(&one)), format!("{:?}", connector.new_service(&two)));
}
