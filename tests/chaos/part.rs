//! A process of a trial: an instance, or a registry.

use std::{net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use axum::{Router, routing::get};
use hopvine::{
    discover::eureka::{HoldMode, Registration, RegistrationPolicy},
    registry::{Registry, RegistryPolicy},
};
use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, ChildStdin, Command},
    time::timeout,
};

/// Where the part to play is told.
const PART: &str = "HOPVINE_CHAOS_PART";

const PATIENCE: Duration = Duration::from_secs(60);

/// What a process is to be.
#[derive(Serialize, Deserialize)]
pub(crate) enum Part {
    /// A service that registers itself as one of `orders`, and answers its id.
    Instance {
        registry: String,
        id: String,
        lease: Duration,
        heartbeat: Duration,
        hold: bool,
    },
    Registry {
        address: SocketAddr,
        snapshot: Option<PathBuf>,
        policy: Box<RegistryPolicy>,
    },
}

/// A process that runs. Killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    /// Closed when this program ends, however it does, which ends the process.
    _stdin: Option<ChildStdin>,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts it, and waits until it listens, and is registered.
    pub(crate) async fn start(part: &Part) -> Result<Self, Failed> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(PART, serde_json::to_string(part)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().ok_or("no output")?);
        timeout(PATIENCE, stdout.read_line(&mut line)).await??;
        let stdin = child.stdin.take();
        let address = line.trim().parse().map_err(|_| format!("the process said {line:?} instead of its address"))?;
        Ok(Self { child, _stdin: stdin, address })
    }

    /// Ends it as SIGKILL does.
    pub(crate) async fn kill(mut self) -> Result<(), Failed> {
        Ok(self.child.kill().await?)
    }

    pub(crate) fn pause(&self) -> Result<(), Failed> {
        self.signal(Signal::STOP)
    }

    pub(crate) fn resume(&self) -> Result<(), Failed> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), Failed> {
        let id = i32::try_from(self.child.id().ok_or("it has ended")?)?;
        Ok(kill_process(Pid::from_raw(id).ok_or("no process")?, signal)?)
    }
}

/// Plays the part that was told, if one was.
pub(crate) fn play() -> bool {
    let Ok(part) = std::env::var(PART) else { return false };
    let part = serde_json::from_str(&part).expect("a part");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let played = runtime.block_on(async {
        let mut stdin = tokio::io::stdin();
        tokio::select! {
            played = run(part) => played,
            _ = stdin.read_u8() => Ok(()),
        }
    });
    if let Err(error) = played {
        eprintln!("{error}");
    }
    // Reading from standard input would hold the runtime up.
    runtime.shutdown_background();
    true
}

async fn run(part: Part) -> Result<(), Box<dyn std::error::Error>> {
    match part {
        Part::Instance { registry, id, lease, heartbeat, hold } => {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let address = listener.local_addr()?;
            let policy = RegistrationPolicy {
                heartbeat_interval: heartbeat,
                lease_duration: lease,
                hold: if hold { HoldMode::On } else { HoldMode::Off },
                ..Default::default()
            };
            let registration = Registration::builder(&*registry, "orders", address.port())
                .host_name("127.0.0.1")
                .instance_id(&id)
                .policy(policy)
                .start()?;
            registration.up();
            registration.registered(PATIENCE).await?;
            println!("{address}");
            axum::serve(listener, Router::new().route("/", get(move || async move { id }))).await?;
        }
        Part::Registry { address, snapshot, policy } => {
            let mut builder = Registry::builder().bind(address).policy(*policy);
            if let Some(path) = snapshot {
                builder = builder.snapshot(path);
            }
            let registry = builder.start().await?;
            println!("{}", registry.local_addr());
            std::future::pending::<()>().await;
        }
    }
    Ok(())
}
