//! A program without a framework: requests of plain `http`, a body of `http-body-util`, a stack put together by hand.
//!
//! ```sh
//! cargo run --example hyper_client
//! ```

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use hopvine::{
    Directory, Endpoint,
    connect::{http::HttpClient, per_endpoint},
    layers::{
        attempt_timeout::AttemptTimeoutLayer,
        balance::{BalanceLayer, DiscoverLayer, P2cPeakEwma},
        bulkhead::{BulkheadLayer, BulkheadPolicy},
        circuit_breaker::{CircuitBreakerLayer, CircuitBreakerPolicy},
        deadline::{DeadlineHeaderLayer, DeadlineLayer},
        outlier::{OutlierDetectionLayer, OutlierPolicy},
        retry::{RetryLayer, RetryPolicy},
        trace::{AttemptTraceLayer, ClientTraceLayer},
    },
};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt as _};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    // Two instances that live, and one that does not: nobody listens on its port.
    let dead = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    let directory = Directory::fixed([("echo", [serve("a").await?, Endpoint::from(dead), serve("b").await?])]);

    let builder = ServiceBuilder::new()
        .layer(ClientTraceLayer::new("echo"))
        .layer(CircuitBreakerLayer::new("echo", CircuitBreakerPolicy::default())?)
        .layer(BulkheadLayer::new(BulkheadPolicy::default())?)
        .layer(DeadlineLayer::new(Duration::from_secs(1)))
        .layer(RetryLayer::new(RetryPolicy::default())?)
        .layer(DiscoverLayer::new(directory.service("echo")))
        .layer(BalanceLayer::new(P2cPeakEwma::default()))
        .layer(AttemptTraceLayer::new())
        .layer(OutlierDetectionLayer::new(OutlierPolicy::default())?)
        .layer(DeadlineHeaderLayer::new())
        .layer(per_endpoint(|_| AttemptTimeoutLayer::new(Duration::from_millis(300))));
    let echo = hopvine::build::<Request<Full<Bytes>>, _, _>(builder, HttpClient::new());

    for number in 1..=6 {
        let request = Request::post("/").body(Full::from(format!("hello {number}")))?;
        let response = echo.clone().oneshot(request).await?;
        println!("{} {:?}", response.status(), response.into_body().collect().await?.to_bytes());
    }
    println!("\nthe stack, outermost first:\n{}", hopvine::layers_of(&echo).join("\n"));
    Ok(())
}

/// An instance that says its name and what it was sent.
async fn serve(name: &'static str) -> std::io::Result<Endpoint> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let echo = service_fn(move |request: Request<Incoming>| async move {
                let body =
                    request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let text = format!("{name} got {}", String::from_utf8_lossy(&body));
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
            });
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(socket), echo).await;
            });
        }
    });
    Ok(Endpoint::from(address).with_id(name))
}
