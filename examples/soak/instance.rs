//! An instance: this program again, as a process of its own, told what to do on its standard input.
//!
//! It prints its port, and then `ran ID` for each request that must not run twice, before it answers it: what it has
//! done is known even after it was killed.

use std::{
    io::{self, BufRead as _, Write as _},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, Method},
    routing::get,
    serve::ListenerExt as _,
};
use tokio::{net::TcpListener, time::Instant};

/// The first argument of a process that is an instance.
pub const ARGUMENT: &str = "instance";

/// How long a healthy one works at an answer.
const WORK: Duration = Duration::from_millis(2);

#[derive(Clone)]
struct Instance {
    name: Arc<str>,
    /// Milliseconds each answer takes longer.
    slow: Arc<AtomicU64>,
}

/// Serves until its standard input ends, as it does with its parent, however that ends.
pub fn run(name: &str) -> ExitCode {
    let instance = Instance { name: name.into(), slow: Arc::default() };
    let slow = Arc::clone(&instance.slow);
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let milliseconds = line.strip_prefix("slow ").and_then(|number| number.parse().ok());
            slow.store(milliseconds.unwrap_or(0), Relaxed);
        }
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(instance))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(instance: Instance) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    say(listener.local_addr()?.port());
    let listener = listener.tap_io(|socket| _ = socket.set_nodelay(true));
    let app = Router::new().route("/item/{id}", get(answer).post(answer)).with_state(instance);
    // HTTP/1, and HTTP/2 from callers that begin with it.
    axum::serve(listener, app).await
}

/// Says the request's id and how long its body was, so that the caller can tell an answer of another request, and who answers.
async fn answer(
    State(instance): State<Instance>,
    Path(id): Path<u64>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> String {
    let arrived = Instant::now();
    if method == Method::POST && !headers.contains_key("idempotency-key") {
        say(format_args!("ran {id}"));
    }
    tokio::time::sleep_until(arrived + WORK + Duration::from_millis(instance.slow.load(Relaxed))).await;
    format!("{id} {} {}\n{:.<500}", body.len(), instance.name, "")
}

/// One line to the parent, at once. If there is none any more, standard input has ended, too.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}
