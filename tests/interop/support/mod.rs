//! What the suites share.

mod http;
pub(crate) mod install;
mod process;
mod tap;

use std::{
    fmt::Debug,
    fs,
    net::TcpListener,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use libtest_mimic::Failed;
use tokio::time::Instant;

pub(crate) use http::{get, request};
pub(crate) use process::Process;
pub(crate) use tap::Tap;

/// How long anything may take on a very busy machine.
const LONG: Duration = Duration::from_secs(120);

/// A folder of the suites' own, made if need be.
pub(crate) fn folder(name: &str) -> Result<PathBuf, Failed> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/interop").join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// A port of 127.0.0.1 that is free now, and given to nobody else here. None that the system gives to outgoing connections, which could take it
/// while its server is away.
pub(crate) fn free_port() -> Result<u16, Failed> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = 20_000 + std::process::id() % 10_000;
    for _ in 0..1000 {
        let port = u16::try_from(start + NEXT.fetch_add(1, Relaxed))?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port".into())
}

/// Waits until what is seen is what is wanted.
pub(crate) async fn becomes<W, T>(what: &str, wanted: W, seen: impl AsyncFn() -> T) -> Result<(), Failed>
where
    W: PartialEq<T> + Debug,
    T: Debug,
{
    let end = Instant::now() + LONG;
    loop {
        let last = seen().await;
        if wanted == last {
            return Ok(());
        }
        if Instant::now() >= end {
            return Err(format!("{what}: waited {LONG:?} for {wanted:?}, and it is {last:?}").into());
        }
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(50)).await;
    }
}
