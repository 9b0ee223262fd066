use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use libtest_mimic::Failed;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use super::{LONG, folder, get};

/// How long a start may take: a dozen virtual machines start on two cores, which others may want as well.
const START: Duration = Duration::from_secs(300);

/// A program of the suite's own, which writes to `target/interop/logs`; ended with it.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self, Failed> {
        let log = folder("logs")?.join(format!("{name}.log"));
        let out = File::create(&log)?;
        let child = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn()?;
        Ok(Self { child, log })
    }

    /// Waits until it answers 200 there.
    pub(crate) async fn ready(&mut self, url: &str) -> Result<(), Failed> {
        let end = Instant::now() + START;
        while !get(url).await.is_ok_and(|answer| answer.status.is_success()) {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(&format!("ended before it was ready: {status}")));
            }
            if Instant::now() >= end {
                return Err(self.failed(&format!("did not answer {url} within {START:?}")));
            }
            tokio::time::sleep_until(Instant::now() + Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Stops it as an operator would, and waits until it has ended.
    pub(crate) async fn stop(mut self) -> Result<(), Failed> {
        let id = i32::try_from(self.child.id())?;
        kill_process(Pid::from_raw(id).ok_or("no process")?, Signal::TERM)?;
        let end = Instant::now() + LONG;
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= end {
                return Err(self.failed(&format!("did not stop within {LONG:?}")));
            }
            tokio::time::sleep_until(Instant::now() + Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn failed(&self, what: &str) -> Failed {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
        format!("{} {what}; its log ends\n  {last}", self.log.display()).into()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
