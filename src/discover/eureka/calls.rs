//! One request to the registry, whichever of its servers answers.

use std::{fmt, time::Duration};

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::{
    Servers,
    cursor::Cursor,
    transport::{Answer, Ask, Failure, Transport},
};
use crate::{
    PolicyError,
    eureka::{Applications, Limits, json, xml},
};

/// The servers, and which of them is asked next.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(super) transport: Transport,
    pub(super) cursor: Cursor,
    /// For one try of one request.
    timeout: Duration,
}

/// What every server that was tried answered instead.
#[derive(Debug)]
pub(super) struct NoServer(Vec<Failure>);

impl fmt::Display for NoServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no server answered: ")?;
        for (number, failure) in self.0.iter().enumerate() {
            write!(f, "{}{failure}", if number == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// The answer to a fetch.
#[derive(Debug)]
pub(crate) enum Fetched {
    Applications(Applications),
    /// The server has no deltas, or does not give them.
    NoDelta,
}

impl Calls {
    pub(crate) fn new(servers: &Servers, now: Instant) -> Result<Self, PolicyError> {
        Ok(Self {
            transport: Transport::new(servers)?,
            cursor: Cursor::new(servers.near(), servers.policy.session, now),
            timeout: servers.policy.request_timeout,
        })
    }

    /// From here on, a request with all its tries takes no longer than this.
    pub(super) fn hurry(&mut self, altogether: Duration) {
        let tries = self.cursor.candidates(Instant::now()).len().max(1);
        self.timeout = self.timeout.min(altogether / tries as u32);
    }

    /// Asks one server after the other until `accept` takes an answer's status. Says which server it was.
    pub(super) async fn call(
        &mut self,
        ask: &Ask,
        accept: impl Fn(StatusCode) -> bool,
    ) -> Result<(usize, Answer), NoServer> {
        let mut failures = Vec::new();
        for server in self.cursor.candidates(Instant::now()) {
            let end = Instant::now() + self.timeout;
            match self.transport.ask(server, ask, end).await {
                Ok(answer) if accept(answer.status) => {
                    self.cursor.succeeded(server);
                    return Ok((server, answer));
                }
                Ok(answer) => failures.push(self.transport.failure(server, answer.status)),
                Err(failure) => failures.push(failure),
            }
            self.cursor.failed(server);
        }
        Err(NoServer(failures))
    }

    /// Fetches applications from one server after the other until one has them. Says which server it was.
    pub(super) async fn fetch(
        &mut self,
        resource: &str,
        delta: bool,
        limits: &Limits,
    ) -> Result<(usize, Fetched), NoServer> {
        let mut failures = Vec::new();
        for server in self.cursor.candidates(Instant::now()) {
            match self.fetch_from(server, resource, delta, limits).await {
                Ok(fetched) => {
                    self.cursor.succeeded(server);
                    return Ok((server, fetched));
                }
                Err(failure) => failures.push(failure),
            }
            self.cursor.failed(server);
        }
        Err(NoServer(failures))
    }

    /// Fetches applications from this server.
    pub(crate) async fn fetch_from(
        &self,
        server: usize,
        resource: &str,
        delta: bool,
        limits: &Limits,
    ) -> Result<Fetched, Failure> {
        let end = Instant::now() + self.timeout;
        let answer = self.transport.ask(server, &Ask::new(Method::GET, resource), end).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND if delta => return Ok(Fetched::NoDelta),
            status => return Err(self.transport.failure(server, status)),
        }
        let limits = limits.clone();
        let read = answer.read(move |document| applications(document, &limits)).await;
        read.map(Fetched::Applications).map_err(|reason| self.transport.failure(server, reason))
    }
}

/// A document in the format that it is in, whatever its label says.
pub(super) fn applications(document: &[u8], limits: &Limits) -> Result<Applications, String> {
    let first = document.iter().find(|byte| !byte.is_ascii_whitespace());
    let read = if first == Some(&b'<') { xml::read_applications } else { json::read_applications };
    read(document, limits).map_err(|error| error.to_string())
}
