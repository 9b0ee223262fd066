//! What a registry costs in which everything changes, with those who read it.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use crate::{
    BoxError, Settings,
    instances::{DELTA, Lease},
    loader::{self, Connection},
    process::Process,
    servers,
};

const INSTANCES: usize = 1_000;
const CHANGES_PER_S: u32 = 1_000;
/// A thousand clients that ask each 30 s.
const DELTAS_PER_S: u32 = 33;
/// Clients that are pushed to.
const WATCHERS: usize = 8;

/// All of it a second.
pub(crate) struct Changes {
    pub(crate) cpu_s: f64,
    pub(crate) changed: f64,
    pub(crate) deltas: f64,
    pub(crate) pushed_mib: f64,
}

pub(crate) fn measure(settings: &Settings) -> Result<Changes, BoxError> {
    let process = Process::start(|address| servers::command("hopvine", address), DELTA)?;
    let address = process.address;
    let mut leases: Vec<Lease> = (0..INSTANCES).map(Lease::new).collect();
    loader::register(address, &leases)?;
    eprintln!("changes: {INSTANCES} instances are registered");
    let (over, pushed) = (AtomicBool::new(false), AtomicU64::new(0));
    let measured = thread::scope(|scope| {
        let readers: Vec<_> = (0..WATCHERS).map(|_| scope.spawn(|| watch(address, &over, &pushed))).collect();
        let asking = scope.spawn(|| {
            let mut connection = Connection::new(address);
            paced(DELTAS_PER_S, settings.time, |_| connection.ask(DELTA, 200))
        });
        let (start, before) = (Instant::now(), process.cpu());
        let mut connection = Connection::new(address);
        let changes = paced(CHANGES_PER_S, settings.time, |turn| {
            let lease = &mut leases[turn as usize % INSTANCES];
            lease.touch();
            connection.ask(lease.register(), 204)
        });
        let (took, after) = (start.elapsed().as_secs_f64(), process.cpu());
        over.store(true, Relaxed);
        let deltas = asking.join().expect("a reader does not panic")?;
        for reader in readers {
            reader.join().expect("a watcher does not panic")?;
        }
        Ok::<_, io::Error>(Changes {
            cpu_s: (after? - before?) / took,
            changed: f64::from(changes?) / took,
            deltas: f64::from(deltas) / took,
            pushed_mib: pushed.load(Relaxed) as f64 / 1_048_576.0 / took,
        })
    })?;
    if measured.pushed_mib == 0.0 {
        return Err("nothing was pushed".into());
    }
    Ok(measured)
}

/// So often a second, for so long; where it falls behind, it catches up.
fn paced(per_s: u32, time: Duration, mut act: impl FnMut(u32) -> io::Result<()>) -> io::Result<u32> {
    let start = Instant::now();
    let total = (time.as_secs_f64() * f64::from(per_s)) as u32;
    for turn in 0..total {
        let due = Duration::from_secs(1) / per_s * turn;
        thread::sleep(due.saturating_sub(start.elapsed()));
        act(turn)?;
    }
    Ok(total)
}

fn watch(server: SocketAddr, over: &AtomicBool, pushed: &AtomicU64) -> io::Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    stream.write_all(b"GET /hopvine/v1/watch HTTP/1.1\r\nhost: eureka\r\n\r\n")?;
    let mut buffer = vec![0; 256 * 1024];
    while !over.load(Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("a watcher was cut off")),
            Ok(read) => _ = pushed.fetch_add(read as u64, Relaxed),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
