//! The one poller: follows a server that pushes, asks one that does not, and says what it hears.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

mod follow;

use super::{
    EurekaPolicy, FetchMode, PushMode,
    calls::{Calls, Fetched, NoServer},
    copy::{Copy, Shrunk},
    disk::{Disk, lock, use_snapshot},
    follower::State,
    watch::NoWatch,
};
use crate::{
    Live,
    snapshot::{self, NotLoaded},
};

/// How long the registry has, before a snapshot is used.
const PATIENCE: Duration = Duration::from_secs(1);

/// The ceiling of the first wait after a failure; it doubles up to the fetch interval.
const RETRY: Duration = Duration::from_secs(1);

/// The ceilings of the first and the longest wait before a server is followed again that does not push.
const UNKNOWN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

/// A poller that runs, until this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) state: watch::Receiver<State>,
    _task: AbortOnDropHandle<()>,
}

impl Running {
    pub(super) fn start(poller: Poller) -> Self {
        let state = poller.sender.subscribe();
        Self { state, _task: AbortOnDropHandle::new(tokio::spawn(poller.run())) }
    }
}

#[derive(Debug)]
pub(super) struct Poller {
    pub(super) policy: Live<EurekaPolicy>,
    pub(super) calls: Calls,
    pub(super) sender: watch::Sender<State>,
    pub(super) snapshot: Option<PathBuf>,
    copy: Option<Copy>,
    /// The server that the copy is of.
    copied_from: usize,
    /// Whether deltas were to be had when one was last asked for.
    tells_deltas: bool,
    /// For each server.
    pushes: Vec<Tries>,
    failures: u32,
    /// Until when the copy holds what its server suddenly does not list any more.
    held_until: Option<Instant>,
    /// The snapshot that was there at the start.
    disk: Arc<Mutex<Disk>>,
    saved: Option<Instant>,
    unsaved: bool,
}

/// When a server is followed again.
#[derive(Clone, Debug)]
struct Tries {
    failures: u32,
    next: Instant,
}

impl Poller {
    pub(super) fn new(
        policy: Live<EurekaPolicy>,
        calls: Calls,
        sender: watch::Sender<State>,
        snapshot: Option<PathBuf>,
        servers: usize,
    ) -> Self {
        let now = Instant::now();
        Self {
            policy,
            calls,
            sender,
            snapshot,
            copy: None,
            copied_from: 0,
            tells_deltas: false,
            pushes: vec![Tries { failures: 0, next: now }; servers],
            failures: 0,
            held_until: None,
            disk: Arc::default(),
            saved: None,
            unsaved: false,
        }
    }

    async fn run(mut self) {
        self.load().await;
        let (sender, disk, policy) = (self.sender.clone(), Arc::clone(&self.disk), self.policy.clone());
        let impatient = async move {
            sleep_until(Instant::now() + PATIENCE).await;
            use_snapshot(&sender, &disk, &policy, "the registry has not answered yet");
        };
        tokio::join!(self.follow_or_poll(), impatient);
    }

    async fn follow_or_poll(&mut self) {
        let mut poll_at = Instant::now();
        loop {
            let policy = self.policy.get();
            let server = self.calls.cursor.candidates(Instant::now())[0];
            if policy.push == PushMode::Auto && self.pushes[server].next <= Instant::now() {
                match self.follow(server).await {
                    // The session is over: on to the next server.
                    Ok(()) => continue,
                    Err(NoWatch::Unknown(failure)) => {
                        tracing::debug!(target: "hopvine::eureka", %failure, "not followed; it is asked instead");
                        let wait = self.pushes[server].ceiling(UNKNOWN.0, UNKNOWN.1);
                        self.pushes[server].next = Instant::now() + jitter(wait);
                    }
                    Err(NoWatch::Broken(failure)) => {
                        tracing::info!(target: "hopvine::eureka", %failure, "followed no more; it is asked instead");
                        self.calls.cursor.failed(server);
                        let wait = self.pushes[server].ceiling(RETRY, UNKNOWN.1);
                        self.pushes[server].next = Instant::now() + jitter(wait);
                        poll_at = Instant::now();
                    }
                }
            }
            if poll_at <= Instant::now() {
                poll_at = Instant::now() + self.poll(&policy).await;
            }
            let server = self.calls.cursor.candidates(Instant::now())[0];
            let next = match policy.push {
                PushMode::Auto => poll_at.min(self.pushes[server].next),
                PushMode::Off => poll_at,
            };
            sleep_until(self.held_until.map_or(next, |until| until.min(next))).await;
            self.release(server, false);
        }
    }

    /// Asks, says what it heard, and says when to ask again.
    async fn poll(&mut self, policy: &EurekaPolicy) -> Duration {
        match self.fetch(policy).await {
            Ok(server) => {
                self.failures = 0;
                self.heard(server, false).await;
                policy.fetch_interval.mul_f64(0.9 + 0.2 * fastrand::f64())
            }
            Err(error) => {
                let error = error.to_string();
                use_snapshot(&self.sender, &self.disk, &self.policy, &error);
                self.sender.send_modify(|state| {
                    state.error = Some(error.as_str().into());
                    state.pushed = false;
                });
                let wait = RETRY.saturating_mul(1 << self.failures.min(10)).min(policy.fetch_interval);
                self.failures += 1;
                jitter(wait)
            }
        }
    }

