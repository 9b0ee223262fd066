//! An axum app that calls another service through a stack kept in its state.
//!
//! ```sh
//! cargo run --example axum_server
//! ```
//!
//! Server layers take trace and deadline from the inbound request; the handler's call to `catalog` inherits both by
//! itself. What goes wrong becomes a response in `RespondLayer`, nowhere else.

use std::time::Duration;

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::get,
};
use hopvine::{
    BoxStack, Context, Directory, PolicyError,
    connect::http::{ClientBody, HttpClient},
    layers::{
        deadline::{ServerDeadlineLayer, ServerDeadlinePolicy},
        respond::{RespondLayer, to_response},
        trace::ServerTraceLayer,
    },
    stacks::{self, Hop},
};
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt as _};

/// The stack's type has a name, so that a struct can hold it.
type Catalog = BoxStack<Request<Body>, Response<ClientBody>>;

#[derive(Clone)]
struct App {
    catalog: Catalog,
}

/// An error of the stack as a response of ours.
struct Failed(hopvine::Error);

impl From<hopvine::Error> for Failed {
    fn from(error: hopvine::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        to_response(&self.0, false).map(Body::new)
    }
}

async fn item(State(app): State<App>, Path(id): Path<u32>) -> Result<Response, Failed> {
    let request = Request::get(format!("/items/{id}")).body(Body::empty()).expect("a valid request");
    Ok(app.catalog.oneshot(request).await?.map(Body::new))
}

fn app(catalog: Catalog) -> Result<Router, PolicyError> {
    Ok(Router::new()
        .route("/shelf/{id}", get(item))
        .layer(
            ServiceBuilder::new()
                .layer(RespondLayer::new())
                .layer(ServerTraceLayer::new())
                .layer(ServerDeadlineLayer::new(ServerDeadlinePolicy::default())?),
        )
        .with_state(App { catalog }))
}

/// The service that is called: says what reached it.
async fn catalog_item(Path(id): Path<u32>, headers: HeaderMap) -> String {
    if id == 13 {
        // Longer than anybody waits.
        std::future::pending::<()>().await;
    }
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned();
    format!("item {id}, traceparent {}, time left {} ms", header("traceparent"), header("x-request-timeout-ms"))
}

async fn serve(app: Router) -> std::io::Result<hopvine::Endpoint> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address.into())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let instances = [
        serve(Router::new().route("/items/{id}", get(catalog_item))).await?,
        serve(Router::new().route("/items/{id}", get(catalog_item))).await?,
    ];
    let directory = Directory::fixed([("catalog", instances)]);

    let hop = Hop::new("catalog.item", directory.service("catalog"));
    let catalog = Catalog::build(stacks::server_to_server(hop)?, HttpClient::new());
    let shelf = serve(app(catalog)?).await?;

    // A caller: the same layers, over one endpoint.
    let directory = Directory::fixed([("shelf", [shelf])]);
    let hop = Hop::new("shelf", directory.service("shelf"));
    let caller: BoxStack<Request<Body>, Response<ClientBody>> =
        BoxStack::build(stacks::server_to_server(hop)?, HttpClient::new());

    let get = |path: &str| Request::get(path).body(Body::empty());
    let response = caller.clone().oneshot(get("/shelf/1")?).await?;
    println!("{} {}", response.status(), text(response).await?);

    // The caller has 200 ms: the handler's call knows, gives up in time, and the answer is 504, not a hang.
    let deadline = tokio::time::Instant::now() + Duration::from_millis(200);
    let hurried = Context::current().with_deadline(Some(deadline)).scope(caller.oneshot(get("/shelf/13")?));
    match hurried.await {
        Ok(response) => println!("{}", response.status()),
        Err(error) => println!("{error}"),
    }
    Ok(())
}

async fn text(response: Response<ClientBody>) -> Result<String, hopvine::Error> {
    let body = response.into_body().collect().await.map_err(hopvine::Error::from_any)?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}
