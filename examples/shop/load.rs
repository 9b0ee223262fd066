//! The customers: a steady, open load on the gateway, that waits for nobody.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::body::Body;
use hopvine::{
    NewService as _,
    connect::http::{HttpClient, HttpService},
    endpoint::{Endpoint, EndpointHandle},
};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use tokio::{sync::watch, time::Instant};
use tower::ServiceExt as _;

/// What a customer asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Looking at an item: gateway, display, product.
    Display,
    /// Buying one: gateway, order, payment.
    Order,
}

/// What a customer got.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Full,
    Fallback,
    Error,
}

/// One finished request.
#[derive(Clone, Copy)]
pub struct Sample {
    pub phase: usize,
    pub kind: Kind,
    pub answer: Answer,
    pub took: Duration,
}

/// Everything that finished so far.
#[derive(Clone, Default)]
pub struct Samples(Arc<Mutex<Vec<Sample>>>);

impl Samples {
    pub fn all(&self) -> Vec<Sample> {
        self.0.lock().expect("nobody panics while adding").clone()
    }

    fn add(&self, sample: Sample) {
        self.0.lock().expect("nobody panics while adding").push(sample);
    }
}

/// A customer's client: no retries, no balancing, a legacy caller that cannot be changed.
#[derive(Clone)]
pub struct Customer(HttpService<Body>);

impl Customer {
    pub fn new(gateway: Endpoint) -> Self {
        let endpoint = EndpointHandle::new("gateway".into(), Arc::new(gateway), Arc::default());
        Self(HttpClient::new().new_service(&endpoint))
    }

    pub async fn send(&self, request: Request<Body>) -> Result<(u16, String), hopvine::Error> {
        let response = self.0.clone().oneshot(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(hopvine::Error::from_any)?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    async fn ask(&self, kind: Kind, number: u64) -> Answer {
        let request = match kind {
            Kind::Display => Request::builder().uri(format!("/display/{}", number % 100)),
            // An order may run once only; its key lets it be sent again.
            Kind::Order => Request::builder()
                .method(Method::POST)
                .uri(format!("/order/{number}"))
                .header("idempotency-key", number.to_string()),
        };
        match self.send(request.body(Body::empty()).expect("a valid request")).await {
            Ok((200, body)) if body.contains("cached") || body.contains("pending") => Answer::Fallback,
            Ok((200, _)) => Answer::Full,
            _ => Answer::Error,
        }
    }
}

/// Sends `rate` requests a second until `end`, one in five an order, and waits for their answers.
pub async fn run(customer: Customer, rate: u32, end: Instant, phase: watch::Receiver<usize>, samples: Samples) {
    let mut requests = tokio::task::JoinSet::new();
    let gap = Duration::from_secs(1) / rate;
    let mut next = Instant::now();
    let mut number = 0;
    while next < end {
        tokio::time::sleep_until(next).await;
        next += gap;
        number += 1;
        let kind = if fastrand::u8(..5) == 0 { Kind::Order } else { Kind::Display };
        let (customer, samples, phase) = (customer.clone(), samples.clone(), *phase.borrow());
        requests.spawn(async move {
            let start = Instant::now();
            let answer = customer.ask(kind, number).await;
            samples.add(Sample { phase, kind, answer, took: start.elapsed() });
        });
        while requests.try_join_next().is_some() {}
    }
    requests.join_all().await;
}
