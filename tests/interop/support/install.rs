//! What the suites fetch and build, below `target/interop`: once for all of them, and again when it is described differently.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use libtest_mimic::Failed;

use super::folder;

/// The Java programs, one folder each with its jar.
pub(crate) fn java() -> Result<PathBuf, Failed> {
    once("java", |sources, _| {
        // Most of it is waiting for downloads, so that there are more threads than cores.
        let mut maven = Command::new("mvn");
        maven.args([
            "--quiet",
            "--batch-mode",
            "--no-transfer-progress",
            "-T7",
            "-Dmaven.artifact.threads=16",
            "package",
            "--file",
        ]);
        vec![with(maven, [sources.join("pom.xml")])]
    })
}

/// The Node programs' modules.
pub(crate) fn node() -> Result<PathBuf, Failed> {
    once("node", |sources, target| {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--prefix"]);
        let names = ["package.json", "package-lock.json"].map(|name| sources.join(name));
        vec![with(Command::new("cp"), [&names[0], &names[1], target]), with(npm, [target])]
    })
}

/// The Python programs' environment.
pub(crate) fn python() -> Result<PathBuf, Failed> {
    once("python", |sources, target| {
        let mut environment = Command::new("python3");
        environment.args(["-m", "venv", "--clear"]);
        let mut pip = Command::new(target.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        vec![with(environment, [target]), with(pip, [sources.join("requirements.txt")])]
    })
}

/// The folder of `tests/interop` that this is described in.
pub(crate) fn sources(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(name)
}

fn with<P: AsRef<Path>>(mut command: Command, paths: impl IntoIterator<Item = P>) -> Command {
    for path in paths {
        command.arg(path.as_ref());
    }
    command
}

#[allow(clippy::disallowed_methods, reason = "tells how long it took")]
fn once(name: &str, commands: impl FnOnce(&Path, &Path) -> Vec<Command>) -> Result<PathBuf, Failed> {
    // Who comes second waits, and finds it done. One at a time: each takes all cores.
    static BUSY: Mutex<()> = Mutex::new(());
    let _busy = BUSY.lock()?;
    let (sources, target) = (sources(name), folder(name)?);
    let mut files = Vec::new();
    read(&sources, &mut files)?;
    files.sort();
    let (wanted, made) = (format!("{files:#?}"), target.join("made-of.txt"));
    if fs::read_to_string(&made).is_ok_and(|before| before == wanted) {
        return Ok(target);
    }
    let start = std::time::Instant::now();
    let log = folder("logs")?.join(format!("install-{name}.log"));
    let out = File::create(&log)?;
    for mut command in commands(&sources, &target) {
        if !command.stdout(out.try_clone()?).stderr(out.try_clone()?).status()?.success() {
            return Err(format!("{command:?} failed:\n{}", fs::read_to_string(&log)?).into());
        }
    }
    fs::write(made, wanted)?;
    println!("fetched and built the {name} programs: {:.1} s", start.elapsed().as_secs_f64());
    Ok(target)
}

fn read(folder: &Path, files: &mut Vec<(PathBuf, String)>) -> Result<(), Failed> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read(&path, files)?;
        } else {
            files.push((path.clone(), fs::read_to_string(&path)?));
        }
    }
    Ok(())
}
