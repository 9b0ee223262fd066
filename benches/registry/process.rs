//! A server in a process of its own, and what it has used.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::loader::Connection;

/// Ended when it is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts it and waits until it answers this. `command` is told where to listen.
    pub(crate) fn start(command: impl FnOnce(SocketAddr) -> Command, ready: &[u8]) -> io::Result<Self> {
        // Free a moment ago; nobody else here takes ports.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = command(address).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut process = Self { child, address };
        let end = Instant::now() + Duration::from_secs(90);
        while Connection::new(address).ask(ready, 200).is_err() {
            if let Some(status) = process.child.try_wait()? {
                return Err(io::Error::other(format!("the server ended before it was ready: {status}")));
            }
            if Instant::now() > end {
                return Err(io::Error::other("the server is not ready after 90 s"));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(process)
    }

    /// Seconds of processor time it has used so far, in user mode and in the kernel.
    pub(crate) fn cpu(&self) -> io::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in brackets may hold anything; behind it stand `state`, then ten more, then the two.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = rest.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap_or(0));
        Ok(ticks.sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Its resident memory in MiB.
    pub(crate) fn resident(&self) -> io::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        let kib = line.trim().trim_end_matches(" kB").parse::<f64>().map_err(io::Error::other)?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
