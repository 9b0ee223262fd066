//! The instances as their parent sees them: started, told, signalled, killed.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use hopvine::Endpoint;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::{instance, ledger::Ledger, pause::Pause};

/// How long a process may take to start, or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// One instance's process.
pub struct Process {
    name: String,
    child: Child,
    input: ChildStdin,
    /// Reads what it says, to the end.
    reader: JoinHandle<()>,
    address: SocketAddr,
    ledger: Arc<Ledger>,
}

impl Process {
    /// Starts it, and waits until it listens.
    pub async fn start(number: usize, ledger: &Arc<Ledger>) -> io::Result<Self> {
        let name = format!("instance-{}", number + 1);
        let mut child = Command::new(std::env::current_exe()?)
            .args([instance::ARGUMENT, &name])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let mut lines = BufReader::new(output).lines();
        let port = timeout_at(Instant::now() + PATIENCE, lines.next_line()).await??;
        let port =
            port.and_then(|port| port.parse().ok()).ok_or_else(|| io::Error::other("an instance has no port"))?;
        let reader = tokio::spawn(read(lines, Arc::clone(ledger)));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { name, child, input, reader, address, ledger: Arc::clone(ledger) })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from(self.address).with_id(&*self.name)
    }

    /// SIGKILL. Returns when it is dead, and all it said was heard.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await?;
        Ok((&mut self.reader).await?)
    }

    /// Starts the next one of the same name, after this one was killed.
    pub async fn start_again(&mut self, number: usize) -> io::Result<()> {
        *self = Self::start(number, &self.ledger).await?;
        Ok(())
    }

    pub async fn slow(&mut self, by: Duration) -> io::Result<()> {
        self.input.write_all(format!("slow {}\n", by.as_millis()).as_bytes()).await
    }

    /// Stops it for a time.
    pub fn pause(&self, time: Duration) -> io::Result<Pause> {
        // Not reaped yet, so that the id is no other process's.
        let id = self.child.id().ok_or_else(|| io::Error::other(format!("{} is dead", self.name)))?;
        Pause::begin(id, time)
    }

    /// Ends it by closing its input.
    pub async fn end(mut self) -> io::Result<()> {
        drop(self.input);
        let ended = timeout_at(Instant::now() + PATIENCE, self.child.wait()).await;
        let status = ended.map_err(|_| io::Error::other(format!("{} does not end", self.name)))??;
        self.reader.await?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("{} ended with {status}", self.name))) }
    }
}

async fn read(mut lines: Lines<BufReader<ChildStdout>>, ledger: Arc<Ledger>) {
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(request) = line.strip_prefix("ran ").and_then(|number| number.parse().ok()) {
            ledger.ran(request);
        }
    }
}
