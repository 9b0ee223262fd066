use hopvine::trace::{Format, Sampling};

use super::{lines, trace};

/// W3C Trace Context, `traceparent`: each line is one header.
pub fn traceparent(data: &[u8]) {
    let Some(headers) = lines::values("traceparent", data) else { return };
    let model = if headers.len() == 1 { lines::first(&headers, "traceparent").and_then(parent) } else { None };
    let read = trace::only(Format::W3c).extract(&headers);
    let Some((trace_id, span_id, flags)) = model else {
        assert_eq!(read, None, "against the grammar: {headers:?}");
        return;
    };
    let read = read.unwrap_or_else(|| panic!("not read: {headers:?}"));
    assert_eq!((read.trace_id().to_string(), read.span_id().to_string()), (trace_id.to_owned(), span_id.to_owned()));
    assert_eq!(read.sampling(), if flags % 2 == 1 { Sampling::Accepted } else { Sampling::Denied });
    assert_eq!((read.parent_id(), read.state()), (None, None));
    // Of the flags the two that are known go on.
    let written = trace::written(&read, Format::W3c);
    assert_eq!(written["traceparent"], format!("00-{trace_id}-{span_id}-0{}", flags % 4));
    assert_eq!(read.child().parent_id(), Some(read.span_id()));
    trace::travels(&read);
}

/// The grammar of the recommendation, field by field.
fn parent(value: &str) -> Option<(&str, &str, u32)> {
    let fields: Vec<&str> = value.split('-').collect();
    let [version, trace_id, span_id, flags, more @ ..] = fields.as_slice() else { return None };
    let digits = |field: &str, length| {
        field.chars().count() == length && field.chars().all(|digit| matches!(digit, '0'..='9' | 'a'..='f'))
    };
    let well_formed = digits(version, 2) && digits(trace_id, 32) && digits(span_id, 16) && digits(flags, 2);
    let no_more = match *version {
        "ff" => return None,
        "00" => more.is_empty(),
        _ => true,
    };
    let names_something = [trace_id, span_id].iter().all(|id| id.contains(|digit| digit != '0'));
    let flags = flags.chars().last()?.to_digit(16)?;
    (well_formed && no_more && names_something).then_some((trace_id, span_id, flags))
}
