//! Watches the monitor while the drill runs: what changed, when.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use hopvine::{Monitor, ServiceHandle, monitor::Snapshot};
use tokio::time::{Instant, MissedTickBehavior};

use crate::{report::Event, services::Products};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(10);

/// What was seen so far. Clones share it.
#[derive(Clone)]
pub struct Watch {
    start: Instant,
    products: Products,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    events: Vec<Event>,
    states: BTreeMap<String, &'static str>,
    probes: Vec<u32>,
    print: bool,
}

impl Watch {
    pub fn new(start: Instant, products: Products, print: bool) -> Self {
        Self { start, products, seen: Arc::new(Mutex::new(Seen { print, ..Seen::default() })) }
    }

    /// Looks until it is dropped.
    pub async fn run(self, monitor: Monitor) {
        let mut tick = tokio::time::interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look(&monitor.snapshot());
        }
    }

    /// Notes who comes into the directory and who goes, until it is dropped.
    pub async fn follow(self, service: ServiceHandle) {
        let mut versions = service.watch();
        let ids = || -> BTreeSet<_> {
            service.snapshot().endpoints().iter().map(|endpoint| endpoint.id().to_string()).collect()
        };
        let mut known = ids();
        while versions.changed().await.is_ok() {
            let now = ids();
            now.difference(&known).for_each(|id| self.note(format!("the directory finds {id}")));
            known.difference(&now).for_each(|id| self.note(format!("the directory loses {id}")));
            known = now;
        }
    }

    fn look(&self, snapshot: &Snapshot) {
        let breakers =
            snapshot.breakers.iter().map(|breaker| (format!("breaker {}", breaker.name), breaker.state, "closed"));
        let endpoints = snapshot
            .endpoints
            .iter()
            .map(|endpoint| (format!("endpoint {} as {} sees it", endpoint.id, endpoint.name), endpoint.state, "up"));
        for (what, state, usual) in breakers.chain(endpoints) {
            let mut seen = self.seen.lock().expect("nobody panics while adding");
            let before = seen.states.insert(what.clone(), state).unwrap_or(usual);
            drop(seen);
            if before != state {
                self.note(format!("{what}: {before} -> {state}"));
            }
            if (before, state) == ("half_open", "closed")
                && let Some(caller) = caller(&what)
            {
                let most = self.products.most_in_flight(&caller);
                self.note(format!("{caller} had at most {most} probes at product at once"));
                self.seen.lock().expect("nobody panics while adding").probes.push(most);
            }
        }
    }

    /// Notes something the drill did.
    pub fn note(&self, what: impl Into<String>) {
        let event = Event { t_ms: self.start.elapsed().as_millis(), what: what.into() };
        let mut seen = self.seen.lock().expect("nobody panics while adding");
        if seen.print {
            println!("{:>8.2} s  {}", event.t_ms as f64 / 1e3, event.what);
        }
        seen.events.push(event);
    }

    pub fn events(&self) -> Vec<Event> {
        self.seen.lock().expect("nobody panics while adding").events.clone()
    }

    /// The most probes at once of each breaker that closed.
    pub fn probes(&self) -> Vec<u32> {
        self.seen.lock().expect("nobody panics while adding").probes.clone()
    }

    /// The events since `from`, in milliseconds, that contain `text`.
    pub fn since(&self, from: u128, text: &str) -> Vec<Event> {
        self.events().into_iter().filter(|event| event.t_ms >= from && event.what.contains(text)).collect()
    }

    pub fn now(&self) -> u128 {
        self.start.elapsed().as_millis()
    }
}

/// The display whose breaker this is: they were made in order, and the monitor numbers them.
fn caller(what: &str) -> Option<String> {
    let number = what.strip_prefix("breaker display.product")?;
    Some(format!("display-{}", number.strip_prefix('#').unwrap_or("1")))
}

/// Calls that passed the breaker, and their attempts, of each command so far; its instances together.
pub fn attempts(monitor: &Monitor) -> BTreeMap<String, (u64, u64)> {
    let mut commands = BTreeMap::<String, (u64, u64)>::new();
    for retry in monitor.snapshot().retries {
        let command = retry.name.split('#').next().unwrap_or_default().to_owned();
        let (calls, attempts) = commands.entry(command).or_default();
        *calls += retry.calls;
        *attempts += retry.attempts;
    }
    commands
}

/// The largest number of attempts a call since `before`.
pub fn attempts_per_call(before: &BTreeMap<String, (u64, u64)>, after: &BTreeMap<String, (u64, u64)>) -> f64 {
    let ratios = after.iter().map(|(command, (calls, attempts))| {
        let (calls_before, attempts_before) = before.get(command).copied().unwrap_or_default();
        (attempts - attempts_before) as f64 / (calls - calls_before).max(1) as f64
    });
    let largest = ratios.fold(0.0, f64::max);
    (largest * 1000.0).round() / 1000.0
}
