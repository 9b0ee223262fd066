use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, request::Parts};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::request::Replay;

impl<B> Replay for Request<B>
where
    B: Body,
{
    type Attempt = Request<ReplayBody<B>>;
    type Kept = KeptRequest<B>;

    fn keep(self, limit: usize) -> (Self::Attempt, KeptRequest<B>) {
        let (head, body) = self.into_parts();
        let slot = (!body.is_end_stream()).then(|| Arc::new(Mutex::new(None)));
        let body = match &slot {
            None => ReplayBody { kind: Kind::Empty },
            Some(slot) => ReplayBody::sharing(Box::new(Memory::new(body, limit)), slot),
        };
        (Request::from_parts(head.clone(), body), KeptRequest { head, slot })
    }

    fn once(self) -> Self::Attempt {
        self.map(|body| ReplayBody { kind: Kind::Plain { body } })
    }
}

/// What is kept of an HTTP request: its head, and a way to what has passed of its body.
pub struct KeptRequest<B> {
    head: Parts,
    /// `None` if it has no body.
    slot: Option<Slot<B>>,
}

/// Where an attempt's body leaves its memory when it is done, or dropped.
type Slot<B> = Arc<Mutex<Option<Box<Memory<B>>>>>;

impl<B: Body> Iterator for KeptRequest<B> {
    type Item = Request<ReplayBody<B>>;

    fn next(&mut self) -> Option<Self::Item> {
        let body = match &self.slot {
            None => ReplayBody { kind: Kind::Empty },
            Some(slot) => {
                // Nobody there: somebody still reads it, as when a server answers before the body has ended.
                let memory = slot.lock().unwrap_or_else(PoisonError::into_inner).take()?;
                if memory.lost {
                    return None;
                }
                ReplayBody::sharing(memory, slot)
            }
        };
        Some(Request::from_parts(self.head.clone(), body))
    }
}

pin_project! {
    /// A request's body that remembers what has passed, up to a limit, so that it can be sent again.
    ///
    /// Nothing is read ahead: chunks are kept as they pass, without a copy. One that outgrows the limit goes on, and
    /// is not sent again. An empty body costs nothing.
    pub struct ReplayBody<B: Body> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProjection]
    enum Kind<B: Body> {
        Empty,
        Plain { #[pin] body: B },
        Shared { reader: Reader<B> },
    }
}

/// Reads what is remembered, and then on from where that ends.
struct Reader<B> {
    /// `None` once it has been left in the slot.
    memory: Option<Box<Memory<B>>>,
    slot: Slot<B>,
    at: usize,
    trailers_sent: bool,
}

/// The rest of a body, and what has passed of it.
struct Memory<B> {
    rest: Pin<Box<B>>,
    ended: bool,
    chunks: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    /// Bytes that may still be kept.
    room: usize,
    /// It has outgrown the limit, or broken: it cannot be sent again.
    lost: bool,
}

impl<B: Body> ReplayBody<B> {
    fn sharing(memory: Box<Memory<B>>, slot: &Slot<B>) -> Self {
        let reader = Reader { memory: Some(memory), slot: Arc::clone(slot), at: 0, trailers_sent: false };
        Self { kind: Kind::Shared { reader } }
    }
}

impl<B> Memory<B> {
    fn new(body: B, limit: usize) -> Self {
        Self { rest: Box::pin(body), ended: false, chunks: Vec::new(), trailers: None, room: limit, lost: false }
    }

    fn keep(&mut self, chunk: &Bytes) {
        if self.lost {
            return;
        }
        if let Some(room) = self.room.checked_sub(chunk.len()) {
            self.room = room;
            self.chunks.push(chunk.clone());
        } else {
            self.lost = true;
            self.chunks = Vec::new();
        }
    }
}

impl<B: Body> Reader<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(memory) = &mut self.memory else { return Poll::Ready(None) };
        if let Some(chunk) = memory.chunks.get(self.at) {
            self.at += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if memory.ended {
            let trailers = memory.trailers.clone().filter(|_| !self.trailers_sent);
            self.trailers_sent = true;
            if trailers.is_none() {
                self.leave();
            }
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let frame = match ready!(memory.rest.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                memory.lost = true;
                memory.ended = true;
                return Poll::Ready(Some(Err(error)));
            }
            None => {
                memory.ended = true;
                self.leave();
                return Poll::Ready(None);
            }
        };
        let frame = frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
        if let Some(chunk) = frame.data_ref() {
            memory.keep(chunk);
            self.at = memory.chunks.len();
        } else if let Some(trailers) = frame.trailers_ref() {
            memory.trailers = Some(trailers.clone());
            memory.ended = true;
            self.trailers_sent = true;
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.memory.as_ref().is_none_or(|memory| {
            let read = memory.ended && self.at == memory.chunks.len();
            read && (self.trailers_sent || memory.trailers.is_none())
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(memory) = &self.memory else { return SizeHint::with_exact(0) };
        let kept: usize = memory.chunks[self.at..].iter().map(Bytes::len).sum();
        let rest = if memory.ended { SizeHint::with_exact(0) } else { memory.rest.size_hint() };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + kept as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + kept as u64);
        }
        hint
    }
}

