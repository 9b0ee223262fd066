use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body::{Frame, SizeHint};

use crate::registry::{
    Refused,
    render::{Encoding, Variant},
    watch::Lines,
};

/// The body of a registry's answer: nothing, a document, or lines as long as somebody reads them.
pub(in crate::registry) struct Body(Content);

enum Content {
    Whole(Option<Bytes>),
    Lines(Box<Lines>),
}

impl Body {
    pub(super) fn empty() -> Self {
        Self(Content::Whole(None))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut self.get_mut().0 {
            Content::Whole(bytes) => Poll::Ready(bytes.take()),
            Content::Lines(lines) => lines.poll_next(context),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Content::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Content::Lines(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Content::Whole(bytes) => write!(f, "Body({} bytes)", bytes.as_ref().map_or(0, Bytes::len)),
            Content::Lines(_) => f.write_str("Body(lines)"),
        }
    }
}

/// An answer without a body. Eureka's clients take any body of a heartbeat's answer for an instance.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

pub(super) fn document(bytes: Bytes, variant: Variant) -> Response<Body> {
    let mut response = of_instance(bytes, variant.encoding);
    if variant.gzip {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

pub(super) fn whole(bytes: Bytes) -> Response<Body> {
    Response::new(Body(Content::Whole(Some(bytes))))
}

pub(super) fn of_instance(bytes: Bytes, encoding: Encoding) -> Response<Body> {
    let mut response = whole(bytes);
    response.headers_mut().insert(CONTENT_TYPE, encoding.content_type());
    response
}

/// Why something was not done, in plain words.
pub(super) fn reason(status: StatusCode, reason: impl fmt::Display) -> Response<Body> {
    let mut response = whole(reason.to_string().into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A limit was reached: later it may do (503), or never (400).
pub(super) fn refused(refused: Refused) -> Response<Body> {
    if !refused.is_for_now() {
        return reason(StatusCode::BAD_REQUEST, refused);
    }
    busy(refused)
}

/// A limit was reached: others may have left half a minute later.
pub(super) fn busy(why: impl fmt::Display) -> Response<Body> {
    unavailable(why, "30")
}

/// There is nothing to read yet, but there will be soon.
pub(super) fn learning() -> Response<Body> {
    unavailable("the registry has not learned yet what there is", "1")
}

fn unavailable(why: impl fmt::Display, retry_after: &'static str) -> Response<Body> {
    let mut response = reason(StatusCode::SERVICE_UNAVAILABLE, why);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(retry_after));
    response
}

pub(super) fn methods(status: StatusCode, methods: &[&str]) -> Response<Body> {
    let mut response = empty(status);
    if let Ok(methods) = HeaderValue::try_from(methods.join(",")) {
        response.headers_mut().insert(ALLOW, methods);
    }
    response
}

pub(super) fn unauthorized() -> Response<Body> {
    let mut response = empty(StatusCode::UNAUTHORIZED);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"eureka\""));
    response
}

pub(super) fn lines(lines: Lines) -> Response<Body> {
    let mut response = Response::new(Body(Content::Lines(Box::new(lines))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    response.headers_mut().insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Encoding {
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::Xml => "application/xml",
        })
    }
}
