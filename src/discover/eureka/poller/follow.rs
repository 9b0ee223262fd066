//! Following a server that pushes.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep_until};

use super::{Poller, regions};
use crate::discover::eureka::{
    FetchMode, PushMode,
    calls::{Fetched, applications},
    transport::Failure,
    watch::{NoWatch, Watch},
};

/// How long a pushed copy may disagree with its hash: a line may be older than the copy, and the next ones make up for it.
const DISAGREEMENT: Duration = Duration::from_secs(1);

impl Poller {
    /// Follows a server, until its session is over.
    pub(super) async fn follow(&mut self, server: usize) -> Result<(), NoWatch> {
        let mut watch = Watch::open(&self.calls.transport, server, "").await?;
        // Subscribed first, fetched then: nothing can be missed, and what a line says again is no harm.
        self.catch_up(server).await.map_err(NoWatch::Broken)?;
        self.calls.cursor.succeeded(server);
        tracing::info!(target: "hopvine::eureka", server = %self.calls.transport.url(server), "followed: changes are pushed");
        self.failures = 0;
        self.heard(server, true).await;

        // What was fetched may have been made before the stream began, and lack what was told in between.
        let whole = self.copy.as_ref().is_some_and(|copy| copy.applications().counts().to_string() == watch.hash());
        let mut disagrees_until = (!whole).then(|| Instant::now() + DISAGREEMENT);
        let mut disagreements = 0_u32;
        let mut tick = Instant::now() + self.policy.get().fetch_interval;
        loop {
            let at = |instant: Option<Instant>| async move {
                match instant {
                    Some(instant) => sleep_until(instant).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                line = watch.line(&self.calls.transport) => {
                    let line = line.map_err(NoWatch::Broken)?;
                    // It has lived for a while: the next break is the first one.
                    self.pushes[server].failures = 0;
                    if line.iter().all(u8::is_ascii_whitespace) {
                        continue;
                    }
                    let whole = self.take_line(&line).map_err(|reason| {
                        NoWatch::Broken(self.calls.transport.failure(server, format!("the push: {reason}")))
                    })?;
                    if whole {
                        (disagrees_until, disagreements) = (None, 0);
                    } else if disagrees_until.is_none() {
                        let wait = DISAGREEMENT.saturating_mul(1 << disagreements.min(5));
                        disagreements += 1;
                        disagrees_until = Some(Instant::now() + wait);
                    }
                    self.publish(server, true, false);
                }
                () = at(disagrees_until) => {
                    self.catch_up(server).await.map_err(NoWatch::Broken)?;
                    disagrees_until = None;
                    self.heard(server, true).await;
                }
                () = sleep_until(tick) => {
                    let policy = self.policy.get();
                    if policy.push == PushMode::Off {
                        return Ok(());
                    }
                    self.heard(server, true).await;
                    tick = Instant::now() + policy.fetch_interval;
                }
                () = at(self.held_until) => self.release(server, true),
                () = at(self.calls.cursor.session_end()) => return Ok(()),
            }
        }
    }

    /// What was missed, from the server that is followed: by delta, which tells who left, or else everything.
    async fn catch_up(&mut self, server: usize) -> Result<(), Failure> {
        let policy = self.policy.get();
        if policy.fetch == FetchMode::Deltas
            && self.copied_from == server
            && let Some(copy) = self.copy.as_mut().filter(|copy| !copy.is_empty())
        {
            let resource = format!("apps/delta{}", regions(&policy));
            let fetched = self.calls.fetch_from(server, &resource, true, &policy.limits).await?;
            if let Fetched::Applications(delta) = fetched {
                self.unsaved |= !delta.applications.is_empty();
                if copy.apply(&delta, policy.endpoint) {
                    return Ok(());
                }
            }
        }
        self.fetch_all(server).await
    }

    /// Everything, from the server that is followed.
    async fn fetch_all(&mut self, server: usize) -> Result<(), Failure> {
        let policy = self.policy.get();
        let resource = format!("apps/{}", regions(&policy));
        let fetched = self.calls.fetch_from(server, &resource, false, &policy.limits).await?;
        self.replace(server, fetched, true, &policy);
        Ok(())
    }

    /// Takes over what a line says. Says whether the copy is whole.
    fn take_line(&mut self, line: &Bytes) -> Result<bool, String> {
        let policy = self.policy.get();
        let delta = applications(line, &policy.limits)?;
        self.unsaved = true;
        Ok(self.copy.get_or_insert_default().apply(&delta, policy.endpoint))
    }
}
