//! What people see of a registry.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hopvine::{
    eureka::{Instance, InstanceStatus, Metadata, Port},
    registry::{By, Registry, RegistryHandle, RegistryPolicy},
};

use crate::{
    client::{Client, fresh, registration, request, start},
    recordings::Message,
};

/// A page holds no more than this, whatever the registry holds: 500 instances, each with eight texts of 120 characters.
const LARGEST: usize = 4 * 1024 * 1024;

async fn page(registry: &RegistryHandle, path: &str) -> String {
    let mut client = Client::connect(registry.local_addr()).await;
    let answer = client.send(&request("GET", path, &[("Accept", "text/html")], "")).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.body
}

fn instance(app: &str, id: &str) -> Instance {
    Instance {
        app: app.into(),
        instance_id: Some(id.into()),
        host_name: format!("{id}.example").into(),
        ip_addr: "10.0.0.7".into(),
        port: Port { number: 8080, enabled: true },
        ..Instance::default()
    }
}

fn register(registry: &RegistryHandle, instance: Instance) {
    registry.store().register(instance, By::Client, registry.now()).unwrap();
}

/// What stands between the first `<tag` and its end.
fn element<'a>(page: &'a str, tag: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("<{tag}>")).unwrap_or_else(|| panic!("no <{tag}>: {page}"));
    rest.split_once(&format!("</{tag}>")).unwrap().0
}

fn links(page: &str) -> Vec<&str> {
    page.split("href=\"").skip(1).map(|rest| rest.split_once('"').unwrap().0).collect()
}

#[tokio::test]
async fn an_operator_sees_each_instance_with_its_lease_and_who_overruled_it() {
    let registry = start(fresh()).await;
    let listed = Instance {
        metadata: Metadata::from_iter([("zone", "east-1")]),
        home_page_url: Some("http://10.0.0.7:8080/".into()),
        status_page_url: Some("https://10.0.0.7:8443/actuator/info".into()),
        secure_port: Port { number: 8443, enabled: true },
        ..instance("ORDERS", "orders-1")
    };
    register(&registry, listed);
    register(&registry, Instance { status: InstanceStatus::Down, ..instance("STOCK", "stock-1") });
    let now = registry.now();
    registry.store().set_status("ORDERS", "orders-1", InstanceStatus::OutOfService, None, By::Client, now).unwrap();
    let page = page(&registry, "/").await;
    for seen in [
        "<bdi>ORDERS</bdi>",
        "1 OUT_OF_SERVICE",
        "<bdi>orders-1</bdi>",
        "override: OUT_OF_SERVICE",
        "<bdi>10.0.0.7:8080</bdi><br><bdi>10.0.0.7:8443 TLS</bdi>",
        "<bdi>orders-1.example</bdi>",
        "<bdi>east-1</bdi>",
        " s ago</td>",
        "none<small>registered ",
        "1 min 30 s",
        "<bdi>STOCK</bdi>",
        "1 DOWN",
        "Self-preservation is on",
        "under about 13 instances",
        "refused",
        env!("CARGO_PKG_VERSION"),
    ] {
        assert!(page.contains(seen), "{seen} is missing in {page}");
    }
    for link in ["http://10.0.0.7:8080/", "https://10.0.0.7:8443/actuator/info"] {
        assert!(page.contains(&format!("<a href=\"{link}\" rel=\"noopener noreferrer\">")), "{link}");
    }
    registry.shutdown().await;
}

#[tokio::test]
async fn looking_at_the_page_keeps_no_override_and_no_lease_alive() {
    let retention = Duration::from_millis(1);
    let registry = start(RegistryPolicy { override_retention: retention, ..fresh() }).await;
    register(&registry, instance("ORDERS", "a"));
    let now = registry.now();
    registry.store().set_status("ORDERS", "a", InstanceStatus::OutOfService, None, By::Client, now).unwrap();
    while registry.now() <= now.after(retention * 2) {
        let _ = page(&registry, "/").await;
    }
    let page = page(&registry, "/").await;
    assert!(page.contains("<bdi>a</bdi>") && !page.contains("override:"), "{page}");
    assert_eq!(registry.store().counters().view().rendered, 0);
    registry.shutdown().await;
}

