//! Which form of a document a client wants, by Java's rules; they are in `docs/differences.md` where ours differ.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE},
};

use crate::{
    eureka::Form,
    registry::render::{Encoding, Variant},
};

const EUREKA_ACCEPT: HeaderName = HeaderName::from_static("x-eureka-accept");

/// The variant of a list: JSON for who names it, else XML; zipped only where a whole registry may be.
pub(super) fn variant(headers: &HeaderMap, may_zip: bool) -> Variant {
    let is_compact = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"compact");
    Variant {
        encoding: if mentions(headers, &ACCEPT, b"json") { Encoding::Json } else { Encoding::Xml },
        form: if headers.get(EUREKA_ACCEPT).is_some_and(is_compact) { Form::Compact } else { Form::Full },
        gzip: may_zip && mentions(headers, &ACCEPT_ENCODING, b"gzip"),
    }
}

/// The format of a single instance: what the client names first, XML if it takes anything; `None` if it takes neither.
pub(super) fn of_instance(headers: &HeaderMap) -> Option<Encoding> {
    if !headers.contains_key(ACCEPT) {
        return Some(Encoding::Xml);
    }
    let ranges = headers.get_all(ACCEPT).into_iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut ranges = ranges.map(|range| range.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii());
    ranges.find_map(|range| match range {
        b"application/json" => Some(Encoding::Json),
        b"application/xml" | b"application/*" | b"*/*" | b"*" => Some(Encoding::Xml),
        _ => None,
    })
}

/// The format of a request's body; `None` if it is none of ours.
pub(super) fn of_body(headers: &HeaderMap) -> Option<Encoding> {
    let mut parts = headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').map(str::trim);
    let media = parts.next()?;
    for part in parts {
        let Some((name, charset)) = part.split_once('=') else { continue };
        let charset = charset.trim_matches('"');
        let is_charset = name.eq_ignore_ascii_case("charset");
        if is_charset && !charset.eq_ignore_ascii_case("utf-8") && !charset.eq_ignore_ascii_case("iso-8859-1") {
            return None;
        }
    }
    match media {
        media if media.eq_ignore_ascii_case("application/json") => Some(Encoding::Json),
        media if media.eq_ignore_ascii_case("application/xml") => Some(Encoding::Xml),
        _ => None,
    }
}

/// Whether a header has this text somewhere, in this case.
fn mentions(headers: &HeaderMap, name: &HeaderName, text: &[u8]) -> bool {
    headers.get_all(name).into_iter().any(|value| value.as_bytes().windows(text.len()).any(|window| window == text))
}
