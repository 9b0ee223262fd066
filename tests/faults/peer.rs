//! The server's end of a connection, byte by byte, in either version of HTTP.

use std::io;

use hopvine::connect::http::Version;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::frames::{self, ACK, DATA, END_STREAM, FrameHead, HEADERS, PING, PREFACE, SETTINGS, WINDOW_UPDATE};

pub(crate) type Io = Either<TcpStream, TlsStream<TcpStream>>;

/// What a ping of ours says.
const MARK: &[u8; 8] = b"arrived?";

pub(crate) struct Peer {
    io: Io,
    version: Version,
}

impl Peer {
    /// Ready for the first request.
    pub(crate) async fn new(mut io: Io, version: Version) -> io::Result<Self> {
        if version == Version::Http2 {
            let mut preface = [0; PREFACE.len()];
            io.read_exact(&mut preface).await?;
            assert_eq!(&preface, PREFACE);
            io.write_all(&frames::frame(SETTINGS, 0, 0, &[])).await?;
        }
        Ok(Self { io, version })
    }

    /// Whether there can be another request beside one that is not over.
    pub(crate) fn has_streams(&self) -> bool {
        self.version == Version::Http2
    }

    /// Reads the head of the next request: its stream, and what of it is not read yet. An error when there is none.
    pub(crate) async fn request_head(&mut self) -> io::Result<(u32, Rest)> {
        if self.version == Version::Http2 {
            loop {
                let (head, _) = self.frame().await?;
                if head.kind == HEADERS {
                    let ended = head.flags & END_STREAM != 0;
                    return Ok((head.stream, if ended { Rest::Bytes(0) } else { Rest::Frames }));
                }
            }
        }
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.io.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        Ok((1, Rest::Bytes(length.map_or(0, |length| length.trim().parse().expect("a number")))))
    }

    /// Reads a request to its end.
    pub(crate) async fn rest(&mut self, rest: Rest) -> io::Result<()> {
        match rest {
            Rest::Bytes(length) => {
                let mut body = vec![0; length];
                self.io.read_exact(&mut body).await?;
            }
            Rest::Frames => loop {
                let (head, _) = self.frame().await?;
                if head.kind == DATA && head.flags & END_STREAM != 0 {
                    break;
                }
            },
        }
        Ok(())
    }

    /// The next frame, where those that only want to be acknowledged are.
    async fn frame(&mut self) -> io::Result<(FrameHead, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            self.io.read_exact(&mut head).await?;
            let head = FrameHead::read(head);
            let mut payload = vec![0; head.length];
            self.io.read_exact(&mut payload).await?;
            match head.kind {
                SETTINGS | PING if head.flags & ACK != 0 && payload != MARK => {}
                SETTINGS => self.write(&frames::frame(SETTINGS, ACK, 0, &[])).await?,
                PING if head.flags & ACK == 0 => self.write(&frames::frame(PING, ACK, 0, &payload)).await?,
                DATA if head.length > 0 => {
                    // There is room again for as much, on the connection if not on the stream.
                    let length = u32::try_from(head.length).expect("short");
                    self.write(&frames::frame(WINDOW_UPDATE, 0, 0, &length.to_be_bytes())).await?;
                    return Ok((head, payload));
                }
                _ => return Ok((head, payload)),
            }
        }
    }

    /// Waits until the client has taken what was written. In HTTP/1 there is no way to know, nor a need: what has arrived is read before a reset is.
    pub(crate) async fn delivered(&mut self) -> io::Result<()> {
        if self.version == Version::Http2 {
            self.write(&frames::frame(PING, 0, 0, MARK)).await?;
            while self.frame().await?.0.kind != PING {}
        }
        Ok(())
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await?;
        self.io.flush().await
    }

    /// A head of status 200, as bytes.
    pub(crate) fn head(&self, stream: u32, headers: &[(String, String)]) -> Vec<u8> {
        if self.version == Version::Http2 {
            return frames::head(stream, headers);
        }
        let mut lines = vec!["HTTP/1.1 200 OK".to_owned()];
        lines.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
        format!("{}\r\n\r\n", lines.join("\r\n")).into_bytes()
    }

    /// The same, of a body of this length.
    pub(crate) fn head_of(&self, stream: u32, length: usize) -> Vec<u8> {
        self.head(stream, &[("content-length".to_owned(), length.to_string())])
    }

    /// A part of a body, as bytes.
    pub(crate) fn part(&self, stream: u32, text: &str, last: bool) -> Vec<u8> {
        if self.version == Version::Http2 {
            return frames::frame(DATA, if last { END_STREAM } else { 0 }, stream, text.as_bytes());
        }
        text.as_bytes().to_vec()
    }

    /// A head of status 103, as bytes: the answer is still to come.
    pub(crate) fn interim(&self, stream: u32) -> Vec<u8> {
        if self.version == Version::Http2 {
            return frames::interim(stream);
        }
        b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()
    }

    /// The begin of a response that what comes next makes no sense of.
    pub(crate) fn begun(&self, stream: u32) -> Vec<u8> {
        if self.version == Version::Http2 {
            return [self.head(stream, &[]), self.part(stream, "half of what was", false)].concat();
        }
        let head = self.head(stream, &[("transfer-encoding".to_owned(), "chunked".to_owned())]);
        [&head[..], b"10\r\nhalf of what was\r\n"].concat()
    }

    /// A whole response, as it should be.
    pub(crate) async fn answer(&mut self, stream: u32, text: &str) -> io::Result<()> {
        let whole = [self.head_of(stream, text.len()), self.part(stream, text, true)].concat();
        self.write(&whole).await
    }

    /// Nothing more will be written; what comes is read still.
    pub(crate) async fn half_close(&mut self) -> io::Result<()> {
        self.io.shutdown().await
    }

    /// Dropped from now on, the connection is reset instead of ended.
    pub(crate) fn reset(&self) {
        set_reset(&self.io);
    }
}

/// What of a request has not been read.
pub(crate) enum Rest {
    Bytes(usize),
    /// Frames to come, the last of which says so.
    Frames,
}

fn set_reset(io: &Io) {
    let socket = match io {
        Either::Left(socket) => socket,
        Either::Right(secure) => secure.get_ref().0,
    };
    socket.set_zero_linger().expect("an open socket");
}
