//! What it costs to carry a call's facts: the ambient context against a request's extensions.
//!
//! `cargo bench --bench context`. Nanoseconds (median of 25 rounds) and allocations a call.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use hopvine::context::{self, Attempt, Context, Priority};

const CALLS: u32 = 100_000;

fn measure(name: &str, mut call: impl FnMut()) {
    for _ in 0..CALLS {
        call();
    }
    let mut rounds: Vec<f64> = (0..25)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..CALLS {
                call();
            }
            start.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .collect();
    let allocations = allocation_counter::measure(&mut call).count_total;
    rounds.sort_by(f64::total_cmp);
    println!("{name:58} {:8.1} ns {allocations:3} allocations", rounds[12]);
}

fn main() {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);

    measure("one scope: a deadline entered and restored", || {
        let _deadline = context::enter_deadline(black_box(Some(deadline)));
        black_box(context::deadline());
    });
    let mut attempt = Attempt::first();
    measure("four scopes nested, read in the innermost", || {
        let _clock = context::enter_clock();
        let _deadline = context::enter_deadline(black_box(Some(deadline)));
        let _priority = context::enter_priority(Priority(1));
        let _attempt = context::enter_attempt(&mut attempt);
        black_box((context::deadline(), context::priority(), context::attempt().number()));
    });
    measure("extensions: first insert of a deadline, and read", || {
        let mut extensions = http::Extensions::new();
        extensions.insert(black_box(deadline));
        black_box(extensions.get::<tokio::time::Instant>());
    });
    measure("extensions: deadline, priority and attempt, and read", || {
        let mut extensions = http::Extensions::new();
        extensions.insert(black_box(deadline));
        extensions.insert(Priority(1));
        extensions.insert(Attempt::first());
        black_box((
            extensions.get::<tokio::time::Instant>(),
            extensions.get::<Priority>(),
            extensions.get::<Attempt>().map(Attempt::number),
        ));
    });
    measure("the bridge: a context put into extensions", || {
        let mut extensions = http::Extensions::new();
        Context::new().with_deadline(Some(deadline)).insert_into(&mut extensions);
        black_box(&extensions);
    });
}
