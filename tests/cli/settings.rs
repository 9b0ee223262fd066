//! What is said to it before it runs.

use std::fs;

use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
use toml::{Table, Value};

use crate::{
    certificates::{issuer, leaf},
    process::{Ended, ended},
};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/registry.toml");

fn check(text: &str, flags: &[&str]) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registry.toml");
    fs::write(&file, text).unwrap();
    ended(&[&["--check", "--config", file.to_str().unwrap()], flags].concat())
}

#[test]
fn a_bad_setting_is_named_with_its_value_and_its_place() {
    for (text, flags, place, reason) in [
        ("bind = \"localhost\"", &[][..], "registry.toml, line 1, column 8: bind", "\"localhost\" is no address"),
        ("\n\nbind = 8761", &[], "line 3, column 8: bind", "integer `8761`"),
        ("bind = ", &[], "line 1, column 8", ""),
        ("bind = \"[::1]:1\"\nbind = \"[::1]:2\"", &[], "line 2, column 1", "duplicate key"),
        ("\nprot = 1", &[], "line 2, column 1: prot", "expected one of `bind`"),
        ("log = \"xml\"", &[], "line 1, column 7: log", "`xml`"),
        ("log_level = \"loud\"", &[], "line 1, column 13: log_level", "`loud`"),
        ("[policy]\nevict = \"5s\"", &[], "line 2, column 1: policy.evict", "`eviction_interval`"),
        ("[policy]\neviction_interval = \"soon\"", &[], "line 2, column 21: policy.eviction_interval", "\"soon\""),
        ("[policy]\neviction_interval = \"0s\"", &[], "registry.toml: policy.eviction_interval", "is 0ns"),
        ("[policy]\nrenewal_threshold = 2.5", &[], "policy.renewal_threshold", "2.5"),
        ("[policy.limits]\nbody_bytes = -1", &[], "line 2, column 14: policy.limits.body_bytes", "`-1`"),
        ("[policy.limits.document]\nnest = 1", &[], "policy.limits.document.nest", "`nesting`"),
        ("[policy.peers]\nbatch_items = 0", &[], "policy.peers.batch_items", "is 0"),
        ("[auth]\nuser = \"a\"", &[], "auth", "missing field `password_file`"),
        ("[auth]\nuser = \"a\"\npassword_file = \"/none\"", &[], "auth.password_file \"/none\"", "No such file"),
        ("[auth]\nuser = \"a:b\"\npassword_file = \"/none\"", &[], "auth.user", "\"a:b\""),
        ("[tls]\ncertificate = \"/none\"\nkey = \"/none\"", &[], "tls.certificate \"/none\"", "No such file"),
        ("[peer_tls]\ncertificate = \"/none\"", &[], "peer_tls", "together"),
        ("peers = [\"http://a/\", \"ftp://b\"]", &[], "peers[1]", "\"ftp://b\""),
        ("peers = [\"http://a/eureka/, ftp://b\"]", &[], "peers[1]", "\"ftp://b\""),
        ("my_url = \"http://a/eureka/,http://b/eureka/\"", &[], "my_url", "one URL"),
        ("my_url = \"host\"", &[], "my_url", "\"host\""),
        ("snapshot = \"/none/registry.json\"", &[], "snapshot \"/none/registry.json\"", "its folder"),
        ("", &["--bind", "here"], "--bind: bind", "\"here\""),
        ("", &["--user", "ann"], "--user: auth", "missing field `password_file`"),
        ("", &["--set", "policy.suspicion=2h"], "--set policy.suspicion: policy.suspicion", "7200s"),
        ("", &["--set", "policy.limits=7"], "--set policy.limits", "`7`"),
        ("", &["--set", "policy.typo=7"], "--set policy.typo", "unknown field `typo`"),
        ("", &["--set", "name.of=7"], "--set name.of", "name"),
        ("name = \"a\"", &["--set", "name.of=7"], "--set name.of", "name"),
        ("", &["--set", "policy"], "--set", "KEY=VALUE"),
        ("", &["--self-preservation", "maybe"], "--self-preservation", "'maybe'"),
        ("", &["--peer", "host:8761"], "--peer: peers[0]", "\"host:8761\""),
        ("", &["--peer", "http://a/eureka/,"], "--peer: peers[1]", "\"\""),
        ("", &["--nothing"], "--nothing", "unexpected"),
    ] {
        let end = check(text, flags);
        assert_eq!((end.code, &*end.out), (Some(2), ""), "{text} {flags:?}: {}", end.err);
        assert!(end.err.contains(place) && end.err.contains(reason), "{text} {flags:?}: {}", end.err);
    }
    let missing = ended(&["--check", "--config", "/none.toml"]);
    assert_eq!(missing.code, Some(2));
    assert!(missing.err.contains("--config /none.toml: No such file"), "{}", missing.err);
}

