//! Services and endpoints that answer from a script.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tower_service::Service;

use crate::{EndpointHandle, Error, ErrorKind, NewService};

/// A service that answers from a script, and remembers what it was asked. Clones share both.
///
/// When the script has ended it answers [`ErrorKind::Upstream`], or as [`otherwise`](Self::otherwise) says.
pub struct ScriptedService<Req, Res> {
    shared: Arc<Mutex<Shared<Req, Res>>>,
}

struct Shared<Req, Res> {
    script: VecDeque<Step<Res>>,
    otherwise: Option<Otherwise<Req, Res>>,
    requests: Vec<Req>,
    in_flight: usize,
    dropped: usize,
}

type Otherwise<Req, Res> = Arc<dyn Fn(&Req) -> Result<Res, Error> + Send + Sync>;

struct Step<Res> {
    after: Duration,
    /// `None`: never.
    result: Option<Result<Res, Error>>,
}

impl<Req, Res> ScriptedService<Req, Res> {
    /// One with an empty script.
    pub fn new() -> Self {
        let shared =
            Shared { script: VecDeque::new(), otherwise: None, requests: Vec::new(), in_flight: 0, dropped: 0 };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// The next call is answered so, at once.
    pub fn respond(&self, response: Res) -> &Self {
        self.respond_after(Duration::ZERO, response)
    }

    /// The next call is answered so, after this time.
    pub fn respond_after(&self, time: Duration, response: Res) -> &Self {
        self.step(time, Some(Ok(response)))
    }

    /// The next call fails so, at once.
    pub fn fail(&self, error: Error) -> &Self {
        self.fail_after(Duration::ZERO, error)
    }

    /// The next call fails so, after this time.
    pub fn fail_after(&self, time: Duration, error: Error) -> &Self {
        self.step(time, Some(Err(error)))
    }

    /// The next call is never answered.
    pub fn never(&self) -> &Self {
        self.step(Duration::ZERO, None)
    }

    /// Calls for which nothing is scripted are answered so.
    pub fn otherwise(&self, answer: impl Fn(&Req) -> Result<Res, Error> + Send + Sync + 'static) -> &Self {
        self.shared().otherwise = Some(Arc::new(answer));
        self
    }

    /// How many calls were made.
    pub fn calls(&self) -> usize {
        self.shared().requests.len()
    }

    /// What it was asked, in order.
    pub fn requests(&self) -> Vec<Req>
    where
        Req: Clone,
    {
        self.shared().requests.clone()
    }

    /// Calls under way.
    pub fn in_flight(&self) -> usize {
        self.shared().in_flight
    }

    /// Calls whose callers went away before the answer.
    pub fn dropped(&self) -> usize {
        self.shared().dropped
    }

    fn step(&self, after: Duration, result: Option<Result<Res, Error>>) -> &Self {
        self.shared().script.push_back(Step { after, result });
        self
    }

    fn shared(&self) -> MutexGuard<'_, Shared<Req, Res>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Req, Res> Default for ScriptedService<Req, Res> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Req, Res> Clone for ScriptedService<Req, Res> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<Req, Res> Service<Req> for ScriptedService<Req, Res>
where
    Req: Send + 'static,
    Res: Send + 'static,
{
    type Response = Res;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Res, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let step = {
            let mut shared = self.shared();
            shared.in_flight += 1;
            let step = shared.script.pop_front().unwrap_or_else(|| {
                let ended = || Err(Error::new(ErrorKind::Upstream).with_source("the script has ended"));
                let result = shared.otherwise.clone().map_or_else(ended, |answer| answer(&request));
                Step { after: Duration::ZERO, result: Some(result) }
            });
            shared.requests.push(request);
            step
        };
        let mut call = Call { service: self.clone(), answered: false };
        let start = Instant::now();
        Box::pin(async move {
            // Moved in whole: dropped with the future, answered or not.
            let call = &mut call;
            if !step.after.is_zero() {
                sleep_until(start + step.after).await;
            }
            let Some(result) = step.result else { return std::future::pending().await };
            call.answered = true;
            result
        })
    }
}

/// A call under way.
struct Call<Req, Res> {
    service: ScriptedService<Req, Res>,
    answered: bool,
}

impl<Req, Res> Drop for Call<Req, Res> {
    fn drop(&mut self) {
        let mut shared = self.service.shared();
        shared.in_flight -= 1;
        shared.dropped += usize::from(!self.answered);
    }
}

/// A connector of [`ScriptedService`]s, one for each endpoint id. Clones share them.
///
/// Generic over what the services below the balancer are asked: with a retry layer above that is the request's
/// [attempt](crate::request::Replay::Attempt).
pub struct ScriptedEndpoints<Req, Res> {
    services: Arc<Mutex<Services<Req, Res>>>,
}

type Services<Req, Res> = HashMap<String, ScriptedService<Req, Res>>;

impl<Req, Res> ScriptedEndpoints<Req, Res> {
    /// One with empty scripts.
    pub fn new() -> Self {
        Self { services: Arc::default() }
    }

    /// The service of the endpoint of this id.
    pub fn endpoint(&self, id: &str) -> ScriptedService<Req, Res> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.entry(id.to_owned()).or_default().clone()
    }
}

impl<Req, Res> NewService<EndpointHandle> for ScriptedEndpoints<Req, Res> {
    type Service = ScriptedService<Req, Res>;

    fn new_service(&self, endpoint: &EndpointHandle) -> ScriptedService<Req, Res> {
        self.endpoint(endpoint.endpoint().id().as_str())
    }
}

impl<Req, Res> Default for ScriptedEndpoints<Req, Res> {
    fn default() -> Self {
        Self::new()
    }
}

impl<Req, Res> Clone for ScriptedEndpoints<Req, Res> {
    fn clone(&self) -> Self {
        Self { services: Arc::clone(&self.services) }
    }
}

impl<Req, Res> fmt::Debug for ScriptedService<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shared = self.shared();
        f.debug_struct("ScriptedService")
            .field("scripted", &shared.script.len())
            .field("calls", &shared.requests.len())
            .field("in_flight", &shared.in_flight)
            .finish_non_exhaustive()
    }
}

impl<Req, Res> fmt::Debug for ScriptedEndpoints<Req, Res> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_map().entries(services.iter()).finish()
    }
}
