use std::time::{Duration, SystemTime};

use hopvine::{
    Error, ErrorKind,
    layers::respond::to_response,
    outcome::{Classified as _, Failure, Outcome, PUSHBACK_MAX, Pushback, retry_after as read},
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::lines;

/// RFC 9110, `Retry-After`: each line is one header, of which the first counts.
pub fn retry_after(data: &[u8]) {
    let Some(headers) = lines::values("retry-after", data) else { return };
    let model = lines::first(&headers, "retry-after").and_then(wait);
    let before = SystemTime::now();
    let read = read(&headers);
    let after = SystemTime::now();
    match model {
        None => assert_eq!(read, None, "against the grammar: {headers:?}"),
        Some(Wait::Seconds(seconds)) => assert_eq!(read, Some(seconds), "{headers:?}"),
        Some(Wait::Until(moment)) => {
            let left = |now| moment.duration_since(now).unwrap_or_default().min(PUSHBACK_MAX);
            let read = read.unwrap_or_else(|| panic!("not read: {headers:?}"));
            assert!(left(after) <= read && read <= left(before), "{headers:?}: {read:?}");
        }
    }

    let classified = |status| response(status, &headers).outcome();
    match classified(StatusCode::TOO_MANY_REQUESTS) {
        Outcome::Throttled(wait) => assert_eq!(wait.is_some(), read.is_some()),
        other => panic!("{other:?}"),
    }
    match classified(StatusCode::SERVICE_UNAVAILABLE) {
        Outcome::Throttled(Some(wait)) => assert!(read.is_some() && wait <= PUSHBACK_MAX),
        other => assert_eq!((other, read), (Outcome::Failure(Failure::Status(503)), None)),
    }
    assert_eq!(classified(StatusCode::BAD_GATEWAY), Outcome::Failure(Failure::Status(502)));
    assert_eq!(classified(StatusCode::OK), Outcome::Success);
    passed_on(read);
}

/// gRFC A6, `grpc-retry-pushback-ms`: each line is one header, of which the first counts, beside a `Retry-After` that does not.
pub fn grpc_retry_pushback(data: &[u8]) {
    let Some(mut headers) = lines::values("grpc-retry-pushback-ms", data) else { return };
    headers.insert("retry-after", HeaderValue::from_static("7"));
    let wait = headers["grpc-retry-pushback-ms"].to_str().ok().and_then(milliseconds);
    let model = wait.map_or(Pushback::Never, Pushback::After);
    for status in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE] {
        assert_eq!(response(status, &headers).pushback(), Some(model), "{headers:?}");
    }
    headers.insert("grpc-status", HeaderValue::from_static("8"));
    let throttled = Outcome::Throttled(wait);
    assert_eq!(response(StatusCode::OK, &headers).outcome(), throttled, "{headers:?}");
    assert_eq!(response(StatusCode::TOO_MANY_REQUESTS, &headers).outcome(), throttled, "{headers:?}");
    passed_on(wait);
}

fn response(status: StatusCode, headers: &HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers.clone();
    response
}

/// What was asked of us, asked of our own caller: never less, and hardly more.
fn passed_on(wait: Option<Duration>) {
    let Some(wait) = wait else { return };
    let error = Error::new(ErrorKind::RateLimited).with_retry_after(wait);
    for (grpc, unit) in [(false, Duration::from_secs(1)), (true, Duration::from_millis(1))] {
        let response = to_response(&error, grpc);
        let Outcome::Throttled(Some(told)) = response.outcome() else { panic!("{response:?}") };
        assert!(wait <= told && told < wait + unit, "{wait:?} became {told:?}");
        assert_eq!(response.pushback(), Some(Pushback::After(told)));
    }
}