#[test]
fn a_password_where_none_belongs_is_not_repeated() {
    for (text, flags) in [
        ("[auth]\nuser = \"a\"\npassword = \"s3cret\"", &[][..]),
        ("peers = [\"http://bob:s3cret@host/\"]", &[]),
        ("peers = [\"http://host/,http://bob:s3cret@host/\"]", &[]),
        ("my_url = \"http://bob:s3cret@host/\"", &[]),
        ("", &["--set", "auth.password=s3cret"]),
    ] {
        let end = check(text, flags);
        assert_eq!(end.code, Some(2), "{text} {flags:?}");
        assert!(!end.err.contains("s3cret"), "{}", end.err);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    for (text, reason) in
        [("", "no password"), ("\n", "no password"), ("s3cret\nmore", "one line"), ("s3\u{7}cret", "control")]
    {
        fs::write(&file, text).unwrap();
        let end = ended(&["--check", "--user", "a", "--password-file", file.to_str().unwrap()]);
        assert_eq!(end.code, Some(2));
        assert!(
            end.err.contains(reason) && end.err.contains("auth.password_file") && !end.err.contains("cret\n"),
            "{}",
            end.err
        );
    }
}

fn settings(end: &Ended) -> Table {
    assert_eq!(end.code, Some(0), "{}", end.err);
    toml::from_str(&end.out).unwrap()
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text = "bind = \"127.0.0.1:1\"\nname = \"file\"\n[policy]\neviction_interval = \"5s\"\nself_preservation = false\nexact_leases = true\n\
                [policy.limits]\ninstances = 5\noverrides = 6";
    let flags = [
        "--bind",
        "127.0.0.1:2",
        "--self-preservation",
        "true",
        "--set",
        "policy.eviction_interval=7s",
        "--set",
        "policy.limits.instances=8",
        "--set",
        "policy.renewal_threshold=0.5",
    ];
    let read = settings(&check(text, &flags));
    let policy = &read["policy"];
    assert_eq!((read["bind"].as_str(), read["name"].as_str()), (Some("127.0.0.1:2"), Some("file")));
    assert_eq!((policy["eviction_interval"].as_str(), policy["self_preservation"].as_bool()), (Some("7s"), Some(true)));
    assert_eq!((policy["exact_leases"].as_bool(), policy["renewal_threshold"].as_float()), (Some(true), Some(0.5)));
    let limits = &policy["limits"];
    assert_eq!((limits["instances"].as_integer(), limits["overrides"].as_integer()), (Some(8), Some(6)));
    assert_eq!((limits["watchers"].as_integer(), policy["default_lease"].as_str()), (Some(10_000), Some("1m 30s")));
}

#[test]
fn what_a_check_prints_is_a_file_of_settings() {
    let first = check("name = \"a\\\"b\"\n[policy]\nsuspicion = \"1500ms\"", &[]);
    assert_eq!(settings(&check(&first.out, &[])), settings(&first));
}

/// Names of all settings within a table, as `policy.limits.instances`.
fn names(table: &Table, within: &str, to: &mut Vec<String>) {
    for (name, value) in table {
        let name = format!("{within}{name}");
        match value {
            Value::Table(table) => names(table, &format!("{name}."), to),
            _ => to.push(name),
        }
    }
}

#[test]
fn the_example_shows_every_setting_with_its_default() {
    let (text, defaults) = (fs::read_to_string(EXAMPLE).unwrap(), settings(&ended(&["--check"])));
    assert_eq!(settings(&ended(&["--check", "--config", EXAMPLE])), defaults);
    let (mut shown, mut all) = (Vec::new(), Vec::new());
    names(&toml::from_str(&text).unwrap(), "", &mut shown);
    names(&defaults, "", &mut all);
    assert!(all.len() > 40);
    assert_eq!(shown.iter().filter(|name| !all.contains(name)).count(), 0, "{shown:?}");
    assert_eq!(all.iter().filter(|name| !shown.contains(name)).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn who_has_only_the_program_has_the_example_too() {
    assert!(ended(&["--help"]).out.contains("--example-config shows all"));
    let shown = ended(&["--example-config"]);
    assert_eq!((shown.code, &*shown.out), (Some(0), &*fs::read_to_string(EXAMPLE).unwrap()), "{}", shown.err);
}

#[test]
fn what_the_example_shows_behind_a_sign_holds_too() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = issuer();
    let (certificate, key) = leaf(&issuer, "registry", ServerAuth, |_| ());
    for (name, text) in [
        ("password", "a"),
        ("peer-password", "b"),
        ("certificate.pem", &certificate),
        ("key.pem", &key),
        ("clients.pem", &issuer.pem()),
        ("ca.pem", &issuer.pem()),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let here = format!("{}/", folder.path().display());
    let is_setting =
        |line: &str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(name, _)| !name.contains(' '));
    let text = fs::read_to_string(EXAMPLE).unwrap();
    let lines = text.lines().map(|line| line.strip_prefix("# ").filter(|rest| is_setting(rest)).unwrap_or(line));
    let text = lines.collect::<Vec<_>>().join("\n").replace("/etc/hopvine/", &here).replace("/var/lib/hopvine/", &here);
    let read = settings(&check(&text, &[]));
    for name in ["log_level", "my_url", "snapshot", "auth", "peer_auth", "tls", "peer_tls"] {
        assert!(read.contains_key(name), "{name} in {text}");
    }
    assert_eq!(read["tls"].as_table().unwrap().len(), 3);
    assert_eq!(read["peer_tls"].as_table().unwrap().len(), 3);
}

#[test]
fn what_the_tables_of_spring_names_call_a_setting_is_one() {
    let mut all = Vec::new();
    names(&settings(&ended(&["--check"])), "", &mut all);
    for (name, text) in
        [("docs/eureka.md", include_str!("../../docs/eureka.md")), ("README.md", include_str!("../../README.md"))]
    {
        let named: Vec<_> = text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("policy.")).collect();
        assert!(named.len() > 8, "{name}: {named:?}");
        for code in named {
            let setting = code.split([' ', '=']).next().unwrap().trim_end_matches('*');
            assert!(
                all.iter()
                    .any(|known| known == setting || known.starts_with(&format!("{}.", setting.trim_end_matches('.')))),
                "{name}: {code}"
            );
        }
    }
}
