//! A request body that can be sent again: what an attempt reads is kept as it passes, up to a bound.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE, request::Parts};
use http_body::{Body, Frame, SizeHint};
use tower::BoxError;

use crate::{Error, ErrorKind, request::Replay};

/// What a kept chunk stands for at least, so that a body in very small chunks does not cost many times its bytes.
const CHUNK: usize = 64;

/// The body of an attempt of an [`http::Request`].
///
/// An empty body costs nothing. Of any other one, chunks are kept as they pass on (without a copy if they are [`Bytes`]).
/// When they outgrow the limit, or say at the first chunk that they will, the copy is dropped and the body streams on,
/// not to be sent again. A body of which nothing was read yet can be sent again whatever its length. The next attempt
/// reads what was kept, then the rest of the original, its trailers too.
///
/// The limit counts bytes, and allows one chunk for each 64 of them.
///
/// The body of an attempt that was superseded ends with an error, even if a connection still holds it. Once the call
/// has its response nothing more is kept.
pub struct ReplayBody<B>(Source<B>);

enum Source<B> {
    Empty,
    /// Sent once.
    Once(B),
    /// Reads the shared body, as long as its generation is the current one.
    Shared { shared: Shared<B>, generation: u32 },
}

type Shared<B> = Arc<Mutex<State<B>>>;

/// The original body and what was read of it. Invariant: only the reader of `generation` touches it.
struct State<B> {
    rest: B,
    end: End,
    /// Chunks read so far, all of them while `keep`; else those the reader has still to read.
    kept: VecDeque<Bytes>,
    kept_bytes: usize,
    limit: usize,
    keep: bool,
    generation: u32,
    /// The reader's next chunk in `kept`.
    position: usize,
    trailers_read: bool,
    waker: Option<Waker>,
}

/// How the original body ended.
enum End {
    NotYet,
    Ended(Option<HeaderMap>),
    Broken,
}

/// What is kept of an [`http::Request`] to make it again.
pub struct KeptRequest<B> {
    head: Parts,
    body: KeptBody<B>,
}

struct KeptBody<B>(Option<Shared<B>>);

/// Head and body are kept: the head as a copy (one of the header map), the body as [`ReplayBody`] says.
///
/// A gRPC request made again tells the server how many attempts it may have seen before (`grpc-previous-rpc-attempts`).
impl<B: Body + Unpin> Replay for http::Request<B> {
    type Attempt = http::Request<ReplayBody<B>>;
    type Kept = KeptRequest<B>;

    fn once(self) -> Self::Attempt {
        self.map(ReplayBody::once)
    }

    fn split(self, limit: usize) -> (Self::Attempt, Self::Kept) {
        let (head, body) = self.into_parts();
        let (body, kept) = ReplayBody::split(body, limit);
        let kept = KeptRequest { head: head.clone(), body: kept };
        (http::Request::from_parts(head, body), kept)
    }

    fn again(kept: &mut Self::Kept, earlier: u32) -> Option<Self::Attempt> {
        let body = kept.body.again()?;
        let mut head = kept.head.clone();
        let is_grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
        if head.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
            head.headers.insert("grpc-previous-rpc-attempts", earlier.into());
        }
        Some(http::Request::from_parts(head, body))
    }
}

impl<B: Body + Unpin> ReplayBody<B> {
    fn once(body: B) -> Self {
        Self(if body.is_end_stream() { Source::Empty } else { Source::Once(body) })
    }

    fn split(body: B, limit: usize) -> (Self, KeptBody<B>) {
        if body.is_end_stream() {
            return (Self(Source::Empty), KeptBody(None));
        }
        let shared = Arc::new(Mutex::new(State {
            rest: body,
            end: End::NotYet,
            kept: VecDeque::new(),
            kept_bytes: 0,
            limit,
            keep: true,
            generation: 0,
            position: 0,
            trailers_read: false,
            waker: None,
        }));
        (Self(Source::Shared { shared: Arc::clone(&shared), generation: 0 }), KeptBody(Some(shared)))
    }
}

impl<B> KeptBody<B> {
    /// The body of another attempt, from its beginning; the one before ends with an error from here on.
    fn again(&self) -> Option<ReplayBody<B>> {
        let Some(shared) = &self.0 else {
            return Some(ReplayBody(Source::Empty));
        };
        let mut state = lock(shared);
        if !state.keep || matches!(state.end, End::Broken) {
            return None;
        }
        state.generation += 1;
        state.position = 0;
        state.trailers_read = false;
        let (generation, superseded) = (state.generation, state.waker.take());
        drop(state);
        if let Some(waker) = superseded {
            waker.wake();
        }
        Some(ReplayBody(Source::Shared { shared: Arc::clone(shared), generation }))
    }
}

impl<B> Drop for KeptBody<B> {
    /// There will be no further attempt: what was read is forgotten, and nothing more is kept.
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            lock(shared).forget();
        }
    }
}

