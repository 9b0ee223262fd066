//! How a deadline is written in headers.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};

/// gRPC's header: at most eight digits and a unit.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The header of other requests: whole milliseconds.
pub const REQUEST_TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");

/// Whether these are the headers of a gRPC request.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// What the headers say, if it is well formed; gRPC's own header first.
pub(super) fn read(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    text(GRPC_TIMEOUT).and_then(parse_grpc).or_else(|| text(REQUEST_TIMEOUT).and_then(parse_milliseconds))
}

/// Writes what remains in place of whatever stands there, unless it is a shorter wish of the caller's own.
pub(super) fn write(headers: &mut HeaderMap, remaining: Duration) {
    let own = read(headers);
    let remaining = own.map_or(remaining, |own| own.min(remaining));
    if is_grpc(headers) {
        headers.insert(GRPC_TIMEOUT, format_grpc(remaining));
    } else {
        headers.insert(
            REQUEST_TIMEOUT,
            HeaderValue::from(u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX).max(1)),
        );
    }
}

/// Takes both headers out.
pub(crate) fn remove(headers: &mut HeaderMap) {
    headers.remove(GRPC_TIMEOUT);
    headers.remove(REQUEST_TIMEOUT);
}

fn parse_milliseconds(text: &str) -> Option<Duration> {
    // `parse` would take a sign.
    let digits = (1..=15).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok().map(Duration::from_millis)).flatten()
}

/// `TimeoutValue TimeoutUnit` of gRPC over HTTP/2.
fn parse_grpc(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value * 3600),
        "M" => Duration::from_secs(value * 60),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}

/// In the finest unit that fits eight digits, rounded down, never zero.
fn format_grpc(remaining: Duration) -> HeaderValue {
    const MOST: u128 = 99_999_999;
    let (value, unit) = match remaining {
        short if short.as_micros() <= MOST => (short.as_micros().max(1), b'u'),
        long if long.as_millis() <= MOST => (long.as_millis(), b'm'),
        longer => (u128::from(longer.as_secs()).min(MOST), b'S'),
    };
    let mut text = [0; 9];
    text[8] = unit;
    let mut start = 8;
    let mut rest = value as u32;
    while rest > 0 {
        start -= 1;
        text[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    HeaderValue::from_bytes(&text[start..]).expect("digits and a letter")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_examples_of_the_specification() {
        assert_eq!(parse_grpc("1S"), Some(Duration::from_secs(1)));
        assert_eq!(parse_grpc("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "S", "1", "123456789S", "-1S", "+1S", "1s", "1 S", "1Sx", "1\u{e9}"] {
            assert_eq!(parse_grpc(wrong), None, "{wrong}");
        }
        for wrong in ["", "+5", "-1", "1.5", "1 ", "1234567890123456"] {
            assert_eq!(parse_milliseconds(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_server_reads_no_more_than_was_left(nanos in 1_000u64..99_999_999_000_000_000) {
            let remaining = Duration::from_nanos(nanos);
            let written = format_grpc(remaining);
            let read = parse_grpc(written.to_str().unwrap()).unwrap();
            prop_assert!(read <= remaining && read > Duration::ZERO);
            prop_assert!(remaining - read <= remaining / 1_000 + Duration::from_micros(1));
        }

        #[test]
        fn no_bytes_make_it_panic(text in ".{0,12}") {
            let _ = (parse_grpc(&text), parse_milliseconds(&text));
        }
    }
}
