use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use super::{AddressFilter, ChangeStream, ServiceHandle, Source, service::Service, writer::Writer};
use crate::{
    Endpoint, Monitor,
    monitor::{DirectoryView, Kind, Observation, Observe},
};

/// All services of one or more sources. Clones share it. See the [module](super).
#[derive(Clone)]
pub struct Directory {
    core: Arc<Core>,
}

struct Core {
    name: Arc<str>,
    monitor: Monitor,
    sources: Vec<Arc<dyn Source>>,
    filter: Arc<AddressFilter>,
    coalesce: Duration,
    most: usize,
    services: Mutex<HashMap<Arc<str>, Entry>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A service that was asked for, or is fixed.
struct Entry {
    service: Arc<Service>,
    source: Running,
}

enum Running {
    /// Nothing to run.
    Fixed,
    /// As long as the directory or a handle is held.
    Always(Arc<DropGuard>),
    /// As long as a handle is held.
    WhileUsed(Weak<DropGuard>),
}

/// The services whose sources have not said anything in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    services: Vec<String>,
}

impl NotReady {
    pub(super) fn new(services: Vec<String>) -> Self {
        Self { services }
    }

    /// Their names.
    pub fn services(&self) -> &[String] {
        &self.services
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing heard yet of {}", self.services.join(", "))
    }
}

impl std::error::Error for NotReady {}

/// Puts a [`Directory`] together.
#[must_use]
pub struct DirectoryBuilder {
    name: Arc<str>,
    monitor: Monitor,
    filter: AddressFilter,
    coalesce: Duration,
    most: usize,
    services: Vec<(Arc<str>, ChangeStream)>,
    sources: Vec<Arc<dyn Source>>,
}

impl Directory {
    /// A directory of services whose endpoints never change. Needs no runtime.
    pub fn fixed<N, E>(services: impl IntoIterator<Item = (N, E)>) -> Self
    where
        N: Into<Arc<str>>,
        E: IntoIterator<Item = Endpoint>,
    {
        let directory = Self::builder().start();
        for (name, endpoints) in services {
            let handle = ServiceHandle::fixed(name, endpoints);
            let name = Arc::clone(handle.name());
            let entry = Entry { service: handle.service, source: Running::Fixed };
            directory.core.services().insert(name, entry);
        }
        directory
    }

    /// A directory of other sources.
    pub fn builder() -> DirectoryBuilder {
        DirectoryBuilder {
            name: "directory".into(),
            monitor: Monitor::new(),
            filter: AddressFilter::default(),
            coalesce: Duration::from_millis(50),
            most: 1024,
            services: Vec::new(),
            sources: Vec::new(),
        }
    }

    /// The service of this name. One that no source lists is empty, and fills when a source does.
    pub fn service(&self, name: &str) -> ServiceHandle {
        self.core.handle(name)
    }

    /// The service of this name, if it is known, or a source lists it. Of services of sources at most [`DirectoryBuilder::most`] are held at once; beyond
    /// that there are none.
    pub fn get(&self, name: &str) -> Option<ServiceHandle> {
        let known = {
            let services = self.core.services();
            services.contains_key(name)
                || (services.len() < self.core.most && self.core.sources.iter().any(|source| source.lists(name)))
        };
        known.then(|| self.core.handle(name))
    }

    /// Where it can be watched.
    pub fn monitor(&self) -> &Monitor {
        &self.core.monitor
    }

    /// Waits until the source of each service in use has said something, at most this long altogether.
    pub async fn ready(&self, timeout: Duration) -> Result<(), NotReady> {
        let end = Instant::now() + timeout;
        let names: Vec<Arc<str>> = self.core.services().keys().cloned().collect();
        let mut missing = Vec::new();
        for name in names {
            let left = end.saturating_duration_since(Instant::now());
            if self.service(&name).ready(left).await.is_err() {
                missing.push(name.to_string());
            }
        }
        missing.sort();
        if missing.is_empty() { Ok(()) } else { Err(NotReady::new(missing)) }
    }

    /// Stops the sources and waits until they have stopped. What they said last stays.
    pub async fn shutdown(&self) {
        self.core.stop.cancel();
        self.core.tasks.close();
        self.core.tasks.wait().await;
    }
}

impl DirectoryBuilder {
    /// Its name, for the monitor; default `directory`.
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Where it can be watched, and its stacks with it.
    pub fn monitor(mut self, monitor: &Monitor) -> Self {
        self.monitor = monitor.clone();
        self
    }

