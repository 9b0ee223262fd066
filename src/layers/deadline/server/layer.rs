use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::HeaderName;
use serde::{Deserialize, Serialize};
use tower_layer::Layer;

use super::ServerDeadline;
use crate::{
    Live, Policy, PolicyError,
    layers::deadline::{HEADER, header, timed::nanos},
    live::{Follow, IntoLive},
    request::{self, Carrier},
};

/// Takes over the deadline its caller sent, for the handler and every call the handler makes.
///
/// A gRPC request (`content-type: application/grpc`) says it by `grpc-timeout`, any other by the plain header, by default
/// [`HEADER`], in milliseconds. What is longer than the policy's maximum is cut to it; where nothing is said, or nothing
/// readable, the policy's default holds. Stacks that the handler calls inherit the deadline by the ambient
/// [context](crate::context), as long as the handler awaits them; spawned work needs [`Context::scope`](crate::Context::scope).
///
/// In axum it stands below [`RespondLayer`](crate::layers::respond::RespondLayer), which turns its error into a response, in
/// one `ServiceBuilder`, since a router takes no layer that may fail:
///
/// ```
/// use axum::{Router, routing::get};
/// use hopvine::layers::{deadline::{ServerDeadlineLayer, ServerDeadlinePolicy}, respond::RespondLayer};
/// use tower::ServiceBuilder;
///
/// let policy = ServerDeadlinePolicy::default();
/// let app: Router = Router::new().route("/item", get(async || "an item")).layer(
///     ServiceBuilder::new()
///         .layer(RespondLayer::new()) // outermost
///         .layer(ServerDeadlineLayer::new(policy)?),
/// );
/// # let _ = app;
/// # Ok::<(), hopvine::PolicyError>(())
/// ```
///
/// At the edge, where callers are not to be trusted, nothing they say counts, and each call may take 5 s:
///
/// ```
/// use std::time::Duration;
/// use hopvine::layers::deadline::{ServerDeadlineLayer, ServerDeadlinePolicy};
///
/// let five = Duration::from_secs(5);
/// let layer = ServerDeadlineLayer::new(ServerDeadlinePolicy { default: five, maximum: five })?.untrusted();
/// # let _ = layer;
/// # Ok::<(), hopvine::PolicyError>(())
/// ```
///
/// # State
///
/// None but the policy, which clones and the services of each `layer()`, so each route and connection, share.
///
/// # Placement
///
/// In a server, just below `RespondLayer` and a server trace, above all that waits. It covers the time until the handler's
/// response head; a streamed body is not cut.
///
/// A tonic server (0.14) has a timer of its own for `grpc-timeout`, outside every layer; it drops the call as cancelled, and
/// answers `CANCELLED`. This layer's ends first, since it begins first and is polled first: unless it allows more than the
/// caller asked for, as [`untrusted`](Self::untrusted) may. There tonic still ends the call at the caller's time.
///
/// # Errors
///
/// [`ErrorKind::DeadlineExceeded`](crate::ErrorKind): the deadline passed while the handler ran, or, then
/// [unsent](crate::Error::is_unsent), had passed when the request came, and the handler was not called.
///
/// # Cancellation
///
/// When the deadline passes, the handler is dropped, and with it the calls it awaits; guards inside see
/// [`DropCause::TimedOut`](crate::context::DropCause). A client that goes away drops it as well, as cancelled.
#[derive(Clone, Debug)]
pub struct ServerDeadlineLayer {
    shared: Arc<Shared>,
    settings: Settings,
}

/// Settings of a [`ServerDeadlineLayer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerDeadlinePolicy {
    /// How long a request may take whose caller says nothing. Above zero, at most `maximum`; 10 s by default.
    #[serde(with = "humantime_serde")]
    pub default: Duration,
    /// The longest a caller may ask for. Above zero; 60 s by default.
    #[serde(with = "humantime_serde")]
    pub maximum: Duration,
}

impl Default for ServerDeadlinePolicy {
    fn default() -> Self {
        Self { default: Duration::from_secs(10), maximum: Duration::from_secs(60) }
    }
}

impl Policy for ServerDeadlinePolicy {
    fn validate(&self) -> Result<(), PolicyError> {
        if self.maximum.is_zero() {
            return Err(PolicyError::new("maximum", self.maximum, "must be above zero"));
        }
        if self.default.is_zero() || self.default > self.maximum {
            return Err(PolicyError::new("default", self.default, "must be above zero, at most `maximum`"));
        }
        Ok(())
    }
}

/// The policy in nanoseconds.
#[derive(Debug)]
pub(super) struct Shared {
    default: AtomicU64,
    maximum: AtomicU64,
    /// Kept, since it must live as long as somebody follows it.
    policy: Live<ServerDeadlinePolicy>,
}

impl Follow<ServerDeadlinePolicy> for Shared {
    fn follow(&self, policy: &ServerDeadlinePolicy) {
        self.default.store(nanos(policy.default), Relaxed);
        self.maximum.store(nanos(policy.maximum), Relaxed);
    }
}

#[derive(Clone, Debug)]
pub(super) struct Settings {
    header: HeaderName,
    inbound: Inbound,
}

#[derive(Clone, Copy, Debug)]
enum Inbound {
    Trusted,
    Ignored,
}

impl ServerDeadlineLayer {
    /// Under this policy, trusting what callers say within its maximum, with the plain header [`HEADER`].
    pub fn new(policy: impl IntoLive<ServerDeadlinePolicy>) -> Result<Self, PolicyError> {
        let (default, maximum) = Default::default();
        let shared = Arc::new(Shared { default, maximum, policy: policy.into_live()? });
        shared.policy.follow(&shared);
        let settings = Settings { header: HeaderName::from_static(HEADER), inbound: Inbound::Trusted };
        Ok(Self { shared, settings })
    }

    /// With another plain header.
    #[must_use]
    pub fn header(mut self, header: HeaderName) -> Self {
        self.settings.header = header;
        self
    }

    /// Ignores what callers say: every request may take the policy's maximum.
    #[must_use]
    pub fn untrusted(mut self) -> Self {
        self.settings.inbound = Inbound::Ignored;
        self
    }
}

impl<S> Layer<S> for ServerDeadlineLayer {
    type Service = ServerDeadline<S>;

    fn layer(&self, inner: S) -> ServerDeadline<S> {
        ServerDeadline::new(inner, Arc::clone(&self.shared), self.settings.clone())
    }
}

impl Settings {
    /// How long this request may take.
    pub(super) fn allowed(&self, shared: &Shared, request: &impl Carrier) -> Duration {
        let maximum = Duration::from_nanos(shared.maximum.load(Relaxed));
        let asked = match self.inbound {
            Inbound::Ignored => return maximum,
            Inbound::Trusted => request.headers().and_then(|headers| {
                if request::is_grpc(headers) {
                    header::parse_grpc(headers.get("grpc-timeout")?.as_bytes())
                } else {
                    header::parse_millis(headers.get(&self.header)?.as_bytes())
                }
            }),
        };
        asked.unwrap_or_else(|| Duration::from_nanos(shared.default.load(Relaxed))).min(maximum)
    }
}
