use std::{future::ready, sync::LazyLock, time::Duration};

use futures_util::FutureExt as _;
use hopvine::{
    Error, ErrorKind, NewService as _, context,
    layers::deadline::{DeadlineHeaderLayer, ServerDeadlineLayer, ServerDeadlinePolicy},
};
use http::{HeaderMap, HeaderValue, Request};
use tower::{Layer as _, Service as _, service_fn};

use super::lines;

/// Whoever asks for more gets this; it is what nanoseconds hold, 584 years.
const MAXIMUM: Duration = Duration::from_nanos(u64::MAX);

/// gRPC over HTTP/2, `grpc-timeout`: each line is one header, of which the first counts. From the header to the handler's deadline, and
/// from there to the header of the handler's own call.
pub fn grpc_timeout(data: &[u8]) {
    static WIDE: LazyLock<ServerDeadlineLayer> =
        LazyLock::new(|| server(ServerDeadlinePolicy { maximum: MAXIMUM, ..ServerDeadlinePolicy::default() }));
    static USUAL: LazyLock<ServerDeadlineLayer> = LazyLock::new(|| server(ServerDeadlinePolicy::default()));
    let Some(headers) = lines::values("grpc-timeout", data) else { return };
    let model = headers.get("grpc-timeout").and_then(|value| timeout(value.as_bytes()));
    let default = ServerDeadlinePolicy::default();

    let allowed = allowed(&WIDE, headers.clone());
    assert_eq!(allowed, model.unwrap_or(default.default), "{headers:?}");
    assert_eq!(self::allowed(&USUAL, headers.clone()), allowed.min(default.maximum), "{headers:?}");

    let Some(text) = told(allowed, HeaderMap::new()) else {
        assert!(allowed.is_zero(), "{allowed:?} is time enough for a call");
        return;
    };
    let rest = allowed.saturating_sub(Duration::from_millis(1)).max(Duration::from_millis(1));
    let written = timeout(text.as_bytes()).unwrap_or_else(|| panic!("not to be read: {text:?}"));
    assert!(written <= rest, "{text:?} is more than {rest:?}");
    assert!(
        rest.saturating_sub(written) < Duration::from_millis(1).max(rest / 20_000),
        "{text:?} is much less than {rest:?}"
    );
    let again = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-timeout"), text)]);
    assert_eq!(self::allowed(&WIDE, again), written);

    // A call's own timeout is kept where it is the shorter one.
    let most = Duration::from_secs(5);
    let text = told(most + Duration::from_millis(1), headers.clone()).expect("there is time");
    match model {
        Some(own) if own <= most => assert_eq!(text, headers["grpc-timeout"]),
        _ => assert_eq!(text, "5000m"),
    }
}

/// At most 8 digits and a unit.
fn timeout(text: &[u8]) -> Option<Duration> {
    let text = str::from_utf8(text).ok()?;
    let unit = text.chars().last()?;
    let number = text.strip_suffix(unit)?;
    if !(1..=8).contains(&number.len()) || number.contains(|digit: char| !digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    let timeout = match unit {
        'H' => Duration::from_secs(number * 60 * 60),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    };
    Some(timeout.min(MAXIMUM))
}

fn server(policy: ServerDeadlinePolicy) -> ServerDeadlineLayer {
    ServerDeadlineLayer::new(policy).expect("a right policy")
}

fn grpc(mut headers: HeaderMap) -> Request<()> {
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    let mut request = Request::new(());
    *request.headers_mut() = headers;
    request
}

/// How long a server's handler may take; zero if it is not even called.
fn allowed(layer: &ServerDeadlineLayer, headers: HeaderMap) -> Duration {
    // One reading of the clock for all, so that the times are exact.
    let _clock = context::enter_clock();
    let now = context::now();
    let mut server = layer.layer(service_fn(|_| ready(Ok::<_, Error>(context::deadline()))));
    match server.call(grpc(headers)).now_or_never().expect("it waits for nothing") {
        Ok(deadline) => deadline.expect("there is always a deadline") - now,
        Err(error) => {
            assert!(error.kind() == ErrorKind::DeadlineExceeded && error.is_unsent(), "{error}");
            Duration::ZERO
        }
    }
}

/// The header of a call that has so much time; `None` if it is not sent.
fn told(remaining: Duration, headers: HeaderMap) -> Option<HeaderValue> {
    let _clock = context::enter_clock();
    let _deadline = context::enter_deadline(context::now().checked_add(remaining));
    let connector = |(): &()| service_fn(|request: Request<()>| ready(Ok::<_, Error>(request)));
    let mut client = DeadlineHeaderLayer::new().layer(connector).new_service(&());
    let sent = client.call(grpc(headers)).now_or_never().expect("it waits for nothing");
    Some(sent.ok()?.headers()["grpc-timeout"].clone())
}
