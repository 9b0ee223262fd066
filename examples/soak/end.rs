//! What must hold when all is over.

use std::time::Duration;

use hopvine::{Monitor, monitor::Snapshot};
use tokio::time::{Instant, sleep_until};

use crate::{ledger, load::Load, report::Totals, vitals::Vitals};

/// How long things may take to settle.
const BOUND: Duration = Duration::from_secs(10);

/// What memory may grow by, beside a tenth.
const SLACK: u64 = 8 << 20;

/// Promises that were not held.
#[derive(Default)]
pub struct Promises {
    broken: Vec<String>,
}

impl Promises {
    pub fn hold(&mut self, holds: bool, promise: impl Into<String>) {
        if !holds {
            self.broken.push(promise.into());
        }
    }

    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    /// Waits until whatever counts what is under way is at 0.
    pub async fn settle(&mut self, monitor: &Monitor, load: &Load) {
        let busy = || {
            let mut busy = under_way(&monitor.snapshot());
            if load.in_flight() > 0 {
                busy.push(format!("load: {} in flight", load.in_flight()));
            }
            busy
        };
        within_bound(|| busy().is_empty()).await;
        let busy = busy();
        self.hold(busy.is_empty(), format!("every counter is 0 at the end: {}", busy.join(", ")));
    }

    /// Waits until no more tasks and files are left than there were.
    pub async fn leave_nothing(&mut self, before: Vitals) {
        let less = |now: Vitals| now.tasks <= before.tasks && now.files <= before.files;
        within_bound(|| less(Vitals::now())).await;
        let now = Vitals::now();
        self.hold(less(now), format!("without stacks and directory all is as before: {before:?}, now {now:?}"));
        println!(
            "Before and after stacks and directory: {} and {} tasks, {} and {} open files.",
            before.tasks, now.tasks, before.files, now.files
        );
    }

    pub fn memory_is_flat(&mut self, (early, late): (u64, u64)) {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let told = format!("{:.1} MiB in the second fifth, {:.1} MiB in the last", mib(early), mib(late));
        self.hold(late <= early + early / 10 + SLACK, format!("memory is flat: {told}"));
        println!("Memory: {told}.");
    }

    /// `kills`: each may cut one answer between its head and its body.
    pub fn answers(&mut self, totals: &Totals, refused: u64, kills: usize) {
        let Totals { lost, cut, wrong, .. } = *totals;
        self.hold(lost == 0, format!("no idempotent call is lost: {lost} are"));
        self.hold(wrong == 0, format!("every answer is its request's: {wrong} are another's"));
        self.hold(cut <= kills as u64, format!("no body breaks off but by a kill: {cut} do, {kills} kills"));
        self.hold(refused == 0, format!("never too many requests in flight: {refused} were not sent"));
    }

    pub fn nothing_twice(&mut self, totals: &ledger::Totals) {
        let ledger::Totals { ran, twice, made_up, denied } = *totals;
        self.hold(ran > 0, "requests that may not run twice run");
        self.hold(twice == 0, format!("what may not run twice does not: {twice} did"));
        self.hold(made_up == 0, format!("what is answered has run: {made_up} had not"));
        self.hold(denied == 0, format!("what is said to be unsent has not run: {denied} had"));
    }
}

/// Calls, attempts, places and leases that somebody still holds.
fn under_way(snapshot: &Snapshot) -> Vec<String> {
    let commands = snapshot.commands.iter().map(|view| (&view.name, "in flight", view.in_flight));
    let bulkheads = snapshot.bulkheads.iter().map(|view| (&view.name, "places taken", u64::from(view.in_flight)));
    let waiting = snapshot.bulkheads.iter().map(|view| (&view.name, "waiting", u64::from(view.waiting)));
    let probes = snapshot.breakers.iter().map(|view| (&view.name, "probes", u64::from(view.probes)));
    let endpoints = snapshot.endpoints.iter().map(|view| (&view.id, "attempts", u64::from(view.in_flight)));
    let leases = snapshot.endpoints.iter().map(|view| (&view.id, "leases", u64::from(view.state == "probing")));
    let all = commands.chain(bulkheads).chain(waiting).chain(probes).chain(endpoints).chain(leases);
    all.filter(|(_, _, count)| *count > 0).map(|(name, what, count)| format!("{name}: {count} {what}")).collect()
}

async fn within_bound(holds: impl Fn() -> bool) {
    let end = Instant::now() + BOUND;
    while !holds() && Instant::now() < end {
        sleep_until(Instant::now() + Duration::from_millis(20)).await;
    }
}
