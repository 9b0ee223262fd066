use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tokio::{
    sync::Notify,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    queue::{Item, Key, Queue},
    reaction::{Backoff, Outcome, Reaction, Verdict, outcome, verdict},
};
use crate::{
    discover::eureka::{Ask, ServerUrl, Transport},
    eureka::{Action, Instance, InstanceStatus, Replication, json},
    monitor::PeerView,
    registry::{By, Clock, Moment, RegistryPolicy, Store},
};

/// What is told to one other registry, and how that goes.
#[derive(Debug)]
pub(super) struct Peer {
    url: ServerUrl,
    transport: Transport,
    headers: HeaderMap,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: Queue,
    health: Health,
    sent: u64,
    failed: u64,
    /// It is this registry itself.
    is_left_out: bool,
}

#[derive(Debug, Default)]
enum Health {
    /// Nothing was sent yet.
    #[default]
    Unknown,
    Reachable(Moment),
    Failing(Moment, String),
}

impl Peer {
    pub(super) fn new(url: ServerUrl, transport: Transport, own_address: &str) -> Self {
        let mut headers = HeaderMap::new();
        let identity = |name| HeaderName::from_static(name);
        headers.insert(identity("discoveryidentity-name"), HeaderValue::from_static("DefaultServer"));
        headers.insert(identity("discoveryidentity-version"), HeaderValue::from_static("1.0"));
        if let Ok(own) = HeaderValue::from_str(own_address) {
            headers.insert(identity("discoveryidentity-id"), own);
        }
        Self { url, transport, headers, state: Mutex::default(), wake: Notify::new() }
    }

    /// Puts an operation in line. Called with the store's lock held, so that nothing here may take that lock while it holds this one.
    pub(super) fn push(&self, operation: Replication, now: Moment, policy: &RegistryPolicy) {
        let mut state = self.state();
        if !state.is_left_out && state.queue.push(operation, now, policy) {
            self.wake.notify_one();
        }
    }

    /// It is told nothing, and never was.
    pub(super) fn leave_out(&self) {
        *self.state() = State { is_left_out: true, ..State::default() };
    }

    pub(super) fn is_left_out(&self) -> bool {
        self.state().is_left_out
    }

    pub(super) fn view(&self, now: Moment) -> PeerView {
        let state = self.state();
        let mut view = PeerView {
            url: self.url.to_string(),
            queued: state.queue.queued(),
            owed: state.queue.owed(),
            sent: state.sent,
            failed: state.failed,
            dropped: state.queue.dropped(),
            ..PeerView::default()
        };
        match &state.health {
            Health::Unknown => {}
            Health::Reachable(since) => view.reachable_for = Some(now.since(*since)),
            Health::Failing(since, error) => {
                view.failing_for = Some(now.since(*since));
                view.error = Some(error.clone());
            }
        }
        view
    }

