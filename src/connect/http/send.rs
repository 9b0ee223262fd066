//! One connection, of either version, and what its errors mean.

use std::error::Error as _;

use futures_util::future::Either;
use http::{Request, Response};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use tower::BoxError;

use crate::{Error, ErrorKind};

/// The sending side of a connection.
pub(super) enum Sender<B> {
    Http1(http1::SendRequest<B>),
    Http2(http2::SendRequest<B>),
}

impl<B> Sender<B>
where
    B: Body + Send + 'static,
{
    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_closed(),
            Self::Http2(sender) => sender.is_closed(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    /// Waits until it can take a request; an error says that it never will again.
    pub(super) async fn ready(&mut self) -> Result<(), hyper::Error> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }

    /// Sends; the future no longer needs the sender.
    pub(super) fn send(
        &mut self,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<B>>>> + Send + use<B> {
        match self {
            Self::Http1(sender) => Either::Left(sender.try_send_request(request)),
            Self::Http2(sender) => Either::Right(sender.try_send_request(request)),
        }
    }
}

/// What broke after the request may have been written, and before there was an answer.
pub(super) fn upstream(error: hyper::Error) -> Error {
    let refused = error.source().and_then(|source| source.downcast_ref::<h2::Error>()).is_some_and(surely_never_ran);
    let error = broken(error);
    if refused { error.unsent() } else { error }
}

/// What broke in the body of an answer: whatever the server says, the request ran.
pub(super) fn broken(error: hyper::Error) -> Error {
    Error::new(ErrorKind::Upstream).with_layer("http_client").with_source(error)
}

/// The server said so: it refused the stream, or went away without having looked at it.
fn surely_never_ran(error: &h2::Error) -> bool {
    let reason = error.reason();
    error.is_remote()
        && (reason == Some(h2::Reason::REFUSED_STREAM) || (error.is_go_away() && reason == Some(h2::Reason::NO_ERROR)))
}

/// What kept the request from being written at all.
pub(super) fn not_connected(source: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Connect).with_layer("http_client").with_source(source)
}
