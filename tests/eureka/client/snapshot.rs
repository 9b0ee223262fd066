use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use hopvine::{
    Directory, Monitor,
    discover::eureka::{Eureka, EurekaPolicy},
};

use super::{
    discovery::{ids, often, until},
    server::{Reply, Server, eventually, orders},
};

/// A directory that starts while its registry is down.
fn cold(path: &Path, policy: EurekaPolicy) -> (Directory, Monitor) {
    let monitor = Monitor::new();
    let eureka = Eureka::builder("http://127.0.0.1:1/eureka/").policy(policy).snapshot(path).build().unwrap();
    (Directory::builder().monitor(&monitor).source(eureka).build(), monitor)
}

async fn written(path: &Path) {
    let server = Server::start(|_| Reply::json(orders(&[1, 2]))).await;
    let policy = EurekaPolicy { snapshot_interval: Duration::ZERO, ..often() };
    let eureka = Eureka::builder([server.url()]).policy(policy).snapshot(path).build().unwrap();
    let directory = Directory::builder().source(eureka).build();
    until(&directory.service("orders"), &["orders-1", "orders-2"]).await;
    eventually("a snapshot", || path.exists()).await;
}

#[tokio::test]
async fn a_service_starts_while_the_registry_is_down_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eureka.json");
    written(&path).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left beside it");

    let (directory, monitor) = cold(&path, often());
    let service = directory.service("orders");
    until(&service, &["orders-1", "orders-2"]).await;
    let view = || monitor.snapshot().directories[0].services[0].clone();
    eventually("it is stale", || view().stale_for.is_some()).await;
    assert!(view().error.unwrap().contains("127.0.0.1:1"), "{:?}", view());
}

#[tokio::test]
async fn a_registry_that_is_silent_at_the_start_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eureka.json");
    written(&path).await;
    let server = Server::start(|_| Reply::Never).await;
    let eureka = Eureka::builder([server.url()]).policy(often()).snapshot(&path).build().unwrap();
    let directory = Directory::builder().source(eureka).build();
    let service = directory.service("orders");
    service.ready(Duration::from_secs(7)).await.unwrap(); // a request may take 8
    assert_eq!(ids(&service), ["orders-1", "orders-2"]);
}

#[tokio::test]
async fn a_bad_snapshot_is_set_aside_and_one_that_is_too_old_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eureka.json");
    written(&path).await;
    let good = fs::read_to_string(&path).unwrap();
    let aside = folder.path().join("eureka.json.bad");
    let deep = "[".repeat(100);
    let bad = [
        ("cut off", good[..good.len() - 10].to_owned()),
        ("changed", good.replace("10.0.0.1", "10.0.0.9")),
        ("of another version", good.replacen(r#""eureka_snapshot":1"#, r#""eureka_snapshot":2"#, 1)),
        ("empty", String::new()),
        ("no head", "{\n".to_owned()),
        ("nested", format!("{deep}\n{deep}")),
    ];
    for (what, bad) in bad {
        fs::write(&path, &bad).unwrap();
        let (directory, monitor) = cold(&path, often());
        let service = directory.service("orders");
        eventually(what, || monitor.snapshot().directories[0].services[0].error.is_some()).await;
        assert!(!path.exists(), "{what}");
        assert_eq!(fs::read_to_string(&aside).unwrap(), bad, "{what}");
        assert_eq!(service.snapshot().version(), 0, "{what}");
        fs::remove_file(&aside).unwrap();
    }

    // A document that a registry could not send either.
    let document = r#"{"applications":{"application":[{"name":"ORDERS","instance":[{"port":{"$":"http"}}]}]}}"#;
    let mut crc = flate2::Crc::new();
    crc.update(document.as_bytes());
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let head = |saved: u128| {
        format!(r#"{{"eureka_snapshot":1,"saved_at":{saved},"bytes":{},"crc32":{}}}"#, document.len(), crc.sum())
    };
    fs::write(&path, format!("{}\n{document}", head(now))).unwrap();
    let (directory, monitor) = cold(&path, often());
    let service = directory.service("orders");
    eventually("a failure", || monitor.snapshot().directories[0].services[0].error.is_some()).await;
    assert!(aside.exists() && service.snapshot().version() == 0);

    // Old, but good: it is not used.
    fs::write(&path, &good).unwrap();
    let policy = EurekaPolicy { snapshot_age: Duration::from_nanos(1), ..often() };
    let end = tokio::time::Instant::now() + Duration::from_millis(2);
    tokio::time::sleep_until(end).await;
    let (directory, monitor) = cold(&path, policy);
    let service = directory.service("orders");
    eventually("a failure", || monitor.snapshot().directories[0].services[0].error.is_some()).await;
    assert!(path.exists() && service.snapshot().version() == 0);
}

#[tokio::test]
async fn a_client_to_whom_nothing_was_pushed_for_long_still_has_a_snapshot_that_is_young_enough() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eureka.json");
    let pushes = std::sync::Mutex::new(Vec::new());
    let server = Server::start(move |seen| {
        if seen.path != "/hopvine/v1/watch" {
            return Reply::json(orders(&[1, 2]));
        }
        let (sender, lines) = tokio::sync::mpsc::unbounded_channel();
        sender.send("{\"version\":1,\"apps__hashcode\":\"UP_2_\"}\n".to_owned()).unwrap();
        pushes.lock().unwrap().push(sender);
        Reply::Push(lines)
    });
    let server = server.await;
    let age = Duration::from_millis(400);
    let policy = EurekaPolicy {
        fetch_interval: Duration::from_millis(50),
        snapshot_interval: Duration::ZERO,
        snapshot_age: age,
        ..EurekaPolicy::default()
    };
    let eureka = Eureka::builder([server.url()]).policy(policy).snapshot(&path).build().unwrap();
    let directory = Directory::builder().source(eureka).build();
    let service = directory.service("orders");
    until(&service, &["orders-1", "orders-2"]).await;
    eventually("a snapshot", || path.exists()).await;
    let first = fs::read(&path).unwrap();
    eventually("it is young again", || fs::read(&path).unwrap() != first).await;
    assert_eq!(server.lines(), ["GET /hopvine/v1/watch", "GET /apps/"], "nothing was asked for");
}

#[tokio::test]
async fn a_folder_under_the_snapshots_name_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("eureka.json");
    fs::create_dir(&path).unwrap();
    let (directory, monitor) = cold(&path, often());
    let _service = directory.service("orders");
    eventually("a failure", || monitor.snapshot().directories[0].services[0].error.is_some()).await;
    assert!(path.is_dir());
}
