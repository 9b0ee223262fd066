//! The five phases: what is done to the shop, and what must hold.

use std::{
    collections::{BTreeMap, HashMap},
    io::IsTerminal as _,
    time::Duration,
};

use axum::body::Body;
use console::Term;
use http::Request;
use tokio::{
    sync::watch as channel,
    time::{Instant, sleep_until},
};

use crate::{
    BoxError, Shop,
    args::Args,
    load::{self, Customer, Sample, Samples},
    report::{self, Event, Phase, Report},
    watch::{self, Watch},
};

const NAMES: [&str; 5] =
    ["1 instance dies", "2 product is slow", "3 product recovers", "4 instance joins", "5 payment throttles"];

const WHAT: [&str; 5] = [
    "One of three product instances dies. Callers see no errors: what surely never ran is sent to another instance, the \
     dead one is ejected, the breakers stay closed; and within 3 s it is out of the registry.",
    "Product takes 5 s an answer. Calls time out, the breakers open, the fallback answers at once, orders are as fast as before.",
    "Product recovers. At most 5 probes of each breaker are in flight, and the breakers close within 3 s.",
    "A new instance of product joins and takes its share; another leaves, and nobody notices.",
    "Payment answers 429 with Retry-After. Nobody calls it before that time; orders say \"payment pending\" instead of an error.",
];

/// How long payment asks its callers to stay away.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Runs it. `true` if every phase held what it promises.
pub async fn run(mut shop: Shop, args: &Args) -> Result<bool, BoxError> {
    let loud = !args.json;
    if loud {
        println!(
            "{} requests a second for {} s: four in five display an item, one in five orders one.\n\
             For the drill the breakers' window is 2 s and their open time 1 s (2 s at most), instead of 10 s, 5 s and 60 s.\n\
             A page waits 250 ms for its product, 100 ms an attempt; its retry budget is 20 % and 2 a second. The gateway takes {} calls at once.\n",
            args.rate,
            args.length.as_secs(),
            crate::services::GATEWAY_LIMIT
        );
    }
    let start = Instant::now();
    let watch = Watch::new(start, shop.products.clone(), loud && !Term::stdout().is_term());
    let watching = tokio::spawn(watch.clone().run(shop.monitor.clone()));
    let following = tokio::spawn(watch.clone().follow(shop.directory.service("product")));
    let samples = Samples::default();
    let (set_phase, phase) = channel::channel(0);
    let customer = Customer::new(shop.gateway.clone());
    let customers = tokio::spawn(load::run(customer.clone(), args.rate, start + args.length, phase, samples.clone()));

    let mut marks = Vec::new();
    let mut failures = Vec::new();
    let mut attempts = vec![watch::attempts(&shop.monitor)];
    let mut screen = Screen::new(loud && std::io::stdout().is_terminal());
    for number in 0..5 {
        set_phase.send_replace(number);
        marks.push(watch.now());
        if loud && !screen.live {
            println!("\n{}\n{}", NAMES[number], WHAT[number]);
        }
        let served = shop.products.served();
        act(number, &mut shop, &watch, &customer).await?;
        let end = start + args.length * (number as u32 + 1) / 5;
        while Instant::now() < end {
            sleep_until(end.min(Instant::now() + Duration::from_millis(500))).await;
            let mut now = attempts.clone();
            now.push(watch::attempts(&shop.monitor));
            screen.draw(number, &phases(&samples.all(), &now, number), &watch.events());
        }
        attempts.push(watch::attempts(&shop.monitor));
        failures.extend(broken_promises(number, &shop, &watch, marks[number], &served));
    }
    customers.await?;
    watching.abort();
    following.abort();

    let phases = phases(&samples.all(), &attempts, 4);
    failures.extend(broken_figures(&phases));
    if args.json {
        println!("{}", serde_json::to_string(&Report { phases, events: watch.events() })?);
    } else {
        screen.draw(4, &phases, &watch.events());
        summary(&phases, &failures, screen.live);
    }
    for failure in &failures {
        eprintln!("not held: {failure}");
    }
    Ok(failures.is_empty())
}