impl<B> Reader<B> {
    /// Leaves the memory for the next attempt.
    fn leave(&mut self) {
        if let Some(memory) = self.memory.take() {
            *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory);
        }
    }
}

impl<B> Drop for Reader<B> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<B: Body> Body for ReplayBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProjection::Empty => Poll::Ready(None),
            KindProjection::Plain { body } => {
                let whole = |frame: Frame<B::Data>| frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
                body.poll_frame(cx).map_ok(whole)
            }
            KindProjection::Shared { reader } => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Plain { body } => body.is_end_stream(),
            Kind::Shared { reader } => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Plain { body } => body.size_hint(),
            Kind::Shared { reader } => reader.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("size", &self.size_hint()).finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for KeptRequest<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptRequest").field("head", &self.head).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{FutureExt as _, stream};
    use http_body_util::{BodyExt as _, Empty, StreamBody};
    use proptest::prelude::*;

    use super::*;

    type Frames = Vec<Result<Frame<Bytes>, Infallible>>;

    fn request(chunks: &[Vec<u8>], trailers: bool) -> Request<impl Body<Data = Bytes, Error = Infallible> + use<>> {
        let mut frames: Frames = chunks.iter().map(|chunk| Ok(Frame::data(Bytes::from(chunk.clone())))).collect();
        if trailers {
            let mut map = HeaderMap::new();
            map.insert("sum", "7".parse().unwrap());
            frames.push(Ok(Frame::trailers(map)));
        }
        Request::new(StreamBody::new(stream::iter(frames)))
    }

    /// Reads at most `frames` frames: their bytes, and whether trailers came.
    fn read<B: Body<Data = Bytes, Error = Infallible>>(body: &mut ReplayBody<B>, frames: usize) -> (Vec<u8>, bool) {
        let (mut bytes, mut trailers) = (Vec::new(), false);
        let mut body = std::pin::pin!(body);
        for _ in 0..frames {
            match std::future::poll_fn(|cx| {
                // Only ever moved as a whole by this test, between polls of a body that is `Unpin` for being boxed inside.
                body.as_mut().get_mut().kind_unpin().poll_frame(cx)
            })
            .now_or_never()
            {
                Some(Some(Ok(frame))) if frame.is_trailers() => trailers = true,
                Some(Some(Ok(frame))) => bytes.extend_from_slice(&frame.into_data().unwrap()),
                _ => break,
            }
        }
        (bytes, trailers)
    }

    impl<B: Body> ReplayBody<B> {
        fn kind_unpin(&mut self) -> &mut Reader<B> {
            match &mut self.kind {
                Kind::Shared { reader } => reader,
                _ => panic!("not a shared body"),
            }
        }
    }

    proptest! {
        #[test]
        fn a_second_attempt_sends_what_the_first_did(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 1..10),
            trailers in any::<bool>(),
            cuts in prop::collection::vec(0usize..12, 1..5),
            limit in 0usize..200,
        ) {
            let whole: Vec<u8> = chunks.concat();
            let (first, mut kept) = request(&chunks, trailers).keep(limit);
            let mut attempt = Some(first);
            let mut passed = 0;
            for cut in cuts {
                let Some(request) = attempt.take() else { break };
                let mut body = request.into_body();
                let (bytes, _) = read(&mut body, cut);
                prop_assert_eq!(&bytes[..], &whole[..bytes.len()]);
                passed = passed.max(bytes.len());
                drop(body);
                attempt = kept.next();
                prop_assert_eq!(attempt.is_some(), passed <= limit);
            }
            if let Some(request) = attempt {
                let (bytes, came) = read(&mut request.into_body(), 100);
                prop_assert_eq!(bytes, whole);
                prop_assert_eq!(came, trailers);
            }
        }
    }

    #[test]
    fn a_body_still_being_read_is_not_sent_twice() {
        let (first, mut kept) = request(&[b"abc".to_vec()], false).keep(64);
        assert!(kept.next().is_none());
        drop(first);
        assert!(kept.next().is_some());
    }

    #[test]
    fn an_empty_body_and_the_head_are_sent_again() {
        let request = Request::put("/a").header("x", "1").body(Empty::<Bytes>::new()).unwrap();
        let (first, mut kept) = request.keep(64);
        assert!(first.body().is_end_stream());
        let second = kept.next().unwrap();
        assert_eq!((second.method().as_str(), second.uri().path()), ("PUT", "/a"));
        assert_eq!(second.headers()["x"], "1");
        assert!(second.into_body().collect().now_or_never().unwrap().unwrap().to_bytes().is_empty());
    }
}