    async fn fetch(&mut self, policy: &EurekaPolicy) -> Result<usize, NoServer> {
        let mut missed = false;
        if policy.fetch == FetchMode::Deltas
            && let Some(copy) = self.copy.as_mut().filter(|copy| !copy.is_empty())
        {
            let resource = format!("apps/delta{}", regions(policy));
            let (server, fetched) = self.calls.fetch(&resource, true, &policy.limits).await?;
            let tells_deltas = matches!(fetched, Fetched::Applications(_));
            missed = tells_deltas || self.tells_deltas;
            self.tells_deltas = tells_deltas;
            match fetched {
                // Another server's changes may be others, and the hash alone would not show it.
                Fetched::Applications(delta) if server == self.copied_from => {
                    self.unsaved |= !delta.applications.is_empty();
                    if copy.apply(&delta, policy.endpoint) {
                        return Ok(server);
                    }
                    tracing::info!(target: "hopvine::eureka", hash = &*delta.hash, ours = %copy.applications().counts(),
                        "something was missed: everything is fetched");
                }
                Fetched::Applications(_) | Fetched::NoDelta => {}
            }
        }
        let resource = format!("apps/{}", regions(policy));
        let (server, fetched) = self.calls.fetch(&resource, false, &policy.limits).await?;
        self.replace(server, fetched, missed, policy);
        Ok(server)
    }

    /// Takes over everything, which is out of turn if something was missed that changes should have told.
    fn replace(&mut self, server: usize, fetched: Fetched, missed: bool, policy: &EurekaPolicy) {
        let Fetched::Applications(applications) = fetched else { return };
        let in_turn = !missed && self.copy.is_some() && self.copied_from == server;
        let hold = if in_turn { Shrunk::Whole } else { Shrunk::Application };
        (self.unsaved, self.copied_from) = (true, server);
        let copy = self.copy.get_or_insert_with(|| {
            let mut copy = Copy::default();
            if let Disk::Used(applications) = std::mem::take(&mut *lock(&self.disk)) {
                copy.replace(applications, None, policy.endpoint);
            }
            copy
        });
        let is_new = self.held_until.is_none();
        copy.replace(applications, Some(hold).filter(|_| !policy.removal_grace.is_zero()), policy.endpoint);
        if copy.held() == 0 {
            self.held_until = None;
        } else if is_new {
            self.held_until = Some(Instant::now() + policy.removal_grace);
            tracing::warn!(target: "hopvine::eureka", server = %self.calls.transport.url(server), missing = copy.held(),
                "a server suddenly lists far less than before: what is missing stays for a while");
        }
    }

    /// Lets go of what was held, when its time is over, and says so.
    fn release(&mut self, server: usize, pushed: bool) {
        if self.held_until.is_some_and(|until| until <= Instant::now()) {
            self.held_until = None;
            if let Some(copy) = &mut self.copy {
                copy.release(self.policy.get().endpoint);
            }
            self.publish(server, pushed, false);
        }
    }

    async fn heard(&mut self, server: usize, pushed: bool) {
        self.publish(server, pushed, true);
        self.save().await;
    }

    /// Says what is known now.
    fn publish(&mut self, server: usize, pushed: bool, confirmed: bool) {
        let Some(copy) = &self.copy else { return };
        // What was read from disk has had its day.
        *lock(&self.disk) = Disk::Nothing;
        let url = self.calls.transport.url(server).to_string();
        let held = copy.held();
        let error = (held > 0).then(|| {
            let instances = copy.applications().instances().count();
            format!("{url} suddenly lists {instances} instances only; {held} that it does not list stay for a while")
        });
        let view = Arc::new(copy.view());
        self.sender.send_modify(|state| {
            state.view = Some(view);
            state.heard += u64::from(confirmed);
            state.error = error.map(Arc::from);
            state.server = Some(url.into());
            state.pushed = pushed;
        });
    }

    async fn load(&mut self) {
        let Some(path) = self.snapshot.clone() else { return };
        let (policy, max_bytes) = (self.policy.get(), self.calls.transport.max_bytes());
        let load = move || match snapshot::load(&path, policy.snapshot_age, max_bytes, &policy.limits) {
            Ok(loaded) => Some(loaded),
            Err(NotLoaded::Missing) => None,
            Err(why) => {
                tracing::warn!(target: "hopvine::eureka", path = %path.display(), %why, "the snapshot is not used");
                None
            }
        };
        let loaded = tokio::task::spawn_blocking(load).await.ok().flatten();
        if let Some(loaded) = loaded {
            *lock(&self.disk) = Disk::Loaded(loaded);
        }
    }

    async fn save(&mut self) {
        let policy = self.policy.get();
        let age = self.saved.map(|saved| saved.elapsed());
        let grows_old = age.is_some_and(|age| age > policy.snapshot_age / 4);
        // What is on disk is better than what a server says that does not know everybody yet.
        let worth = (self.unsaved || grows_old) && self.held_until.is_none();
        let Some(path) = self.snapshot.clone().filter(|_| worth) else { return };
        if age.is_some_and(|age| age < policy.snapshot_interval) {
            return;
        }
        let Some(applications) = self.copy.as_ref().map(|copy| copy.applications().clone()) else { return };
        (self.saved, self.unsaved) = (Some(Instant::now()), false);
        let saved = tokio::task::spawn_blocking(move || snapshot::save(&path, &applications, Duration::ZERO)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(target: "hopvine::eureka", %error, "the snapshot cannot be written");
        }
    }
}

impl Tries {
    /// Most that the next wait takes.
    fn ceiling(&mut self, first: Duration, most: Duration) -> Duration {
        self.failures += 1;
        first.saturating_mul(1 << (self.failures - 1).min(10)).min(most)
    }
}

fn regions(policy: &EurekaPolicy) -> String {
    if policy.regions.is_empty() { String::new() } else { format!("?regions={}", policy.regions.join(",")) }
}

/// Not all clients at once, and not at once.
fn jitter(ceiling: Duration) -> Duration {
    ceiling.mul_f64(0.1 + 0.9 * fastrand::f64())
}