/// What is done to the shop as a phase begins.
async fn act(number: usize, shop: &mut Shop, watch: &Watch, customer: &Customer) -> Result<(), BoxError> {
    match number {
        0 => {
            // A moment of calm first, so that the drill starts from a shop that works.
            sleep_until(Instant::now() + Duration::from_millis(500)).await;
            if let Some(instance) = shop.instances.remove("product-1") {
                instance.kill();
            }
            watch.note("product-1 dies");
            let request = Request::post("/view/1").body(Body::empty())?;
            let result = customer.send(request).await;
            watch.note(match result {
                Ok((status, body)) => format!("one POST without an idempotency key: {status}, {body}"),
                Err(error) => format!("one POST without an idempotency key: {error}"),
            });
        }
        1 => {
            shop.products.set_slow(true);
            watch.note("product turns slow");
        }
        2 => {
            shop.products.watch_callers();
            shop.products.set_slow(false);
            watch.note("product recovers");
        }
        3 => {
            shop.join_product("product-4").await?;
            watch.note("product-4 joins");
            if let Some(instance) = shop.instances.remove("product-2") {
                watch.note("product-2 leaves");
                instance.leave().await;
            }
        }
        _ => {
            shop.payments.throttle(RETRY_AFTER);
            watch.note(format!("payment answers 429, Retry-After {} s", RETRY_AFTER.as_secs()));
        }
    }
    Ok(())
}

/// The promises that only the shop itself can tell, at the end of a phase.
fn broken_promises(
    number: usize,
    shop: &Shop,
    watch: &Watch,
    from: u128,
    served: &HashMap<String, u64>,
) -> Vec<String> {
    let mut broken = Vec::new();
    let mut hold = |holds: bool, promise: String| {
        if !holds {
            broken.push(format!("{}: {promise}", NAMES[number]));
        }
    };
    let opened = watch.since(from, "-> open");
    match number {
        0 => {
            let ejected = watch.since(from, "endpoint product-1").iter().any(|event| event.what.ends_with("ejected"));
            hold(ejected, "the dead instance is ejected".to_owned());
            let died = watch.since(from, "product-1 dies");
            let gone = watch.since(from, "the directory loses product-1");
            let took = died.first().zip(gone.first()).map(|(died, gone)| gone.t_ms - died.t_ms);
            hold(
                took.is_some_and(|took| took <= 3000),
                format!("it is out of the registry within 3 s, not {took:?} ms"),
            );
            hold(opened.is_empty(), format!("no breaker opens, but {} did", opened.len()));
        }
        1 => {
            let displays = opened.iter().filter(|event| event.what.contains("display.product")).count();
            hold(displays >= 3, format!("every display's breaker opens, but {displays} did"));
        }
        2 => {
            let closed = watch.since(from, "-> closed");
            let last = closed.iter().map(|event| event.t_ms - from).max();
            hold(closed.len() >= 3, format!("every breaker closes, but {} did", closed.len()));
            hold(last.is_some_and(|last| last <= 3000), format!("they close within 3 s, the last after {last:?} ms"));
            let all = shop.monitor.snapshot().breakers.iter().all(|breaker| breaker.state == "closed");
            hold(all, "all breakers are closed at the end".to_owned());
            let probes = watch.probes();
            hold(probes.len() >= 3, format!("the probes of every breaker were seen, but of {} only", probes.len()));
            hold(probes.iter().all(|most| *most <= 5), format!("at most 5 probes at once, but there were {probes:?}"));
        }
        3 => {
            let now = shop.products.served();
            let gained: BTreeMap<_, _> =
                now.iter().map(|(name, count)| (name, count - served.get(name).unwrap_or(&0))).collect();
            let live = gained.values().filter(|count| **count > 0).count().max(1) as u64;
            let fair = gained.values().sum::<u64>() / live;
            let own = gained.get(&"product-4".to_owned()).copied().unwrap_or(0);
            hold(own * 2 >= fair, format!("the new instance takes its share, about {fair} calls, but took {own}"));
            let gone = !watch.since(from, "the directory loses product-2").is_empty();
            hold(gone, "who leaves is out of the registry".to_owned());
            let ejected = watch.since(from, "endpoint product-2").iter().any(|event| event.what.ends_with("ejected"));
            hold(!ejected, "no call fails at the one that leaves".to_owned());
        }
        _ => {
            let (asked, early) = (shop.payments.asked(), shop.payments.early());
            hold(asked > 0, "payment throttles its callers".to_owned());
            hold(early == 0, format!("nobody calls before the time, but {early} calls came"));
        }
    }
    broken
}

