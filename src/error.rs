//! The one error of every layer: what happened, where, and what is known about the request.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use tower::BoxError;

/// What a layer of ours answers instead of a response.
///
/// One word wide. A foreign layer's error becomes [`ErrorKind::Upstream`] with the original as its
/// [`source`](StdError::source); an error of ours that passes through a foreign layer is found again, so errors do not nest.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    layer: Option<&'static str>,
    service: Option<Arc<str>>,
    endpoint: Option<Arc<str>>,
    attempts: u32,
    retry_after: Option<Duration>,
    unsent: bool,
    source: Option<BoxError>,
}

/// What happened. New kinds come with new layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The circuit breaker refuses calls.
    CircuitOpen,
    /// The bulkhead has no free place.
    BulkheadFull,
    /// A rate limit has been reached.
    RateLimited,
    /// The directory knows no service of this name.
    NoService,
    /// The service has no endpoint that takes calls, or none became ready within the wait.
    NoEndpoint,
    /// No connection to the endpoint: refused, unreachable, TLS or name resolution failed.
    Connect,
    /// One attempt took longer than it may.
    AttemptTimeout,
    /// The call's deadline has passed.
    DeadlineExceeded,
    /// The connection broke, or a layer or service inside answered with an error of its own.
    Upstream,
}

impl Error {
    /// An error of this kind, about nothing in particular yet.
    pub fn new(kind: ErrorKind) -> Self {
        let unsent = matches!(
            kind,
            ErrorKind::CircuitOpen
                | ErrorKind::BulkheadFull
                | ErrorKind::RateLimited
                | ErrorKind::NoService
                | ErrorKind::NoEndpoint
                | ErrorKind::Connect
        );
        Self(Box::new(Inner {
            kind,
            layer: None,
            service: None,
            endpoint: None,
            attempts: 0,
            retry_after: None,
            unsent,
            source: None,
        }))
    }

    /// Any error as ours.
    ///
    /// An `Error` is handed back as it is. One that a foreign error carries as a source lends it its facts. A
    /// timeout of [`tower::timeout`] is an [`ErrorKind::AttemptTimeout`]; everything else is [`ErrorKind::Upstream`].
    pub fn from_any(error: impl Into<BoxError>) -> Self {
        let error: BoxError = match error.into().downcast::<Self>() {
            Ok(ours) => return *ours,
            Err(foreign) => foreign,
        };
        let mut wrapped = match Self::find(&*error) {
            Some(inside) => inside.facts(),
            None if error.is::<tower::timeout::error::Elapsed>() => Self::new(ErrorKind::AttemptTimeout),
            None => Self::new(ErrorKind::Upstream),
        };
        wrapped.0.source = Some(error);
        wrapped
    }

    /// The first error of ours in a chain of sources, `error` itself included.
    pub fn find<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(ours) = error.downcast_ref::<Self>() {
                return Some(ours);
            }
            // An `io::Error` skips what it carries, and names the source of that as its own.
            let carried = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            next = carried.map_or_else(|| error.source(), |carried| Some(carried as _));
        }
        None
    }

    /// The same facts without the source.
    fn facts(&self) -> Self {
        Self(Box::new(Inner {
            service: self.0.service.clone(),
            endpoint: self.0.endpoint.clone(),
            source: None,
            ..*self.0
        }))
    }

    /// Names the layer that made this error, if none is named yet.
    #[must_use]
    pub fn with_layer(mut self, layer: &'static str) -> Self {
        self.0.layer.get_or_insert(layer);
        self
    }

    /// Names the service (or command) it is about, if none is named yet.
    #[must_use]
    pub fn with_service(mut self, service: Arc<str>) -> Self {
        self.0.service.get_or_insert(service);
        self
    }

    /// Names the endpoint it is about, if none is named yet.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: Arc<str>) -> Self {
        self.0.endpoint.get_or_insert(endpoint);
        self
    }

    /// Says how many attempts were made.
    #[must_use]
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// Says when it is worth asking again.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Keeps what caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// States that the request surely never ran at a server (R5: it may be sent again, whatever its method).
    #[must_use]
    pub fn unsent(mut self) -> Self {
        self.0.unsent = true;
        self
    }

    /// What happened.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The layer that made this error.
    pub fn layer(&self) -> Option<&'static str> {
        self.0.layer
    }

    /// The service, or the command, it is about.
    pub fn service(&self) -> Option<&str> {
        self.0.service.as_deref()
    }

    /// The endpoint of the last attempt.
    pub fn endpoint(&self) -> Option<&str> {
        self.0.endpoint.as_deref()
    }

    /// How many attempts the call made; 0 where nobody counted.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// When it is worth asking again, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether time ran out, of one attempt or of the call.
    pub fn is_timeout(&self) -> bool {
        matches!(self.0.kind, ErrorKind::AttemptTimeout | ErrorKind::DeadlineExceeded)
    }

    /// Whether a layer on this side refused the call: it says nothing about any endpoint, and no server saw it.
    pub fn is_rejected(&self) -> bool {
        matches!(
            self.0.kind,
            ErrorKind::CircuitOpen
                | ErrorKind::BulkheadFull
                | ErrorKind::RateLimited
                | ErrorKind::NoService
                | ErrorKind::NoEndpoint
        )
    }

    /// Whether the request surely never ran at a server: refused here, no connection, or never written to one.
    pub fn is_unsent(&self) -> bool {
        self.0.unsent
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("layer", &self.0.layer)
            .field("service", &self.0.service)
            .field("endpoint", &self.0.endpoint)
            .field("attempts", &self.0.attempts)
            .field("retry_after", &self.0.retry_after)
            .field("unsent", &self.0.unsent)
            .field("source", &self.0.source)
            .finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0.kind {
            ErrorKind::CircuitOpen => "circuit open",
            ErrorKind::BulkheadFull => "bulkhead full",
            ErrorKind::RateLimited => "rate limited",
            ErrorKind::NoService => "no such service",
            ErrorKind::NoEndpoint => "no endpoint available",
            ErrorKind::Connect => "connection failed",
            ErrorKind::AttemptTimeout => "attempt timed out",
            ErrorKind::DeadlineExceeded => "deadline exceeded",
            ErrorKind::Upstream => "upstream error",
        })?;
        if let Some(service) = &self.0.service {
            write!(f, ", service {service}")?;
        }
        if let Some(endpoint) = &self.0.endpoint {
            write!(f, ", endpoint {endpoint}")?;
        }
        if self.0.attempts > 1 {
            write!(f, ", after {} attempts", self.0.attempts)?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Foreign(Error);

    impl fmt::Display for Foreign {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a layer of somebody else")
        }
    }

    impl StdError for Foreign {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn one_word() {
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }

    #[test]
    fn errors_do_not_nest() {
        let boxed: BoxError = Error::new(ErrorKind::Connect).with_endpoint("a".into()).into();
        let error = Error::from_any(boxed);
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert!(error.source().is_none());
    }

    #[test]
    fn a_foreign_layer_in_between_loses_nothing() {
        let inside = Error::new(ErrorKind::NoEndpoint).with_service("catalog".into()).with_attempts(2);
        let error = Error::from_any(Foreign(inside));
        assert_eq!((error.kind(), error.service(), error.attempts()), (ErrorKind::NoEndpoint, Some("catalog"), 2));
        assert!(error.is_rejected() && error.is_unsent());
        assert!(error.source().unwrap().is::<Foreign>());
    }
}
