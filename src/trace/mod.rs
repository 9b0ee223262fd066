//! The trace a call belongs to, and how it is written in headers: W3C Trace Context, B3 single and B3 multi.

use std::{fmt, num::NonZeroU64, sync::Arc};

use http::{HeaderMap, HeaderName};

mod b3;
mod w3c;

/// Where in which trace the work under way stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: TraceId,
    span_id: SpanId,
    parent_id: Option<SpanId>,
    sampling: Sampling,
    /// W3C's random-trace-id flag, passed on as it came.
    random: bool,
    /// The trace id came as 64 bits, and goes on as them in B3.
    short: bool,
    /// Only a decision came, without ids: the first span below it is the root.
    decision_only: bool,
    /// Behind a thin pointer, since few have one and all are moved about.
    state: Option<Arc<Box<str>>>,
}

/// The id of a trace, 128 bits; 32 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u64; 2]);

/// The id of a span, 64 bits; 16 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(NonZeroU64);

/// Whether the trace is recorded. A decision once made is not changed further on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sampling {
    /// Nobody has decided.
    #[default]
    Deferred,
    /// It is not recorded.
    Denied,
    /// It is recorded.
    Accepted,
    /// It is recorded, whatever a collector's own rate says.
    Debug,
}

impl TraceContext {
    /// The first span of a new trace, with random ids, recorded: W3C headers cannot leave that open, and Spring takes what is not
    /// sampled as denied. `fastrand::seed` makes the ids repeatable on a thread.
    pub fn root() -> Self {
        Self { sampling: Sampling::Accepted, ..Self::new(TraceId::random(), SpanId::random()) }
    }

    fn new(trace_id: TraceId, span_id: SpanId) -> Self {
        Self {
            trace_id,
            span_id,
            parent_id: None,
            sampling: Sampling::Deferred,
            random: false,
            short: false,
            decision_only: false,
            state: None,
        }
    }

    /// A new span below this one.
    #[must_use]
    pub fn child(&self) -> Self {
        let parent_id = (!self.decision_only).then_some(self.span_id);
        Self { span_id: SpanId::random(), parent_id, decision_only: false, ..self.clone() }
    }

    /// What a decision without ids stands for.
    fn decided(sampling: Sampling) -> Self {
        Self { decision_only: true, sampling, ..Self::root() }
    }

    /// With this decision.
    #[must_use]
    pub fn with_sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// The trace.
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// The span.
    pub fn span_id(&self) -> SpanId {
        self.span_id
    }

    /// The span it was called from; `None` for a root.
    pub fn parent_id(&self) -> Option<SpanId> {
        self.parent_id
    }

    /// Whether it is recorded.
    pub fn sampling(&self) -> Sampling {
        self.sampling
    }

    /// W3C's `tracestate`, members of all vendors, as it came.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref().map(|state| &**state)
    }

    fn is_sampled(&self) -> bool {
        matches!(self.sampling, Sampling::Accepted | Sampling::Debug)
    }
}

/// How a trace is written in headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `traceparent` and `tracestate`.
    W3c,
    /// `b3`.
    B3Single,
    /// `x-b3-traceid` and its companions.
    B3Multi,
}

/// Which formats are read and which are written.
///
/// By default all are read (W3C, then B3 single, then B3 multi; the first that is valid counts, and ids of two are never mixed), and W3C is
/// written, as Spring Boot 3 does. In a fleet that still has Sleuth (Spring Boot 2), write W3C and B3 multi.
///
/// ```
/// use hopvine::trace::{Format, Propagation};
/// let both = Propagation::default().write(&[Format::W3c, Format::B3Multi]);
/// # let _ = both;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    read: [Option<Format>; 3],
    write: [Option<Format>; 3],
}

impl Default for Propagation {
    fn default() -> Self {
        Self { read: chosen(&[Format::W3c, Format::B3Single, Format::B3Multi]), write: chosen(&[Format::W3c]) }
    }
}

/// Each format once, in the order given.
fn chosen(formats: &[Format]) -> [Option<Format>; 3] {
    let mut places = [None; 3];
    let mut free = 0;
    for format in formats {
        if !places.contains(&Some(*format)) {
            places[free] = Some(*format);
            free += 1;
        }
    }
    places
}

impl Propagation {
    /// Reads these, in this order.
    #[must_use]
    pub fn read(mut self, formats: &[Format]) -> Self {
        self.read = chosen(formats);
        self
    }

    /// Writes all of these.
    #[must_use]
    pub fn write(mut self, formats: &[Format]) -> Self {
        self.write = chosen(formats);
        self
    }

    /// The caller's span, from the first format that is there and valid.
    pub fn extract(&self, headers: &HeaderMap) -> Option<TraceContext> {
        self.read.iter().flatten().find_map(|format| match format {
            Format::W3c => w3c::extract(headers),
            Format::B3Single => b3::extract_single(headers),
            Format::B3Multi => b3::extract_multi(headers),
        })
    }

    /// Writes this span. Whatever trace headers were there, as in a request passed on, are taken out first.
    pub fn inject(&self, trace: &TraceContext, headers: &mut HeaderMap) {
        remove(headers);
        for format in self.write.iter().flatten() {
            match format {
                Format::W3c => w3c::inject(trace, headers),
                Format::B3Single => b3::inject_single(trace, headers),
                Format::B3Multi => b3::inject_multi(trace, headers),
            }
        }
    }
}

/// All headers that carry a trace.
const HEADERS: [HeaderName; 8] = [
    w3c::TRACEPARENT,
    w3c::TRACESTATE,
    b3::SINGLE,
    b3::TRACE_ID,
    b3::SPAN_ID,
    b3::PARENT_SPAN_ID,
    b3::SAMPLED,
    b3::FLAGS,
];

/// Takes the trace headers of all formats out.
pub fn remove(headers: &mut HeaderMap) {
    // A look at each name costs less than a search for each of ours, and mostly finds none.
    let looks_like_one =
        |name: &HeaderName| ["trace", "b3", "x-b3-"].iter().any(|start| name.as_str().starts_with(start));
    if headers.keys().any(looks_like_one) {
        for name in HEADERS {
            headers.remove(name);
        }
    }
}

/// The one value of a header, without blanks round it; `None` if it is missing, is there twice, or is no text.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok().map(str::trim)
}

/// Lower-case hex digits only, as all formats want them.
fn hex(text: &str) -> Option<u128> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (!text.is_empty() && text.bytes().all(lower)).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

impl TraceId {
    /// As halves: a `u128` would be aligned to 16 bytes.
    fn new(id: u128) -> Self {
        Self([(id >> 64) as u64, id as u64])
    }

    fn random() -> Self {
        // Never 0, which is no id.
        Self([fastrand::u64(..), fastrand::u64(..).max(1)])
    }

    fn get(self) -> u128 {
        u128::from(self.0[0]) << 64 | u128::from(self.0[1])
    }
}

impl SpanId {
    fn new(id: u64) -> Option<Self> {
        NonZeroU64::new(id).map(Self)
    }

    fn random() -> Self {
        // One in 2^64 is 0, and becomes 1.
        Self(NonZeroU64::new(fastrand::u64(..)).unwrap_or(NonZeroU64::MIN))
    }
}

/// Writes the last `text.len()` hex digits of a value.
fn write_hex(mut value: u128, text: &mut [u8]) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value & 15) as usize];
        value >>= 4;
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.get())
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
