//! What is read, as bytes: each document in each variant rendered once a change, when somebody reads it, and never per request.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;

mod cell;
mod snapshot;
mod variant;

pub(super) use variant::{Encoding, Variant};

use cell::{Cell, Rendered};
use snapshot::Snapshot;

use super::{Clock, Store};
use crate::eureka::{Applications, Text};

/// The longest that a rendering is believed because it took long itself.
const LONGEST: Duration = Duration::from_secs(1);

/// Rendering takes at most one part in so many of the time.
const SHARE: u32 = 10;

/// A document that takes longer is rendered where it holds up nobody.
const LARGE: usize = 64 * 1024;

/// How old what is read can be at the very most. Watches begin so much earlier.
pub(super) const STALE: Duration = Duration::from_secs(5);

/// All documents of a registry.
pub(super) struct Documents {
    store: Arc<Store>,
    clock: Clock,
    all: [Arc<Cell>; Variant::COUNT],
    delta: [Arc<Cell>; Variant::COUNT],
    named: [Mutex<HashMap<Text, Cells>>; 3],
    snapshot: Mutex<Option<Arc<Snapshot>>>,
    /// One number for each delta that was made.
    deltas: AtomicI64,
}

type Cells = Arc<[Arc<Cell>; Variant::COUNT]>;

/// A document, or that there is no such thing.
pub(super) struct Found(pub(super) Option<Bytes>);

