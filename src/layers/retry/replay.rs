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
    Shared {
        shared: Shared<B>,
        generation: u32,
    },
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
        if earlier > 0 && head.headers.get(CONTENT_TYPE).is_some_and(is_grpc) {
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
            Some(Ok(frame)) => Some(self.pass(frame)),
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
    fn pass(&mut self, frame: Frame<B::Data>) -> Result<Frame<Bytes>, Error> {
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
                Err(_) => return Err(Error::new(ErrorKind::Upstream).with_layer("retry")),
            },
        };
        Ok(frame)
    }

    fn keep(&mut self, chunk: &Bytes) {
        if !self.keep || chunk.is_empty() {
            return;
        }
        let to_come = usize::try_from(self.rest.size_hint().lower()).unwrap_or(usize::MAX);
        let total = self.kept_bytes.saturating_add(chunk.len()).saturating_add(to_come);
        let too_many = self.kept.len() > self.limit / CHUNK;
        if total > self.limit || too_many {
            self.keep = false;
            self.kept = VecDeque::new();
            self.position = 0;
        } else {
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
                if state.generation == *generation {
                    state.poll_frame(cx)
                } else {
                    Poll::Ready(Some(Err(superseded())))
                }
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

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Pending,
        Data(Vec<u8>),
        Trailers,
        Break,
    }

    /// A body by script. Panics, as some do, when polled after its end.
    #[derive(Clone, Debug)]
    struct Script {
        steps: VecDeque<Step>,
        exact: bool,
        ended: bool,
    }

    impl Script {
        fn new(steps: Vec<Step>, exact: bool) -> Self {
            Self { steps: steps.into(), exact, ended: false }
        }

        fn bytes(&self) -> Vec<u8> {
            let data = |step: &Step| if let Step::Data(data) = step { data.clone() } else { Vec::new() };
            self.steps.iter().flat_map(data).collect()
        }
    }

    impl Body for Script {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            assert!(!self.ended, "polled after its end");
            let step = self.steps.pop_front();
            self.ended = matches!(step, None | Some(Step::Trailers | Step::Break));
            Poll::Ready(match step {
                Some(Step::Pending) => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Some(Step::Data(data)) => Some(Ok(Frame::data(data.into()))),
                Some(Step::Trailers) => Some(Ok(Frame::trailers(trailers()))),
                Some(Step::Break) => Some(Err(std::io::Error::other("broken"))),
                None => None,
            })
        }

        fn is_end_stream(&self) -> bool {
            self.exact && self.steps.is_empty()
        }

        fn size_hint(&self) -> SizeHint {
            if self.exact { SizeHint::with_exact(self.bytes().len() as u64) } else { SizeHint::new() }
        }
    }

    fn trailers() -> HeaderMap {
        HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("7"))])
    }

    /// What an attempt read of its body.
    #[derive(Debug, Default)]
    struct Read {
        data: Vec<u8>,
        trailers: bool,
        ended: bool,
        broken: bool,
    }

    fn read<B>(body: &mut ReplayBody<B>, polls: usize) -> Read
    where
        B: Body + Unpin,
        B::Error: Into<BoxError>,
    {
        let mut cx = Context::from_waker(Waker::noop());
        let mut read = Read::default();
        for _ in 0..polls {
            let (hint, at_end) = (body.size_hint(), body.is_end_stream());
            let frame = match Pin::new(&mut *body).poll_frame(&mut cx) {
                Poll::Pending => continue,
                Poll::Ready(frame) => frame,
            };
            assert!(frame.is_none() || !at_end, "said it was at its end, and was not");
            match frame {
                None => read.ended = true,
                Some(Err(_)) => read.broken = true,
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        assert!(hint.upper().is_none_or(|most| data.len() as u64 <= most), "more than announced");
                        read.data.extend_from_slice(&data);
                    }
                    Err(frame) => read.trailers = frame.into_trailers().is_ok_and(|map| map == trailers()),
                },
            }
            if read.ended || read.broken {
                break;
            }
        }
        read
    }

    fn request<B: Body + Unpin>(body: B, limit: usize) -> (http::Request<ReplayBody<B>>, KeptRequest<B>) {
        http::Request::post("/").body(body).unwrap().split(limit)
    }

    fn scripts() -> impl Strategy<Value = (Vec<Step>, bool)> {
        let step = prop_oneof![
            1 => Just(Step::Pending),
            4 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Data),
        ];
        let end = prop_oneof![3 => Just(None), 2 => Just(Some(Step::Trailers)), 1 => Just(Some(Step::Break))];
        (prop::collection::vec(step, 1..12), end, any::<bool>()).prop_map(|(mut steps, end, exact)| {
            let exact = exact && end.is_none() && steps.iter().any(|step| matches!(step, Step::Data(_)));
            steps.extend(end);
            (steps, exact)
        })
    }

    proptest! {
        #[test]
        fn each_attempt_reads_the_same_body_as_long_as_it_fits(
            (steps, exact) in scripts(),
            limit in 0..400usize,
            cuts in prop::collection::vec(0..30usize, 1..6),
        ) {
            let script = Script::new(steps.clone(), exact);
            let whole = script.bytes();
            let (first, mut kept) = request(script, limit);
            let mut body = first.into_body();
            for cut in cuts {
                let read = read(&mut body, cut);
                prop_assert!(whole.starts_with(&read.data), "{read:?}");
                if read.ended {
                    prop_assert_eq!(&read.data, &whole);
                    prop_assert_eq!(read.trailers, matches!(steps.last(), Some(Step::Trailers)));
                }

                // By what was taken of the original, and nothing else, another attempt can be made or not.
                let left = lock(kept.body.0.as_ref().unwrap()).rest.steps.len();
                let taken = &steps[..steps.len() - left];
                let chunks: Vec<usize> = taken
                    .iter()
                    .filter_map(|step| if let Step::Data(data) = step { Some(data.len()) } else { None })
                    .filter(|len| *len > 0)
                    .collect();
                let bytes = if exact && !chunks.is_empty() { whole.len() } else { chunks.iter().sum() };
                let fits = bytes <= limit && chunks.len() <= limit / CHUNK + 1;
                let broken = taken.iter().any(|step| matches!(step, Step::Break));
                let held: usize = lock(kept.body.0.as_ref().unwrap()).kept.iter().map(Bytes::len).sum();
                prop_assert!(held <= limit);

                let next = http::Request::again(&mut kept, 1);
                prop_assert_eq!(next.is_some(), fits && !broken);
                let Some(next) = next else { break };
                // The old one is cut off, even where a connection still holds it.
                prop_assert!(self::read(&mut body, 1).broken);
                body = next.into_body();
                if exact {
                    prop_assert_eq!(body.size_hint().exact(), Some(whole.len() as u64));
                }
            }
            // Now no further attempt is wanted: the last one still reads all of it, and nothing is held.
            let shared = kept.body.0.clone().unwrap();
            drop(kept);
            read(&mut body, 100);
            prop_assert!(lock(&shared).kept.is_empty());
        }
    }

    #[test]
    fn an_attempt_goes_on_where_the_one_before_stopped_reading() {
        let script = Script::new(vec![Step::Data(b"ab".into()), Step::Data(b"cd".into()), Step::Trailers], false);
        let (first, mut kept) = request(script, 100);
        assert_eq!(read(&mut first.into_body(), 1).data, b"ab");
        let second = read(&mut http::Request::again(&mut kept, 1).unwrap().into_body(), 10);
        assert_eq!((&*second.data, second.trailers, second.ended), (&b"abcd"[..], true, true));
        let third = read(&mut http::Request::again(&mut kept, 2).unwrap().into_body(), 10);
        assert_eq!((&*third.data, third.trailers, third.ended), (&b"abcd"[..], true, true));
    }

    #[test]
    fn a_body_of_any_length_goes_again_while_none_of_it_was_read() {
        let (first, mut kept) = request(http_body_util::Full::new(Bytes::from(vec![7; 1_000_000])), 10);
        drop(first);
        let mut second = http::Request::again(&mut kept, 0).unwrap().into_body();
        assert_eq!(read(&mut second, 10).data.len(), 1_000_000);
        assert!(http::Request::again(&mut kept, 1).is_none());
    }

    #[test]
    fn an_empty_body_is_kept_for_nothing_and_goes_again_for_ever() {
        let (first, mut kept) = request(http_body_util::Empty::<Bytes>::new(), 10);
        assert!(kept.body.0.is_none() && first.body().is_end_stream());
        for earlier in 0..10 {
            let mut body = http::Request::again(&mut kept, earlier).unwrap().into_body();
            assert_eq!(body.size_hint().exact(), Some(0));
            assert!(read(&mut body, 1).ended);
        }
    }

    #[test]
    fn a_body_in_tiny_chunks_does_not_cost_many_times_its_bytes() {
        let (first, mut kept) = request(Script::new(vec![Step::Data(vec![1]); 3_000], false), 64 * 1024);
        assert_eq!(read(&mut first.into_body(), 4_000).data.len(), 3_000);
        assert!(http::Request::again(&mut kept, 1).is_none());
    }

    #[test]
    fn a_connection_that_waits_for_the_body_is_told_that_it_was_superseded() {
        struct Told(std::sync::atomic::AtomicBool);
        impl Wake for Told {
            fn wake(self: Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let told = Arc::new(Told(false.into()));
        let (_sender, channel) = http_body_util::channel::Channel::<Bytes>::new(1);
        let (first, mut kept) = request(channel, 100);
        let mut body = first.into_body();
        let waker = Waker::from(Arc::clone(&told));
        assert!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker)).is_pending());
        let _second = http::Request::again(&mut kept, 1).unwrap();
        assert!(told.0.load(std::sync::atomic::Ordering::Relaxed));
        assert!(read(&mut body, 1).broken);
    }

    #[test]
    fn the_head_is_the_same_again_and_a_grpc_server_is_told_the_number() {
        let build = |kind: &str| {
            http::Request::put("/a?b=c").version(http::Version::HTTP_2).header(CONTENT_TYPE, kind).extension(7u8)
        };
        let (_, mut kept) = build("text/plain").body(http_body_util::Empty::<Bytes>::new()).unwrap().split(0);
        let again = http::Request::again(&mut kept, 1).unwrap();
        assert_eq!((again.method().as_str(), again.uri().to_string()), ("PUT", "/a?b=c".to_owned()));
        assert_eq!((again.version(), again.extensions().get::<u8>()), (http::Version::HTTP_2, Some(&7)));
        assert_eq!(again.headers().len(), 1);

        let body = http_body_util::Empty::<Bytes>::new();
        let (first, mut kept) = build("application/grpc+proto").body(body).unwrap().split(0);
        let told = |headers: &HeaderMap| {
            headers.get("grpc-previous-rpc-attempts").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(told(first.headers()), None);
        for earlier in 1..=3 {
            let again = http::Request::again(&mut kept, earlier).unwrap();
            assert_eq!(told(again.headers()), Some(earlier.to_string()));
        }
        assert_eq!(told(http::Request::again(&mut kept, 0).unwrap().headers()), None);
    }
}
