//! What our layers and stacks cost, beside tower's and tower-resilience's, and our client beside hyper's.
//!
//! `cargo bench --bench overhead` prints a table, `-- --json` an object; a word leaves only the cases whose name has it, and with
//! `--exact` the one whose name it is.
//! `docs/performance.md` says what the cases and columns are.

#![allow(clippy::disallowed_methods, reason = "measures real time")]

mod balance;
mod bare;
mod directory;
mod layers;
mod measure;
mod over_http;
mod peers;
mod report;
mod stacks;

use measure::{Case, Measured};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let flag = |name: &str| arguments.iter().any(|argument| argument == name);
    let word = arguments.iter().find(|argument| !argument.starts_with("--"));
    let exact = flag("--exact");
    let wanted = |name: &str| word.is_none_or(|word| if exact { name == word } else { name.contains(word.as_str()) });

    let mut cases: Vec<Case> = Vec::new();
    layers::cases(&mut cases);
    stacks::cases(&mut cases);
    balance::cases(&mut cases);
    directory::cases(&mut cases);
    over_http::cases(&mut cases);
    cases.retain(|case| wanted(&case.name));

    if flag(measure::COUNTED) {
        // The child of `instructions`, under callgrind.
        measure::run_counted(cases);
        return;
    }
    let counted = measure::instructions(&arguments, &cases);
    let measured: Vec<Measured> = measure::times(cases, &counted);
    if flag("--json") {
        println!("{}", report::json(&measured));
    } else {
        print!("{}", report::table(&measured));
    }
}