    /// One service, from a source of its own.
    pub fn service(mut self, name: &str, changes: ChangeStream) -> Self {
        self.services.push((name.into(), changes));
        self
    }

    /// Many services. Of several sources the first that lists a name has it; of none that does, the last.
    pub fn source(mut self, source: impl Source) -> Self {
        self.sources.push(Arc::new(source));
        self
    }

    /// Which addresses are taken.
    pub fn filter(mut self, filter: AddressFilter) -> Self {
        self.filter = filter;
        self
    }

    /// How long changes are gathered; default 50 ms.
    pub fn coalesce(mut self, time: Duration) -> Self {
        self.coalesce = time;
        self
    }

    /// How many services [`Directory::get`] may begin to follow; default 1 024.
    pub fn most(mut self, services: usize) -> Self {
        self.most = services;
        self
    }

    /// The directory, running.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, if it has sources: they run there.
    pub fn build(mut self) -> Directory {
        let services = std::mem::take(&mut self.services);
        let directory = self.start();
        for (name, changes) in services {
            let service = Arc::new(Service::new(Arc::clone(&name)));
            let source = Running::Always(directory.core.run(&service, changes));
            directory.core.services().insert(name, Entry { service, source });
        }
        directory
    }

    fn start(self) -> Directory {
        let core = Arc::new(Core {
            name: self.name,
            monitor: self.monitor,
            sources: self.sources,
            filter: Arc::new(self.filter),
            coalesce: self.coalesce,
            most: self.most,
            services: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        core.monitor.register(&core.name, &core);
        Directory { core }
    }
}

impl Core {
    fn handle(&self, name: &str) -> ServiceHandle {
        let mut services = self.services();
        let monitor = self.monitor.clone();
        if let Some(entry) = services.get_mut(name) {
            let source = match &entry.source {
                Running::Fixed => None,
                Running::Always(guard) => Some(Arc::clone(guard)),
                Running::WhileUsed(guard) => match guard.upgrade() {
                    Some(guard) => Some(guard),
                    // Its last handle has gone, and its source with it.
                    None => self.begin(name, &entry.service),
                },
            };
            if let (Running::WhileUsed(running), Some(guard)) = (&mut entry.source, &source) {
                *running = Arc::downgrade(guard);
            }
            return ServiceHandle::new(Arc::clone(&entry.service), monitor, source);
        }
        let service = Arc::new(Service::new(name.into()));
        let guard = self.begin(name, &service);
        if let Some(guard) = &guard {
            // What nobody uses any more makes room.
            services
                .retain(|_, entry| !matches!(&entry.source, Running::WhileUsed(guard) if guard.strong_count() == 0));
            let entry = Entry { service: Arc::clone(&service), source: Running::WhileUsed(Arc::downgrade(guard)) };
            services.insert(name.into(), entry);
        }
        ServiceHandle::new(service, monitor, guard)
    }

    /// Asks the source that has this service.
    fn begin(&self, name: &str, service: &Arc<Service>) -> Option<Arc<DropGuard>> {
        let source = self.sources.iter().find(|source| source.lists(name)).or(self.sources.last())?;
        Some(self.run(service, source.discover(name)))
    }

    fn run(&self, service: &Arc<Service>, changes: ChangeStream) -> Arc<DropGuard> {
        let stop = self.stop.child_token();
        let writer = Writer { service: Arc::clone(service), filter: Arc::clone(&self.filter), coalesce: self.coalesce };
        self.tasks.spawn(stop.clone().run_until_cancelled_owned(writer.run(changes)));
        Arc::new(stop.drop_guard())
    }

    fn services(&self) -> MutexGuard<'_, HashMap<Arc<str>, Entry>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observe for Core {
    fn kind(&self) -> Kind {
        Kind::Directory
    }

    fn observe(&self, name: &str) -> Vec<Observation> {
        let mut services: Vec<_> = self.services().values().map(|entry| entry.service.view()).collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        vec![Observation::Directory(DirectoryView { name: name.to_owned(), services })]
    }
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services: Vec<_> = self.core.services().keys().cloned().collect();
        f.debug_struct("Directory").field("name", &self.core.name).field("services", &services).finish_non_exhaustive()
    }
}

impl fmt::Debug for DirectoryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectoryBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}
