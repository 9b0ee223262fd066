//! The stream of a server's changes: `/hopvine/v1/watch`, one JSON document a line, an empty line each 5 s.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{StatusCode, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::transport::{Failure, Transport};
use crate::connect::http::ClientBody;

/// A server that says nothing for so long is gone: three empty lines have not come.
const SILENCE: Duration = Duration::from_secs(15);

/// An open stream.
#[derive(Debug)]
pub(super) struct Watch {
    server: usize,
    body: ClientBody,
    buffer: BytesMut,
    /// Bytes of the buffer that are known to hold no end of a line.
    searched: usize,
    heard: Instant,
    /// The first line's: of the whole registry when the stream began.
    hash: String,
}

/// The first line.
#[derive(Deserialize)]
struct First {
    #[serde(default, rename = "apps__hashcode")]
    hash: String,
}

/// Why there is no stream.
#[derive(Debug)]
pub(super) enum NoWatch {
    /// The server does not push: it is a Java server, or something in between does not pass it on.
    Unknown(Failure),
    /// It could not be reached, or broke.
    Broken(Failure),
}

impl Watch {
    /// Subscribes, and waits for the first line, which says that nothing will be missed from here on.
    pub(super) async fn open(transport: &Transport, server: usize, query: &str) -> Result<Self, NoWatch> {
        let end = Instant::now() + transport.request_timeout();
        let broken = |reason: String| NoWatch::Broken(transport.failure(server, reason));
        let response = match timeout_at(end, transport.open(server, query)).await {
            Ok(response) => response.map_err(broken)?,
            Err(_) => return Err(broken("no answer in time".to_owned())),
        };
        let lines = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-ndjson"));
        match response.status() {
            StatusCode::OK if lines => {}
            StatusCode::OK => return Err(NoWatch::Unknown(transport.failure(server, "does not push"))),
            status if status.is_server_error() => return Err(broken(status.to_string())),
            status => return Err(NoWatch::Unknown(transport.failure(server, status))),
        }
        let body = response.into_body();
        let mut watch =
            Self { server, body, buffer: BytesMut::new(), searched: 0, heard: Instant::now(), hash: String::new() };
        let first = async {
            let mut line = Bytes::new();
            while line.is_empty() {
                line = watch.line(transport).await.map_err(NoWatch::Broken)?;
            }
            let first: First = serde_json::from_slice(&line)
                .map_err(|error| NoWatch::Broken(transport.failure(server, format!("the push: {error}"))))?;
            watch.hash = first.hash;
            Ok(())
        };
        match timeout_at(end, first).await {
            Ok(first) => first.map(|()| watch),
            Err(_) => Err(NoWatch::Broken(transport.failure(server, "no first line in time"))),
        }
    }

    pub(super) fn hash(&self) -> &str {
        &self.hash
    }

    /// Reads on until it ends, and says why.
    pub(super) async fn end(mut self, transport: &Transport) -> Failure {
        loop {
            if let Err(failure) = self.line(transport).await {
                return failure;
            }
        }
    }

    /// The next line, without its end. Nothing is lost if the wait for it is given up.
    pub(super) async fn line(&mut self, transport: &Transport) -> Result<Bytes, Failure> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(self.searched + at).freeze();
                self.buffer.advance(1);
                self.searched = 0;
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.searched > transport.max_bytes() {
                return Err(transport.failure(self.server, "the push sends a line too long"));
            }
            let reason = match timeout_at(self.heard + SILENCE, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                        self.heard = Instant::now();
                    }
                    continue;
                }
                Ok(Some(Err(error))) => format!("the push broke: {error}"),
                Ok(None) => "the push ended".to_owned(),
                Err(_) => "the push fell silent".to_owned(),
            };
            return Err(transport.failure(self.server, reason));
        }
    }
}
