//! What holds of a trace context, whichever header it came from.

use hopvine::trace::{Format, Propagation, Sampling, TraceContext};
use http::{HeaderMap, HeaderValue};

pub(super) fn only(format: Format) -> Propagation {
    Propagation::default().read(&[format]).write(&[format])
}

/// The header as this format writes it.
pub(super) fn written(trace: &TraceContext, format: Format) -> HeaderMap {
    // As in a request that is passed on.
    let mut headers = HeaderMap::new();
    for stale in ["traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-sampled", "x-b3-parentspanid", "x-b3-flags"]
    {
        headers.insert(stale, HeaderValue::from_static("stale"));
    }
    only(format).inject(trace, &mut headers);
    assert!(headers.values().all(|value| value != "stale"), "{headers:?}");
    headers
}

/// Whatever was read can be written in each format, and is read from it as the same span.
pub(super) fn travels(trace: &TraceContext) {
    for format in [Format::W3c, Format::B3Single, Format::B3Multi] {
        let headers = written(trace, format);
        let read = only(format).extract(&headers).expect("what was written is read");
        assert_eq!((read.trace_id(), read.span_id()), (trace.trace_id(), trace.span_id()));
        let sampling = match (format, trace.sampling()) {
            (Format::W3c, Sampling::Deferred) => Sampling::Denied,
            (Format::W3c, Sampling::Debug) => Sampling::Accepted,
            (_, as_it_was) => as_it_was,
        };
        assert_eq!(read.sampling(), sampling, "{format:?}");
        // Where there is a place for the parent.
        let place = match format {
            Format::W3c => false,
            Format::B3Single => sampling != Sampling::Deferred,
            Format::B3Multi => true,
        };
        assert_eq!(read.parent_id(), trace.parent_id().filter(|_| place), "{format:?}");
        assert_eq!(read.state(), trace.state().filter(|_| format == Format::W3c));
        // Nothing is left to lose.
        assert_eq!(written(&read, format), headers);
        assert_eq!(only(format).extract(&headers), Some(read));
    }
    let child = trace.child();
    assert_eq!(
        (child.trace_id(), child.sampling(), child.state()),
        (trace.trace_id(), trace.sampling(), trace.state())
    );
}
