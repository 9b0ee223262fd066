//! The one task of a registration: registers, says that we live, and leaves.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::{
    sync::{Notify, mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{HoldMode, RegistrationPolicy, RegistrationView, health::HealthCheck, hold::hold};
use crate::{
    discover::eureka::{
        Servers,
        calls::Calls,
        transport::{Answer, Ask, segment},
    },
    eureka::{Instance, InstanceStatus, Limits, Metadata, json},
};

/// How long telling that we are `DOWN`, and how long leaving, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long leaving may take when the handle was dropped: nobody waits for it.
const DROPPED: Duration = Duration::from_secs(3);

/// The ceiling of the first wait after a failure; it doubles up to the heartbeat interval.
const RETRY: Duration = Duration::from_secs(1);

/// In the metadata while we are out of service by our own word: tells an override of our own from an operator's.
const MARK: &str = "hopvine.out-of-service";

/// What the application wants to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Desired {
    pub(super) by_hand: Option<InstanceStatus>,
    /// What the health check said.
    pub(super) health: Option<InstanceStatus>,
    pub(super) metadata: Metadata,
    /// Goes up with each wish of the handle.
    pub(super) wish: u64,
}

/// What the handle asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    /// Say that we are `DOWN`, for good; and whether the registry knows.
    Down(oneshot::Sender<bool>),
    /// Leave.
    Cancel(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) struct Lease {
    pub(super) servers: Servers,
    pub(super) calls: Calls,
    pub(super) policy: RegistrationPolicy,
    pub(super) health: Option<HealthCheck>,
    pub(super) instance: Instance,
    pub(super) view: watch::Sender<RegistrationView>,
    pub(super) state: State,
}

/// How far it is.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own, and most of their combinations occur")]
pub(super) struct State {
    /// An override that an earlier life of ours left has been looked for.
    looked: bool,
    /// The registry has what we are now.
    registered: bool,
    /// It has had it once.
    known: bool,
    /// The override that takes us out of service is set.
    overridden: bool,
    leaving: bool,
    failures: u32,
}

impl Lease {
    pub(super) async fn run(mut self, desired: Arc<watch::Sender<Desired>>, mut commands: mpsc::Receiver<Command>) {
        let mut wanted = desired.subscribe();
        let _health = self
            .health
            .clone()
            .map(|check| AbortOnDropHandle::new(tokio::spawn(check.run(self.policy.clone(), Arc::clone(&desired)))));
        drop(desired);
        let (mut held, anew) = (None, Arc::new(Notify::new()));
        self.dirty();
        self.want(&wanted.borrow_and_update());
        let mut next = Instant::now();
        loop {
            let command = tokio::select! {
                biased;
                command = commands.recv() => command,
                // What is under way when the wish changes is given up: it can be said again.
                Ok(()) = wanted.changed() => {
                    let wish = wanted.borrow_and_update().clone();
                    if self.want(&wish) {
                        next = Instant::now();
                    }
                    continue;
                }
                () = anew.notified() => {
                    next = Instant::now();
                    continue;
                }
                after = self.act_at(next) => {
                    next = Instant::now() + after;
                    if self.policy.hold == HoldMode::On && self.state.registered && held.is_none()
                        && let Ok(calls) = Calls::new(&self.servers, Instant::now())
                    {
                        let (app, id) = (self.instance.app.to_string(), self.instance.id().to_owned());
                        held = Some(AbortOnDropHandle::new(tokio::spawn(hold(calls, app, id, Arc::clone(&anew)))));
                    }
                    continue;
                }
            };
            match command {
                Some(Command::Down(reply)) => {
                    self.state.leaving = true;
                    let told = self.say_down().await;
                    next = Instant::now() + self.after(told);
                    let _ = reply.send(told);
                }
                Some(Command::Cancel(reply)) => {
                    self.cancel(PATIENCE).await;
                    drop(held);
                    let _ = reply.send(());
                    return;
                }
                None => return self.cancel(DROPPED).await,
            }
        }
    }

