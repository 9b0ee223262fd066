//! An instance of a service: a server on loopback that registers itself, and that leaves, or is killed as a process is.

use std::{io, net::SocketAddr, time::Duration};

use axum::{body::Body, response::Response, routing::Router, serve::ListenerExt as _};
use hopvine::discover::eureka::{HoldMode, Registration, RegistrationPolicy};
use tokio::{net::TcpListener, runtime, sync::oneshot};

use crate::BoxError;

/// Callers of the shop are pushed to, and know of a leave at once.
const LEAVE_WAIT: Duration = Duration::from_millis(500);

/// It has a runtime of its own. Dropped, it ends at once: connections break, the port refuses, nobody is told.
pub struct Instance {
    address: SocketAddr,
    leave: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
    /// Dropped, the instance is dead.
    _life: oneshot::Sender<()>,
}

/// What an instance is registered as.
pub struct Entry {
    pub registry: String,
    pub service: &'static str,
    pub id: String,
}

impl Instance {
    /// Starts a server, and waits until the registry has it, if it is to be there.
    pub async fn start(app: Router, entry: Option<Entry>) -> Result<Self, BoxError> {
        let (leave, leaving) = oneshot::channel();
        let (life, killed) = oneshot::channel::<()>();
        let (over, ended) = oneshot::channel();
        let (start, started) = oneshot::channel();
        std::thread::spawn(move || {
            let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = start.send(Err(error.into()));
                    return;
                }
            };
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = killed => {}
                    result = live(app, entry, leaving, start) => if let Err(error) = result { eprintln!("an instance ended: {error}") },
                }
            });
            drop(runtime);
            drop(over);
        });
        let address = started.await??;
        Ok(Self { address, leave, ended, _life: life })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it at once: connections break, the port refuses, nobody is told.
    pub fn kill(self) {
        drop(self);
    }

    /// Takes it out so that no caller notices, and ends it.
    pub async fn leave(self) {
        let _ = self.leave.send(());
        let _ = self.ended.await;
    }
}

/// From the start to a leave.
async fn live(
    app: Router,
    entry: Option<Entry>,
    leaving: oneshot::Receiver<()>,
    start: oneshot::Sender<Result<SocketAddr, BoxError>>,
) -> io::Result<()> {
    let ready = async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let registration = match entry {
            None => None,
            Some(entry) => Some(register(&entry, address.port()).await?),
        };
        Ok::<_, BoxError>((listener, address, registration))
    };
    let (listener, address, registration) = match ready.await {
        Ok(ready) => ready,
        Err(error) => {
            let _ = start.send(Err(error));
            return Ok(());
        }
    };
    // Who waited for it may be gone.
    let _ = start.send(Ok(address));
    let leaving = async { _ = leaving.await };
    let listener = listener.tap_io(|socket| _ = socket.set_nodelay(true));
    match registration {
        None => axum::serve(listener, app).with_graceful_shutdown(leaving).await,
        Some(registration) => {
            let leaving = registration.leaving_on(leaving);
            axum::serve(listener, app).with_graceful_shutdown(leaving).await?;
            registration.leave().await;
            Ok(())
        }
    }
}

async fn register(entry: &Entry, port: u16) -> Result<Registration, BoxError> {
    let policy = RegistrationPolicy { leave_wait: LEAVE_WAIT, hold: HoldMode::On, ..Default::default() };
    let registration = Registration::builder(&*entry.registry, entry.service, port)
        .host_name("127.0.0.1")
        .instance_id(&entry.id)
        .policy(policy)
        .start()?;
    registration.up();
    registration.registered(Duration::from_secs(5)).await?;
    Ok(registration)
}

/// A plain answer.
pub fn text(body: impl Into<String>) -> Response {
    Response::new(Body::from(body.into()))
}
