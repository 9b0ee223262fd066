//! Nanoseconds, instructions, allocations and bytes of a case.

use std::{
    collections::HashMap,
    future::Future,
    hint::black_box,
    path::Path,
    pin::{Pin, pin},
    process::Command,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::{runtime::Runtime, task::unconstrained};
use tower::Service;

use crate::bare;

/// Says that this process is the one callgrind counts.
pub(crate) const COUNTED: &str = "--counted";

/// Rounds of all cases, one after the other, so that what disturbs the machine disturbs them alike.
const ROUNDS: usize = 21;

/// About how long a case runs in a round.
const ROUND: Duration = Duration::from_millis(3);

/// The same of a case that has ten thousand endpoints to come to: each is called several times in a round.
const LONG_ROUND: Duration = Duration::from_millis(20);

/// Makes so many calls, and says how long they took.
pub(crate) type Run = Box<dyn FnMut(u64) -> Duration>;

pub(crate) struct Case {
    pub(crate) name: String,
    /// The case it stands beside: a peer's, or a simpler one of ours.
    pub(crate) beside: Option<String>,
    /// Whether callgrind can count it: one thread, no socket.
    pub(crate) countable: bool,
    /// How many calls make a look at it worth while.
    pub(crate) sample: u64,
    pub(crate) round: Duration,
    /// Made at its first use, so that a case that is not asked for costs nothing.
    pub(crate) make: Box<dyn FnOnce() -> Run>,
}

pub(crate) struct Measured {
    pub(crate) case: String,
    pub(crate) beside: Option<String>,
    pub(crate) ns: f64,
    pub(crate) instructions: Option<u64>,
    pub(crate) allocs: f64,
    pub(crate) bytes: f64,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, make: impl FnOnce() -> Run + 'static) -> Self {
        Self { name: name.into(), beside: None, countable: true, sample: 20, round: ROUND, make: Box::new(make) }
    }

    /// Beside which case it is shown as a ratio.
    pub(crate) fn beside(mut self, name: impl Into<String>) -> Self {
        self.beside = Some(name.into());
        self
    }

    /// A call of it is thousands of steps.
    pub(crate) fn heavy(mut self) -> Self {
        self.sample = 1;
        self
    }

    /// It has much to come to.
    pub(crate) fn long(mut self) -> Self {
        self.round = LONG_ROUND;
        self
    }

    pub(crate) fn uncountable(mut self) -> Self {
        self.countable = false;
        self
    }
}

/// What the timer wheel holds while a case that pends is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wheel {
    Empty,
    /// One that is due before any the case arms, as under load there nearly always is.
    Earlier,
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// CPU time of this thread.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

/// One call after the other of a service, each as tower asks: readiness first.
pub(crate) fn calls<S, Req>(runtime: Runtime, mut service: S, request: impl Fn() -> Req + 'static, wheel: Wheel) -> Run
where
    S: Service<Req> + 'static,
    S::Error: std::fmt::Debug,
{
    Box::new(move |count| {
        runtime.block_on(unconstrained(async {
            let mut earlier = pin!(tokio::time::sleep(Duration::from_millis(500)));
            if wheel == Wheel::Earlier {
                let _ = futures_util::poll!(earlier.as_mut());
                // Until the runtime has looked at its timers once, it does not know of this one.
                tokio::task::yield_now().await;
            }
            let start = Instant::now();
            for _ in 0..count {
                std::future::poll_fn(|cx| service.poll_ready(cx)).await.expect("ready");
                let response = Driven { future: pin!(service.call(request())) }.await;
                let _ = black_box(response.expect("an answer"));
            }
            start.elapsed()
        }))
    })
}

/// The same on a clone of the service for each call, as axum's handlers make them.
pub(crate) fn cloned_calls<S, Req>(runtime: Runtime, service: S, request: impl Fn() -> Req + 'static) -> Run
where
    S: Service<Req> + Clone + 'static,
    S::Error: std::fmt::Debug,
{
    Box::new(move |count| {
        runtime.block_on(unconstrained(async {
            let start = Instant::now();
            for _ in 0..count {
                let mut service = service.clone();
                std::future::poll_fn(|cx| service.poll_ready(cx)).await.expect("ready");
                let response = Driven { future: pin!(service.call(request())) }.await;
                let _ = black_box(response.expect("an answer"));
            }
            start.elapsed()
        }))
    })
}

/// The same on two threads at once, each with a clone; the time is that of a thread.
pub(crate) fn calls_on_two<S, Req>(service: S, request: fn() -> Req) -> Run
where
    S: Service<Req> + Clone + Send + 'static,
    S::Error: std::fmt::Debug,
    Req: 'static,
{
    Box::new(move |count| {
        let start = std::sync::Barrier::new(2);
        let thread = || {
            let service = service.clone();
            let start = &start;
            move || {
                let mut run = calls(runtime(), service, request, Wheel::Empty);
                start.wait();
                run(count)
            }
        };
        std::thread::scope(|scope| {
            let both = [scope.spawn(thread()), scope.spawn(thread())];
            let times = both.map(|thread| thread.join().expect("no panic"));
            (times[0] + times[1]) / 2
        })
    })
}

/// Polled again at once where the bare service pended on purpose; any other wait is the runtime's.
struct Driven<'a, F> {
    future: Pin<&'a mut F>,
}

impl<F: Future> Future for Driven<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        loop {
            match self.future.as_mut().poll(cx) {
                Poll::Pending if bare::pended() => {}
                polled => return polled,
            }
        }
    }
}