    /// Takes over what the application wants to be. Says whether that is news for the registry.
    fn want(&mut self, desired: &Desired) -> bool {
        if self.state.leaving {
            return false;
        }
        let status = match (desired.by_hand, desired.health) {
            (Some(by_hand), _) if by_hand != InstanceStatus::Up => by_hand,
            (_, Some(health)) => health,
            (Some(by_hand), None) if self.health.is_none() => by_hand,
            // The health check has not answered yet, or nobody has said anything.
            _ => InstanceStatus::Starting,
        };
        let news = self.change(status, &desired.metadata);
        self.view.send_modify(|view| view.wish = desired.wish);
        news
    }

    fn change(&mut self, status: InstanceStatus, metadata: &Metadata) -> bool {
        if self.instance.status == status && self.instance.metadata == *metadata && self.state.known {
            return false;
        }
        if self.instance.status != status {
            tracing::info!(target: "hopvine::eureka", app = &*self.instance.app, id = self.instance.id(), %status, "our status");
        }
        self.instance.status = status;
        self.instance.metadata = metadata.clone();
        self.dirty();
        self.state.registered = false;
        self.view.send_modify(|view| {
            view.status = status;
            view.registered = false;
        });
        true
    }

    /// As the Java client does it: each change has a time of its own, and of two the registry believes the later.
    fn dirty(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let before = self.instance.last_dirty_timestamp.unwrap_or(0);
        self.instance.last_dirty_timestamp = Some(now.max(before + 1));
    }

    /// At this time, registers or says that we live; and says how long until it is to be done again.
    async fn act_at(&mut self, at: Instant) -> Duration {
        sleep_until(at).await;
        let done = self.act().await;
        let good = done.is_ok();
        self.told(done);
        self.after(good)
    }

    fn after(&mut self, good: bool) -> Duration {
        if good {
            self.state.failures = 0;
            return self.policy.heartbeat_interval;
        }
        let ceiling = RETRY.saturating_mul(1 << self.state.failures.min(10)).min(self.policy.heartbeat_interval);
        self.state.failures += 1;
        ceiling.mul_f64(0.1 + 0.9 * fastrand::f64())
    }

    async fn act(&mut self) -> Result<(), String> {
        if self.state.registered && !self.heartbeat().await? {
            // Whatever its body says: the registry does not know us, or not as we are now.
            self.dirty();
            self.state.registered = false;
        }
        if !self.state.registered {
            self.register().await?;
        }
        Ok(())
    }

    fn told(&mut self, done: Result<(), String>) {
        let error = done.err();
        if let Some(error) = &error
            && self.view.borrow().error.as_ref() != Some(error)
        {
            tracing::warn!(target: "hopvine::eureka", app = &*self.instance.app, id = self.instance.id(), error, "not registered");
        }
        let registered = self.state.registered;
        self.view.send_modify(|view| {
            view.registered = registered;
            view.error = error;
        });
    }

    /// `false` if the registry does not know us.
    async fn heartbeat(&mut self) -> Result<bool, String> {
        let status = self.instance.status;
        let dirty = self.instance.last_dirty_timestamp.unwrap_or(0);
        let resource = self.resource(&format!("?status={status}&lastDirtyTimestamp={dirty}"));
        let known = |status: StatusCode| status.is_success() || status == StatusCode::NOT_FOUND;
        let answer = self.call(&Ask::new(Method::PUT, resource), known).await?;
        Ok(answer.status != StatusCode::NOT_FOUND)
    }

    async fn register(&mut self) -> Result<(), String> {
        if !self.state.looked {
            self.clear_leftover().await?;
        }
        let out = self.instance.status == InstanceStatus::OutOfService;
        if self.state.overridden && !out {
            let value = if self.instance.status == InstanceStatus::Up { "?value=UP" } else { "" };
            self.remove_override(value).await?;
        }
        let mut instance = self.instance.clone();
        if out {
            // A server ignores a change from UP to OUT_OF_SERVICE by registration; STARTING it believes, and nobody calls us in between.
            instance.status = InstanceStatus::Starting;
            instance.metadata = instance.metadata.with([(MARK, "self")]);
        }
        self.post(&instance).await?;
        if out {
            let resource = self.resource("/status?value=OUT_OF_SERVICE");
            self.call(&Ask::new(Method::PUT, resource), |status| status.is_success()).await?;
            self.state.overridden = true;
        }
        if !self.state.known {
            tracing::info!(target: "hopvine::eureka", app = &*self.instance.app, id = self.instance.id(), "registered");
        }
        (self.state.registered, self.state.known) = (true, true);
        Ok(())
    }

