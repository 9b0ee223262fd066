//! What a heartbeat, a full fetch and a registration cost the server.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use crate::{
    BoxError, Settings,
    instances::{FETCH, Lease},
    java,
    loader::{self, Ask, Connection},
    process::Process,
    servers,
};

pub(crate) const SERVERS: [&str; 3] = ["hopvine", "bare", "java"];

/// A virtual machine needs that long to translate what is called often.
const WARM: Duration = Duration::from_secs(40);

pub(crate) struct Cost {
    pub(crate) case: String,
    pub(crate) heartbeats_per_cpu_s: f64,
    pub(crate) fetches_per_cpu_s: f64,
    pub(crate) registrations_per_cpu_s: f64,
    /// After the registrations.
    pub(crate) rss_mib: f64,
}

/// `None` if there is no such server here.
pub(crate) fn measure(
    server: &str,
    instances: usize,
    settings: &Settings,
    case: &str,
) -> Result<Option<Cost>, BoxError> {
    let mut leases: Vec<Lease> = (0..instances).map(Lease::new).collect();
    let file = tempfile::NamedTempFile::new()?;
    let process = match server {
        "hopvine" => Process::start(|address| servers::command(server, address), FETCH)?,
        "bare" => {
            let document = document(&leases)?;
            std::fs::write(file.path(), document)?;
            Process::start(
                |address| {
                    let mut command = servers::command(server, address);
                    command.arg(file.path());
                    command
                },
                FETCH,
            )?
        }
        _ => {
            let Some(jar) = java::program() else { return Ok(None) };
            Process::start(|address| java::command(&jar, address), FETCH)?
        }
    };
    let address = process.address;
    loader::register(address, &leases)?;
    eprintln!("{case}: {instances} instances are registered");
    if server == "java" {
        let end = Instant::now() + WARM;
        while Instant::now() < end {
            for ask in [Ask::Heartbeat, Ask::Get(FETCH)] {
                loader::run(address, &mut leases, ask, Duration::from_secs(1))?;
            }
            loader::run(address, &mut leases, Ask::Register, Duration::from_millis(300))?;
        }
    }
    // What is read is rendered, and every connection's memory there.
    for ask in [Ask::Heartbeat, Ask::Get(FETCH)] {
        loader::run(address, &mut leases, ask, Duration::from_millis(500))?;
    }
    let mut per_cpu_s = |ask, time| -> io::Result<f64> {
        let before = process.cpu()?;
        let count = loader::run(address, &mut leases, ask, time)?;
        Ok(count as f64 / (process.cpu()? - before))
    };
    let heartbeats_per_cpu_s = per_cpu_s(Ask::Heartbeat, settings.time)?;
    let fetches_per_cpu_s = per_cpu_s(Ask::Get(FETCH), settings.time)?;
    let registrations_per_cpu_s = per_cpu_s(Ask::Register, settings.time * 3 / 2)?;
    let rss_mib = process.resident()?;
    Ok(Some(Cost { case: case.to_owned(), heartbeats_per_cpu_s, fetches_per_cpu_s, registrations_per_cpu_s, rss_mib }))
}

/// What our registry answers to a full fetch.
fn document(leases: &[Lease]) -> Result<Vec<u8>, BoxError> {
    let process = Process::start(|address| servers::command("hopvine", address), FETCH)?;
    loader::register(process.address, leases)?;
    // A rendering may be a little older than the last registration.
    thread::sleep(Duration::from_millis(300));
    let mut connection = Connection::new(process.address);
    connection.ask(FETCH, 200)?;
    Ok(connection.body)
}
