//! W3C Trace Context: `traceparent` and `tracestate`.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Sampling, SpanId, TraceContext, TraceId, hex, single, write_hex};

pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

/// Members a `tracestate` may have; with more it is dropped whole.
const MEMBERS: usize = 32;

pub(super) fn extract(headers: &HeaderMap) -> Option<TraceContext> {
    let mut trace = parse(single(headers, &TRACEPARENT)?)?;
    trace.state = state(headers);
    Some(trace)
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; a later version may go on behind a dash.
fn parse(text: &str) -> Option<TraceContext> {
    let bytes = text.as_bytes();
    let dashes = [2, 35, 52].iter().all(|&at| bytes.get(at) == Some(&b'-'));
    if !text.is_ascii() || text.len() < 55 || !dashes {
        return None;
    }
    let version = hex(&text[..2])?;
    let goes_on = text.len() > 55;
    if version == 0xff || (version == 0 && goes_on) || (goes_on && bytes[55] != b'-') {
        return None;
    }
    let (trace_id, span_id, flags) = (hex(&text[3..35])?, hex(&text[36..52])?, hex(&text[53..55])? as u8);
    if trace_id == 0 {
        return None;
    }
    let mut trace = TraceContext::new(TraceId::new(trace_id), SpanId::new(span_id as u64)?);
    trace.sampling = if flags & SAMPLED == 0 { Sampling::Denied } else { Sampling::Accepted };
    trace.random = flags & RANDOM != 0;
    Some(trace)
}

/// All `tracestate` headers as one list, or nothing if it is malformed.
fn state(headers: &HeaderMap) -> Option<Arc<Box<str>>> {
    let mut whole = String::new();
    let mut members = 0;
    for value in headers.get_all(TRACESTATE) {
        let text = value.to_str().ok()?;
        for member in text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty())
        {
            members += 1;
            if !is_member(member) || members > MEMBERS {
                return None;
            }
            if !whole.is_empty() {
                whole.push(',');
            }
            whole.push_str(member);
        }
    }
    (!whole.is_empty()).then(|| Arc::new(whole.into()))
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else { return false };
    let first = key.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let key_byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    let value_byte = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
    first
        && key.len() <= 256
        && key.bytes().all(key_byte)
        && (1..=256).contains(&value.len())
        && value.bytes().all(value_byte)
}

pub(super) fn inject(trace: &TraceContext, headers: &mut HeaderMap) {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(trace.trace_id.get(), &mut text[3..35]);
    write_hex(u128::from(trace.span_id.0.get()), &mut text[36..52]);
    // Java's Brave takes `00` and `01` only: the random flag goes on where it came in, and is never set by us.
    let flags = (u8::from(trace.is_sampled()) * SAMPLED) | (u8::from(trace.random) * RANDOM);
    text[54] = b'0' + flags;
    headers.insert(TRACEPARENT, HeaderValue::from_bytes(&text).expect("digits and dashes"));
    if let Some(state) = trace.state().and_then(|state| HeaderValue::from_str(state).ok()) {
        headers.insert(TRACESTATE, state);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn the_cases_of_the_specification() {
        let trace = parse(VALID).unwrap();
        assert_eq!(trace.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((trace.span_id().to_string().as_str(), trace.sampling()), ("b7ad6b7169203331", Sampling::Accepted));
        let with = |at: usize, text: &str| format!("{}{text}{}", &VALID[..at], &VALID[at + text.len()..]);
        for (text, valid) in [
            (with(53, "00"), true),
            (with(53, "03"), true),
            (with(53, "ff"), true),
            (with(0, "01"), true),
            (with(0, "cc") + "-what-comes-later", true),
            (with(0, "cc") + ".what-comes-later", false),
            (with(0, "ff"), false),
            (VALID.to_owned() + "-more", false),
            (VALID[..54].to_owned(), false),
            (with(3, "0AF7"), false),
            (with(53, "0x"), false),
            (with(2, "_"), false),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01".to_owned(), false),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01".to_owned(), false),
        ] {
            assert_eq!(parse(&text).is_some(), valid, "{text}");
        }
    }

    #[test]
    fn two_parents_are_none_and_take_the_state_with_them() {
        assert_eq!(extract(&headers(&[("traceparent", VALID), ("traceparent", VALID)])), None);
        assert_eq!(extract(&headers(&[("tracestate", "a=1")])), None);
    }

    #[test]
    fn a_state_is_joined_and_a_malformed_one_dropped_alone() {
        let of = |states: &[&str]| {
            let pairs: Vec<_> = states.iter().map(|state| ("tracestate", *state)).collect();
            extract(&headers(&[&[("traceparent", VALID)], &pairs[..]].concat())).unwrap().state().map(str::to_owned)
        };
        assert_eq!(of(&["a=1, b=2 ,", "c=3"]).as_deref(), Some("a=1,b=2,c=3"));
        assert_eq!(of(&["t@v/x*-_=a b"]).as_deref(), Some("t@v/x*-_=a b"));
        for wrong in ["a", "A=1", "a=1=2", "=1", "a=", "", "_a=1"] {
            assert_eq!(of(&[wrong]), None, "{wrong}");
        }
        let many: Vec<_> = (0..33).map(|key| format!("k{key}=1")).collect();
        assert_eq!(of(&[&many.join(",")]), None);
        assert!(of(&[&many[..32].join(",")]).is_some());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1u128.., span in 1u64.., sampled in any::<bool>(), random in any::<bool>()) {
            let mut context = TraceContext::new(TraceId::new(trace), SpanId::new(span).unwrap());
            context.sampling = if sampled { Sampling::Accepted } else { Sampling::Denied };
            context.random = random;
            let mut headers = HeaderMap::new();
            inject(&context, &mut headers);
            prop_assert_eq!(extract(&headers), Some(context));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-0-9a-fé ]{0,70}") {
            let _ = (parse(&text), is_member(&text));
        }
    }
}
