//! The load: arrivals at a fixed rate, which wait for nobody, and what became of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use fastrand::Rng;
use hopvine::{ErrorKind, connect::http::ClientBody, monitor::Latency};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};
use tower::ServiceExt as _;

use crate::{
    callers::{NAMES, Stack},
    ledger::Ledger,
};

/// The most requests in flight. Those that arrive beyond it are refused, and the run has failed.
pub const MOST: usize = 4096;

/// How many lost calls are told one by one.
const TOLD: u64 = 20;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Get,
    /// With an idempotency key: may run twice.
    Order,
    /// Without one: may be lost, and must not run twice.
    Payment,
}

/// What came of the requests of some time.
#[derive(Default)]
pub struct Tally {
    pub ok: u64,
    /// By kind; of requests that may be lost and of others.
    pub errors: BTreeMap<String, u64>,
    /// Requests that may run twice and had no answer all the same.
    pub lost: u64,
    /// Answers whose body broke off: no retry makes up for that, since it was begun.
    pub cut: u64,
    /// Answers to another request.
    pub wrong: u64,
    pub latency: Latency,
}

pub struct Load {
    pub ledger: Arc<Ledger>,
    tally: Mutex<Tally>,
    pub sent: AtomicU64,
    pub refused: AtomicU64,
    /// The longest that a request was sent after its time, in microseconds.
    pub late: AtomicU64,
    start: Instant,
    told: AtomicU64,
    places: Arc<Semaphore>,
}

impl Load {
    pub fn new(start: Instant, ledger: Arc<Ledger>) -> Self {
        let [sent, refused, late, told] = [0; 4].map(AtomicU64::new);
        let places = Arc::new(Semaphore::new(MOST));
        Self { ledger, tally: Mutex::default(), sent, refused, late, start, told, places }
    }

    pub fn in_flight(&self) -> usize {
        MOST - self.places.available_permits()
    }

    /// What came of requests since the last time it was asked.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut *self.tally())
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("nobody panics while counting")
    }

    async fn call(&self, stack: Stack, name: &str, kind: Kind, number: u64) {
        let began = Instant::now();
        let length = if kind == Kind::Get { 0 } else { number as usize % 2048 };
        let result = stack.oneshot(request(kind, number, length)).await;
        let took = began.elapsed();
        let broken = match result {
            Ok(response) if response.status().is_success() => {
                if kind == Kind::Payment {
                    self.ledger.answered(number);
                }
                let body = read(response, began).await;
                let mut tally = self.tally();
                match body {
                    None => tally.cut += 1,
                    Some(body) if body.starts_with(format!("{number} {length} ").as_bytes()) => tally.ok += 1,
                    Some(_) => tally.wrong += 1,
                }
                None
            }
            Ok(response) => Some((format!("status {}", response.status().as_u16()), String::new())),
            Err(error) => {
                if kind == Kind::Payment && error.is_unsent() {
                    self.ledger.unsent(number);
                }
                Some((name_of(error.kind()), format!("{error:?}")))
            }
        };
        let mut tally = self.tally();
        tally.latency.record(took);
        let Some((error, details)) = broken else { return };
        if kind != Kind::Payment {
            tally.lost += 1;
            if self.told.fetch_add(1, Relaxed) < TOLD {
                let at = self.start.elapsed().as_secs_f64();
                println!("{at:>8.2} s  LOST: {kind:?} {number} by {name} after {took:?}: {error} {details}");
            }
        }
        *tally.errors.entry(error).or_default() += 1;
    }
}

fn name_of(kind: ErrorKind) -> String {
    format!("{kind:?}")
}

fn request(kind: Kind, number: u64, length: usize) -> Request<Full<Bytes>> {
    static ORDER: [u8; 2048] = [b'x'; 2048];
    let request = Request::builder().uri(format!("/item/{number}"));
    let request = match kind {
        Kind::Get => request,
        Kind::Order => request.method(Method::POST).header("idempotency-key", number),
        Kind::Payment => request.method(Method::POST),
    };
    request.body(Full::new(Bytes::from_static(&ORDER[..length]))).expect("a valid request")
}

/// `None` if it broke off. A call's deadline ends with its head; so its body has one of its own here.
async fn read(response: Response<ClientBody>, began: Instant) -> Option<Bytes> {
    let end = began + Duration::from_secs(10);
    Some(timeout_at(end, response.into_body().collect()).await.ok()?.ok()?.to_bytes())
}

/// Sends `requests` requests, `rate` a second, by each stack in turn. Returns when the last one is sent.
pub async fn run(load: Arc<Load>, stacks: [Stack; 2], requests: u64, rate: u32, seed: u64) {
    let mut random = Rng::with_seed(seed);
    for number in 0..requests {
        let due = load.start + Duration::from_nanos(number * 1_000_000_000 / u64::from(rate));
        if due > Instant::now() {
            sleep_until(due).await;
        }
        load.late.fetch_max(due.elapsed().as_micros() as u64, Relaxed);
        load.sent.fetch_add(1, Relaxed);
        let kind = match random.u8(..10) {
            0..6 => Kind::Get,
            6..9 => Kind::Order,
            _ => Kind::Payment,
        };
        let Ok(place) = Arc::clone(&load.places).try_acquire_owned() else {
            load.refused.fetch_add(1, Relaxed);
            continue;
        };
        let which = number as usize % 2;
        let (load, stack) = (Arc::clone(&load), stacks[which].clone());
        tokio::spawn(async move {
            load.call(stack, NAMES[which], kind, number).await;
            drop(place);
        });
    }
}
