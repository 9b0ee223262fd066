use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

use super::send::broken;
use crate::{Error, context};

/// Where a connection goes back to.
pub(super) trait Release: Send + Sync {
    fn release(&self, connection: u64, reusable: bool);
}

/// A connection, or one stream of it, in somebody's hands; goes back when dropped.
pub(super) struct Lease {
    pool: Arc<dyn Release>,
    connection: u64,
    /// Whether nothing of this use is left on the connection: from before it is written to, and again when the response has been read.
    pub(super) reusable: bool,
}

impl Lease {
    pub(super) fn new(pool: Arc<dyn Release>, connection: u64) -> Self {
        Self { pool, connection, reusable: true }
    }

    pub(super) fn connection(&self) -> u64 {
        self.connection
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.reusable {
            context::tell_written(true);
        }
        self.pool.release(self.connection, self.reusable);
    }
}

/// The body of a response of [`HttpClient`](super::HttpClient). Its connection is free again when it has ended.
///
/// Also made of a text or of bytes, for a fallback: `ClientBody::from("nothing today")`.
#[derive(Default)]
pub struct ClientBody {
    kind: Kind,
}

enum Kind {
    Incoming { body: Incoming, lease: Option<Lease> },
    Whole(Full<Bytes>),
}

impl Default for Kind {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl ClientBody {
    pub(super) fn incoming(body: Incoming, mut lease: Lease) -> Self {
        let lease = if body.is_end_stream() {
            lease.reusable = true;
            None
        } else {
            Some(lease)
        };
        Self { kind: Kind::Incoming { body, lease } }
    }
}

impl<T: Into<Bytes>> From<T> for ClientBody {
    fn from(whole: T) -> Self {
        Self { kind: Kind::Whole(Full::new(whole.into())) }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.kind {
            Kind::Incoming { body, lease } => {
                let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
                let ended = match &frame {
                    None => true,
                    Some(Ok(_)) => body.is_end_stream(),
                    Some(Err(_)) => {
                        *lease = None;
                        false
                    }
                };
                if ended && let Some(mut lease) = lease.take() {
                    lease.reusable = true;
                }
                Poll::Ready(frame.map(|frame| frame.map_err(broken)))
            }
            Kind::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Incoming { body, .. } => body.is_end_stream(),
            Kind::Whole(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Incoming { body, .. } => body.size_hint(),
            Kind::Whole(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for ClientBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBody").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}
