//! A long night: a service of six processes is called without a pause while they are killed, slowed and paused at random.
//!
//! ```sh
//! cargo run --release --example soak -- --minutes 10
//! ```
//!
//! Two whole stacks, one of HTTP/1 and one of HTTP/2, share a directory that hears of deaths late or never. No idempotent
//! call may be lost, nothing that may not run twice does, memory stays flat, and at the end every counter is 0. The exit
//! status is 1 if one of that does not hold. The same seed makes the same faults at the same times.

#![allow(missing_docs, missing_debug_implementations, unreachable_pub, reason = "a program, not a library")]

use std::{
    io,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use hopvine::{Directory, Monitor, discover::ChangeStream};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

mod args;
mod callers;
mod end;
mod faults;
mod fleet;
mod instance;
mod ledger;
mod load;
mod pause;
mod report;
mod schedule;
mod vitals;

use args::Args;
use callers::{SERVICE, Settings};
use end::Promises;
use faults::{Clock, Fleet};
use ledger::Ledger;
use load::Load;
use vitals::{Memory, Vitals};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.next_if(|word| word == instance::ARGUMENT).is_some() {
        return instance::run(&words.next().unwrap_or_default());
    }
    if words.next_if(|word| word == pause::ARGUMENT).is_some() {
        return pause::run(words);
    }
    let args = match Args::parse(words) {
        Ok(args) => args,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(BoxError::from);
    match runtime.and_then(|runtime| runtime.block_on(soak(&args))) {
        Ok(promises) => {
            for promise in promises.broken() {
                eprintln!("not held: {promise}");
            }
            if promises.broken().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("the soak could not go on: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn soak(args: &Args) -> Result<Promises, BoxError> {
    let settings = Settings::of(args);
    println!(
        "{} instances, {} requests a second for {:.1} min, seed {}; at most {} instances sick at once.",
        args.instances,
        args.rate,
        args.length.as_secs_f64() / 60.0,
        args.seed,
        args.most_sick()
    );
    settings.print();

    let ledger = Arc::new(Ledger::new(args.requests()));
    let (changes, mut heard) = mpsc::unbounded_channel();
    let fleet = Arc::new(Fleet::start(args.instances, args.most_sick(), &ledger, changes).await?);
    // From here on everything is the library's, or the load's.
    let before = Vitals::now();

    let monitor = Monitor::new();
    let heard =
        futures_util::stream::poll_fn(move |cx| heard.poll_recv(cx).map(|change| change.map(Ok::<_, io::Error>)));
    let directory = Directory::builder().monitor(&monitor).service(SERVICE, ChangeStream::new(heard)).build();
    let stacks = settings.stacks(&directory, &monitor)?;
    directory.ready(Duration::from_secs(5)).await?;

    let clock = Clock { start: Instant::now(), stop: CancellationToken::new() };
    let load = Arc::new(Load::new(clock.start, Arc::clone(&ledger)));
    let memory = tokio::spawn(Memory::watch(clock.start, args.length));
    let report =
        tokio::spawn(report::run(Arc::clone(&load), Arc::clone(&fleet), monitor.clone(), clock.clone(), args.length));
    let plan = schedule::plan(args.seed, args.length, args.instances, args.most_sick());
    let mut faults = tokio::spawn(faults::run(Arc::clone(&fleet), plan, clock.clone()));
    let sending = load::run(Arc::clone(&load), stacks.clone(), args.requests(), args.rate, args.seed);
    tokio::select! {
        () = sending => {}
        failed = &mut faults => failed??,
    }
    // Whoever is sick now is healed; what is under way ends.
    clock.stop.cancel();
    faults.await??;
    let mut totals = report.await?;
    let mut promises = Promises::default();
    promises.settle(&monitor, &load).await;
    totals.add(&load.take());

    let kills = fleet.kills.load(Relaxed);
    let refused = load.refused.load(Relaxed);
    report::summary(&load, &totals, &monitor, kills);
    promises.answers(&totals, refused, kills);
    promises.memory_is_flat(memory.await?.means());

    drop((stacks, directory));
    promises.leave_nothing(before).await;

    // Their last words come with their end.
    Arc::into_inner(fleet).ok_or("the fleet is in use")?.end().await?;
    let ran = ledger.totals();
    println!("Of the requests that may not run twice {} ran, {} of them twice.", ran.ran, ran.twice);
    promises.nothing_twice(&ran);
    Ok(promises)
}
