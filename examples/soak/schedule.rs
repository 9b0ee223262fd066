//! Which instance falls sick of what, when and for how long: decided before the load begins, from the seed alone.

use std::time::Duration;

use fastrand::Rng;

/// One instance falls sick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Since the load began.
    pub at: Duration,
    pub instance: usize,
    pub kind: Kind,
    pub lasts: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Killed, and started again on another port. If it is `told`, the directory hears of the death soon; else only of
    /// the new instance, and lists a dead port until then.
    Kill { told: bool },
    /// Each answer takes far longer than anybody waits.
    Slow,
    /// Stopped by a signal: connections are accepted, nothing is answered.
    Pause,
}

/// When the first fault may happen.
const CALM: Duration = Duration::from_secs(1);

/// How long an instance counts as sick after its fault: until its new port is known, and what had gathered is answered.
pub const RECOVERY: Duration = Duration::from_millis(500);

/// The faults of a run. Never more than `most_sick` at once, never two of one instance.
pub fn plan(seed: u64, length: Duration, instances: usize, most_sick: usize) -> Vec<Fault> {
    let mut random = Rng::with_seed(seed);
    let mut between = |low: u64, high: u64| Duration::from_millis(random.u64(low..=high));
    let mut faults = Vec::new();
    let mut well_at = vec![Duration::ZERO; instances];
    let mut at = CALM;
    loop {
        at += between(0, 2500);
        let mut sick: Vec<Duration> = well_at.iter().copied().filter(|well_at| *well_at > at).collect();
        sick.sort_unstable();
        if sick.len() >= most_sick {
            at = sick[sick.len() - most_sick];
        }
        if at >= length {
            return faults;
        }
        let well: Vec<usize> = (0..instances).filter(|instance| well_at[*instance] <= at).collect();
        let instance = well[between(0, 1 << 20).as_millis() as usize % well.len()];
        let (kind, lasts) = match between(0, 3).as_millis() {
            0 => (Kind::Kill { told: true }, between(500, 4000)),
            1 => (Kind::Kill { told: false }, between(500, 4000)),
            2 => (Kind::Slow, Duration::from_secs(3)),
            _ => (Kind::Pause, between(1000, 5000)),
        };
        well_at[instance] = at + lasts + RECOVERY;
        faults.push(Fault { at, instance, kind, lasts });
    }
}
