//! A registry from its start to its stop.

use std::{
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    process::Command,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use tokio_rustls::rustls::{
    self, ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use crate::{
    certificates::{issuer, leaf},
    process::{Signal, ask_over, ended, ended_in, start, start_in},
};

#[test]
fn it_says_first_where_it_listens_serves_and_ends_in_order_when_told() {
    for signal in [Signal::TERM, Signal::INT] {
        let registry = start(&["--name", "<east>"]);
        assert_eq!(registry.register("ORDERS", "a"), 204);
        assert_eq!(registry.ask("GET", "/eureka/apps/ORDERS/a", "").0, 200);
        let (status, page) = registry.ask("GET", "/", "");
        assert!(status == 200 && page.contains("&lt;east&gt;") && page.contains("<bdi>ORDERS</bdi>"), "{page}");
        registry.signal(signal);
        let (status, lines) = registry.wait();
        assert_eq!(status.code(), Some(0), "{lines:?}");
        assert!(lines[0].contains("registry started address=127.0.0.1:"), "{lines:?}");
        assert!(lines.last().unwrap().contains("registry stops"), "{lines:?}");
    }
}

#[test]
fn told_twice_it_does_not_wait_for_who_hangs() {
    let mut registry = start(&["--set", "policy.limits.body_time=1h"]);
    let mut hanging = TcpStream::connect(registry.address).unwrap();
    hanging.write_all(b"POST /eureka/apps/A HTTP/1.1\r\nHost: r\r\nContent-Length: 10\r\n\r\n").unwrap();
    // What came before has been read.
    assert_eq!(registry.ask("GET", "/eureka/apps", "").0, 200);
    registry.signal(Signal::TERM);
    registry.line_with("registry stops");
    registry.signal(Signal::TERM);
    let (status, lines) = registry.wait();
    assert_eq!(status.code(), Some(1), "{lines:?}");
    assert!(lines.last().unwrap().contains("told to stop again"), "{lines:?}");
}

#[test]
fn an_address_in_use_is_no_setting_that_is_wrong() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let end = ended(&["--bind", &address]);
    assert_eq!(end.code, Some(1), "{}", end.err);
    assert!(end.err.contains(&format!("hopvine: cannot listen on {address}")), "{}", end.err);
}

#[test]
fn one_that_everybody_reaches_and_nobody_has_to_identify_himself_to_warns_at_each_start() {
    let warns = |flags: &[&str]| {
        let lines = start(flags).stop();
        lines.iter().any(|line| line.contains("WARN") && line.contains("asks nobody who he is"))
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "s3cret\n").unwrap();
    for _ in 0..2 {
        assert!(warns(&["--bind", "0.0.0.0:0"]));
    }
    assert!(!warns(&["--bind", "0.0.0.0:0", "--user", "ann", "--password-file", file.to_str().unwrap()]));
    assert!(!warns(&["--bind", "127.0.0.1:0"]));
}

#[test]
fn passwords_are_asked_for_and_never_said_while_two_tell_each_other() {
    let (client_login, peer_login) = ("ann:cl!ent-s3cret", "bob:p@er-s3cret");
    let folder = tempfile::tempdir().unwrap();
    let file = |login: &str| {
        let (user, password) = login.split_once(':').unwrap();
        let file = folder.path().join(user);
        fs::write(&file, format!("{password}\n")).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (client, peer) = (file(client_login), file(peer_login));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let flags = |bind: &str, other: &str| {
        let words = format!(
            "--bind {bind} --user ann --password-file {client} --peer-user bob --peer-password-file {peer} \
             --peer http://{other}/eureka/ --log-level trace --set policy.peers.batch_wait=10ms"
        );
        words.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let start = |flags: &[String]| start(&flags.iter().map(String::as_str).collect::<Vec<_>>());

    let first_flags = flags("127.0.0.1:0", &closed);
    let mut first = start(&first_flags);
    let second_flags = flags(&closed, &first.address.to_string());
    let mut second = start(&second_flags);
    let mut said = Vec::new();
    for registry in [&mut first, &mut second] {
        for login in [None, Some("ann:wrong-s3cret")] {
            registry.login = login;
            for path in ["/eureka/apps", "/", "/eureka/status"] {
                let (status, body) = registry.ask("GET", path, "");
                assert_eq!(status, 401, "{path}");
                said.push(body);
            }
        }
        registry.login = Some(client_login);
    }
    assert_eq!((first.register("ORDERS", "a"), second.register("ORDERS", "b")), (204, 204));
    for (registry, instance) in [(&first, "b"), (&second, "a")] {
        registry.ask_until(&format!("/eureka/apps/ORDERS/{instance}"), |status, _| status == 200);
        said.push(registry.ask_until("/", |_, page| page.contains("answers for")));
        said.push(registry.ask_until("/eureka/status", |_, page| page.contains("available-replicas\":\"http")));
    }
    for (registry, flags) in [(first, first_flags), (second, second_flags)] {
        let lines = registry.stop();
        assert!(lines.iter().any(|line| line.contains("peer answers") && line.contains("***@")), "{lines:?}");
        said.push(lines.join("\n"));
        let flags: Vec<_> = flags.iter().map(String::as_str).chain(["--check"]).collect();
        let check = ended(&flags);
        assert_eq!(check.code, Some(0), "{}", check.err);
        said.extend([check.out, check.err]);
    }
    for login in [client_login, peer_login] {
        let (_, password) = login.split_once(':').unwrap();
        // As it is, as a URL has it, as a header has it, and each as a log shows bytes.
        for secret in [password, "s3cret", &STANDARD.encode(login), &STANDARD.encode(password)] {
            let bytes = format!("{:?}", secret.as_bytes());
            for said in &said {
                assert!(!said.contains(secret) && !said.contains(bytes.trim_matches(['[', ']'])), "{secret} in {said}");
            }
        }
    }
}

#[test]
fn the_file_is_read_again_when_told_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.toml");
    let write = |instances: &str| {
        fs::write(&file, format!("name = \"n{instances}\"\n[policy.limits]\ninstances = {instances}\n")).unwrap();
    };
    write("1");
    let mut registry = start(&["--config", file.to_str().unwrap()]);
    assert_eq!((registry.register("A", "1"), registry.register("A", "2")), (204, 503));
    for (bad, reason) in [("0", "policy.limits.instances is 0"), ("many", "line 3")] {
        write(bad);
        registry.signal(Signal::HUP);
        let line = registry.line_with("settings not taken");
        assert!(line.contains(reason), "{line}");
        assert_eq!(registry.register("A", "2"), 503);
    }
    write("2");
    registry.signal(Signal::HUP);
    registry.line_with("settings read again");
    let line = registry.line_with("hold from the next start on");
    assert!(line.contains("name") && !line.contains("bind"), "{line}");
    assert_eq!(registry.register("A", "2"), 204);
    registry.stop();
}

#[test]
fn a_file_that_is_changed_while_it_starts_holds_when_it_has_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.toml");
    let write = |instances: &str| fs::write(&file, format!("[policy.limits]\ninstances = {instances}\n")).unwrap();
    write("1");
    // Taken by the system, answered by nobody: the start waits for it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/eureka/", silent.local_addr().unwrap());
    let flags = ["--config", file.to_str().unwrap(), "--peer", &url, "--set", "policy.peers.sync_timeout=2s"];
    let mut registry = start(&flags);
    write("2");
    registry.signal(Signal::HUP);
    assert_eq!(registry.ask("GET", "/eureka/apps", "").0, 403, "it has started already");
    registry.line_with("settings read again");
    assert_eq!((registry.register("A", "1"), registry.register("A", "2")), (204, 204));
    registry.stop();
}

#[test]
fn told_to_stop_it_waits_for_no_disk_that_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.toml");
    std::fs::write(&file, "").unwrap();
    let registry = start(&["--config", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    // Nobody writes to it: reading it takes for ever.
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    registry.signal(Signal::HUP);
    assert_eq!(registry.ask("GET", "/eureka/apps", "").0, 200);
    registry.signal(Signal::TERM);
    let (status, lines) = registry.wait();
    assert_eq!(status.code(), Some(0), "{lines:?}");
}

/// What nobody should call an application.
const HOSTILE: &str = "A\r\n2026-01-01 INFO forged\u{1b}[2J\u{85}\u{202e}\u{2028}\"}";

#[test]
fn a_log_has_one_line_an_event_whatever_an_application_is_called() {
    let quick = [
        "--self-preservation",
        "false",
        "--set",
        "policy.eviction_interval=50ms",
        "--set",
        "policy.default_lease=50ms",
    ];
    for format in ["text", "json"] {
        let mut registry = start(&[&quick[..], &["--log", format]].concat());
        assert_eq!(registry.register(HOSTILE, HOSTILE), 204);
        let line = registry.line_with("instance evicted");
        assert!(line.contains("FORGED") || line.contains("forged"), "{line}");
        assert!(!line.contains(|c: char| c.is_control() || "\u{202e}\u{2028}".contains(c)), "{line:?}");
        let lines = registry.stop();
        assert!(lines.iter().all(|line| !line.starts_with("2026-01-01")), "{lines:?}");
        if format == "json" {
            for line in &lines {
                let event: serde_json::Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                assert!(event["timestamp"].is_string() && event["level"].is_string(), "{line}");
            }
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(event["id"], format!("{HOSTILE:?}"));
        }
    }
}

#[test]
fn the_environment_says_how_much_to_log_unless_a_setting_does() {
    let informs = |lines: Vec<String>| lines.iter().any(|line| line.contains("INFO"));
    let everywhere = ["--bind", "0.0.0.0:0"];
    assert!(!informs(start_in("RUST_LOG", "warn", &everywhere).stop()));
    assert!(informs(start_in("RUST_LOG", "warn", &["--log-level", "info"]).stop()));
    assert!(!informs(start(&[&everywhere[..], &["--log-level", "warn"]].concat()).stop()));
    let end = ended_in("RUST_LOG", "hopvine=loud");
    assert_eq!(end.code, Some(2));
    assert!(end.err.contains("RUST_LOG is \"hopvine=loud\""), "{}", end.err);
}

#[test]
fn over_tls_only_who_has_a_certificate_is_served_if_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = issuer();
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let (certificate, key) = leaf(&issuer, "localhost", ServerAuth, |_| ());
    let (client_certificate, client_key) = leaf(&issuer, "client", ClientAuth, |_| ());
    let files = [write("ca", &issuer.pem()), write("certificate", &certificate), write("key", &key)];
    let [ca, certificate, key] = files.each_ref().map(String::as_str);
    let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pem(&issuer.pem())).unwrap();
    let configured = || {
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
    };
    let registry = start(&["--tls-certificate", certificate, "--tls-key", key, "--tls-client-ca", ca]);
    let connect = |config: ClientConfig| {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TcpStream::connect(registry.address).unwrap();
        stream.set_read_timeout(Some(crate::process::PATIENCE)).unwrap();
        StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream)
    };
    let client_key = PrivateKeyDer::from_pem_slice(client_key.as_bytes()).unwrap();
    let known = configured().with_client_auth_cert(vec![pem(&client_certificate)], client_key).unwrap();
    assert_eq!(ask_over(connect(known), None, "GET", "/eureka/apps", "").0, 200);
    let mut unknown = connect(configured().with_no_client_auth());
    let refused = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ask_over(&mut unknown, None, "GET", "/eureka/apps", "")
    }));
    assert!(refused.is_err());
    let lines = registry.stop();
    assert!(lines[0].contains("tls=true"), "{lines:?}");

    let swapped = ended(&["--check", "--tls-certificate", key, "--tls-key", certificate]);
    assert_eq!(swapped.code, Some(2));
    assert!(swapped.err.contains("tls.certificate") && swapped.err.contains(key), "{}", swapped.err);
}

