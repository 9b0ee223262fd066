//! Requests and responses of both kinds, and what must be zero when nothing is under way.

use bytes::Bytes;
use hopvine::{
    Directory, Monitor, ServiceHandle,
    outcome::Classified,
    request::{Carrier, Idempotent, Replay},
};
use http::{Request, Response};
use http_body_util::Empty;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Query;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows;

impl Carrier for Query {}

impl Classified for Rows {}

impl Idempotent for Query {
    fn is_idempotent(&self) -> bool {
        true
    }
}

impl Replay for Query {
    type Attempt = Self;
    type Kept = Self;

    fn once(self) -> Self {
        self
    }

    fn split(self, _limit: usize) -> (Self, Self) {
        (self, self)
    }

    fn again(kept: &mut Self, _earlier: u32) -> Option<Self> {
        Some(*kept)
    }
}

pub(crate) fn query() -> Query {
    Query
}

pub(crate) fn rows() -> Rows {
    Rows
}

pub(crate) fn get() -> Request<Empty<Bytes>> {
    Request::new(Empty::new())
}

pub(crate) fn page() -> Response<()> {
    Response::new(())
}

/// A service of `count` endpoints.
pub(crate) fn catalog(count: u16) -> ServiceHandle {
    let endpoints = (1..=count).map(|port| format!("127.0.0.1:{port}").parse().unwrap());
    Directory::fixed([("catalog", endpoints)]).service("catalog")
}

/// What a monitor still counts though no call is under way.
pub(crate) fn idle(monitor: &Monitor) -> Result<(), String> {
    let seen = monitor.snapshot();
    let mut held = Vec::new();
    held.extend(seen.commands.iter().filter(|seen| seen.in_flight > 0).map(|seen| format!("{seen:?}")));
    held.extend(seen.bulkheads.iter().filter(|seen| seen.in_flight + seen.waiting > 0).map(|seen| format!("{seen:?}")));
    held.extend(seen.breakers.iter().filter(|seen| seen.probes > 0).map(|seen| format!("{seen:?}")));
    held.extend(seen.endpoints.iter().filter(|seen| seen.in_flight > 0).map(|seen| format!("{seen:?}")));
    if held.is_empty() { Ok(()) } else { Err(held.join(", ")) }
}
