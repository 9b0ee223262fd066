//! What a server does wrong.

use std::{io, time::Duration};

use tokio::time::Instant;

use super::{
    frames::{self, INTERNAL_ERROR, NO_ERROR, REFUSED_STREAM},
    peer::Peer,
    server::Shared,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    // Before there is a connection, or a request on it.
    /// Nobody listens.
    Refuses,
    /// Nobody accepts, and the kernel keeps no more connections for later.
    BacklogFull,
    /// The connection is reset as soon as it is accepted.
    ResetsAtOnce,
    /// TLS: the certificate bears another name.
    WrongName,
    /// TLS: the certificate is no longer valid.
    Expired,
    /// TLS: the certificate is not valid yet.
    NotYetValid,
    /// TLS: nobody we know signed the certificate.
    UnknownIssuer,
    /// TLS: the handshake is never answered.
    SilentHandshake,
    /// TLS: it is answered in the clear.
    PlainText,

    // After the request has been read to its end.
    ResetsBeforeAByte,
    ResetsInTheHead,
    ResetsInTheBody,
    /// The writing side is closed, as in a process that ends; reading goes on.
    EndsBeforeAByte,
    EndsInTheHead,
    EndsInTheBody,
    /// A body of no announced length, and the connection is reset.
    ResetsWithoutLength,
    /// The same, and it ends.
    EndsWithoutLength,
    /// A whole response, after which the connection ends without a word of it.
    AnswersAndEnds,
    /// The same by a reset.
    AnswersAndResets,
    NeverAnswers,
    /// Nor does it read: what there is of the request beside its head.
    ReadsNothing,
    /// It answers, and reads nothing.
    AnswersUnread,
    /// One byte now and then, without end.
    TricklesTheHead,
    TricklesTheBody,
    /// Answers that the answer is still to come, without end.
    PutsOff,
    Garbage,
    GarbageInTheBody,
    ManyHeaders,
    GiantHeader,

    // HTTP/1 alone.
    /// A whole response that says that the connection ends with it, as it does.
    SaysClose,
    /// The same, and the connection does not end.
    SaysCloseAndStays,
    /// One response too many.
    AnswersTwice,

    // HTTP/2 alone.
    /// It took the stream, and does not finish it.
    GoesAwayAbove,
    /// The same, with a reason that is an error.
    FailsAbove,
    /// It took the stream, and finishes it.
    GoesAwayAndFinishes,
    /// It never looked at the stream.
    GoesAwayBelow,
    /// The same, with a reason that is an error.
    FailsBelow,
    RefusesTheStream,
    /// It says so after it has answered, which is a lie.
    RefusesTheStreamLate,
    ResetsTheStream,
    ResetsTheStreamInTheBody,
    /// Nothing of the connection is read or answered any more, not even a ping.
    Freezes,
    /// It answers in HTTP/1.
    SpeaksHttp1,
}

/// Between two drops of a trickle.
const PACE: Duration = Duration::from_millis(5);

impl Fault {
    /// Of the certificate, or of the handshake.
    pub(crate) fn is_of_tls(self) -> bool {
        use Fault::{Expired, NotYetValid, PlainText, SilentHandshake, UnknownIssuer, WrongName};
        matches!(self, WrongName | Expired | NotYetValid | UnknownIssuer | SilentHandshake | PlainText)
    }

    /// Of the way to a connection; what is under way on one that is open does not feel it.
    pub(crate) fn is_of_the_door(self) -> bool {
        self.is_of_tls() || matches!(self, Self::Refuses | Self::BacklogFull | Self::ResetsAtOnce)
    }

    /// The caller's clock ends it, nothing else does.
    pub(crate) fn is_slow(self) -> bool {
        matches!(self, Self::NeverAnswers | Self::TricklesTheHead | Self::PutsOff | Self::Freezes)
    }

    /// The clock of connections ends it.
    pub(crate) fn is_timed(self) -> bool {
        matches!(self, Self::BacklogFull | Self::SilentHandshake)
    }

    /// The connection ends after a good answer: until it has, it looks as good as any.
    pub(crate) fn ends_unheard(self) -> bool {
        matches!(self, Self::AnswersAndEnds | Self::AnswersAndResets)
    }

    /// The body of the request is not read.
    pub(crate) fn leaves_unread(self) -> bool {
        matches!(self, Self::ReadsNothing | Self::AnswersUnread)
    }

    /// The request was not, and will not be, worked at.
    fn leaves_it(self) -> bool {
        matches!(self, Self::GoesAwayBelow | Self::FailsBelow | Self::RefusesTheStream | Self::SpeaksHttp1)
    }

