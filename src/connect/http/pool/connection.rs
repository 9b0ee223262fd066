use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use http_body::Body;
use tokio::{task::AbortHandle, time::Instant};

use crate::connect::http::{client::Settings, send::Sender};

/// A connection, and what it is used for.
pub(super) struct Connection<B> {
    /// `None` while somebody writes a request to it, of HTTP/1.
    pub(super) sender: Option<Sender<B>>,
    pub(super) http2: bool,
    /// Requests under way; of HTTP/1 0 or 1.
    pub(super) uses: usize,
    /// Of HTTP/2, how many its server allows at once.
    pub(super) most: Arc<AtomicUsize>,
    pub(super) dies: Instant,
    pub(super) idle_since: Instant,
    /// Ends it whatever it is doing.
    pub(super) driver: Option<AbortHandle>,
}

impl<B> Connection<B>
where
    B: Body + Send + 'static,
{
    pub(super) fn is_expired(&self, now: Instant, settings: &Settings) -> bool {
        let idle = self.uses == 0 && now.saturating_duration_since(self.idle_since) >= settings.policy.idle_timeout;
        idle || (self.uses == 0 && now >= self.dies) || self.sender.as_ref().is_some_and(Sender::is_closed)
    }

    pub(super) fn has_room(&self, now: Instant) -> bool {
        self.http2
            && now < self.dies
            && self.uses < self.most.load(Relaxed)
            && self.sender.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    /// Of HTTP/2 all write at once, each with a sender of its own.
    pub(super) fn lend(&mut self) -> Option<Sender<B>> {
        match &self.sender {
            Some(Sender::Http2(sender)) => Some(Sender::Http2(sender.clone())),
            _ => self.sender.take(),
        }
    }
}
