//! The shop's services, each an axum app with stacks of its own for what it calls.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hopvine::{
    BoxStack, Directory, Monitor, PolicyError,
    connect::http::{ClientBody, HttpClient},
    layers::{
        bulkhead::{BulkheadLayer, BulkheadPolicy},
        circuit_breaker::CircuitBreakerPolicy,
        deadline::{ServerDeadlineLayer, ServerDeadlinePolicy},
        fallback::FallbackLayer,
        respond::{RespondLayer, to_response},
        retry::{Budget, BudgetPolicy},
        trace::ServerTraceLayer,
    },
    stacks::{self, Hop},
};
use http::{HeaderMap, Request, StatusCode};
use tokio::time::Instant;
use tower::{ServiceBuilder, ServiceExt as _};

use crate::host::text;

/// What a stack of the shop is to its callers.
type Stack = BoxStack<Request<Body>, Response<ClientBody>>;

/// Names the caller, so that a service can say who called how often.
const CALLER: &str = "x-caller";

/// The drill lasts seconds, so its breakers look back and stay open for seconds too.
pub fn breaker() -> CircuitBreakerPolicy {
    CircuitBreakerPolicy {
        window: Duration::from_secs(2),
        open_time: Duration::from_secs(1),
        open_time_max: Duration::from_secs(2),
        ..Default::default()
    }
}

// ---- product -------------------------------------------------------------------------------------------------------

/// What the drill does to `product`, and what it sees of it. One for all its instances.
#[derive(Clone, Default)]
pub struct Products(Arc<ProductsInner>);

#[derive(Default)]
struct ProductsInner {
    slow: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    served: HashMap<String, u64>,
    in_flight: HashMap<String, u32>,
    most_in_flight: HashMap<String, u32>,
}

impl Products {
    pub fn set_slow(&self, slow: bool) {
        self.0.slow.store(slow, Relaxed);
    }

    /// Calls that each instance answered so far.
    pub fn served(&self) -> HashMap<String, u64> {
        self.seen().served.clone()
    }

    /// Starts to note how many calls each caller has in flight at once.
    pub fn watch_callers(&self) {
        let mut seen = self.seen();
        let now = seen.in_flight.clone();
        seen.most_in_flight.clone_from(&now);
    }

    /// The most that this caller had in flight at once since then.
    pub fn most_in_flight(&self, caller: &str) -> u32 {
        self.seen().most_in_flight.get(caller).copied().unwrap_or(0)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().expect("nobody panics while counting")
    }

    fn enter(&self, caller: &str) -> InFlight {
        let mut seen = self.seen();
        let now = seen.in_flight.entry(caller.to_owned()).or_default();
        *now += 1;
        let now = *now;
        let most = seen.most_in_flight.entry(caller.to_owned()).or_default();
        *most = now.max(*most);
        InFlight { products: self.clone(), caller: caller.to_owned() }
    }
}

/// A call that `product` works at; counted out when it is done, or its caller has gone away.
struct InFlight {
    products: Products,
    caller: String,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(count) = self.products.seen().in_flight.get_mut(&self.caller) {
            *count -= 1;
        }
    }
}

pub fn product(name: &str, products: &Products) -> Router {
    let state = (name.to_owned(), products.clone());
    Router::new()
        .route("/product/{id}", get(describe))
        .route("/view/{id}", post(count_view))
        .layer(ServerTraceLayer::new())
        .with_state(state)
}

async fn describe(
    State((name, products)): State<(String, Products)>,
    Path(id): Path<u32>,
    headers: HeaderMap,
) -> Response {
    let _in_flight = products.enter(caller(&headers));
    // A slow one is far slower than anybody waits.
    let work = if products.0.slow.load(Relaxed) { Duration::from_secs(5) } else { Duration::from_millis(2) };
    tokio::time::sleep_until(Instant::now() + work).await;
    *products.seen().served.entry(name.clone()).or_default() += 1;
    text(format!("product {id} from {name}"))
}

async fn count_view(State((name, _)): State<(String, Products)>, Path(id): Path<u32>) -> Response {
    text(format!("view of product {id} counted by {name}"))
}

fn caller(headers: &HeaderMap) -> &str {
    headers.get(CALLER).and_then(|name| name.to_str().ok()).unwrap_or("unknown")
}

// ---- display -------------------------------------------------------------------------------------------------------

#[derive(Clone)]
struct Display {
    name: Arc<str>,
    product: Stack,
}

pub fn display(name: &str, directory: &Directory, monitor: &Monitor) -> Result<Router, PolicyError> {
    let hop = Hop::new("display.product", directory.service("product"))
        .monitor(monitor)
        .circuit_breaker(breaker())?
        // A page waits 250 ms for its product, and asks a second instance after 100.
        .deadline(Duration::from_millis(250))?
        .attempt_timeout(Duration::from_millis(100))?
        // Some 130 calls a second: 10 retries a second from time alone would be nearly a tenth of them.
        .budget(Budget::new(BudgetPolicy { refill_per_second: 2, ..Default::default() })?)
        .fallback(FallbackLayer::keeping(
            |request: &Request<Body>| request.uri().path().to_owned(),
            async |path: String, _why| {
                Ok::<_, hopvine::Error>(Response::new(ClientBody::from(format!("cached {path}"))))
            },
        ));
    let product = Stack::build(stacks::server_to_server(hop)?, HttpClient::new());
    Ok(Router::new()
        .route("/display/{id}", get(page))
        .route("/view/{id}", post(view))
        .layer(
            ServiceBuilder::new()
                .layer(RespondLayer::new())
                .layer(ServerTraceLayer::new())
                .layer(ServerDeadlineLayer::new(ServerDeadlinePolicy::default())?),
        )
        .with_state(Display { name: name.into(), product }))
}