    /// Does it, to a request that has been read. `false` where the connection ends with it.
    pub(crate) async fn commit(self, peer: &mut Peer, stream: u32, shared: &Shared) -> io::Result<bool> {
        if !self.leaves_it() {
            shared.run();
        }
        peer.write(&self.words(peer, stream)).await?;
        match self {
            Self::EndsBeforeAByte | Self::EndsInTheHead | Self::EndsInTheBody | Self::EndsWithoutLength => {
                peer.half_close().await?;
            }
            Self::ResetsBeforeAByte | Self::ResetsInTheHead | Self::ResetsWithoutLength => {
                peer.reset();
                return Ok(false);
            }
            Self::ResetsInTheBody | Self::AnswersAndResets => {
                peer.delivered().await?;
                peer.reset();
                return Ok(false);
            }
            Self::AnswersAndEnds => {
                peer.delivered().await?;
                return Ok(false);
            }
            Self::SaysClose | Self::GoesAwayAbove | Self::FailsAbove => return Ok(false),
            Self::TricklesTheHead | Self::TricklesTheBody | Self::PutsOff => {
                let mut drops = self.drops(peer, stream);
                while shared.has(self) {
                    peer.write(&drops.next().expect("more than anybody waits for")).await?;
                    pause().await;
                }
                if self == Self::TricklesTheHead {
                    peer.write(&drops.flatten().collect::<Vec<_>>()).await?;
                }
            }
            Self::ReadsNothing | Self::AnswersUnread => {
                shared.last(self).await;
                return Ok(peer.has_streams());
            }
            Self::Freezes => std::future::pending().await,
            _ => {}
        }
        Ok(true)
    }

    /// What is written at once.
    fn words(self, peer: &Peer, stream: u32) -> Vec<u8> {
        let head = peer.head_of(stream, 100);
        let in_the_body = [head.clone(), peer.part(stream, "half of what was", false)].concat();
        let whole = [peer.head_of(stream, 4), peer.part(stream, "good", true)].concat();
        let below = stream.saturating_sub(2);
        match self {
            Self::ResetsInTheHead | Self::EndsInTheHead => head[..head.len() / 2].to_vec(),
            Self::ResetsInTheBody | Self::EndsInTheBody => in_the_body,
            Self::ResetsWithoutLength | Self::EndsWithoutLength => {
                [peer.head(stream, &[]), peer.part(stream, "good", false)].concat()
            }
            Self::AnswersAndEnds | Self::AnswersAndResets | Self::AnswersUnread => whole,
            Self::AnswersTwice => [whole, peer.head_of(stream, 6), b"not me".to_vec()].concat(),
            Self::SaysClose | Self::SaysCloseAndStays => {
                let headers = [("connection", "close"), ("content-length", "4")];
                let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
                [peer.head(stream, &headers), peer.part(stream, "good", true)].concat()
            }
            Self::TricklesTheBody => peer.head_of(stream, usize::MAX >> 16),
            Self::Garbage => vec![0xff; 100],
            Self::GarbageInTheBody => [peer.begun(stream), vec![0xff; 100]].concat(),
            Self::ManyHeaders => {
                let headers: Vec<_> = (0..2000).map(|number| (format!("x-{number}"), String::new())).collect();
                peer.head(stream, &headers)
            }
            Self::GiantHeader => peer.head(stream, &[("x".to_owned(), "a".repeat(200_000))]),
            Self::GoesAwayAbove => frames::go_away(stream, NO_ERROR),
            Self::FailsAbove => frames::go_away(stream, INTERNAL_ERROR),
            Self::GoesAwayAndFinishes => [frames::go_away(stream, NO_ERROR), whole].concat(),
            Self::GoesAwayBelow => frames::go_away(below, NO_ERROR),
            Self::FailsBelow => frames::go_away(below, INTERNAL_ERROR),
            Self::RefusesTheStream => frames::reset(stream, REFUSED_STREAM),
            Self::RefusesTheStreamLate => [in_the_body, frames::reset(stream, REFUSED_STREAM)].concat(),
            Self::ResetsTheStream => frames::reset(stream, INTERNAL_ERROR),
            Self::ResetsTheStreamInTheBody => [in_the_body, frames::reset(stream, INTERNAL_ERROR)].concat(),
            Self::SpeaksHttp1 => b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec(),
            _ => Vec::new(),
        }
    }

    /// What is written one after the other.
    fn drops(self, peer: &Peer, stream: u32) -> Box<dyn Iterator<Item = Vec<u8>> + Send> {
        match self {
            Self::TricklesTheHead => {
                // As long a header as a frame may carry.
                let head = peer.head(stream, &[("x".to_owned(), "a".repeat(16_000))]);
                Box::new(head.into_iter().map(|byte| vec![byte]))
            }
            Self::TricklesTheBody => Box::new(std::iter::repeat(peer.part(stream, "x", false))),
            _ => Box::new(std::iter::repeat(peer.interim(stream))),
        }
    }
}

/// Between two drops.
pub(crate) async fn pause() {
    tokio::time::sleep_until(Instant::now() + PACE).await;
}
