//! A process that is stopped for a time, and another one, this program again, that stops and wakes it.
//!
//! So a stopped one is woken, and then ends, even if its parent was killed in the meantime.

use std::{
    io::{self, Read as _},
    process::{ExitCode, Stdio},
    sync::mpsc,
    time::Duration,
};

use tokio::process::{Child, Command};

/// The first argument of a process that stops another one.
pub const ARGUMENT: &str = "pause";

/// A process that is stopped.
pub struct Pause {
    waker: Child,
}

impl Pause {
    /// Stops the process of this id, which must be a child of the caller's that has not been waited for.
    pub fn begin(id: u32, time: Duration) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([ARGUMENT, &id.to_string(), &time.as_millis().to_string()]).stdin(Stdio::piped());
        // An interrupt from the terminal is not for it: it has somebody to wake.
        #[cfg(unix)]
        command.process_group(0);
        Ok(Self { waker: command.spawn()? })
    }

    /// Returns when it is over, which it is before its time when `early` is.
    pub async fn over(mut self, early: impl Future<Output = ()>) -> io::Result<()> {
        // Taken out, since to wait would close it, and so end the pause.
        let mut input = self.waker.stdin.take();
        let status = tokio::select! {
            status = self.waker.wait() => status?,
            () = early => {
                drop(input.take());
                self.waker.wait().await?
            }
        };
        if status.success() { Ok(()) } else { Err(io::Error::other("an instance could not be stopped or woken")) }
    }
}

/// Stops a process until the time is over, or standard input ends.
pub fn run(mut words: impl Iterator<Item = String>) -> ExitCode {
    let (Some(id), Some(Ok(time))) = (words.next(), words.next().map(|time| time.parse())) else {
        return ExitCode::from(2);
    };
    let (ended, end) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        drop(ended);
    });
    let stopped = signal("STOP", &id);
    // Never a message: it is over by time, or by the end of the other side.
    let _ = end.recv_timeout(Duration::from_millis(time));
    if stopped & signal("CONT", &id) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn signal(name: &str, id: &str) -> bool {
    std::process::Command::new("kill").args(["-s", name, id]).status().is_ok_and(|status| status.success())
}
