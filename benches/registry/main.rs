//! What a registry costs: ours, Spring Cloud's, and a bare hyper service that answers the same bytes from memory; and how fast a leave is known.
//!
//! `cargo bench --bench registry` prints tables, `-- --json` an object; a word leaves only the cases whose name has it. With `--seconds N` each
//! measurement takes N seconds (20 unless told; 2 to try it out), the re-registrations half as much again. Spring's server is built by Maven at the first time; without Maven and Java
//! its cases are left out, and that is said. `docs/performance.md` says what is measured.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

use std::{io, time::Duration};

mod changes;
mod cost;
mod instances;
mod java;
mod leave;
mod loader;
mod process;
mod report;
mod servers;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What is measured for how long.
struct Settings {
    time: Duration,
    word: Option<String>,
}

impl Settings {
    fn wants(&self, case: &str) -> bool {
        self.word.as_deref().is_none_or(|word| case.contains(word))
    }
}

fn main() -> Result<(), BoxError> {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let Some(server) = arguments.first().and_then(|argument| argument.strip_prefix(servers::ARGUMENT)) {
        // A server of a measurement, in a process of its own.
        return servers::serve(server, arguments.get(1).map(String::as_str));
    }
    let mut settings = Settings { time: Duration::from_secs(20), word: None };
    let json = arguments.iter().position(|argument| argument == "--json").map(|at| arguments.remove(at)).is_some();
    if let Some(at) = arguments.iter().position(|argument| argument == "--seconds") {
        let seconds =
            arguments.get(at + 1).and_then(|number| number.parse().ok()).filter(|seconds| (1..=600).contains(seconds));
        let seconds = seconds.ok_or_else(|| io::Error::other("--seconds needs a number from 1 to 600"))?;
        settings.time = Duration::from_secs(seconds);
        arguments.drain(at..=at + 1);
    }
    settings.word = arguments.into_iter().next();

    let mut report = report::Report::default();
    for instances in [1_000, 10_000] {
        for server in cost::SERVERS {
            let case = format!("{server}/{instances}");
            if settings.wants(&case) {
                report.costs.extend(cost::measure(server, instances, &settings, &case)?);
            }
        }
    }
    if settings.wants("changes") {
        report.changes = Some(changes::measure(&settings)?);
    }
    if settings.wants("leave") {
        report.leave = Some(leave::measure()?);
    }
    if json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(())
}
