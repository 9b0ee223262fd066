//! B3, as Zipkin and Sleuth write it: one header, or several.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Sampling, SpanId, TraceContext, TraceId, hex, write_hex};

pub(super) const SINGLE: HeaderName = HeaderName::from_static("b3");
pub(super) const TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
pub(super) const SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
pub(super) const PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
pub(super) const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
pub(super) const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// The first value counts. One that is no text is there all the same: as an empty one, which says nothing that is right.
fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}

pub(super) fn extract_single(headers: &HeaderMap) -> Option<TraceContext> {
    parse_single(first(headers, &SINGLE)?.trim())
}

/// `{trace}-{span}[-{0|1|d}[-{parent}]]`, also `{trace}-{span}-{parent}`, or a decision alone, which begins a trace.
fn parse_single(text: &str) -> Option<TraceContext> {
    if let Some(sampling) = decision(text) {
        return Some(TraceContext::decided(sampling));
    }
    let mut parts = text.split('-');
    let trace = parts.next().filter(|text| matches!(text.len(), 16 | 32))?;
    let span = parts.next().filter(|text| text.len() == 16)?;
    let mut context = ids(trace, span)?;
    let third = parts.next();
    let parent = match third {
        Some(text) if decision(text).is_some() => {
            context.sampling = decision(text)?;
            parts.next()
        }
        other => other,
    };
    if let Some(parent) = parent {
        context.parent_id = Some(id(parent).filter(|_| parent.len() == 16)?);
    }
    parts.next().is_none().then_some(context)
}

fn decision(text: &str) -> Option<Sampling> {
    match text {
        "0" => Some(Sampling::Denied),
        "1" => Some(Sampling::Accepted),
        "d" => Some(Sampling::Debug),
        _ => None,
    }
}

pub(super) fn extract_multi(headers: &HeaderMap) -> Option<TraceContext> {
    let sampling = match first(headers, &SAMPLED) {
        None => Sampling::Deferred,
        Some(text) if text == "1" || text.eq_ignore_ascii_case("true") => Sampling::Accepted,
        Some(text) if text == "0" || text.eq_ignore_ascii_case("false") => Sampling::Denied,
        // A decision nobody can read spoils the whole.
        Some(_) => return None,
    };
    let sampling = if first(headers, &FLAGS) == Some("1") { Sampling::Debug } else { sampling };
    let Some(trace) = first(headers, &TRACE_ID) else {
        return (sampling != Sampling::Deferred).then(|| TraceContext::decided(sampling));
    };
    let mut context = ids(trace, first(headers, &SPAN_ID)?)?;
    context.sampling = sampling;
    if let Some(parent) = first(headers, &PARENT_SPAN_ID) {
        context.parent_id = Some(id(parent)?);
    }
    Some(context)
}

fn ids(trace: &str, span: &str) -> Option<TraceContext> {
    if trace.len() > 32 {
        return None;
    }
    let trace_id = hex(trace).filter(|&value| value != 0)?;
    let mut context = TraceContext::new(TraceId::new(trace_id), id(span)?);
    context.short = trace.len() <= 16;
    Some(context)
}

fn id(text: &str) -> Option<SpanId> {
    if text.len() > 16 {
        return None;
    }
    SpanId::new(hex(text)? as u64)
}

/// The trace id as it came: 16 or 32 digits.
fn trace_digits<'a>(trace: &TraceContext, text: &'a mut [u8; 32]) -> &'a [u8] {
    write_hex(trace.trace_id.get(), text);
    if trace.short { &text[16..] } else { text }
}

fn span_digits(span: SpanId) -> [u8; 16] {
    let mut text = [0; 16];
    write_hex(u128::from(span.0.get()), &mut text);
    text
}

fn value(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).expect("digits and dashes")
}

pub(super) fn inject_single(trace: &TraceContext, headers: &mut HeaderMap) {
    let mut text = [b'-'; 68];
    let mut digits = [0; 32];
    let mut end = 0;
    let mut add = |part: &[u8]| {
        // Parts stand side by side with one dash between them.
        let start = if end == 0 { 0 } else { end + 1 };
        end = start + part.len();
        text[start..end].copy_from_slice(part);
    };
    add(trace_digits(trace, &mut digits));
    add(&span_digits(trace.span_id));
    match trace.sampling {
        Sampling::Deferred => {}
        Sampling::Denied => add(b"0"),
        Sampling::Accepted => add(b"1"),
        Sampling::Debug => add(b"d"),
    }
    if let Some(parent) = trace.parent_id.filter(|_| trace.sampling != Sampling::Deferred) {
        add(&span_digits(parent));
    }
    headers.insert(SINGLE, value(&text[..end]));
}

