//! The file source, as editors and Kubernetes write files.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use hopvine::{Directory, Monitor, ServiceHandle, discover::file::File};
use tokio::time::Instant;

use super::ids;

fn write(path: &Path, ports: &[u16]) {
    let urls: Vec<_> = ports.iter().map(|port| format!("\"http://127.0.0.1:{port}\"")).collect();
    fs::write(path, format!("catalog = [{}]\n", urls.join(", "))).unwrap();
}

async fn eventually(service: &ServiceHandle, ports: &[u16]) {
    let wanted: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let end = Instant::now() + Duration::from_secs(10);
    while ids(service) != wanted {
        assert!(Instant::now() < end, "{:?} instead of {wanted:?}", ids(service));
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn every_way_of_writing_a_file_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.toml");
    write(&path, &[1, 2]);
    let monitor = Monitor::new();
    let directory = Directory::builder().monitor(&monitor).source(File::open(&path).unwrap()).build();
    let service = directory.get("catalog").unwrap();
    assert!(directory.get("nobody").is_none());
    eventually(&service, &[1, 2]).await;

    // In place.
    write(&path, &[2, 3]);
    eventually(&service, &[2, 3]).await;

    // As editors do: a new file in its place.
    let draft = folder.path().join("shop.toml.new");
    write(&draft, &[3, 4]);
    fs::rename(&draft, &path).unwrap();
    eventually(&service, &[3, 4]).await;

    // A bad one changes nothing, and is told.
    fs::write(&path, "catalog = [\"http://127.0.0.1:99999\"]").unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    let error = loop {
        if let Some(error) = monitor.snapshot().directories[0].services[0].error.clone() {
            break error;
        }
        assert!(Instant::now() < end);
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(5)).await;
    };
    assert!(error.contains("shop.toml") && error.contains("catalog[0]") && error.contains("99999"), "{error}");
    assert_eq!(ids(&service), ["127.0.0.1:3", "127.0.0.1:4"]);

    // Nor does its absence.
    fs::remove_file(&path).unwrap();
    write(&path, &[5]);
    eventually(&service, &[5]).await;
    assert_eq!(monitor.snapshot().directories[0].services[0].error, None);
}

#[tokio::test]
async fn a_swapped_symlink_is_seen() {
    // As Kubernetes mounts a ConfigMap: shop.toml -> ..data/shop.toml, ..data -> ..1.
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| folder.path().join(name);
    for (version, ports) in [("..1", [1]), ("..2", [2])] {
        fs::create_dir(in_folder(version)).unwrap();
        write(&in_folder(version).join("shop.toml"), &ports);
    }
    symlink("..1", in_folder("..data")).unwrap();
    symlink("..data/shop.toml", in_folder("shop.toml")).unwrap();
    let directory = Directory::builder().source(File::open(in_folder("shop.toml")).unwrap()).build();
    let service = directory.service("catalog");
    eventually(&service, &[1]).await;
    symlink("..2", in_folder("..data_tmp")).unwrap();
    fs::rename(in_folder("..data_tmp"), in_folder("..data")).unwrap();
    eventually(&service, &[2]).await;
}

#[tokio::test]
async fn a_file_that_comes_later_and_one_that_is_too_long() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.json");
    let monitor = Monitor::new();
    let file = File::open(&path).unwrap().max_bytes(100);
    let directory = Directory::builder().monitor(&monitor).source(file).build();
    let service = directory.service("catalog");
    assert!(service.ready(Duration::from_millis(50)).await.is_err());
    fs::write(&path, r#"{"catalog": ["http://127.0.0.1:1"]}"#).unwrap();
    eventually(&service, &[1]).await;
    fs::write(&path, format!(r#"{{"catalog": ["http://127.0.0.1:2"]{}}}"#, " ".repeat(100))).unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while monitor.snapshot().directories[0].services[0].error.is_none() {
        assert!(Instant::now() < end);
        tokio::time::sleep_until(Instant::now() + Duration::from_millis(5)).await;
    }
    assert_eq!(ids(&service), ["127.0.0.1:1"]);
    assert!(File::open("shop.yaml").unwrap_err().to_string().contains("shop.yaml"));
}
