//! Bytes as headers: one a line, so that a corpus file is read as easily as it is written.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Longer blocks of headers than this one a server refuses before anybody reads them.
const MOST: usize = 1000;

/// Each line is a value of this header. `None` if one could not have been sent.
pub(super) fn values(name: &'static str, data: &[u8]) -> Option<HeaderMap> {
    headers(data, |line| Some((HeaderName::from_static(name), line)))
}

/// Each line is a header with its name. `None` if one could not have been sent.
pub(super) fn block(data: &[u8]) -> Option<HeaderMap> {
    headers(data, |line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = line.split_at(colon);
        Some((HeaderName::from_bytes(name).ok()?, value[1..].trim_ascii()))
    })
}

fn headers(data: &[u8], header: impl Fn(&[u8]) -> Option<(HeaderName, &[u8])>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    // The last line may be ended, as editors do.
    for line in data.strip_suffix(b"\n").unwrap_or(data).split(|&byte| byte == b'\n').take(MOST) {
        let (name, value) = header(line)?;
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}

/// The first value, without blanks round it; `None` if there is none, or it is no text.
pub(super) fn first<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().ok()?.trim_matches([' ', '\t']))
}