/// The promises that the figures tell.
fn broken_figures(phases: &[Phase]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut hold = |number: usize, holds: bool, promise: String| {
        if !holds {
            broken.push(format!("{}: {promise}", NAMES[number]));
        }
    };
    for (number, phase) in phases.iter().enumerate() {
        hold(number, phase.errors == 0, format!("no errors, but there were {}", phase.errors));
        let attempts = phase.attempts_per_call;
        hold(number, attempts <= 1.25, format!("at most 1.25 attempts a call, but there were {attempts}"));
    }
    let (usual, slow) = (phases[0].order_p99_ms, phases[1].order_p99_ms);
    let most = (usual * 1.2).max(usual + 10.0);
    hold(1, slow <= most, format!("orders stay below {most:.1} ms (p99), but took {slow:.1}"));
    hold(1, phases[1].fallback > 0, "the fallback answers".to_owned());
    hold(4, phases[4].fallback > 0, "orders say that the payment is pending".to_owned());
    broken
}

fn phases(samples: &[Sample], attempts: &[BTreeMap<String, (u64, u64)>], last: usize) -> Vec<Phase> {
    (0..=last)
        .filter(|&number| number + 1 < attempts.len())
        .map(|number| {
            let own: Vec<_> = samples.iter().filter(|sample| sample.phase == number).copied().collect();
            let ratio = watch::attempts_per_call(&attempts[number], &attempts[number + 1]);
            Phase::of(NAMES[number], &own, ratio)
        })
        .collect()
}

/// The live table, on a terminal.
struct Screen {
    live: bool,
    terminal: Term,
    lines: usize,
}

impl Screen {
    fn new(live: bool) -> Self {
        Self { live, terminal: Term::stdout(), lines: 0 }
    }

    fn draw(&mut self, number: usize, phases: &[Phase], events: &[Event]) {
        if !self.live {
            return;
        }
        let latest = events.iter().rev().take(8).rev();
        let latest: Vec<_> =
            latest.map(|event| format!("{:>8.2} s  {}", event.t_ms as f64 / 1e3, event.what)).collect();
        let text = format!("{}\n{}\n\n{}\n\n{}", NAMES[number], WHAT[number], report::table(phases), latest.join("\n"));
        // A terminal that is gone has nobody to tell.
        let _ = self.terminal.clear_last_lines(self.lines);
        let _ = self.terminal.write_line(&text);
        let width = usize::from(self.terminal.size().1).max(1);
        self.lines = text.lines().map(|line| console::measure_text_width(line).div_ceil(width).max(1)).sum();
    }
}

fn summary(phases: &[Phase], failures: &[String], drawn: bool) {
    if !drawn {
        println!("\n{}", report::table(phases));
    }
    let requests: usize = phases.iter().map(|phase| phase.requests).sum();
    let errors: usize = phases.iter().map(|phase| phase.errors).sum();
    let orders = phases[1].order_p99_ms;
    println!(
        "\n{requests} requests, {errors} errors. While product was slow, 99 of 100 orders took at most {orders} ms \
         ({} ms before).",
        phases[0].order_p99_ms
    );
    println!("{}", if failures.is_empty() { "Every phase held what it promises." } else { "Not every phase held:" });
}
