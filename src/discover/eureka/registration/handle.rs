use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    RegistrationBuilder, RegistrationPolicy,
    lease::{Command, Desired},
};
use crate::{
    discover::eureka::IntoServers,
    eureka::{Instance, InstanceStatus},
};

/// Our place in a Eureka registry, as long as this is held.
///
/// It registers as `STARTING`, and again and again until the registry answers; is `UP` when [`up`](Self::up) says so, or a [health check](RegistrationBuilder::health) does; tells that it
/// lives every 30 s, and registers again when the registry does not know it any more.
///
/// # Leaving
///
/// [`leave`](Self::leave) is the way that no caller notices: it registers as `DOWN`, waits until callers have had time to see that, waits for what is under way, and then
/// deletes the lease. With axum, which stops to take calls at once when its signal comes:
///
/// ```no_run
/// use axum::Router;
/// use hopvine::discover::eureka::Registration;
/// # async fn run(app: Router, sigterm: impl Future<Output = ()> + Send + 'static) -> Result<(), Box<dyn std::error::Error>> {
/// let listener = tokio::net::TcpListener::bind("0.0.0.0:8080").await?;
/// let registration = Registration::builder("http://eureka:8761/eureka/", "orders", 8080).start()?;
/// registration.up();
/// axum::serve(listener, app)
///     .with_graceful_shutdown(registration.leaving_on(sigterm)) // DOWN, and serves on until callers know
///     .await?; // what was under way is done
/// registration.leave().await; // nothing to wait for any more: the lease is deleted
/// # Ok(())
/// # }
/// ```
///
/// One that is dropped deletes its lease as well as it can: its task tries for 3 s, if the runtime lives so long.
#[derive(Debug)]
#[must_use = "a registration that is dropped leaves the registry"]
pub struct Registration {
    pub(super) instance: Arc<Instance>,
    pub(super) policy: RegistrationPolicy,
    pub(super) desired: Arc<watch::Sender<Desired>>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) view: watch::Receiver<RegistrationView>,
    pub(super) leaving: Arc<Leaving>,
    pub(super) task: JoinHandle<()>,
}

/// How far leaving is: until when callers have time, once the registry was told.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    until: Mutex<Option<Instant>>,
}

/// How a registration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistrationView {
    /// Whether the registry has us as we are.
    pub registered: bool,
    /// What we are.
    pub status: InstanceStatus,
    /// The server that answered last, without its credentials.
    pub server: Option<String>,
    /// Why we are not registered, or why the registry is not heard of.
    pub error: Option<String>,
    /// We have left.
    pub left: bool,
    /// The last wish of the handle that this is the answer to.
    pub(super) wish: u64,
}

impl Default for RegistrationView {
    fn default() -> Self {
        Self { registered: false, status: InstanceStatus::Starting, server: None, error: None, left: false, wish: 0 }
    }
}

/// The registry has not taken a registration in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRegistered {
    reason: String,
}

impl fmt::Display for NotRegistered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not registered yet: {}", self.reason)
    }
}

impl std::error::Error for NotRegistered {}

impl Registration {
    /// An instance of `service` that listens on `port`, at the registry with these servers: [`Servers`](crate::discover::eureka::Servers), or their URLs.
    pub fn builder(servers: impl IntoServers, service: &str, port: u16) -> RegistrationBuilder {
        RegistrationBuilder::new(servers.into_servers(), service, port)
    }

    /// What was registered at the start.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// We take calls: as long as the health check, if there is one, says so too.
    pub fn up(&self) {
        self.set_status(InstanceStatus::Up);
    }

    /// Sets the status by hand. Anything but `UP` holds whatever the health check says.
    ///
    /// `OUT_OF_SERVICE` is set as an override, as an operator would do it, since Java servers ignore it in a registration of one that is up; and removed with the next other status.
    pub fn set_status(&self, status: InstanceStatus) {
        self.wish(|desired| desired.by_hand = Some(status));
    }

    /// Changes one text of the metadata.
    pub fn set_metadata(&self, name: &str, text: &str) {
        self.wish(|desired| desired.metadata = desired.metadata.with([(name, text)]));
    }

    fn wish(&self, change: impl FnOnce(&mut Desired)) {
        self.desired.send_modify(|desired| {
            change(desired);
            desired.wish += 1;
        });
    }

    /// How it stands.
    pub fn view(&self) -> RegistrationView {
        self.view.borrow().clone()
    }

    /// How it stands, as it changes.
    pub fn watch(&self) -> watch::Receiver<RegistrationView> {
        self.view.clone()
    }

    /// Waits until the registry has us as we are, at most this long.
    pub async fn registered(&self, timeout: Duration) -> Result<(), NotRegistered> {
        let wish = self.desired.borrow().wish;
        let mut view = self.view.clone();
        let registered = view.wait_for(|view| view.registered && view.wish >= wish);
        if matches!(timeout_at(Instant::now() + timeout, registered).await, Ok(Ok(_))) {
            return Ok(());
        }
        let reason = self.view.borrow().error.clone();
        Err(NotRegistered { reason: reason.unwrap_or_else(|| "no server has answered".to_owned()) })
    }

    /// For a server's graceful shutdown: when the signal comes, says that we are `DOWN`, and is ready when callers have had [time](RegistrationPolicy::leave_wait) to see it. Until
    /// then the server should take calls.
    pub fn leaving_on<S>(&self, signal: S) -> impl Future<Output = ()> + Send + 'static + use<S>
    where
        S: Future<Output = ()> + Send + 'static,
    {
        let commands = self.commands.downgrade();
        let (leaving, wait) = (Arc::clone(&self.leaving), self.policy.leave_wait);
        async move {
            signal.await;
            // Where the registration itself is gone, it has left.
            if let Some(commands) = commands.upgrade() {
                let until = leaving.down(&commands, wait).await;
                drop(commands);
                sleep_until(until).await;
            }
        }
    }

    /// Leaves so that no caller notices: `DOWN`, wait, delete.
    pub async fn leave(self) {
        self.leave_after(std::future::ready(())).await;
    }

    /// As [`leave`](Self::leave), and waits before the last step until calls that are under way are done, for at most [`drain_timeout`](RegistrationPolicy::drain_timeout).
    pub async fn leave_after(self, drained: impl Future<Output = ()>) {
        let until = self.leaving.down(&self.commands, self.policy.leave_wait).await;
        sleep_until(until).await;
        let _ = timeout_at(Instant::now() + self.policy.drain_timeout, drained).await;
        let (reply, left) = oneshot::channel();
        if self.commands.send(Command::Cancel(reply)).await.is_ok() {
            let _ = left.await;
        }
        let _ = self.task.await;
    }
}

impl Leaving {
    /// Says that we are `DOWN`, and until when callers need to see that: not at all, where the registry was not told.
    async fn down(&self, commands: &mpsc::Sender<Command>, wait: Duration) -> Instant {
        if let Some(until) = *self.until.lock().unwrap_or_else(PoisonError::into_inner) {
            return until;
        }
        let (reply, told) = oneshot::channel();
        let sent = commands.send(Command::Down(reply)).await.is_ok();
        let told = sent && told.await.unwrap_or(false);
        let until = Instant::now() + if told { wait } else { Duration::ZERO };
        *self.until.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(until)
    }
}
