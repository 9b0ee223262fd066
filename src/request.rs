//! What our layers need of a request, each a small trait, implemented for [`http::Request`].

use http::{HeaderMap, Method};

/// A request that may carry headers.
///
/// Implement it with an empty body for a request that has none: `impl Carrier for MyQuery {}`.
pub trait Carrier {
    /// Its headers, where it has any.
    fn headers(&self) -> Option<&HeaderMap> {
        None
    }

    /// Its headers, to write to.
    fn headers_mut(&mut self) -> Option<&mut HeaderMap> {
        None
    }

    /// What it asks for, in a word or two, for spans: `GET` of an HTTP request.
    fn operation(&self) -> &str {
        Default::default()
    }
}

impl<B> Carrier for http::Request<B> {
    fn headers(&self) -> Option<&HeaderMap> {
        Some(self.headers())
    }

    fn headers_mut(&mut self) -> Option<&mut HeaderMap> {
        Some(self.headers_mut())
    }

    fn operation(&self) -> &str {
        self.method().as_str()
    }
}

/// Whether these are the headers of a gRPC request: `application/grpc`, with or without a `+codec` or a parameter.
///
/// gRPC-Web is something else: its answers are read by their HTTP status.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    headers.get(http::header::CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().split_at_checked(GRPC.len()).is_some_and(|(start, rest)| {
            start.eq_ignore_ascii_case(GRPC) && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        })
    })
}

/// Whether running a request twice has the same effect as running it once.
pub trait Idempotent {
    /// Whether it may run twice.
    fn is_idempotent(&self) -> bool;
}

/// Put into a request's extensions, overrides what its method says about running it twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency(pub bool);

/// By the [`Idempotency`] extension, then the `Idempotency-Key` header, then the method (RFC 9110, 9.2.2).
impl<B> Idempotent for http::Request<B> {
    fn is_idempotent(&self) -> bool {
        if let Some(Idempotency(may)) = self.extensions().get() {
            return *may;
        }
        matches!(
            *self.method(),
            Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
        ) || self.headers().contains_key("idempotency-key")
    }
}

/// A request that can be made more than once.
///
/// A retry layer splits a request into the attempt it sends and what it keeps to make it again. For
/// [`http::Request`] the body is kept as it passes ([`ReplayBody`](crate::layers::retry::ReplayBody)), never read ahead.
/// For a request that is a plain value both are the value:
///
/// ```
/// use hopvine::request::Replay;
///
/// #[derive(Clone)]
/// struct Lookup {
///     key: String,
/// }
///
/// impl Replay for Lookup {
///     type Attempt = Self;
///     type Kept = Self;
///
///     fn once(self) -> Self {
///         self
///     }
///
///     fn split(self, _limit: usize) -> (Self, Self) {
///         (self.clone(), self)
///     }
///
///     fn again(kept: &mut Self, _earlier: u32) -> Option<Self> {
///         Some(kept.clone())
///     }
/// }
/// ```
pub trait Replay: Sized {
    /// What is sent.
    type Attempt;
    /// What is kept to make another attempt. Dropped as soon as there will be none.
    type Kept;

    /// The only attempt: nothing is kept.
    fn once(self) -> Self::Attempt;

    /// The first attempt, and what is kept: of a body at most `limit` bytes.
    fn split(self, limit: usize) -> (Self::Attempt, Self::Kept);

    /// Another attempt, or `None` if what was kept no longer makes one: the body outgrew the limit, or broke. The
    /// attempt before must not be read any further from here on.
    ///
    /// `earlier` attempts may have been seen by a server; tell it, where the protocol has a word for that.
    fn again(kept: &mut Self::Kept, earlier: u32) -> Option<Self::Attempt>;
}
