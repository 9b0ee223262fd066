//! Suites against the real other side, started and stopped by the suite on free ports of 127.0.0.1.
//!
//! They run when `HOPVINE_INTEROP` is set, and are shown as ignored otherwise. Set to `required`, a missing program is a
//! failure; set to anything else, what it would show is shown as ignored.

mod dns;
mod eureka;
mod support;

use libtest_mimic::{Arguments, Failed, Trial};

/// A suite, the programs it needs, and what it does.
type Suite = (&'static str, &'static [&'static str], fn() -> Result<(), Failed>);

const SUITES: [Suite; 6] = [
    ("dns_knot", &["knotd", "knsupdate"], dns::run),
    ("eureka_server_2025_0", &["java", "mvn"], eureka::servers::current),
    ("eureka_server_2025_1", &["java", "mvn"], eureka::servers::next),
    ("eureka_server_hoxton", &["java", "mvn"], eureka::servers::old),
    ("eureka_clients", &["java", "mvn", "node", "npm", "python3"], eureka::clients::run),
    ("eureka_peers", &["java", "mvn"], eureka::peers::run),
];

fn main() {
    let arguments = Arguments::from_args();
    let wanted = std::env::var("HOPVINE_INTEROP").ok();
    let required = wanted.as_deref() == Some("required");
    let trials = SUITES.map(|(name, programs, run)| {
        let missing = programs.iter().find(|program| !is_installed(program));
        let ignored = wanted.is_none() || (missing.is_some() && !required);
        let trial = Trial::test(name, move || match missing {
            Some(program) => Err(format!("{program} is not installed").into()),
            None => timed(name, run),
        });
        trial.with_ignored_flag(ignored)
    });
    libtest_mimic::run(&arguments, trials.into()).exit();
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

#[allow(clippy::disallowed_methods, reason = "tells how long a suite took")]
fn timed(name: &str, run: fn() -> Result<(), Failed>) -> Result<(), Failed> {
    let start = std::time::Instant::now();
    let result = run();
    println!("{name}: {:.1} s", start.elapsed().as_secs_f64());
    result
}
