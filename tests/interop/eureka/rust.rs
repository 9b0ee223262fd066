use std::time::Duration;

use axum::{Router, body::Body, routing::get};
use hopvine::{
    BoxStack, Directory, ServiceHandle,
    connect::http::{ClientBody, HttpClient},
    discover::eureka::{Eureka, EurekaPolicy, Registration, RegistrationPolicy},
    endpoint::Status,
    eureka::InstanceStatus,
    stacks::{self, Hop},
};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use libtest_mimic::Failed;
use tokio::{net::TcpListener, task::JoinSet};
use tower::ServiceExt as _;

/// A service of ours, registered.
pub(super) struct RustService {
    pub(super) registration: Registration,
    url: String,
    /// Ends with it.
    _server: JoinSet<()>,
}

impl RustService {
    pub(super) async fn start(service: &str, id: &str, registry: &str) -> Result<Self, Failed> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let answer = format!("hello from {id}");
        let app = Router::new().route("/hello", get(async move || answer));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        let policy = RegistrationPolicy {
            heartbeat_interval: Duration::from_secs(1),
            lease_duration: Duration::from_secs(60),
            leave_wait: Duration::ZERO,
            ..Default::default()
        };
        let registration = Registration::builder(registry, service, port)
            .host_name("127.0.0.1")
            .instance_id(id)
            .status(InstanceStatus::Up)
            .policy(policy)
            .start()?;
        Ok(Self { registration, url: format!("http://127.0.0.1:{port}"), _server: server })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

/// Finds services by our client, and calls them through a stack of ours.
pub(super) struct Caller {
    pub(super) eureka: Eureka,
    /// A source is followed as long as somebody holds its service.
    services: Vec<ServiceHandle>,
}

impl Caller {
    pub(super) fn new(registry: &str, services: &[&str]) -> Result<Self, Failed> {
        let policy = EurekaPolicy { fetch_interval: Duration::from_secs(1), ..Default::default() };
        let eureka = Eureka::builder(registry).policy(policy).build()?;
        let directory = Directory::builder().source(eureka.clone()).build();
        let services = services.iter().map(|name| directory.service(name)).collect();
        Ok(Self { eureka, services })
    }

    /// Those it would call.
    pub(super) fn up(&self, service: &str) -> Vec<String> {
        let known = self.endpoints(service).into_iter();
        known.filter(|(_, status)| *status == Status::Up).map(|(url, _)| url).collect()
    }

    /// The zone of the first instance.
    pub(super) fn zone_of(&self, service: &str) -> Option<String> {
        self.service(service).snapshot().endpoints().first()?.zone().map(str::to_owned)
    }

    fn service(&self, name: &str) -> &ServiceHandle {
        self.services.iter().find(|service| **service.name() == *name).expect("a service it follows")
    }

    /// All that is known of a service, with the status of each.
    pub(super) fn endpoints(&self, service: &str) -> Vec<(String, Status)> {
        let known = self.service(service).snapshot();
        let mut known: Vec<_> = known
            .endpoints()
            .iter()
            .map(|endpoint| (format!("http://{}", endpoint.address()), endpoint.status()))
            .collect();
        known.sort_by(|(one, _), (other, _)| one.cmp(other));
        known
    }

    /// What a call is answered.
    pub(super) async fn call(&self, service: &str) -> Result<String, String> {
        let stack = stacks::server_to_server(Hop::new(&format!("{service}.hello"), self.service(service).clone()));
        let stack: BoxStack<Request<Body>, Response<ClientBody>> =
            BoxStack::build(stack.map_err(|error| error.to_string())?, HttpClient::new());
        let request = Request::get("/hello").body(Body::empty()).map_err(|error| error.to_string())?;
        let response = stack.oneshot(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        if head.status.is_success() { Ok(body) } else { Err(format!("{}: {body}", head.status)) }
    }
}
