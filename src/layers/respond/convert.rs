use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::Text;
use crate::{Error, ErrorKind};

/// What an [`Error`] becomes by `?` in a handler.
pub type ErrorResponse = Response<Text>;

/// The response an error stands for, to an HTTP request or a [gRPC](crate::request::is_grpc) one. The table is in the docs
/// of [this module](super).
pub fn to_response(error: &Error, grpc: bool) -> ErrorResponse {
    let answer = Answer::to(error);
    if grpc {
        let mut response = Response::new(Text::default());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(HeaderName::from_static("grpc-status"), HeaderValue::from_static(answer.grpc));
        // The texts hold no byte that would have to be percent-encoded.
        headers.insert(HeaderName::from_static("grpc-message"), HeaderValue::from_static(answer.text));
        if let Some(wait) = error.retry_after() {
            let milliseconds = rounded_up(wait, Duration::from_millis(1));
            headers.insert(HeaderName::from_static("grpc-retry-pushback-ms"), HeaderValue::from(milliseconds));
        }
        return response;
    }
    let mut response = Response::new(Text::new(answer.text));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(wait) = error.retry_after() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(rounded_up(wait, Duration::from_secs(1))));
    }
    response
}

/// To an HTTP request; see [`to_response`].
impl From<Error> for ErrorResponse {
    fn from(error: Error) -> Self {
        to_response(&error, false)
    }
}

struct Answer {
    status: StatusCode,
    grpc: &'static str,
    text: &'static str,
}

impl Answer {
    fn to(error: &Error) -> Self {
        let (status, grpc, text) = match error.kind() {
            ErrorKind::CircuitOpen => (StatusCode::SERVICE_UNAVAILABLE, "14", "circuit open"),
            ErrorKind::BulkheadFull => (StatusCode::SERVICE_UNAVAILABLE, "14", "bulkhead full"),
            ErrorKind::NoService => (StatusCode::SERVICE_UNAVAILABLE, "14", "no such service"),
            ErrorKind::NoEndpoint => (StatusCode::SERVICE_UNAVAILABLE, "14", "no endpoint available"),
            ErrorKind::Connect => (StatusCode::SERVICE_UNAVAILABLE, "14", "connection failed"),
            ErrorKind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "8", "rate limited"),
            ErrorKind::AttemptTimeout => (StatusCode::GATEWAY_TIMEOUT, "4", "attempt timed out"),
            ErrorKind::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "4", "deadline exceeded"),
            ErrorKind::Upstream if error.is_unsent() => (StatusCode::BAD_GATEWAY, "14", "upstream error"),
            ErrorKind::Upstream => (StatusCode::BAD_GATEWAY, "2", "upstream error"),
        };
        Self { status, grpc, text }
    }
}

fn rounded_up(wait: Duration, unit: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(unit.as_nanos())).unwrap_or(u64::MAX)
}
