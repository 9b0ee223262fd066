//! Suites against the real other side, started and stopped by the suite on free ports of 127.0.0.1.
//!
//! They run when `HOPVINE_INTEROP` is set, and are shown as ignored otherwise. Set to `required`, a missing program is a
//! failure; set to anything else, what it would show is shown as ignored.

mod dns;
mod eureka;
mod support;

use libtest_mimic::{Arguments, Failed, Trial};

use support::install;

struct Suite {
    name: &'static str,
    programs: &'static [&'static str],
    /// What it fetches and builds; not counted as its time.
    prepare: fn() -> Result<(), Failed>,
    run: fn() -> Result<(), Failed>,
}

const SUITES: [Suite; 6] = [
    Suite { name: "dns_knot", programs: &["knotd", "knsupdate"], prepare: || Ok(()), run: dns::run },
    Suite { name: "eureka_server_2025_0", programs: JAVA, prepare: java, run: eureka::servers::current },
    Suite { name: "eureka_server_2025_1", programs: JAVA, prepare: java, run: eureka::servers::next },
    Suite { name: "eureka_server_hoxton", programs: JAVA, prepare: java, run: eureka::servers::old },
    Suite {
        name: "eureka_clients",
        programs: &["java", "mvn", "node", "npm", "python3"],
        prepare: || java().and_then(|()| install::node()).and_then(|_| install::python()).map(drop),
        run: eureka::clients::run,
    },
    Suite { name: "eureka_peers", programs: JAVA, prepare: java, run: eureka::peers::run },
];

const JAVA: &[&str] = &["java", "mvn"];

fn java() -> Result<(), Failed> {
    install::java().map(drop)
}

fn main() {
    let arguments = Arguments::from_args();
    let wanted = std::env::var("HOPVINE_INTEROP").ok();
    let required = wanted.as_deref() == Some("required");
    let trials = SUITES.map(|suite| {
        let missing = suite.programs.iter().find(|program| !is_installed(program));
        let ignored = wanted.is_none() || (missing.is_some() && !required);
        let trial = Trial::test(suite.name, move || match missing {
            Some(program) => Err(format!("{program} is not installed").into()),
            None => suite.timed(),
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

impl Suite {
    #[allow(clippy::disallowed_methods, reason = "tells how long a suite took")]
    fn timed(&self) -> Result<(), Failed> {
        (self.prepare)()?;
        let start = std::time::Instant::now();
        let result = (self.run)();
        println!("{}: {:.1} s", self.name, start.elapsed().as_secs_f64());
        result
    }
}