impl<B> State<B> {
    fn forget(&mut self) {
        self.keep = false;
        self.kept.drain(..self.position);
        self.position = 0;
    }

    /// The next chunk of what was kept.
    fn replay(&mut self) -> Option<Bytes> {
        if !self.keep {
            return self.kept.pop_front();
        }
        let chunk = self.kept.get(self.position)?.clone();
        self.position += 1;
        Some(chunk)
    }

    fn unread(&self) -> u64 {
        self.kept.range(self.position..).map(|chunk| chunk.len() as u64).sum()
    }
}

impl<B> State<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(chunk) = self.replay() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match &self.end {
            End::NotYet => {}
            End::Ended(Some(trailers)) if !self.trailers_read => {
                self.trailers_read = true;
                return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
            }
            // Not polled again once it ended: some bodies panic.
            End::Ended(_) | End::Broken => return Poll::Ready(None),
        }
        let Poll::Ready(next) = Pin::new(&mut self.rest).poll_frame(cx) else {
            self.wake_when_superseded(cx);
            return Poll::Pending;
        };
        Poll::Ready(match next {
            Some(Ok(frame)) => self.pass(frame),
            Some(Err(error)) => {
                self.end = End::Broken;
                Some(Err(Error::from_any(error)))
            }
            None => {
                self.end = End::Ended(None);
                None
            }
        })
    }

    /// Passes a frame of the original on, and keeps it if there is room.
    fn pass(&mut self, frame: Frame<B::Data>) -> Option<Result<Frame<Bytes>, Error>> {
        let frame = match frame.into_data() {
            Ok(mut data) => {
                let chunk = data.copy_to_bytes(data.remaining());
                self.keep(&chunk);
                Frame::data(chunk)
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    self.end = End::Ended(self.keep.then(|| trailers.clone()));
                    self.trailers_read = true;
                    Frame::trailers(trailers)
                }
                // `http_body` has no third kind of frame; one that came later could not be kept.
                Err(_) => return Some(Err(Error::new(ErrorKind::Upstream).with_layer("retry"))),
            },
        };
        Some(Ok(frame))
    }

    fn keep(&mut self, chunk: &Bytes) {
        if !self.keep {
            return;
        }
        let to_come = usize::try_from(self.rest.size_hint().lower()).unwrap_or(usize::MAX);
        let total = self.kept_bytes.saturating_add(chunk.len()).saturating_add(to_come);
        let too_many = self.kept.len() > self.limit / CHUNK;
        if total > self.limit || too_many {
            self.keep = false;
            self.kept = VecDeque::new();
            self.position = 0;
        } else if !chunk.is_empty() {
            self.kept_bytes += chunk.len();
            self.kept.push_back(chunk.clone());
            self.position += 1;
        }
    }

    fn wake_when_superseded(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    fn is_end_stream(&self) -> bool {
        let ended = match &self.end {
            End::NotYet => self.rest.is_end_stream(),
            End::Ended(trailers) => trailers.is_none() || self.trailers_read,
            End::Broken => true,
        };
        ended && self.position == self.kept.len()
    }

    fn size_hint(&self) -> SizeHint {
        let unread = self.unread();
        let rest = match self.end {
            End::NotYet => self.rest.size_hint(),
            End::Ended(_) | End::Broken => SizeHint::with_exact(0),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(unread));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(unread));
        }
        hint
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.get_mut().0 {
            Source::Empty => Poll::Ready(None),
            Source::Once(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                let to_bytes = |mut data: B::Data| data.copy_to_bytes(data.remaining());
                Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(to_bytes)).map_err(Error::from_any)))
            }
            Source::Shared { shared, generation } => {
                let mut state = lock(shared);
                if state.generation == *generation { state.poll_frame(cx) } else { Poll::Ready(Some(Err(superseded()))) }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Empty => true,
            Source::Once(body) => body.is_end_stream(),
            Source::Shared { shared, generation } => {
                let state = lock(shared);
                state.generation == *generation && state.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Empty => SizeHint::with_exact(0),
            Source::Once(body) => body.size_hint(),
            Source::Shared { shared, generation } => {
                let state = lock(shared);
                if state.generation == *generation { state.size_hint() } else { SizeHint::new() }
            }
        }
    }
}

fn superseded() -> Error {
    Error::new(ErrorKind::Upstream).with_layer("retry").with_source("a later attempt sends this body")
}

fn lock<B>(shared: &Mutex<State<B>>) -> MutexGuard<'_, State<B>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.0 {
            Source::Empty => "Empty",
            Source::Once(_) => "Once",
            Source::Shared { .. } => "Shared",
        };
        f.debug_tuple("ReplayBody").field(&format_args!("{kind}")).finish()
    }
}

impl<B> fmt::Debug for KeptRequest<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptRequest").field("head", &self.head).finish_non_exhaustive()
    }
}