/// What nobody should call an application, an instance, a host, a zone or a page.
const HOSTILE: [&str; 14] = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "</style></main></table><h1>",
    "\" onmouseover=\"alert(1)",
    "' onmouseover='alert(1)",
    "<img src=x onerror=alert(1)>",
    "{{7*7}}{% raw %}",
    "javascript:alert(1)",
    "JaVaScRiPt://host/%0aalert(1)",
    "data:text/html;base64,PHNjcmlwdD4=",
    "http://user:password@evil.example/",
    "a\u{202e}gnp.exe\u{2066}\u{200b}\u{feff}",
    "a\0b\u{1b}[2J\r\nSet-Cookie: x=1\u{85}\u{2028}",
    "&lt;script&gt;&#60;",
];

#[tokio::test]
async fn no_registrant_can_put_anything_but_text_into_the_page() {
    let registry = start(fresh()).await;
    register(&registry, Instance { home_page_url: Some("http://good.example/".into()), ..instance("GOOD", "g") });
    let plain = page(&registry, "/").await;
    for (number, text) in HOSTILE.into_iter().enumerate() {
        let hostile = Instance {
            instance_id: Some(format!("{text}{number}").into()),
            host_name: text.into(),
            ip_addr: text.into(),
            home_page_url: Some(text.into()),
            status_page_url: Some(text.into()),
            health_check_url: Some(text.into()),
            vip_address: Some(text.into()),
            metadata: Metadata::from_iter([("zone", text), (text, text)]),
            ..instance(&format!("{text}{number}"), "")
        };
        register(&registry, hostile);
    }
    let whole = page(&registry, "/").await;
    let one = page(&registry, "/?app=%3Cscript%3Ealert(1)%3C%2Fscript%3E0").await;
    assert!(one.contains("Only <bdi>&lt;SCRIPT&gt;") && one.contains("No application has this name"), "{one}");
    for page in [&whole, &one] {
        // No tag of theirs: as many of each kind as the template writes.
        for tag in ["<script", "<style", "<img", "<h1", "<main", "</main"] {
            assert_eq!(page.matches(tag).count(), plain.matches(tag).count(), "{tag} in {page}");
        }
        assert!(
            !page
                .contains(['\0', '\u{1b}', '\r', '\u{85}', '\u{202e}', '\u{2066}', '\u{200b}', '\u{feff}', '\u{2028}'])
        );
        assert!(!page.contains("\"alert") && !page.contains(" onmouseover=\"") && !page.contains(" onmouseover='"));
        assert_eq!(
            (element(page, "script"), element(page, "style")),
            (element(&plain, "script"), element(&plain, "style"))
        );
    }
    assert!(whole.contains("a\\u{202e}gnp.exe\\u{2066}\\u{200b}\\u{feff}"), "{whole}");
    assert!(whole.contains("{{7*7}}{% raw %}"));
    for link in links(&whole) {
        let is_ours = link.starts_with('/') && !link.starts_with("//");
        assert!(is_ours || link == "data:," || link == "http://good.example/", "{link}");
    }
    registry.shutdown().await;
}

#[tokio::test]
async fn an_application_of_any_name_can_be_looked_at_alone() {
    let registry = start(fresh()).await;
    for text in HOSTILE {
        for number in 0..26 {
            // The registry has names in upper case, as documents bring them.
            register(&registry, instance(&text.to_uppercase(), &format!("i{number:02}")));
        }
    }
    let whole = page(&registry, "/").await;
    let alone: Vec<_> = links(&whole).into_iter().filter(|link| link.starts_with("/?app=")).collect();
    assert_eq!(alone.len(), HOSTILE.len());
    for link in alone {
        assert_eq!(page(&registry, link).await.matches("<th scope=\"row\">").count(), 26, "{link}");
    }
    registry.shutdown().await;
}

#[tokio::test]
async fn a_browser_runs_nothing_but_the_pages_own_script() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    let answer = client.get("/").await;
    let policy = answer.header("content-security-policy").unwrap();
    for element in [element(&answer.body, "script"), element(&answer.body, "style")] {
        let hash = STANDARD.encode(ring::digest::digest(&ring::digest::SHA256, element.as_bytes()));
        assert!(policy.contains(&format!("'sha256-{hash}'")), "the policy lacks sha256-{hash}: {policy}");
    }
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(!answer.body.contains(" style=") && !answer.body.contains(" onclick="));
    registry.shutdown().await;
}

