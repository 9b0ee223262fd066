//! One line every ten seconds.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use hopvine::{Monitor, monitor::LatencyView};
use tokio::time::{Instant, sleep_until};

use crate::{
    faults::{Clock, Fleet},
    load::{Load, Tally},
    vitals::{Vitals, memory},
};

/// How often there is a line; of a short run five.
const EVERY: Duration = Duration::from_secs(10);

/// All lines together.
#[derive(Default)]
pub struct Totals {
    pub ok: u64,
    pub errors: BTreeMap<String, u64>,
    pub lost: u64,
    pub cut: u64,
    pub wrong: u64,
}

impl Totals {
    pub fn add(&mut self, tally: &Tally) {
        self.ok += tally.ok;
        self.lost += tally.lost;
        self.cut += tally.cut;
        self.wrong += tally.wrong;
        for (kind, count) in &tally.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
    }
}

/// Writes lines until the load has ended.
pub async fn run(load: Arc<Load>, fleet: Arc<Fleet>, monitor: Monitor, clock: Clock, length: Duration) -> Totals {
    println!("      time  requests      ok  lost     p50     p99  attempts  RSS MiB   fds  tasks  sick  errors");
    let mut totals = Totals::default();
    let mut attempts = (0, 0);
    let every = EVERY.min(length / 5);
    let mut next = clock.start + every;
    let mut sent = 0;
    while !clock.stop.is_cancelled() {
        tokio::select! {
            () = sleep_until(next) => {}
            () = clock.stop.cancelled() => {}
        }
        next += every;
        let tally = load.take();
        totals.add(&tally);
        let LatencyView { p50, p99, .. } = tally.latency.view();
        let before = std::mem::replace(&mut attempts, attempts_so_far(&monitor));
        let per_call = (attempts.1 - before.1) as f64 / (attempts.0 - before.0).max(1) as f64;
        let sent_before = std::mem::replace(&mut sent, load.sent.load(Relaxed));
        let Vitals { tasks, files } = Vitals::now();
        println!(
            "{:>8.2} s {:>9} {:>7} {:>5} {:>7} {:>7} {:>9.4} {:>8.1} {:>5} {:>6} {:>5}  {}",
            clock.start.elapsed().as_secs_f64(),
            sent - sent_before,
            tally.ok,
            tally.lost,
            milliseconds(p50),
            milliseconds(p99),
            per_call,
            memory() as f64 / f64::from(1 << 20),
            files,
            tasks,
            fleet.sick(),
            errors(&tally.errors, tally.cut),
        );
        // Behind: a line that is late is no reason for two.
        next = next.max(Instant::now());
    }
    totals
}

/// The whole run, in a few lines.
pub fn summary(load: &Load, totals: &Totals, monitor: &Monitor, kills: usize) {
    let snapshot = monitor.snapshot();
    let (calls, attempts) = attempts_so_far(monitor);
    println!(
        "\nOf {} requests {} were answered. Errors: {}. Idempotent calls lost: {}.",
        load.sent.load(Relaxed),
        totals.ok,
        errors(&totals.errors, totals.cut),
        totals.lost,
    );
    println!(
        "{:.4} attempts a call, {} requeues, {} retries refused by the budget, {} calls by a bulkhead; breakers opened {} times.",
        attempts as f64 / calls.max(1) as f64,
        snapshot.retries.iter().map(|retry| retry.requeues).sum::<u64>(),
        snapshot.retries.iter().map(|retry| retry.refused).sum::<u64>(),
        snapshot.bulkheads.iter().map(|bulkhead| bulkhead.rejected).sum::<u64>(),
        snapshot.breakers.iter().map(|breaker| breaker.opened).sum::<u64>(),
    );
    for command in snapshot.commands {
        let LatencyView { p50, p99, max, .. } = command.latency;
        println!("{}: p50 {}, p99 {}, max {}.", command.name, milliseconds(p50), milliseconds(p99), milliseconds(max));
    }
    println!("{kills} kills. The load was at most {:.1} ms late.", load.late.load(Relaxed) as f64 / 1e3);
}

/// Calls and attempts of all stacks.
fn attempts_so_far(monitor: &Monitor) -> (u64, u64) {
    let retries = monitor.snapshot().retries;
    retries.iter().fold((0, 0), |(calls, attempts), retry| (calls + retry.calls, attempts + retry.attempts))
}

/// By kind, in a few words.
pub fn errors(kinds: &BTreeMap<String, u64>, cut: u64) -> String {
    let mut line = String::new();
    for (kind, count) in kinds {
        let _ = write!(line, "{kind} {count}  ");
    }
    if cut > 0 {
        let _ = write!(line, "body cut {cut}");
    }
    if line.is_empty() { "none".to_owned() } else { line.trim_end().to_owned() }
}

fn milliseconds(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| format!("{:.1}ms", time.as_secs_f64() * 1e3))
}
