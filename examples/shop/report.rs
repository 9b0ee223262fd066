//! What is measured in each phase, as JSON and for people.

use std::time::Duration;

use comfy_table::{Cell, Table, presets::UTF8_BORDERS_ONLY};
use serde::Serialize;

use crate::load::{Answer, Kind, Sample};

#[derive(Serialize)]
pub struct Report {
    pub phases: Vec<Phase>,
    pub events: Vec<Event>,
}

#[derive(Clone, Serialize)]
pub struct Phase {
    pub name: &'static str,
    pub requests: usize,
    pub ok: usize,
    pub fallback: usize,
    pub errors: usize,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub order_p99_ms: f64,
    /// Attempts over calls that passed the breaker, the largest of all commands.
    pub attempts_per_call: f64,
}

#[derive(Clone, Serialize)]
pub struct Event {
    pub t_ms: u128,
    pub what: String,
}

impl Phase {
    pub fn of(name: &'static str, samples: &[Sample], attempts_per_call: f64) -> Self {
        let count = |answer| samples.iter().filter(|sample| sample.answer == answer).count();
        let all: Vec<_> = samples.iter().map(|sample| sample.took).collect();
        let orders: Vec<_> =
            samples.iter().filter(|sample| sample.kind == Kind::Order).map(|sample| sample.took).collect();
        Self {
            name,
            requests: samples.len(),
            ok: count(Answer::Full),
            fallback: count(Answer::Fallback),
            errors: count(Answer::Error),
            p50_ms: percentile(all.clone(), 0.5),
            p99_ms: percentile(all, 0.99),
            order_p99_ms: percentile(orders, 0.99),
            attempts_per_call,
        }
    }
}

fn percentile(mut times: Vec<Duration>, share: f64) -> f64 {
    if times.is_empty() {
        return 0.0;
    }
    times.sort_unstable();
    let rank = (times.len() as f64 * share).ceil() as usize;
    (times[rank.clamp(1, times.len()) - 1].as_secs_f64() * 1e5).round() / 100.0
}

/// The phases as a table.
pub fn table(phases: &[Phase]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header([
        "phase",
        "requests",
        "ok",
        "fallback",
        "errors",
        "p50 ms",
        "p99 ms",
        "order p99 ms",
        "attempts/call",
    ]);
    for phase in phases {
        table.add_row([
            Cell::new(phase.name),
            Cell::new(phase.requests),
            Cell::new(phase.ok),
            Cell::new(phase.fallback),
            Cell::new(phase.errors),
            Cell::new(phase.p50_ms),
            Cell::new(phase.p99_ms),
            Cell::new(phase.order_p99_ms),
            Cell::new(format!("{:.2}", phase.attempts_per_call)),
        ]);
    }
    table
}