/// Digits of at most 64 bits; a server that says anything else means "not at all".
fn milliseconds(text: &str) -> Option<Duration> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || digits.contains(|digit: char| !digit.is_ascii_digit()) {
        return None;
    }
    let more = |number: u64, digit| number.checked_mul(10)?.checked_add(u64::from(digit) - u64::from('0'));
    Some(Duration::from_millis(digits.chars().try_fold(0, more)?).min(PUSHBACK_MAX))
}

enum Wait {
    Seconds(Duration),
    Until(SystemTime),
}

fn wait(text: &str) -> Option<Wait> {
    if text.is_empty() || text.contains(|digit: char| !digit.is_ascii_digit()) {
        return date(text).map(Wait::Until);
    }
    let cut = PUSHBACK_MAX.as_secs();
    // Digit by digit, and no further than to the cut.
    let seconds = text.chars().fold(0, |seconds, digit| (seconds * 10 + u64::from(digit) - u64::from('0')).min(cut));
    Some(Wait::Seconds(Duration::from_secs(seconds)))
}

/// The three forms of RFC 9110, 5.6.7, from 1970 on.
fn date(text: &str) -> Option<SystemTime> {
    // Sunday, 06-Nov-94 08:49:37 GMT
    if let Some((weekday, rest)) = text.split_once("day, ") {
        let weekday = WEEKDAYS.iter().position(|name| name.strip_suffix("day") == Some(weekday))?;
        // In between stands a blank; any other character is taken for one.
        let (date, time) = (rest.get(..9)?, rest.get(10..)?.strip_suffix(" GMT")?);
        let parts: Vec<&str> = date.split('-').collect();
        let [day, month, year] = parts.as_slice() else { return None };
        let year = number(year, 2)?;
        return moment(weekday, year + if year < 70 { 2000 } else { 1900 }, month, number(day, 2)?, time);
    }
    let words: Vec<&str> = text.split(' ').collect();
    match words.as_slice() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        [weekday, day, month, year, time, "GMT"] => {
            let weekday = WEEKDAYS.iter().position(|name| weekday.strip_suffix(',') == Some(&name[..3]))?;
            moment(weekday, number(year, 4)?, month, number(day, 2)?, time)
        }
        // Sun Nov  6 08:49:37 1994
        [weekday, month, date @ .., time, year] => {
            let day = match date {
                ["", day] => number(day, 1)?,
                [day] => number(day, 2)?,
                _ => return None,
            };
            let weekday = WEEKDAYS.iter().position(|name| *weekday == &name[..3])?;
            moment(weekday, number(year, 4)?, month, day, time)
        }
        _ => None,
    }
}

/// From the first one of 1970 on.
const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];

const MONTHS: [(&str, u64); 12] = [
    ("Jan", 31),
    ("Feb", 28),
    ("Mar", 31),
    ("Apr", 30),
    ("May", 31),
    ("Jun", 30),
    ("Jul", 31),
    ("Aug", 31),
    ("Sep", 30),
    ("Oct", 31),
    ("Nov", 30),
    ("Dec", 31),
];

/// So many digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    (text.len() == digits && text.chars().all(|digit| digit.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Day by day from 1970 on.
fn moment(weekday: usize, year: u64, month: &str, day: u64, time: &str) -> Option<SystemTime> {
    let month = MONTHS.iter().position(|(name, _)| *name == month)?;
    let leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let length = |month: usize| MONTHS[month].1 + u64::from(month == 1 && leap(year));
    if year < 1970 || day == 0 || day > length(month) {
        return None;
    }
    let years: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let days = years + (0..month).map(length).sum::<u64>() + day - 1;
    if days % 7 != weekday as u64 {
        return None;
    }
    let parts: Vec<&str> = time.split(':').collect();
    let [hour, minute, second] = parts.as_slice() else { return None };
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    // A leap second, which the grammar has, no clock of ours has.
    let seconds = (hour < 24 && minute < 60 && second < 60).then_some((hour * 60 + minute) * 60 + second)?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(days * 24 * 60 * 60 + seconds))
}
