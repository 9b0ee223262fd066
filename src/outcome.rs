//! What a finished call says about whoever answered it, told once for every layer.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::{Error, ErrorKind};

/// What a finished attempt or call says about the other side.
///
/// | outcome | breaker | outlier detection | retry | retry budget | peak EWMA |
/// |---|---|---|---|---|---|
/// | success | success | resets the run | no | funds it | the time it took |
/// | failure | failure | counts | yes, if idempotent or unsent | - | the penalty, 5 s |
/// | throttled | failure | ignored | after the wait it asked for | - | the wait, at least the penalty |
/// | timed out | failure | counts | yes, if idempotent or unsent | - | the penalty |
/// | cancelled | ignored | ignored | - | - | elapsed, as a lower bound |
/// | ignored | ignored | ignored | if unsent | - | nothing |
///
/// *Slow* is no outcome: the breaker measures it beside any of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It answered, and the answer does not speak against it.
    Success,
    /// It failed.
    Failure(Failure),
    /// It asks for fewer calls, perhaps none before the given time has passed.
    Throttled(Option<Duration>),
    /// Our own timer ended the wait.
    TimedOut,
    /// The caller went away. Never a success, never a failure.
    Cancelled,
    /// It says nothing about the other side: a layer on this side refused.
    Ignored,
}

/// How it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Failure {
    /// No connection.
    Connect,
    /// The connection broke, or the answer was not one.
    Transport,
    /// A response of this HTTP status.
    Status(u16),
    /// A response of this gRPC status.
    Grpc(u8),
    /// Anything else a [`Classify`] of your own calls a failure.
    Other,
}

/// When a server wants to be asked again (R4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushback {
    /// Not before this time has passed.
    After(Duration),
    /// Not at all.
    Never,
}

/// Longest wait a server can ask for; a longer one is cut to this.
pub const PUSHBACK_MAX: Duration = Duration::from_secs(300);

/// Turns a result into an [`Outcome`].
///
/// Give the same one to every layer of a stack, so that they never disagree. A closure
/// `Fn(Result<&Response, &Error>) -> Outcome` is one too.
pub trait Classify<Res>: Send + Sync + 'static {
    /// The outcome of this result.
    fn classify(&self, result: Result<&Res, &Error>) -> Outcome;

    /// When the server wants to be asked again, where it said so.
    fn pushback(&self, _response: &Res) -> Option<Pushback> {
        None
    }
}

impl<Res, F> Classify<Res> for F
where
    F: Fn(Result<&Res, &Error>) -> Outcome + Send + Sync + 'static,
{
    fn classify(&self, result: Result<&Res, &Error>) -> Outcome {
        self(result)
    }
}

/// The default [`Classify`]: asks the response itself ([`Classified`]), and the [`Error`] for its kind.
///
/// HTTP: 429, and 503 with `Retry-After`, are throttled; any other 5xx is a failure; all else is a success, 4xx too,
/// since a caller's mistake says nothing about the endpoint. gRPC, by the status in the head: `RESOURCE_EXHAUSTED` is
/// throttled, `UNAVAILABLE`, `INTERNAL`, `UNKNOWN` and `DATA_LOSS` are failures, `DEADLINE_EXCEEDED` is timed out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standard;

impl<Res: Classified> Classify<Res> for Standard {
    fn classify(&self, result: Result<&Res, &Error>) -> Outcome {
        match result {
            Ok(response) => response.outcome(),
            Err(error) => Outcome::of_error(error),
        }
    }

    fn pushback(&self, response: &Res) -> Option<Pushback> {
        response.pushback()
    }
}

/// A response that knows what it says about its sender.
pub trait Classified {
    /// The outcome this response stands for.
    fn outcome(&self) -> Outcome {
        Outcome::Success
    }

    /// When the sender wants to be asked again, where it said so.
    fn pushback(&self) -> Option<Pushback> {
        None
    }
}

impl Outcome {
    /// The outcome an error stands for by its kind.
    pub fn of_error(error: &Error) -> Self {
        if error.is_rejected() {
            return Self::Ignored;
        }
        match error.kind() {
            // It had passed before anything was sent.
            ErrorKind::DeadlineExceeded if error.is_unsent() => Self::Ignored,
            ErrorKind::AttemptTimeout | ErrorKind::DeadlineExceeded => Self::TimedOut,
            ErrorKind::Connect => Self::Failure(Failure::Connect),
            _ => Self::Failure(Failure::Transport),
        }
    }

    /// Whether it counts against the other side: a failure, throttled or timed out.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Failure(_) | Self::Throttled(_) | Self::TimedOut)
    }

    /// Its name, for counters and spans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure(_) => "failure",
            Self::Throttled(_) => "throttled",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Ignored => "ignored",
        }
    }
}

impl<B> Classified for http::Response<B> {
    fn outcome(&self) -> Outcome {
        let status = self.status();
        if status == StatusCode::OK {
            // A unary gRPC failure is Trailers-Only: its status is in the head.
            return self.headers().get("grpc-status").map_or(Outcome::Success, |code| grpc_outcome(code.as_bytes()));
        }
        if status == StatusCode::TOO_MANY_REQUESTS {
            return Outcome::Throttled(after(self.pushback()));
        }
        if !status.is_server_error() {
            return Outcome::Success;
        }
        match self.pushback() {
            Some(pushback) if status == StatusCode::SERVICE_UNAVAILABLE => Outcome::Throttled(after(Some(pushback))),
            _ => Outcome::Failure(Failure::Status(status.as_u16())),
        }
    }

    fn pushback(&self) -> Option<Pushback> {
        if let Some(value) = self.headers().get("grpc-retry-pushback-ms") {
            let milliseconds = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
            return Some(
                milliseconds.map_or(Pushback::Never, |ms| Pushback::After(Duration::from_millis(ms).min(PUSHBACK_MAX))),
            );
        }
        retry_after(self.headers()).map(Pushback::After)
    }
}

fn after(pushback: Option<Pushback>) -> Option<Duration> {
    match pushback {
        Some(Pushback::After(wait)) => Some(wait),
        _ => None,
    }
}

fn grpc_outcome(code: &[u8]) -> Outcome {
    match code {
        b"2" => Outcome::Failure(Failure::Grpc(2)),
        b"4" => Outcome::TimedOut,
        b"8" => Outcome::Throttled(None),
        b"13" => Outcome::Failure(Failure::Grpc(13)),
        b"14" => Outcome::Failure(Failure::Grpc(14)),
        b"15" => Outcome::Failure(Failure::Grpc(15)),
        _ => Outcome::Success,
    }
}

/// `Retry-After` (RFC 9110, 10.2.3), seconds or a date, cut at [`PUSHBACK_MAX`]; a date that has passed is zero.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(std::time::SystemTime::now()).unwrap_or_default()
    };
    Some(wait.min(PUSHBACK_MAX))
}