/// Which document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Document<'a> {
    /// The whole registry.
    All,
    /// What changed lately.
    Delta,
    /// One application.
    Application(&'a str),
    /// The instances that serve a virtual name.
    Vip(&'a str),
    /// The instances that serve a virtual name over TLS.
    SecureVip(&'a str),
}

impl Documents {
    pub(super) fn new(store: Arc<Store>, clock: Clock) -> Self {
        Self {
            store,
            clock,
            all: Default::default(),
            delta: Default::default(),
            named: Default::default(),
            snapshot: Mutex::default(),
            deltas: AtomicI64::new(0),
        }
    }

    /// The document as it was rendered, if that is new enough.
    pub(super) fn ready(&self, document: Document<'_>, variant: Variant) -> Option<Found> {
        let cell = match document {
            Document::All => &self.all[variant.place()],
            Document::Delta => &self.delta[variant.place()],
            _ => {
                let cells = self.cells(document)?;
                return self.of_cell(&cells[variant.place()], document);
            }
        };
        self.of_cell(cell, document)
    }

    fn of_cell(&self, cell: &Cell, document: Document<'_>) -> Option<Found> {
        let rendered = cell.load();
        let rendered = rendered.as_ref()?;
        let is_new = rendered.version == self.version(document) || self.clock.now() < rendered.believed_until;
        is_new.then(|| Found(rendered.body.clone()))
    }

    /// The document, rendered if that must be. Of several readers one renders, and the others wait for it.
    pub(super) async fn get(self: &Arc<Self>, document: Document<'_>, variant: Variant) -> Option<Bytes> {
        let cell = match document {
            Document::All => Arc::clone(&self.all[variant.place()]),
            Document::Delta => Arc::clone(&self.delta[variant.place()]),
            _ => match self.cells(document).or_else(|| self.make_cells(document)) {
                Some(cells) => Arc::clone(&cells[variant.place()]),
                // A name that nobody has is not kept: there are endlessly many.
                None => return nothing(document, variant),
            },
        };
        let came = self.clock.now();
        let turn = cell.turn().await;
        if let Some(Found(body)) = self.of_cell(&cell, document) {
            return body;
        }
        // Made while this reader waited: new enough for it, however long it took and whatever changed since. Else each of those who wait would render in turn.
        if let Some(rendered) = &*cell.load()
            && rendered.made > came
        {
            return rendered.body.clone();
        }
        let is_large =
            cell.load().as_ref().is_none_or(|former| former.body.as_ref().is_some_and(|body| body.len() > LARGE));
        if !is_large {
            return self.render(&cell, document, variant);
        }
        let (documents, owned) = (Arc::clone(self), Owned::from(document));
        let rendering = tokio::task::spawn_blocking(move || {
            let body = documents.render(&cell, owned.document(), variant);
            // A reader that goes away meanwhile does not let the next one in too early.
            drop(turn);
            body
        });
        rendering.await.ok().flatten()
    }

    fn render(&self, cell: &Cell, document: Document<'_>, variant: Variant) -> Option<Bytes> {
        let began = self.clock.now();
        let version = self.version(document);
        let (made, version, body) = match document {
            Document::All => {
                let snapshot = self.snapshot();
                (snapshot.made, snapshot.version, Some(variant.applications(&snapshot.all)))
            }
            Document::Delta => {
                let delta = Applications { version: self.deltas.fetch_add(1, Relaxed) + 1, ..self.store.delta() };
                (began, version, Some(variant.applications(&delta)))
            }
            Document::Application(name) => {
                (began, version, self.store.application(name).map(|application| variant.application(&application)))
            }
            Document::Vip(_) | Document::SecureVip(_) => {
                let snapshot = self.snapshot();
                let found = snapshot.of_vip(document);
                (snapshot.made, snapshot.version, Some(variant.applications(&found)))
            }
        };
        self.store.counters().rendered.add();
        let believed_until = made.after(self.interval(self.clock.now().since(began)));
        cell.store(Rendered { body: body.clone(), made, version, believed_until });
        body
    }

    /// How long a rendering is believed though something has changed.
    fn interval(&self, took: Duration) -> Duration {
        let interval = self.store.policy().get().render_interval;
        // Never old: not even for what takes long.
        if interval.is_zero() { interval } else { interval.max((took * SHARE).min(LONGEST)) }
    }

    /// The whole registry as it is, or was a moment ago.
    fn snapshot(&self) -> Arc<Snapshot> {
        let mut kept = lock(&self.snapshot);
        let now = self.clock.now();
        if let Some(kept) = &*kept
            && (kept.version == self.store.version() || now < kept.made.after(self.interval(Duration::ZERO)))
        {
            return Arc::clone(kept);
        }
        let made = Arc::new(Snapshot::new(&self.store, now));
        *kept = Some(Arc::clone(&made));
        made
    }

    fn version(&self, document: Document<'_>) -> u64 {
        match document {
            Document::Delta => self.store.delta_version(),
            _ => self.store.version(),
        }
    }

    fn named(&self, document: Document<'_>) -> Option<MutexGuard<'_, HashMap<Text, Cells>>> {
        let place = match document {
            Document::All | Document::Delta => return None,
            Document::Application(_) => 0,
            Document::Vip(_) => 1,
            Document::SecureVip(_) => 2,
        };
        Some(lock(&self.named[place]))
    }

    fn cells(&self, document: Document<'_>) -> Option<Cells> {
        let named = self.named(document)?;
        named.get(document.name()?).map(Arc::clone)
    }

    /// Room for the documents of a name, if somebody has it.
    fn make_cells(&self, document: Document<'_>) -> Option<Cells> {
        let exists = |name: &str| match document {
            Document::Application(_) => self.store.instances_of(name) > 0,
            _ => self.snapshot().has_vip(document.named(name)),
        };
        let name = document.name().filter(|name| exists(name))?;
        let mut named = self.named(document)?;
        // Names come and go; what nobody has any more goes when there is twice as much as there was.
        if named.len() == named.capacity() {
            named.retain(|name, _| exists(name));
        }
        Some(Arc::clone(named.entry(name.into()).or_default()))
    }
}

impl<'a> Document<'a> {
    fn name(self) -> Option<&'a str> {
        match self {
            Self::All | Self::Delta => None,
            Self::Application(name) | Self::Vip(name) | Self::SecureVip(name) => Some(name),
        }
    }

    /// The same document of another name.
    fn named(self, name: &str) -> Document<'_> {
        match self {
            Self::All => Document::All,
            Self::Delta => Document::Delta,
            Self::Application(_) => Document::Application(name),
            Self::Vip(_) => Document::Vip(name),
            Self::SecureVip(_) => Document::SecureVip(name),
        }
    }
}

/// A [`Document`] that goes to another thread.
struct Owned {
    of: Document<'static>,
    name: Option<Text>,
}

impl From<Document<'_>> for Owned {
    fn from(document: Document<'_>) -> Self {
        Self { of: document.named(""), name: document.name().map(Text::from) }
    }
}

impl Owned {
    fn document(&self) -> Document<'_> {
        self.of.named(self.name.as_deref().unwrap_or_default())
    }
}

/// The document of a name that nobody has.
fn nothing(document: Document<'_>, variant: Variant) -> Option<Bytes> {
    match document {
        Document::Application(_) => None,
        _ => Some(variant.applications(&Applications { version: -1, ..Applications::default() })),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents").field("deltas", &self.deltas).finish_non_exhaustive()
    }
}
