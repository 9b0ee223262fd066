use hopvine::trace::{Format, Sampling};
use http::HeaderMap;

use super::{lines, trace};

/// B3 in several headers: each line is one, with its name. Of each name the first counts.
pub fn b3_multi(data: &[u8]) {
    let Some(headers) = lines::block(data) else { return };
    let read = trace::only(Format::B3Multi).extract(&headers);
    let Some(told) = parse(&headers) else {
        assert_eq!(read, None, "against the grammar: {headers:?}");
        return;
    };
    let read = read.unwrap_or_else(|| panic!("not read: {headers:?}"));
    assert_eq!(read.sampling(), told.sampling);
    let written = trace::written(&read, Format::B3Multi);
    let text = |name: &str| written.get(name).map(|value| value.to_str().unwrap());
    if let Some((trace_id, span_id)) = told.ids {
        // Padded to 64 bits, and to 128 where there are more.
        let length = if trace_id.len() <= 16 { 16 } else { 32 };
        assert_eq!(text("x-b3-traceid"), Some(format!("{trace_id:0>length$}").as_str()));
        assert_eq!(text("x-b3-spanid"), Some(format!("{span_id:0>16}").as_str()));
        assert_eq!(text("x-b3-parentspanid"), told.parent_id.map(|id| format!("{id:0>16}")).as_deref());
        assert_eq!(read.child().parent_id(), Some(read.span_id()));
    } else {
        assert_eq!((read.parent_id(), read.child().parent_id()), (None, None), "there is no span above it");
    }
    let decision = match told.sampling {
        Sampling::Deferred => (None, None),
        Sampling::Denied => (Some("0"), None),
        Sampling::Accepted => (Some("1"), None),
        Sampling::Debug => (None, Some("1")),
    };
    assert_eq!((text("x-b3-sampled"), text("x-b3-flags")), decision);
    trace::travels(&read);
}

/// What the headers say.
struct Told<'a> {
    ids: Option<(&'a str, &'a str)>,
    parent_id: Option<&'a str>,
    sampling: Sampling,
}

fn parse(headers: &HeaderMap) -> Option<Told<'_>> {
    // What is no text is there, and says nothing that can be read.
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let said = match text("x-b3-sampled").map(str::to_ascii_lowercase).as_deref() {
        None => Sampling::Deferred,
        Some("1" | "true") => Sampling::Accepted,
        Some("0" | "false") => Sampling::Denied,
        Some(_) => return None,
    };
    let sampling = if text("x-b3-flags") == Some("1") { Sampling::Debug } else { said };
    let Some(trace_id) = text("x-b3-traceid") else {
        return (sampling != Sampling::Deferred).then_some(Told { ids: None, parent_id: None, sampling });
    };
    let (span_id, parent_id) = (text("x-b3-spanid")?, text("x-b3-parentspanid"));
    let right = is_id(trace_id, 32) && is_id(span_id, 16) && parent_id.is_none_or(|id| is_id(id, 16));
    right.then_some(Told { ids: Some((trace_id, span_id)), parent_id, sampling })
}

/// At most so many lower-case digits, not all zero.
fn is_id(text: &str, most: usize) -> bool {
    let digits = text.chars().all(|digit| digit.is_ascii_hexdigit() && !digit.is_ascii_uppercase());
    text.len() <= most && digits && text.chars().any(|digit| digit != '0')
}
