//! What remains of a deadline, as text in a header. Nothing here knows a clock.

use std::time::Duration;

/// The plain header, unless another is chosen: whole milliseconds, in digits.
pub const HEADER: &str = "x-request-timeout-ms";

/// A gRPC timeout has at most so many digits.
const GRPC_DIGITS: usize = 8;

/// Units of a gRPC timeout, in nanoseconds, the shortest first.
const UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// Reads `grpc-timeout` (gRPC over HTTP/2, "Timeout"): at most 8 digits and a unit. Zero is a deadline that has passed.
pub(super) fn parse_grpc(text: &[u8]) -> Option<Duration> {
    let (unit, number) = text.split_last()?;
    if number.len() > GRPC_DIGITS {
        return None;
    }
    let number = digits(number)?;
    let (_, nanoseconds) = *UNITS.iter().find(|(letter, _)| letter == unit)?;
    // 99 999 999 hours are beyond what nanoseconds hold: whoever means that long means no limit.
    Some(Duration::from_nanos(number.saturating_mul(nanoseconds)))
}

/// Writes `grpc-timeout`: whole milliseconds as long as they fit, then the next unit that does. Rounded down, so that no
/// deadline is extended.
pub(super) fn format_grpc(remaining: Duration, buffer: &mut [u8; GRPC_DIGITS + 1]) -> &[u8] {
    let nanoseconds = super::timed::nanos(remaining);
    let fitting = UNITS[2..].iter().map(|&(letter, unit)| (letter, nanoseconds / unit));
    // 584 years, the most that nanoseconds hold, are 7 digits of hours.
    let (letter, mut number) = fitting.clone().find(|&(_, number)| number < 100_000_000).unwrap_or((b'H', 99_999_999));
    buffer[GRPC_DIGITS] = letter;
    let mut start = GRPC_DIGITS;
    loop {
        start -= 1;
        buffer[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 || start == 0 {
            return &buffer[start..];
        }
    }
}

/// Reads the plain header. Zero is a deadline that has passed.
pub(super) fn parse_millis(text: &[u8]) -> Option<Duration> {
    digits(text.trim_ascii()).map(Duration::from_millis)
}

/// What the plain header says: whole milliseconds, rounded down.
pub(super) fn millis(remaining: Duration) -> u64 {
    u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX)
}

/// A number of at least one digit and nothing else; `None` if it does not fit.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Slow and obvious.
    fn model(text: &str) -> Option<Duration> {
        let unit = text.chars().last()?;
        let number = text.strip_suffix(unit)?;
        if number.is_empty() || number.len() > 8 || number.chars().any(|digit| !digit.is_ascii_digit()) {
            return None;
        }
        let number: u64 = number.parse().ok()?;
        match unit {
            'n' => Some(Duration::from_nanos(number)),
            'u' => Some(Duration::from_micros(number)),
            'm' => Some(Duration::from_millis(number)),
            'S' => Some(Duration::from_secs(number)),
            'M' => Some(Duration::from_secs(number * 60)),
            'H' => Some(Duration::from_secs(number * 3600).min(Duration::from_nanos(u64::MAX))),
            _ => None,
        }
    }

    fn grpc(remaining: Duration) -> String {
        String::from_utf8(format_grpc(remaining, &mut [0; 9]).to_vec()).expect("ASCII")
    }

    proptest! {
        #[test]
        fn a_grpc_timeout_is_read_as_the_protocol_says(text in "[0-9]{0,10}[HSMmunx]?") {
            prop_assert_eq!(parse_grpc(text.as_bytes()), model(&text));
        }

        #[test]
        fn no_bytes_from_outside_break_the_parsers(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let text = String::from_utf8_lossy(&bytes);
            prop_assert_eq!(parse_grpc(&bytes), model(&text));
            let _ = parse_millis(&bytes);
        }

        #[test]
        fn what_is_written_is_read_as_never_more_and_hardly_less(nanoseconds in prop_oneof![
            any::<u64>(), 0..10_000_000_000_u64, 1_000_000..200_000_000_000_000_u64,
        ]) {
            let remaining = Duration::from_nanos(nanoseconds);
            let text = grpc(remaining);
            prop_assert!(text.len() <= 9, "{}", text);
            let read = model(&text).expect("readable");
            prop_assert!(read <= remaining);
            prop_assert!(remaining.saturating_sub(read) < Duration::from_millis(1).max(remaining / 20_000), "{}", text);
            let millis = millis(remaining);
            prop_assert_eq!(parse_millis(millis.to_string().as_bytes()), Some(Duration::from_millis(millis)));
            prop_assert!(Duration::from_millis(millis) <= remaining);
        }

        #[test]
        fn plain_milliseconds_are_digits_and_nothing_else(text in "[ +-]?[0-9]{0,22}[ms.]?") {
            let trimmed = text.trim();
            let plain = !trimmed.is_empty() && trimmed.chars().all(|digit| digit.is_ascii_digit());
            let model = if plain { trimmed.parse().ok().map(Duration::from_millis) } else { None };
            prop_assert_eq!(parse_millis(text.as_bytes()), model);
        }
    }

    #[test]
    fn a_callee_is_told_the_milliseconds_that_are_left() {
        assert_eq!([49_000, 1_999, 999].map(|micros| millis(Duration::from_micros(micros))), [49, 1, 0]);
    }

    #[test]
    fn examples() {
        assert_eq!(grpc(Duration::from_millis(49)), "49m");
        assert_eq!(grpc(Duration::from_micros(1_999)), "1m");
        assert_eq!(grpc(Duration::from_millis(99_999_999)), "99999999m");
        assert_eq!(grpc(Duration::from_secs(100_000)), "100000S");
        assert_eq!(grpc(Duration::MAX), "5124095H");
        assert_eq!(parse_grpc(b"1M"), Some(Duration::from_secs(60)));
        assert_eq!(parse_grpc(b"0n"), Some(Duration::ZERO));
        assert_eq!(parse_grpc(b"+1S"), None);
        assert_eq!(parse_grpc(b"123456789n"), None);
    }
}