async fn page(State(display): State<Display>, Path(id): Path<u32>) -> Response {
    let request = Request::get(format!("/product/{id}")).header(CALLER, &*display.name);
    call(display.product, request).await
}

/// Counting a view twice would be wrong, and it carries no key: it is sent once, and what became of it is said.
async fn view(State(display): State<Display>, Path(id): Path<u32>) -> Response {
    let request = Request::post(format!("/view/{id}")).header(CALLER, &*display.name);
    call(display.product, request).await
}

async fn call(stack: Stack, request: http::request::Builder) -> Response {
    let request = request.body(Body::empty()).expect("a valid request");
    match stack.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => to_response(&error, false).map(Body::new),
    }
}

// ---- order and payment ---------------------------------------------------------------------------------------------

#[derive(Clone)]
struct Order {
    name: Arc<str>,
    payment: Stack,
}

pub fn order(name: &str, payment: &Directory, monitor: &Monitor) -> Result<Router, PolicyError> {
    let hop = Hop::new("order.payment", payment.service("payment"))
        .monitor(monitor)
        .circuit_breaker(breaker())?
        .fallback(FallbackLayer::new(async |_why| {
            Ok::<_, hopvine::Error>(Response::new(ClientBody::from("payment pending")))
        }));
    let payment = Stack::build(stacks::external(hop)?, HttpClient::new());
    Ok(Router::new()
        .route("/order/{id}", post(buy))
        .layer(
            ServiceBuilder::new()
                .layer(RespondLayer::new())
                .layer(ServerTraceLayer::new())
                .layer(ServerDeadlineLayer::new(ServerDeadlinePolicy::default())?),
        )
        .with_state(Order { name: name.into(), payment }))
}

async fn buy(State(order): State<Order>, Path(id): Path<u64>) -> Response {
    let request =
        Request::post(format!("/pay/{id}")).header(CALLER, &*order.name).header("idempotency-key", id.to_string());
    call(order.payment, request).await
}

/// What the drill does to `payment`, and what it sees of it.
#[derive(Clone, Default)]
pub struct Payments(Arc<Mutex<Throttle>>);

#[derive(Default)]
struct Throttle {
    /// How long a caller is asked to stay away; `None`: everybody is served.
    wait: Option<Duration>,
    /// Since when, and until when, each caller has been asked to stay away.
    asked: HashMap<String, (Instant, Instant)>,
    early: u64,
}

impl Payments {
    /// Every caller's next call is answered 429 with this `Retry-After`, and then served again.
    pub fn throttle(&self, wait: Duration) {
        self.lock().wait = Some(wait);
    }

    /// Callers that were asked to stay away.
    pub fn asked(&self) -> usize {
        self.lock().asked.len()
    }

    /// Calls that came before the time their caller was told.
    pub fn early(&self) -> u64 {
        self.lock().early
    }

    fn lock(&self) -> MutexGuard<'_, Throttle> {
        self.0.lock().expect("nobody panics while counting")
    }
}

/// What was under way when the answer 429 was written may still arrive.
const UNDER_WAY: Duration = Duration::from_millis(100);

pub fn payment(payments: &Payments) -> Router {
    Router::new().route("/pay/{id}", post(pay)).with_state(payments.clone())
}

async fn pay(State(payments): State<Payments>, Path(id): Path<u64>, headers: HeaderMap) -> Response {
    let now = Instant::now();
    let refused = {
        let mut throttle = payments.lock();
        throttle.wait.and_then(|wait| {
            let (since, until) = *throttle.asked.entry(caller(&headers).to_owned()).or_insert((now, now + wait));
            if now >= until {
                return None;
            }
            if now > since + UNDER_WAY {
                throttle.early += 1;
            }
            Some(until - now)
        })
    };
    if let Some(wait) = refused {
        let seconds = wait.as_secs_f64().ceil().to_string();
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds)], "slow down").into_response();
    }
    tokio::time::sleep_until(now + Duration::from_millis(3)).await;
    text(format!("order {id} paid"))
}

// ---- gateway -------------------------------------------------------------------------------------------------------

/// The most calls the gateway takes at once, over all routes: without breaker and bulkhead behind it, a slow product
/// would take all of them and starve the orders.
pub const GATEWAY_LIMIT: u32 = 256;

pub fn gateway(directory: &Directory, monitor: &Monitor) -> Result<Router, PolicyError> {
    let route = |service: &'static str| -> Result<_, PolicyError> {
        let hop = Hop::new(&format!("gateway.{service}"), directory.service(service))
            .monitor(monitor)
            .circuit_breaker(breaker())?;
        let stack = Stack::build(stacks::legacy_to_server(hop)?, HttpClient::new());
        Ok(ServiceBuilder::new().layer(RespondLayer::new()).service(stack))
    };
    let limit = BulkheadLayer::new(BulkheadPolicy { limit: GATEWAY_LIMIT, ..Default::default() })?;
    Ok(Router::new()
        .route_service("/display/{id}", route("display")?)
        .route_service("/view/{id}", route("display")?)
        .route_service("/order/{id}", route("order")?)
        .layer(ServiceBuilder::new().layer(RespondLayer::new()).layer(limit.name("gateway").monitor(monitor))))
}
