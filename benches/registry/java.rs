//! Spring Cloud's server, as the interop suites have it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// How much it may hold; of what makes it fast or slow, nothing else is said to the virtual machine.
const HEAP: &str = "-Xmx384m";

/// Its program; built now if it is not there. `None` if that cannot be, which is said.
pub(crate) fn program() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let jar = root.join("target/interop/java/server-2025.0/server-2025.0.jar");
    if !jar.is_file() {
        let mut maven = Command::new("mvn");
        maven
            .args(["--quiet", "--batch-mode", "package", "--file"])
            .arg(root.join("tests/interop/java/server-2025.0/pom.xml"));
        let built = maven.stdout(Stdio::null()).status();
        if !built.is_ok_and(|status| status.success()) {
            eprintln!("Spring's server is left out: Maven did not build it");
            return None;
        }
    }
    if !Command::new("java").arg("-version").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        eprintln!("Spring's server is left out: there is no Java");
        return None;
    }
    Some(jar)
}

pub(crate) fn command(jar: &Path, address: SocketAddr) -> Command {
    let mut command = Command::new("java");
    if let Some(folder) = jar.parent() {
        // What it leaves behind when it is killed, it leaves here.
        command.arg(format!("-Djava.io.tmpdir={}", folder.display()));
    }
    command.arg(HEAP).arg("-jar").arg(jar).args([
        format!("--server.address={}", address.ip()),
        format!("--server.port={}", address.port()),
        "--eureka.client.register-with-eureka=false".to_owned(),
        "--eureka.client.fetch-registry=false".to_owned(),
    ]);
    command
}
