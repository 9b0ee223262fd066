use hopvine::trace::{Format, Sampling};

use super::{lines, trace};

/// B3 in one header: each line is one `b3`, of which the first counts.
pub fn b3_single(data: &[u8]) {
    let Some(headers) = lines::values("b3", data) else { return };
    let model = lines::first(&headers, "b3").and_then(parse);
    let read = trace::only(Format::B3Single).extract(&headers);
    let Some(told) = model else {
        assert_eq!(read, None, "against the grammar: {headers:?}");
        return;
    };
    let read = read.unwrap_or_else(|| panic!("not read: {headers:?}"));
    assert_eq!(read.sampling(), told.sampling);
    if let Some((trace_id, span_id)) = told.ids {
        assert_eq!(read.trace_id().to_string(), format!("{trace_id:0>32}"));
        assert_eq!(read.span_id().to_string(), span_id);
        assert_eq!(read.parent_id().map(|id| id.to_string()), told.parent_id.map(str::to_owned));
        assert_eq!(read.child().parent_id(), Some(read.span_id()));
        // A trace id of 64 bits goes on as one, and a parent where there is a place for it.
        let decision = match told.sampling {
            Sampling::Deferred => String::new(),
            decided => {
                ["-0", "-1", "-d"][decided as usize - 1].to_owned()
                    + &told.parent_id.map_or(String::new(), |id| format!("-{id}"))
            }
        };
        assert_eq!(trace::written(&read, Format::B3Single)["b3"], format!("{trace_id}-{span_id}{decision}"));
    } else {
        assert_eq!((read.parent_id(), read.child().parent_id()), (None, None), "there is no span above it");
    }
    trace::travels(&read);
}

/// What a header says.
struct Told<'a> {
    ids: Option<(&'a str, &'a str)>,
    parent_id: Option<&'a str>,
    sampling: Sampling,
}

/// The four forms.
fn parse(value: &str) -> Option<Told<'_>> {
    let parts: Vec<&str> = value.split('-').collect();
    let (ids, parent_id, sampling) = match parts.as_slice() {
        [decision] => (None, None, decided(decision)?),
        [trace_id, span_id] => (Some((*trace_id, *span_id)), None, Sampling::Deferred),
        [trace_id, span_id, third] => match decided(third) {
            Some(sampling) => (Some((*trace_id, *span_id)), None, sampling),
            None => (Some((*trace_id, *span_id)), Some(*third), Sampling::Deferred),
        },
        [trace_id, span_id, decision, parent_id] => (Some((*trace_id, *span_id)), Some(*parent_id), decided(decision)?),
        _ => return None,
    };
    let short = |id: &str| is_id(id, 16);
    let right = ids.is_none_or(|(trace_id, span_id)| (short(trace_id) || is_id(trace_id, 32)) && short(span_id));
    (right && parent_id.is_none_or(short)).then_some(Told { ids, parent_id, sampling })
}

/// So many lower-case digits, not all zero.
fn is_id(text: &str, length: usize) -> bool {
    let digits = text.chars().all(|digit| digit.is_ascii_hexdigit() && !digit.is_ascii_uppercase());
    text.len() == length && digits && text.chars().any(|digit| digit != '0')
}

fn decided(text: &str) -> Option<Sampling> {
    match text {
        "0" => Some(Sampling::Denied),
        "1" => Some(Sampling::Accepted),
        "d" => Some(Sampling::Debug),
        _ => None,
    }
}
