//! What this process takes: memory, open files, tasks.

use std::time::Duration;

use tokio::{
    runtime::Handle,
    time::{Instant, MissedTickBehavior, interval},
};

/// How often the memory is looked at.
const EVERY: Duration = Duration::from_millis(100);

/// What may leak beside memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vitals {
    pub tasks: usize,
    /// 0 where the system does not tell.
    pub files: usize,
}

impl Vitals {
    pub fn now() -> Self {
        // Less the one that reads them.
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1));
        Self { tasks: Handle::current().metrics().num_alive_tasks(), files }
    }
}

/// The memory this process has resident, in bytes; 0 where the system does not tell.
pub fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// The memory over a time, in fifths of it.
#[derive(Clone, Copy, Default)]
pub struct Memory {
    sums: [(u64, u64); 5],
}

impl Memory {
    /// Looks until the time is over.
    pub async fn watch(start: Instant, length: Duration) -> Self {
        let mut seen = Self::default();
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let at = tick.tick().await.saturating_duration_since(start);
            if at >= length {
                return seen;
            }
            let fifth = (at.as_secs_f64() / length.as_secs_f64() * 5.0) as usize;
            let (sum, count) = &mut seen.sums[fifth.min(4)];
            *sum += memory();
            *count += 1;
        }
    }

    /// The means of the second fifth, when all has warmed up, and of the last, in bytes.
    pub fn means(&self) -> (u64, u64) {
        let mean = |(sum, count): (u64, u64)| sum / count.max(1);
        (mean(self.sums[1]), mean(self.sums[4]))
    }
}
