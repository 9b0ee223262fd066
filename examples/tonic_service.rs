//! A generated tonic client over a stack of ours, HTTP/2, two instances.
//!
//! ```sh
//! cargo run --example tonic_service
//! ```
//!
//! The service is gRPC's own health service, so that no protoc is needed; any generated client works the same.

use hopvine::{
    Directory, Endpoint, Monitor,
    connect::http::{HttpClient, Version},
    stacks::{self, Hop},
};
use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let first = serve().await?;
    let second = serve().await?;
    let directory = Directory::fixed([("health", [first, second])]);

    let monitor = Monitor::new();
    // gRPC calls are POSTs; a health check may run twice, and says so per request (`hopvine::request::Idempotency`).
    let hop = Hop::new("health.check", directory.service("health")).monitor(&monitor);
    let connector = HttpClient::builder().version(Version::Http2).build()?;
    let stack = hopvine::build::<http::Request<tonic::body::Body>, _, _>(stacks::server_to_server(hop)?, connector);

    let mut client = HealthClient::new(stack);
    for _ in 0..10 {
        let reply = client.check(HealthCheckRequest { service: String::new() }).await?.into_inner();
        assert_eq!(reply.status(), tonic_health::ServingStatus::Serving.into());
    }
    match client.check(HealthCheckRequest { service: "nobody".to_owned() }).await {
        Err(status) => println!("asked for a service nobody has: {}", status.code()),
        Ok(_) => return Err("a service nobody has cannot be healthy".into()),
    }
    for endpoint in monitor.snapshot().endpoints {
        println!("{} {}: {} calls", endpoint.name, endpoint.address, endpoint.counts.total());
    }
    Ok(())
}

async fn serve() -> Result<Endpoint, std::io::Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (_reporter, service) = tonic_health::server::health_reporter();
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
    Ok(address.into())
}