    async fn post(&mut self, instance: &Instance) -> Result<(), String> {
        let mut document = Vec::new();
        json::write_instance(instance, &mut document);
        let mut ask = Ask::new(Method::POST, format!("apps/{}", segment(&instance.app)));
        ask.body = Some(Bytes::from(document));
        // What one server finds wrong with it, the others would too.
        let decided = |status: StatusCode| {
            matches!(
                status,
                StatusCode::NO_CONTENT | StatusCode::OK | StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE
            )
        };
        let answer = self.call(&ask, decided).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let status = answer.status;
        let body = answer.body().unwrap_or_default();
        let reason: String = String::from_utf8_lossy(&body).chars().take(200).flat_map(char::escape_debug).collect();
        Err(format!("the registry refuses our registration: {status}: {reason}"))
    }

    /// An override of an earlier life of ours, which would keep us out of service, is removed; an operator's stays.
    async fn clear_leftover(&mut self) -> Result<(), String> {
        let resource = self.resource("");
        let found = |status: StatusCode| status.is_success() || status == StatusCode::NOT_FOUND;
        let answer = self.call(&Ask::new(Method::GET, resource), found).await?;
        if answer.status.is_success() {
            let body = answer.body()?;
            let earlier = json::read_instance(&body, &Limits::default()).map_err(|error| error.to_string());
            match earlier {
                Ok(earlier)
                    if earlier.overridden_status != InstanceStatus::Unknown && earlier.metadata.get(MARK).is_some() =>
                {
                    tracing::info!(target: "hopvine::eureka", app = &*self.instance.app, id = self.instance.id(),
                        "an override that an earlier life left is removed");
                    self.remove_override("").await?;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(target: "hopvine::eureka", error, "whether an earlier life left an override cannot be told");
                }
            }
        }
        self.state.looked = true;
        Ok(())
    }

    async fn remove_override(&mut self, value: &str) -> Result<(), String> {
        let resource = self.resource(&format!("/status{value}"));
        let gone = |status: StatusCode| status.is_success() || status == StatusCode::NOT_FOUND;
        self.call(&Ask::new(Method::DELETE, resource), gone).await?;
        self.state.overridden = false;
        Ok(())
    }

    /// Whether the registry knows now.
    async fn say_down(&mut self) -> bool {
        let metadata = self.instance.metadata.clone();
        self.change(InstanceStatus::Down, &metadata);
        if !self.state.known {
            // Nobody has heard of us, nor shall they now.
            return false;
        }
        let end = Instant::now() + PATIENCE;
        self.calls.hurry(PATIENCE);
        let done = timeout_at(end, self.act()).await;
        let done = done.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let told = done.is_ok();
        self.told(done);
        told
    }

    async fn cancel(&mut self, patience: Duration) {
        self.calls.hurry(patience);
        let resource = self.resource("");
        let call = async { self.call(&Ask::new(Method::DELETE, resource), |_| true).await };
        let left = timeout_at(Instant::now() + patience, call).await;
        let left = left.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        match left {
            Ok(answer) => {
                tracing::info!(target: "hopvine::eureka", app = &*self.instance.app, id = self.instance.id(), status = %answer.status, "left");
            }
            Err(error) => {
                tracing::warn!(target: "hopvine::eureka", app = &*self.instance.app, id = self.instance.id(), error,
                    "could not leave: the lease ends by itself");
            }
        }
        self.view.send_modify(|view| {
            view.registered = false;
            view.left = true;
        });
    }

    async fn call(&mut self, ask: &Ask, accept: impl Fn(StatusCode) -> bool) -> Result<Answer, String> {
        let (server, answer) = self.calls.call(ask, accept).await.map_err(|error| error.to_string())?;
        let url = self.calls.transport.url(server).to_string();
        self.view.send_if_modified(|view| {
            let news = view.server.as_ref() != Some(&url);
            view.server = Some(url);
            news
        });
        Ok(answer)
    }

    /// Our own resource.
    fn resource(&self, rest: &str) -> String {
        format!("apps/{}/{}{rest}", segment(&self.instance.app), segment(self.instance.id()))
    }
}
