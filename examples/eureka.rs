//! Two services that find each other through a Eureka registry: one is registered, the other calls it, and notices nothing when it leaves.
//!
//! ```sh
//! cargo run --example eureka                                     # with a registry of its own
//! cargo run --example eureka -- http://127.0.0.1:8761/eureka/    # with yours, Spring's for one
//! ```

use std::{net::SocketAddr, time::Duration};

use axum::{Router, body::Body, routing::get};
use hopvine::{
    BoxStack, Directory,
    connect::http::{ClientBody, HttpClient},
    discover::eureka::{Eureka, Registration, RegistrationPolicy},
    registry::Registry,
    stacks::{self, Hop},
};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::{net::TcpListener, sync::oneshot};
use tower::ServiceExt as _;

/// An instance of `catalog`: registered, and taken out so that no caller notices.
async fn catalog(
    registry: String,
    name: &'static str,
    stop: oneshot::Receiver<()>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let registration = Registration::builder(&*registry, "catalog", port)
        .host_name("127.0.0.1") // by itself it would say this machine's name
        .metadata("version", "1.4")
        // Callers that are pushed to need a moment; for Java callers leave it at 60 s.
        .policy(RegistrationPolicy { leave_wait: Duration::from_millis(500), ..Default::default() })
        .start()?;
    let app = Router::new().route("/items/{id}", get(move || async move { format!("an item from {name}") }));
    registration.up();
    axum::serve(listener, app).with_graceful_shutdown(registration.leaving_on(async move { _ = stop.await })).await?;
    registration.leave().await;
    println!("{name} has left");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let own = Registry::builder().bind(SocketAddr::from(([127, 0, 0, 1], 0))).start().await?;
    let url = std::env::args().nth(1).unwrap_or_else(|| format!("http://{}/eureka/", own.local_addr()));

    let (stop_first, first_stopped) = oneshot::channel();
    let (stop_second, second_stopped) = oneshot::channel();
    let first = tokio::spawn(catalog(url.clone(), "catalog 1", first_stopped));
    let second = tokio::spawn(catalog(url.clone(), "catalog 2", second_stopped));

    let directory = Directory::builder().source(Eureka::builder(&*url).build()?).build();
    let service = directory.service("catalog");
    let mut versions = service.watch();
    while service.snapshot().endpoints().len() < 2 {
        versions.changed().await?;
    }
    let stack: BoxStack<Request<Body>, Response<ClientBody>> =
        BoxStack::build(stacks::server_to_server(Hop::new("catalog.item", service))?, HttpClient::new());

    let mut stop_first = Some(stop_first);
    for call in 0..200 {
        if call == 100 {
            stop_first.take().expect("once").send(()).expect("it runs");
        }
        let response = stack.clone().oneshot(Request::get("/items/1").body(Body::empty())?).await?;
        assert!(response.status().is_success(), "{}", response.status());
        let body = response.into_body().collect().await?.to_bytes();
        if call % 50 == 0 {
            println!("call {call}: {}", String::from_utf8_lossy(&body));
        }
        tokio::time::sleep_until(tokio::time::Instant::now() + Duration::from_millis(10)).await;
    }
    first.await??;
    println!("200 calls, and none failed while an instance left");
    stop_second.send(()).expect("it runs");
    second.await??;
    directory.shutdown().await;
    own.shutdown().await;
    Ok(())
}
