//! The three hops over one directory: server to server, legacy to server, server to external server.
//!
//! ```sh
//! cargo run --example three_stacks
//! ```

use axum::{Router, body::Body, response::Response, routing::any};
use hopvine::{
    BoxStack, Directory, Endpoint,
    connect::http::{ClientBody, HttpClient},
    layers_of,
    stacks::{self, Hop},
};
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tower::ServiceExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let directory =
        Directory::fixed([("catalog", vec![serve().await?, serve().await?]), ("bank", vec![serve().await?])]);

    // Ours call ours: trace and deadline travel, in both directions trusted.
    let hop = Hop::new("catalog", directory.service("catalog"));
    show("server to server", hopvine::build::<Request<Body>, _, _>(stacks::server_to_server(hop)?, HttpClient::new()))
        .await?;

    // Callers that cannot be changed come in through this one: what they say of trace and deadline is not believed.
    let hop = Hop::new("front", directory.service("catalog"));
    show("legacy to server", hopvine::build::<Request<Body>, _, _>(stacks::legacy_to_server(hop)?, HttpClient::new()))
        .await?;

    // Out to somebody else's: nothing of our trace or deadline leaves, and a Retry-After is kept to.
    let hop = Hop::new("bank", directory.service("bank"));
    show("server to external server", hopvine::build::<Request<Body>, _, _>(stacks::external(hop)?, HttpClient::new()))
        .await?;
    Ok(())
}

/// Prints a stack, and what of the caller's headers reached the server through it.
async fn show<S>(name: &str, stack: S) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: hopvine::Stack<Request<Body>, Response = Response<ClientBody>>,
{
    println!("{name}\n  {}", layers_of(&stack).join("\n  "));
    let stack = BoxStack::new(stack);
    let request = Request::get("/")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("x-request-timeout-ms", "60000")
        .body(Body::empty())?;
    let response = stack.oneshot(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    println!("  -> {}\n", String::from_utf8_lossy(&body));
    Ok(())
}

async fn serve() -> std::io::Result<Endpoint> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = Router::new().fallback(any(async |headers: HeaderMap| {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned();
        format!("traceparent {}, x-request-timeout-ms {}", header("traceparent"), header("x-request-timeout-ms"))
    }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address.into())
}
