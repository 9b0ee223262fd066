use hopvine::trace::Format;
use http::{HeaderMap, HeaderValue};

use super::{lines, trace};

/// W3C Trace Context, `tracestate`: each line is one header, beside a `traceparent` that is right.
pub fn tracestate(data: &[u8]) {
    let Some(mut headers) = lines::values("tracestate", data) else { return };
    let model = state(&headers);
    let parent = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    headers.insert("traceparent", parent.clone());
    let read = trace::only(Format::W3c).extract(&headers).expect("a state takes no trace with it");
    assert_eq!(read.state(), model.as_deref(), "{headers:?}");
    assert!(read.state().is_none_or(|state| state.len() <= 32 * (256 + 1 + 256) + 31));
    // It goes on as one header, or not at all.
    let written = trace::written(&read, Format::W3c);
    let states: Vec<_> = written.get_all("tracestate").iter().map(|state| state.to_str().unwrap().to_owned()).collect();
    assert_eq!(states, Vec::from_iter(model));
    assert_eq!(written["traceparent"], parent);
    trace::travels(&read);

    headers.remove("traceparent");
    assert_eq!(trace::only(Format::W3c).extract(&headers), None, "a state alone is nothing");
}

/// All members of all headers, in their order, if each is one and there are not too many.
fn state(headers: &HeaderMap) -> Option<String> {
    let texts: Result<Vec<&str>, _> = headers.get_all("tracestate").iter().map(HeaderValue::to_str).collect();
    let all = texts.ok()?.join(",");
    let members: Vec<&str> =
        all.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty()).collect();
    let right = members.len() <= 32 && members.iter().all(|member| is_member(member));
    (right && !members.is_empty()).then(|| members.join(","))
}

/// `key = ( lower / digit ) 0*255( lower / digit / "_" / "-" / "*" / "/" / "@" )`, and 1 to 256 printable characters.
fn is_member(member: &str) -> bool {
    let Some(equals) = member.find('=') else { return false };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let begins = key.starts_with(|first| matches!(first, 'a'..='z' | '0'..='9'));
    let goes_on = key.chars().all(|each| "abcdefghijklmnopqrstuvwxyz0123456789_-*/@".contains(each));
    let says = value.chars().all(|each| each == ' ' || (each.is_ascii_graphic() && each != ',' && each != '='));
    begins && goes_on && says && key.len() <= 256 && !value.is_empty() && value.len() <= 256
}
