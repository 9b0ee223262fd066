//! Eureka's operations over HTTP and our own, its path and headers read by hand.
//!
//! A heartbeat, and a document that is rendered already, are answered at once: no allocation and no task of ours. What has a body, or must be rendered,
//! is a boxed future.

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, StatusCode, request::Parts};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio_util::task::TaskTracker;

mod batch;
mod change;
mod credentials;
mod negotiate;
mod opening;
mod page;
mod path;
mod read;
mod respond;
mod status;

pub(super) use credentials::{Credential, Credentials};
pub(super) use opening::Opening;
pub(super) use respond::Body;

use credentials::Asking;
use path::Route;

use super::{By, Clock, Store, peers::Peers, render::Documents, server::Connection, snapshot::Keeper, watch::Watches};

const REPLICATION: HeaderName = HeaderName::from_static("x-netflix-discovery-replication");

/// What all requests work with.
#[derive(Debug)]
pub(super) struct Desk {
    pub(super) store: Arc<Store>,
    pub(super) documents: Arc<Documents>,
    pub(super) watches: Arc<Watches>,
    pub(super) clock: Clock,
    pub(super) credentials: Credentials,
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) connections: TaskTracker,
    pub(super) peers: Arc<Peers>,
    pub(super) opening: Opening,
    pub(super) keeper: Option<Arc<Keeper>>,
}

/// An answer: now, or when the body has come or the document is rendered.
pub(super) enum Answer {
    Ready(Option<Response<Body>>),
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(response) => {
                Poll::Ready(Ok(response.take().unwrap_or_else(|| respond::empty(StatusCode::INTERNAL_SERVER_ERROR))))
            }
            Self::Later(response) => response.as_mut().poll(context).map(Ok),
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "Ready",
            Self::Later(_) => "Later",
        })
    }
}

/// A request whose sender may ask, and for what.
struct Asked<'a> {
    head: &'a Parts,
    route: Route<'a>,
    by: By,
    connection: &'a Arc<Connection>,
}

impl Desk {
    /// Answers a request.
    pub(super) fn answer<B>(self: &Arc<Self>, request: Request<B>, connection: &Arc<Connection>) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<tower::BoxError>,
    {
        let (head, body) = request.into_parts();
        if body.is_end_stream() {
            let response = match self.admit(&head, connection) {
                Ok(asked) => self.respond(&asked, &Bytes::new()),
                Err(response) => Some(*response),
            };
            if response.is_some() {
                return Answer::Ready(response);
            }
        }
        let (desk, connection) = (Arc::clone(self), Arc::clone(connection));
        Answer::Later(Box::pin(async move {
            let asked = match desk.admit(&head, &connection) {
                Ok(asked) => asked,
                Err(response) => return *response,
            };
            let body = match desk.read(&asked, body).await {
                Ok(body) => body,
                Err(response) => return *response,
            };
            connection.body_is_read();
            match desk.respond(&asked, &body) {
                Some(response) => response,
                None => desk.document(&asked).await,
            }
        }))
    }

    /// What the request is for, if there is such a thing and its sender may ask.
    fn admit<'a>(&self, head: &'a Parts, connection: &'a Arc<Connection>) -> Result<Asked<'a>, Box<Response<Body>>> {
        let asking = self.credentials.asking(&head.headers);
        if asking == Asking::Nobody {
            self.store.counters().refused_credentials.add();
            return Err(Box::new(respond::unauthorized()));
        }
        let route = Route::of(head.uri.path());
        if route == Route::Nothing {
            return Err(Box::new(respond::empty(StatusCode::NOT_FOUND)));
        }
        if head.method == Method::OPTIONS {
            return Err(Box::new(respond::methods(StatusCode::OK, route.methods())));
        }
        if !route.allows(&head.method) {
            return Err(Box::new(respond::methods(StatusCode::METHOD_NOT_ALLOWED, route.methods())));
        }
        let is_replicated = head.headers.get(REPLICATION).is_some_and(|value| value == "true");
        let by = if is_replicated { By::Peer } else { By::Client };
        let is_for_peers = is_replicated || route == Route::Batch;
        if is_for_peers && self.credentials.tell_peers_apart() && asking != Asking::Peer {
            self.store.counters().refused_credentials.add();
            return Err(Box::new(respond::empty(StatusCode::FORBIDDEN)));
        }
        Ok(Asked { head, route, by, connection })
    }

    /// Reads the body, whoever wants it: the connection can only be used again after it.
    async fn read<B>(&self, asked: &Asked<'_>, body: B) -> Result<Bytes, Box<Response<Body>>>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<tower::BoxError>,
    {
        let limits = &self.store.policy().get().limits;
        let most = if asked.route == Route::Batch { limits.batch_bytes } else { limits.body_bytes };
        let too_long = || {
            self.store.counters().refused_bodies.add();
            let name = if asked.route == Route::Batch { "limits.batch_bytes" } else { "limits.body_bytes" };
            let why = format!("a body of more than {name} allows: {most}");
            Box::new(respond::reason(StatusCode::PAYLOAD_TOO_LARGE, why))
        };
        if body.size_hint().lower() > most as u64 {
            return Err(too_long());
        }
        let reading = Limited::new(Box::pin(body), most).collect();
        match tokio::time::timeout(limits.body_time, reading).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_long()),
            Ok(Err(_)) => Err(Box::new(respond::empty(StatusCode::BAD_REQUEST))),
            Err(_) => {
                self.store.counters().refused_bodies.add();
                Err(Box::new(respond::empty(StatusCode::REQUEST_TIMEOUT)))
            }
        }
    }

    /// The answer; `None` if a document must be rendered for it.
    fn respond(self: &Arc<Self>, asked: &Asked<'_>, body: &Bytes) -> Option<Response<Body>> {
        let method = &asked.head.method;
        Some(match &asked.route {
            Route::Instance(app, id) if method == Method::PUT => self.heartbeat(asked, app, id),
            Route::Instance(app, id) if method == Method::DELETE => self.cancel(asked, app, id),
            Route::Instance(app, id) => self.instance(asked, app, id),
            Route::AnyInstance(id) => self.any_instance(asked, id),
            Route::InstanceStatus(app, id) if method == Method::PUT => self.set_status(asked, app, id),
            Route::InstanceStatus(app, id) => self.clear_status(asked, app, id),
            Route::InstanceMetadata(app, id) => self.set_metadata(asked, app, id),
            Route::Application(app) if method == Method::POST => self.register(asked, app, body),
            Route::Batch => self.batch(asked, body),
            Route::ScalingGroup => respond::empty(StatusCode::BAD_REQUEST),
            Route::Status => self.status(asked),
            Route::Watch if !self.opening.is_open(self.clock) => respond::learning(),
            Route::Watch => self.watch(asked),
            Route::Page => self.page(asked),
            // As a Java server says it, so that clients ask another one.
            _ if !self.opening.is_open(self.clock) => respond::empty(StatusCode::FORBIDDEN),
            _ => return self.ready(asked),
        })
    }
}
