//! Carries the schedule out.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hopvine::{Endpoint, discover::Change, endpoint::EndpointId};
use tokio::{
    sync::{Mutex, Semaphore, mpsc::UnboundedSender},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    fleet::Process,
    ledger::Ledger,
    schedule::{Fault, Kind, RECOVERY},
};

/// How much longer each answer of a slow one takes.
pub const SLOW: Duration = Duration::from_millis(400);

/// How long after a death the directory hears of it.
const TOLD_AFTER: Duration = Duration::from_millis(200);

/// All instances, and what is going on with them.
pub struct Fleet {
    processes: Vec<Mutex<Process>>,
    /// Where the directory hears of changes.
    changes: UnboundedSender<Change<EndpointId, Endpoint>>,
    /// The schedule keeps to it in time; this, on a machine that is late, in fact.
    may_be_sick: Semaphore,
    sick: AtomicUsize,
    pub kills: AtomicUsize,
}

impl Fleet {
    pub async fn start(
        instances: usize,
        most_sick: usize,
        ledger: &Arc<Ledger>,
        changes: UnboundedSender<Change<EndpointId, Endpoint>>,
    ) -> io::Result<Self> {
        let mut processes = Vec::new();
        for number in 0..instances {
            processes.push(Mutex::new(Process::start(number, ledger).await?));
        }
        let (sick, kills) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let fleet = Self { processes, changes, may_be_sick: Semaphore::new(most_sick), sick, kills };
        for process in &fleet.processes {
            fleet.list(&*process.lock().await);
        }
        Ok(fleet)
    }

    pub fn sick(&self) -> usize {
        self.sick.load(Relaxed)
    }

    /// Ends all of them.
    pub async fn end(self) -> io::Result<()> {
        for process in self.processes {
            process.into_inner().end().await?;
        }
        Ok(())
    }

    fn list(&self, process: &Process) {
        let endpoint = process.endpoint();
        // Nobody hears it once the directory has gone.
        let _ = self.changes.send(Change::Insert(endpoint.id().clone(), endpoint));
    }

    async fn suffer(&self, fault: Fault, clock: Clock) -> io::Result<()> {
        let _place = self.may_be_sick.acquire().await.map_err(io::Error::other)?;
        let mut process = self.processes[fault.instance].lock().await;
        if clock.stop.is_cancelled() {
            return Ok(());
        }
        self.sick.fetch_add(1, Relaxed);
        let (name, lasts) = (process.name().to_owned(), fault.lasts.as_secs_f64());
        match fault.kind {
            Kind::Kill { told } => {
                let known = if told { "the directory is told" } else { "and stays listed" };
                clock.say(&format!("{name} is killed for {lasts:.1} s, {known}"));
                self.kills.fetch_add(1, Relaxed);
                process.kill().await?;
                let end = Instant::now() + fault.lasts;
                if told {
                    clock.wait(end.min(Instant::now() + TOLD_AFTER)).await;
                    let _ = self.changes.send(Change::Remove(EndpointId::new(&*name)));
                }
                clock.wait(end).await;
                process.start_again(fault.instance).await?;
                self.list(&process);
                clock.say(&format!("{name} is back on another port"));
            }
            Kind::Slow => {
                clock.say(&format!("{name} is slow for {lasts:.1} s"));
                process.slow(SLOW).await?;
                clock.wait(Instant::now() + fault.lasts).await;
                process.slow(Duration::ZERO).await?;
                clock.say(&format!("{name} is fast again"));
            }
            Kind::Pause => {
                clock.say(&format!("{name} is paused for {lasts:.1} s"));
                process.pause(fault.lasts)?.over(clock.stop.cancelled()).await?;
                clock.say(&format!("{name} goes on"));
            }
        }
        clock.wait(Instant::now() + RECOVERY).await;
        self.sick.fetch_sub(1, Relaxed);
        Ok(())
    }
}

/// When the load began, and whether it has ended: what is sick is then healed at once.
#[derive(Clone)]
pub struct Clock {
    pub start: Instant,
    pub stop: CancellationToken,
}

impl Clock {
    pub fn say(&self, what: &str) {
        println!("{:>8.2} s  {what}", self.start.elapsed().as_secs_f64());
    }

    async fn wait(&self, until: Instant) {
        tokio::select! {
            () = sleep_until(until) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// Returns when the load has ended and nobody is sick any more; earlier only if a fault could not be carried out.
pub async fn run(fleet: Arc<Fleet>, faults: Vec<Fault>, clock: Clock) -> io::Result<()> {
    let mut under_way = JoinSet::new();
    for fault in faults {
        clock.wait(clock.start + fault.at).await;
        if clock.stop.is_cancelled() {
            break;
        }
        let (fleet, clock) = (Arc::clone(&fleet), clock.clone());
        under_way.spawn(async move { fleet.suffer(fault, clock).await });
        while let Some(result) = under_way.try_join_next() {
            result??;
        }
    }
    clock.stop.cancelled().await;
    while let Some(result) = under_way.join_next().await {
        result??;
    }
    Ok(())
}