#[tokio::test]
async fn ten_thousand_instances_make_no_large_page_and_what_is_left_out_is_said() {
    let registry = start(fresh()).await;
    let long = "<\"&\u{202e}>".repeat(400);
    for number in 0..10_000 {
        let app = if number < 6000 { "LARGE".to_owned() } else { format!("APP{number:05}") };
        register(
            &registry,
            Instance { host_name: long.as_str().into(), ..instance(&app, &format!("i{number:05}{long}")) },
        );
    }
    let whole = page(&registry, "/").await;
    assert!(whole.len() < LARGEST, "{}", whole.len());
    assert_eq!(
        whole.matches("<tr>").count() - whole.matches("<thead>").count(),
        200,
        "one of each of 200 applications"
    );
    assert!(
        whole.contains("3801 applications are left out") && whole.contains("<a href=\"/?after=APP06199\">Go on</a>")
    );
    let next = page(&registry, "/?after=APP06199").await;
    assert!(next.contains("Those after <bdi>APP06199</bdi>") && next.contains("<bdi>APP06200</bdi>"));
    assert!(!next.contains("<bdi>APP06198</bdi>"));

    let last = page(&registry, "/?after=APP09998").await;
    assert!(last.contains("<bdi>LARGE</bdi>") && last.contains("5975 more of its instances are left out"), "{last}");
    assert!(last.contains("<a href=\"/?app=LARGE\">Show this application alone</a>"));

    let one = page(&registry, "/?app=large").await;
    assert!(one.len() < LARGEST, "{}", one.len());
    assert_eq!(one.matches("<th scope=\"row\">").count(), 500);
    assert!(one.contains("6000 UP") && one.contains("5500 instances are left out"));
    let (mut path, mut seen) = ("/?app=large".to_owned(), 0);
    loop {
        let one = page(&registry, &path).await;
        seen += one.matches("<th scope=\"row\">").count();
        match links(&one).into_iter().find(|link| link.contains("after=")) {
            Some(next) => path = next.replace("&amp;", "&"),
            None => break,
        }
    }
    assert_eq!(seen, 6000);
    registry.shutdown().await;
}

#[tokio::test]
async fn an_application_is_found_by_its_name_in_any_case_and_a_blank_name_is_none() {
    let registry = start(fresh()).await;
    register(&registry, instance("ORDERS", "a"));
    register(&registry, instance("STOCK", "b"));
    let one = page(&registry, "/?app=+orders+").await;
    assert!(one.contains("<bdi>a</bdi>") && !one.contains("STOCK"), "{one}");
    let none = page(&registry, "/?app=ORDER").await;
    assert!(none.contains("No application has this name") && !none.contains("<bdi>a</bdi>"));
    let all = page(&registry, "/?app=").await;
    assert!(all.contains("<bdi>a</bdi>") && all.contains("<bdi>b</bdi>"));
    registry.shutdown().await;
}

#[tokio::test]
async fn the_page_asks_for_the_password_that_clients_have() {
    let builder = Registry::builder().policy(fresh()).bind(([127, 0, 0, 1], 0).into());
    let registry = builder.credential("ann", "s3cret").start().await.unwrap();
    register(&registry, instance("ORDERS", "a"));
    let mut client = Client::connect(registry.local_addr()).await;
    let with = |credential: &str| {
        let credential = format!("Basic {}", STANDARD.encode(credential));
        request("GET", "/", &[("Authorization", &*credential)], "")
    };
    for asked in [request("GET", "/", &[], ""), with("ann:wrong!")] {
        let Message { status, body, .. } = client.send(&asked).await;
        assert_eq!((status, &*body), (401, ""));
    }
    let answer = client.send(&with("ann:s3cret")).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("<bdi>a</bdi>") && !answer.body.contains("s3cret"));
    registry.shutdown().await;
}

#[tokio::test]
async fn the_page_takes_no_name_from_eureka_and_changes_nothing() {
    let registry = start(fresh()).await;
    let mut client = Client::connect(registry.local_addr()).await;
    for path in ["/index.html", "/lastn", "/eureka", "/eureka/", "//"] {
        assert_eq!(client.get(path).await.status, 404, "{path}");
    }
    assert_eq!(client.post("/", &registration("A", "b", "UP")).await.status, 405);
    let answer = client.send(&request("OPTIONS", "/", &[], "")).await;
    assert_eq!((answer.status, answer.header("allow")), (200, Some("HEAD,GET,OPTIONS")));
    let head = client.send(&request("HEAD", "/", &[], "")).await;
    assert_eq!((head.status, &*head.body), (200, ""));
    registry.shutdown().await;
}