#[test]
fn what_it_knew_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.json");
    let flags = ["--snapshot", file.to_str().unwrap()];
    let registry = start(&flags);
    // Until it has looked for the file, it writes none.
    registry.ask_until("/eureka/apps", |status, _| status == 200);
    assert_eq!(registry.register("ORDERS", "a"), 204);
    registry.stop();
    let registry = start(&flags);
    registry.ask_until("/eureka/apps/ORDERS/a", |status, _| status == 200);
    registry.stop();
}

#[test]
fn two_of_them_with_passwords_tell_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "p@er:/s3cret?").unwrap();
    let login = ["--peer-user", "bob", "--peer-password-file", file.to_str().unwrap()];
    let first = start(&login);
    let url = format!("http://{}/eureka/", first.address);
    let second = start(&[&login[..], &["--peer", &url, "--set", "policy.peers.batch_wait=10ms"]].concat());
    assert_eq!(second.register("ORDERS", "a"), 204);
    first.ask_until("/eureka/apps/ORDERS/a", |status, _| status == 200);
    let page = second.ask_until("/", |_, page| page.contains("answers for"));
    assert!(page.contains(&first.address.to_string()) && !page.contains("s3cret"), "{page}");
    second.stop();
    first.stop();
}

#[test]
fn peers_with_commas_between_are_each_told_with_the_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "p@er,s3cret").unwrap();
    let login = ["--peer-user", "bob", "--peer-password-file", file.to_str().unwrap()];
    let (first, second) = (start(&login), start(&login));
    let both = format!("http://{}/eureka/,http://{}/eureka/", first.address, second.address);
    let third = start(&[&login[..], &["--peer", &both, "--set", "policy.peers.batch_wait=10ms"]].concat());
    assert_eq!(third.register("ORDERS", "a"), 204);
    for peer in [&first, &second] {
        peer.ask_until("/eureka/apps/ORDERS/a", |status, _| status == 200);
    }
    for registry in [third, second, first] {
        registry.stop();
    }
}