    /// Sends until it is told to close; then what is left, if that works at once.
    pub(super) async fn run(self: Arc<Self>, store: Arc<Store>, clock: Clock, closing: CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            let policy = store.policy().get();
            let due = self.state().queue.due(&policy);
            let due = due.map(|due| clock.instant(due.max(backoff.until().unwrap_or_default())));
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                () = self.wake.notified() => {}
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.send(&store, clock, &policy, &mut backoff).await;
                }
            }
        }
        let policy = store.policy().get();
        let rest =
            async { while !self.state().queue.is_empty() && self.send(&store, clock, &policy, &mut backoff).await {} };
        let _ = timeout(policy.peers.request_timeout, rest).await;
    }

    /// Sends one batch. Whether the peer took it.
    async fn send(&self, store: &Store, clock: Clock, policy: &RegistryPolicy, backoff: &mut Backoff) -> bool {
        let (mut items, debts) = self.state().queue.take(clock.now(), policy);
        for (key, debt) in debts {
            let instance = store.instance(&key.0, &key.1, clock.now());
            items.extend(debt.items(key, instance));
        }
        if items.is_empty() {
            return true;
        }
        let mut body = Vec::new();
        // More than that a peer with our limits does not take.
        let most = policy.limits.batch_bytes;
        let fitting = json::write_replications_within(items.iter().map(Item::on_the_wire), most, &mut body);
        let rest = items.split_off(fitting);
        if !rest.is_empty() {
            self.state().queue.put_back(rest, clock.now(), policy);
        }
        let verdict = self.exchange(body, items.len(), policy).await;
        let now = clock.now();
        let (first, error) = match verdict {
            Verdict::Answered(answers) => {
                backoff.succeeded();
                self.reachable(now);
                let done = outcome(items, answers);
                self.done(done, store, now, policy);
                return true;
            }
            Verdict::Refused(error) => {
                backoff.succeeded();
                self.failing(now, error);
                self.state().failed += items.len() as u64;
                return false;
            }
            Verdict::Denied(error) => {
                backoff.failed(now, policy.peers.busy_wait, policy.peers.max_retry_wait, fastrand::f64());
                self.failing(now, error);
                self.state().queue.owe_all(items, now, policy);
                return false;
            }
            Verdict::Busy(error) => (policy.peers.busy_wait, error),
            Verdict::Broken(error) => (policy.peers.retry_wait, error),
        };
        backoff.failed(now, first, policy.peers.max_retry_wait, fastrand::f64());
        self.failing(now, error);
        self.state().queue.put_back(items, now, policy);
        false
    }

    async fn exchange(&self, body: Vec<u8>, count: usize, policy: &RegistryPolicy) -> Verdict {
        let mut ask = Ask::new(Method::POST, "peerreplication/batch/");
        ask.headers = self.headers.clone();
        ask.body = Some(Bytes::from(body));
        // Of each operation it may be a whole instance.
        ask.max_bytes = Some(policy.peers.sync_bytes);

        let end = Instant::now() + policy.peers.request_timeout;
        let answer = match timeout_at(end, self.transport.exchange(0, &ask)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Verdict::Broken(error),
            Err(_) => return Verdict::Busy("no answer in time".to_owned()),
        };
        let (status, limits) = (answer.status, policy.limits.document.clone());
        let read = answer.read(move |body| Ok(verdict(status, body, count, &limits)));
        read.await.unwrap_or_else(Verdict::Broken)
    }

    /// Does what a batch's answers ask for.
    fn done(&self, done: Outcome, store: &Store, now: Moment, policy: &RegistryPolicy) {
        let Outcome { sent, failed, reactions } = done;
        {
            let mut state = self.state();
            state.sent += sent;
            state.failed += failed;
        }
        for reaction in reactions {
            match reaction {
                Reaction::Register(key) => store.with_instance(&key.0, &key.1, now, |instance| {
                    if let Some(instance) = instance {
                        let dirty = instance.last_dirty_timestamp;
                        self.push(operation(&key, dirty, Action::Register(instance)), now, policy);
                    }
                }),
                Reaction::Cancel(key, dirty) => store.with_instance(&key.0, &key.1, now, |instance| match instance {
                    Some(_) => self.state().queue.owe_status(key.clone(), now, policy),
                    None => self.push(operation(&key, dirty, Action::Cancel), now, policy),
                }),
                // A heartbeat may have been told twice, and something have happened here meanwhile.
                Reaction::Take(key, instance) => self.take(store, &key, instance, false, now),
                Reaction::TakeBack(key, instance) => self.take(store, &key, instance, true, now),
            }
        }
    }

    fn take(&self, store: &Store, key: &Key, instance: Arc<Instance>, absent: bool, now: Moment) {
        if let Err(reason) = take(store, key, instance, absent, now) {
            self.state().failed += 1;
            tracing::warn!(target: "hopvine::registry", peer = %self.url, app = ?key.0, id = ?key.1, reason,
                "a peer's newer instance is not taken");
        }
    }

    fn reachable(&self, now: Moment) {
        let mut state = self.state();
        let former = std::mem::replace(&mut state.health, Health::Reachable(now));
        match former {
            Health::Reachable(since) => state.health = Health::Reachable(since),
            Health::Failing(since, _) => {
                tracing::info!(target: "hopvine::registry", peer = %self.url, after = ?now.since(since), "peer answers again");
            }
            Health::Unknown => tracing::info!(target: "hopvine::registry", peer = %self.url, "peer answers"),
        }
    }

    fn failing(&self, now: Moment, error: String) {
        let mut state = self.state();
        if let Health::Failing(_, last) = &mut state.health {
            *last = error;
        } else {
            tracing::warn!(target: "hopvine::registry", peer = %self.url, error, "peer cannot be told what happens here");
            state.health = Health::Failing(now, error);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn operation((app_name, id): &Key, last_dirty_timestamp: Option<u64>, action: Action) -> Replication {
    Replication { app_name: app_name.clone(), id: id.clone(), last_dirty_timestamp, action }
}

/// Takes an instance that a peer knows better, with its override, if it is newer than what is here by now.
fn take(store: &Store, (app, id): &Key, instance: Arc<Instance>, absent: bool, now: Moment) -> Result<(), String> {
    instance.validate(app).map_err(|invalid| invalid.to_string())?;
    if instance.id() != &**id {
        return Err("it has another id".to_owned());
    }
    let overridden = instance.overridden_status;
    let taken = store.take_newer(Arc::unwrap_or_clone(instance), absent, now).map_err(|refused| refused.to_string())?;
    if taken && overridden != InstanceStatus::Unknown {
        store.set_status(app, id, overridden, None, By::Peer, now).map_err(|refused| refused.to_string())?;
    }
    Ok(())
}