/// Medians over the rounds.
pub(crate) fn times(cases: Vec<Case>, counted: &HashMap<String, u64>) -> Vec<Measured> {
    struct Timed {
        run: Run,
        count: u64,
        rounds: Vec<f64>,
        measured: Measured,
    }
    let mut timed: Vec<Timed> = cases
        .into_iter()
        .map(|Case { name, beside, make, sample, round, .. }| {
            let mut run = make();
            run(10 * sample);
            let count = rate(&mut run, round);
            // Every few calls something may be made that is not made in each: the mean over many.
            let many = 12 * sample;
            let allocations = allocation_counter::measure(|| _ = black_box(run(many)));
            let instructions = counted.get(&name).copied();
            let allocs = allocations.count_total as f64 / many as f64;
            let bytes = allocations.bytes_total as f64 / many as f64;
            Timed {
                run,
                count,
                rounds: Vec::new(),
                measured: Measured { case: name, beside, ns: 0.0, instructions, allocs, bytes },
            }
        })
        .collect();
    for _ in 0..ROUNDS {
        for case in &mut timed {
            let took = (case.run)(case.count);
            case.rounds.push(took.as_nanos() as f64 / case.count as f64);
        }
    }
    timed
        .into_iter()
        .map(|mut case| {
            case.rounds.sort_by(f64::total_cmp);
            Measured { ns: case.rounds[ROUNDS / 2], ..case.measured }
        })
        .collect()
}

/// How many calls make a round.
fn rate(run: &mut Run, round: Duration) -> u64 {
    let mut count = 1;
    loop {
        let took = run(count);
        if took > round / 8 || count > 1 << 22 {
            let each = took.as_nanos().max(1) as f64 / count as f64;
            return ((round.as_nanos() as f64 / each) as u64).max(1);
        }
        count *= 4;
    }
}

/// Counted are a sample and three of them: what is not part of a call falls out of the difference.
const MANY: u64 = 3;

/// Runs the cases under callgrind, which dumps its count after each call of `counted_calls`.
pub(crate) fn run_counted(cases: Vec<Case>) {
    for case in cases {
        if case.countable {
            let mut run = (case.make)();
            run(10 * case.sample);
            counted_calls(&mut run, case.sample);
            counted_calls(&mut run, MANY * case.sample);
            println!("{} {}", case.sample, case.name);
        }
    }
}

#[inline(never)]
fn counted_calls(run: &mut Run, count: u64) {
    black_box(run(black_box(count)));
}

/// Instructions a call of each case, by name; empty where there is no valgrind.
pub(crate) fn instructions(arguments: &[String], cases: &[Case]) -> HashMap<String, u64> {
    let present = Command::new("valgrind").arg("--version").output().is_ok_and(|output| output.status.success());
    if !present || !cases.iter().any(|case| case.countable) {
        return HashMap::new();
    }
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=overhead::measure::counted_calls"])
        .args(["--dump-after=overhead::measure::counted_calls", "--cache-sim=no", "--compress-strings=yes", "--quiet"])
        .arg(format!("--callgrind-out-file={}", folder.path().join("out").display()))
        .arg(std::env::current_exe().expect("this program"))
        .arg(COUNTED)
        .args(arguments)
        .output()
        .expect("valgrind starts");
    assert!(output.status.success(), "under callgrind: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("names");
    let counts = dumps(folder.path());
    let of = |(line, pair): (&str, &[u64])| {
        let (sample, name) = line.split_once(' ')?;
        Some((name.to_owned(), pair[1].saturating_sub(pair[0]) / ((MANY - 1) * sample.parse::<u64>().ok()?)))
    };
    names.lines().zip(counts.chunks_exact(2)).filter_map(of).collect()
}

/// The totals of callgrind's dumps, in order.
fn dumps(folder: &Path) -> Vec<u64> {
    (1..)
        .map_while(|part| std::fs::read_to_string(folder.join(format!("out.{part}"))).ok())
        .filter_map(|dump| {
            let line = dump.lines().find(|line| line.starts_with("totals:") || line.starts_with("summary:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .collect()
}
