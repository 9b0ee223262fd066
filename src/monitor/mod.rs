//! What the layers know, read on demand; and what operators may do.
//!
//! A [`Monitor`] is a value, no global. A directory carries one, layers take `.monitor(&monitor)`, stacks pass it on.
//! Metrics, dashboards and actuator endpoints read it; nothing is pushed, and a monitor nobody reads costs nothing.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::SystemTime,
};

mod counts;
mod views;

pub use counts::{Counts, CountsView, Latency, LatencyView};
pub use views::{
    BreakerView, BulkheadView, CommandView, DirectoryView, EndpointView, FallbackView, Observation, PeerView,
    RegistryView, RetryView, ServiceView, Snapshot, SnapshotView,
};

/// A register of what can be watched. Clones share it; an entry leaves when its layer is dropped.
#[derive(Clone, Default)]
pub struct Monitor(Arc<Inner>);

#[derive(Default)]
struct Inner {
    entries: Mutex<Vec<Entry>>,
    journal: Mutex<VecDeque<JournalEntry>>,
}

struct Entry {
    name: Arc<str>,
    source: Weak<dyn Observe>,
}

/// The kinds of things that can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is what its view is of")]
pub enum Kind {
    Command,
    Breaker,
    Bulkhead,
    Retry,
    Fallback,
    Endpoints,
    Directory,
    Registry,
}

/// Something that can be watched, and perhaps steered.
pub trait Observe: Send + Sync {
    /// What kind of thing it is: names are unique among those of one kind.
    fn kind(&self) -> Kind;

    /// What it is like now, under the name the monitor gave it.
    fn observe(&self, name: &str) -> Vec<Observation>;

    /// Does what an operator asks; `false` if it cannot.
    fn act(&self, _act: &Act) -> bool {
        false
    }
}

/// What an operator may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Act {
    /// A breaker refuses every call until released.
    ForceOpen,
    /// A breaker lets every call through until released.
    ForceClosed,
    /// A breaker decides for itself again.
    Release,
    /// No calls to the endpoint of this id, unless too few are left.
    Eject(String),
    /// No new calls to the endpoint of this id.
    Drain(String),
    /// The endpoint of this id takes calls again.
    Restore(String),
}

/// One thing an operator did, or tried to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// When.
    pub at: SystemTime,
    /// To the entry of this name.
    pub name: String,
    /// What.
    pub act: Act,
    /// Whether it was done.
    pub done: bool,
}

/// How many acts the journal keeps.
const JOURNAL: usize = 256;

impl Monitor {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry, and says under which name: a second `catalog` of the same kind of thing becomes `catalog#2`.
    pub fn register<O: Observe + 'static>(&self, name: &str, source: &Arc<O>) -> Arc<str> {
        let mut entries = self.entries();
        entries.retain(|entry| entry.source.strong_count() > 0);
        let taken = |candidate: &str| {
            entries
                .iter()
                .filter(|entry| &*entry.name == candidate)
                .any(|entry| entry.source.upgrade().is_some_and(|other| other.kind() == source.kind()))
        };
        let unique: Arc<str> = (1..=u32::MAX)
            .map(|number| if number == 1 { name.to_owned() } else { format!("{name}#{number}") })
            .find(|candidate| !taken(candidate))
            .unwrap_or_default()
            .into();
        let source: Weak<O> = Arc::downgrade(source);
        entries.push(Entry { name: Arc::clone(&unique), source });
        unique
    }

    /// Everything, as of now.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (name, source) in self.sources() {
            for observation in source.observe(&name) {
                snapshot.add(observation);
            }
        }
        snapshot
    }

    /// Asks every entry of this name to do something, and keeps it in the journal. `false` if none could.
    pub fn act(&self, name: &str, act: Act) -> bool {
        let mut done = false;
        for (own, source) in self.sources() {
            done |= &*own == name && source.act(&act);
        }
        tracing::info!(target: "hopvine::monitor", name, ?act, done, "operator act");
        let mut journal = self.0.journal.lock().unwrap_or_else(PoisonError::into_inner);
        if journal.len() == JOURNAL {
            journal.pop_front();
        }
        journal.push_back(JournalEntry { at: SystemTime::now(), name: name.to_owned(), act, done });
        done
    }

    /// What operators did, the oldest first.
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.0.journal.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn sources(&self) -> Vec<(Arc<str>, Arc<dyn Observe>)> {
        let entries = self.entries();
        entries.iter().filter_map(|entry| Some((Arc::clone(&entry.name), entry.source.upgrade()?))).collect()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.entries().iter().map(|entry| Arc::clone(&entry.name)).collect();
        f.debug_struct("Monitor").field("entries", &names).finish_non_exhaustive()
    }
}
