//! The stacks that call the service, and the settings that suit what will be done to it.

use std::time::Duration;

use bytes::Bytes;
use hopvine::{
    BoxStack, Directory, Monitor, PolicyError,
    connect::http::{ClientBody, HttpClient, Version},
    layers::{
        bulkhead::BulkheadPolicy,
        outlier::OutlierPolicy,
        retry::{Budget, BudgetPolicy, RetryPolicy},
    },
    live::Ratio,
    stacks::{self, Hop},
};
use http::{Request, Response};
use http_body_util::Full;

use crate::args::Args;

pub type Stack = BoxStack<Request<Full<Bytes>>, Response<ClientBody>>;

/// The service's name in the directory.
pub const SERVICE: &str = "shop";

pub const NAMES: [&str; 2] = ["http1", "http2"];

/// A healthy instance answers in 3 ms, also on a busy machine in far less than this; a slow one never does.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(150);

/// All attempts and their waits come to less than half of it.
const DEADLINE: Duration = Duration::from_secs(2);

/// What suits the faults; everything else is as the library has it.
pub struct Settings {
    retry: RetryPolicy,
    budget: BudgetPolicy,
    bulkhead: BulkheadPolicy,
    outlier: OutlierPolicy,
}

impl Settings {
    pub fn of(args: &Args) -> Self {
        let most_sick = args.most_sick();
        let in_two_timeouts = (2.0 * ATTEMPT_TIMEOUT.as_secs_f64() * f64::from(args.rate)).ceil() as u32;
        Self {
            // A call may meet each sick instance once (a later attempt goes where none went before), then one that
            // falls sick under way; the next is well.
            retry: RetryPolicy { max_attempts: most_sick as u32 + 2, ..Default::default() },
            // An instance that stops takes down with it whatever was sent to it until the first timeout tells. The
            // default, a cap of 10, is for tens of requests a second.
            budget: BudgetPolicy { cap: in_two_timeouts.max(10), start: in_two_timeouts.max(10), ..Default::default() },
            // Each stack has half of the requests: enough for all of them to wait for half a second.
            bulkhead: BulkheadPolicy { limit: (args.rate / 4).max(256), ..Default::default() },
            // Many faults in little time: back after seconds, and as many at once as are sick.
            outlier: OutlierPolicy {
                base: Duration::from_secs(2),
                max: Duration::from_secs(10),
                max_ejected: Ratio(most_sick as f64 / args.instances as f64 + 0.01),
                ..Default::default()
            },
        }
    }

    /// The stacks: one speaks HTTP/1, one HTTP/2. They share the service's retry budget.
    ///
    /// The breaker is the default one: it looks at calls, not at attempts, and opens when half of those of 10 s failed. With
    /// a minority sick retries make up for every idempotent call, and those that may not run twice are a tenth: all of
    /// them failing would be far from half. If it opens all the same, a promise is broken, and the soak shall tell.
    pub fn stacks(&self, directory: &Directory, monitor: &Monitor) -> Result<[Stack; 2], PolicyError> {
        let budget = Budget::new(self.budget.clone())?;
        let stack = |name, version| {
            let hop = Hop::new(name, directory.service(SERVICE))
                .monitor(monitor)
                .deadline(DEADLINE)?
                .attempt_timeout(ATTEMPT_TIMEOUT)?
                .retry(self.retry.clone())?
                .budget(budget.clone())
                .bulkhead(self.bulkhead.clone())?
                .outlier_detection(self.outlier.clone())?;
            let client = HttpClient::builder().version(version).build()?;
            Ok(Stack::build(stacks::server_to_server(hop)?, client))
        };
        Ok([stack(NAMES[0], Version::Http1)?, stack(NAMES[1], Version::Http2)?])
    }

    pub fn print(&self) {
        println!(
            "Two stacks, HTTP/1 and HTTP/2, call in turn. Deadline {DEADLINE:?}, attempt timeout {ATTEMPT_TIMEOUT:?}, at most {} attempts, a retry\n\
             budget of {:.0} % of the successes and {} a second, saved up to {}; {} calls in flight a stack; ejection after {} failures\n\
             in a row, for {:?} to {:?}, of {:.0} % at most; breaker as by default: open when half of the calls of 10 s fail.",
            self.retry.max_attempts,
            100.0 * self.budget.ratio.0,
            self.budget.refill_per_second,
            self.budget.cap,
            self.bulkhead.limit,
            self.outlier.consecutive_failures,
            self.outlier.base,
            self.outlier.max,
            100.0 * self.outlier.max_ejected.0,
        );
    }
}
