//! The program, started by a test and ended with it.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a program that ended left behind.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A registry that runs.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    /// As whom it is asked: a user and a password with a colon between.
    pub(crate) login: Option<&'static str>,
    lines: Receiver<String>,
    reader: Option<JoinHandle<()>>,
    seen: Vec<String>,
}

fn command(flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hopvine"));
    command.arg("registry").args(flags).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn ended(flags: &[&str]) -> Ended {
    run(command(flags))
}

/// The same, with a variable of the environment.
pub(crate) fn ended_in(name: &str, value: &str) -> Ended {
    let mut command = command(&["--bind", "127.0.0.1:0"]);
    command.env(name, value);
    run(command)
}

fn run(mut command: Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Starts it on a free port of this machine, unless told otherwise, and waits for its first line.
pub(crate) fn start(flags: &[&str]) -> Running {
    start_with(command(flags), flags)
}

/// The same, with a variable of the environment.
pub(crate) fn start_in(name: &str, value: &str, flags: &[&str]) -> Running {
    let mut command = command(flags);
    command.env(name, value);
    start_with(command, flags)
}

fn start_with(mut command: Command, flags: &[&str]) -> Running {
    if !flags.contains(&"--bind") {
        command.args(["--bind", "127.0.0.1:0"]);
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let _ = BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| sender.send(line));
    });
    let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut running = Running { child, address: unknown, login: None, lines, reader: Some(reader), seen: Vec::new() };
    let first = running.next_line();
    let (_, rest) = first.split_once("address").unwrap_or_else(|| panic!("no address: {first}"));
    let address: String =
        rest.trim_start_matches(['"', '=', ':']).chars().take_while(|c| !" \",".contains(*c)).collect();
    running.address = address.parse().unwrap_or_else(|_| panic!("{address:?} in {first}"));
    running
}

impl Running {
    fn next_line(&mut self) -> String {
        let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no more lines after {:?}", self.seen));
        self.seen.push(line.clone());
        line
    }

    /// Waits for a line of the log that holds this.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.next_line();
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended; all lines of its log.
    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let end = SystemTime::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(SystemTime::now() < end, "it does not end: {:?}", self.seen);
            std::thread::park_timeout(Duration::from_millis(5));
        };
        self.reader.take().unwrap().join().unwrap();
        self.seen.extend(self.lines.try_iter());
        (status, std::mem::take(&mut self.seen))
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(self) -> Vec<String> {
        self.signal(Signal::TERM);
        let (status, lines) = self.wait();
        assert_eq!(status.code(), Some(0), "{lines:?}");
        lines
    }

    /// The status and the body of an answer.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let reachable = SocketAddr::from(([127, 0, 0, 1], self.address.port()));
        let stream = TcpStream::connect(reachable).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ask_over(stream, self.login, method, path, body)
    }

    /// Asks until the answer is as it should be; its body.
    pub(crate) fn ask_until(&self, path: &str, is_right: impl Fn(u16, &str) -> bool) -> String {
        let end = SystemTime::now() + PATIENCE;
        loop {
            let (status, body) = self.ask("GET", path, "");
            if is_right(status, &body) {
                return body;
            }
            assert!(SystemTime::now() < end, "{path}: {status} {body}");
        }
    }

    pub(crate) fn register(&self, app: &str, id: &str) -> u16 {
        let instance = serde_json::json!({ "instance": {
            "app": app, "instanceId": id, "hostName": "host", "ipAddr": "10.0.0.1", "vipAddress": "orders",
            "dataCenterInfo": { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", "name": "MyOwn" },
        }});
        let mut path = "/eureka/apps/".to_owned();
        for byte in app.bytes() {
            let _ = write!(path, "%{byte:02X}");
        }
        self.ask("POST", &path, &instance.to_string()).0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn ask_over(
    mut stream: impl Read + Write,
    login: Option<&str>,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String) {
    let length = body.len();
    let login = login.map_or_else(String::new, |login| format!("Authorization: Basic {}\r\n", STANDARD.encode(login)));
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\n{login}Content-Type: application/json\r\nAccept: application/json\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A TLS stream may end without a word.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