pub(super) fn inject_multi(trace: &TraceContext, headers: &mut HeaderMap) {
    let mut digits = [0; 32];
    headers.insert(TRACE_ID, value(trace_digits(trace, &mut digits)));
    headers.insert(SPAN_ID, value(&span_digits(trace.span_id)));
    if let Some(parent) = trace.parent_id {
        headers.insert(PARENT_SPAN_ID, value(&span_digits(parent)));
    }
    match trace.sampling {
        Sampling::Deferred => None,
        Sampling::Denied => headers.insert(SAMPLED, HeaderValue::from_static("0")),
        Sampling::Accepted => headers.insert(SAMPLED, HeaderValue::from_static("1")),
        // Implies sampled, which is not written beside it.
        Sampling::Debug => headers.insert(FLAGS, HeaderValue::from_static("1")),
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";

    fn multi(pairs: &[(&'static str, &str)]) -> Option<TraceContext> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        extract_multi(&headers)
    }

    #[test]
    fn one_header() {
        let sampling = |text: &str| parse_single(text).map(|trace| trace.sampling());
        assert_eq!(sampling("0"), Some(Sampling::Denied));
        assert_eq!(sampling("d"), Some(Sampling::Debug));
        assert_eq!(sampling(&format!("{TRACE}-{SPAN}")), Some(Sampling::Deferred));
        assert_eq!(sampling(&format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90")), Some(Sampling::Accepted));
        assert!(parse_single(&format!("{TRACE}-{SPAN}-05e3ac9a4f6e3b90")).unwrap().parent_id().is_some());
        assert!(parse_single(&format!("{}-{SPAN}-0", &TRACE[16..])).unwrap().short);
        for wrong in [
            "",
            "2",
            "-",
            &TRACE[..31],
            TRACE,
            &format!("{TRACE}-{}", &SPAN[1..]),
            &format!("{TRACE}-{SPAN}-x"),
            &format!("{TRACE}-{SPAN}-1-"),
            &format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90-1"),
            &format!("{TRACE}-{SPAN}-"),
            &format!("{}-{SPAN}", TRACE.to_uppercase()),
            &format!("{}-{SPAN}", "0".repeat(32)),
        ] {
            assert_eq!(parse_single(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn several_headers() {
        let ids = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)];
        let with = |more: &[(&'static str, &str)]| multi(&[&ids, more].concat());
        assert_eq!(with(&[]).unwrap().sampling(), Sampling::Deferred);
        assert_eq!(with(&[("x-b3-sampled", "TRUE")]).unwrap().sampling(), Sampling::Accepted);
        assert_eq!(with(&[("x-b3-sampled", "0"), ("x-b3-flags", "1")]).unwrap().sampling(), Sampling::Debug);
        assert_eq!(with(&[("x-b3-flags", "2")]).unwrap().sampling(), Sampling::Deferred);
        assert_eq!(with(&[("x-b3-sampled", "yes")]), None);
        assert_eq!(with(&[("x-b3-parentspanid", "")]), None);
        assert_eq!(multi(&[("x-b3-traceid", TRACE)]), None);
        assert_eq!(multi(&[("x-b3-spanid", SPAN)]), None);
        assert_eq!(multi(&[("x-b3-sampled", "0")]).unwrap().sampling(), Sampling::Denied);
        assert!(multi(&[("x-b3-traceid", "1f"), ("x-b3-spanid", "2")]).is_some(), "short ids are taken");
    }

    #[test]
    fn a_header_that_is_no_text_is_not_taken_for_one_that_is_not_there() {
        let all = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-parentspanid", SPAN), ("x-b3-sampled", "0")];
        for (spoilt, _) in all {
            let mut headers = HeaderMap::new();
            for (name, value) in all {
                headers.insert(name, value.parse().unwrap());
            }
            assert!(extract_multi(&headers).is_some());
            headers.insert(spoilt, HeaderValue::from_bytes(b"\xff").unwrap());
            assert_eq!(extract_multi(&headers), None, "{spoilt}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1u128.., span in 1u64.., parent in prop::option::of(1u64..), which in 0..4, short in any::<bool>()) {
            let sampling = [Sampling::Deferred, Sampling::Denied, Sampling::Accepted, Sampling::Debug][which as usize];
            let trace = if short { trace & u128::from(u64::MAX) | 1 } else { trace };
            let mut context = TraceContext::new(TraceId::new(trace), SpanId::new(span).unwrap()).with_sampling(sampling);
            context.short = short;
            context.parent_id = parent.and_then(SpanId::new);
            let mut headers = HeaderMap::new();
            inject_multi(&context, &mut headers);
            prop_assert_eq!(extract_multi(&headers), Some(context.clone()));
            inject_single(&context, &mut headers);
            if sampling == Sampling::Deferred {
                context.parent_id = None; // there is no place for it without a decision
            }
            prop_assert_eq!(extract_single(&headers), Some(context));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-0-9a-fdé ]{0,70}") {
            let _ = parse_single(&text);
        }
    }
}
