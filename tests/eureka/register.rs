//! What a Java server answered to a registration and stored of it, and what follows from ours.

use std::sync::Arc;

use hopvine::eureka::{ActionType, Instance, InstanceStatus, LeaseInfo, Limits, StatusRules, json, xml};

use crate::recordings::{Exchange, exchanges};

const CANNOT_PARSE: &str = "cannot parse request body";

/// Registrations that a Java server refuses and we take; see `docs/differences.md`.
const TAKEN: [&str; 8] = [
    "unknown object field, first",
    "unknown object field, empty, first",
    "unknown array field",
    "port a string",
    "port with an extra key",
    "dataCenterInfo without @class",
    "dataCenterInfo unknown @class",
    "dataCenterInfo extra key",
];

/// The instance a server would take, or the reason it would give.
fn register(exchange: &Exchange) -> Result<Instance, String> {
    let content_type = exchange.header("Content-Type").unwrap();
    let read = if content_type.starts_with("application/json") {
        json::read_instance(exchange.sent.as_bytes(), &Limits::default())
    } else {
        xml::read_instance(exchange.sent.as_bytes(), &Limits::default())
    };
    let instance = read.map_err(|_| CANNOT_PARSE.to_owned())?;
    let app = exchange.path.rsplit('/').next().unwrap();
    instance.validate(app).map_err(|invalid| invalid.to_string())?;
    Ok(instance)
}

/// The instance as a server stores it, with the times at which that one did.
fn stored(instance: &Instance, at: &Instance) -> Instance {
    let overridden = instance.overridden_status;
    let rules = StatusRules {
        said: instance.status,
        overridden: (overridden != InstanceStatus::Unknown).then_some(overridden),
        kept: Some(InstanceStatus::Up),
        by_peer: false,
    };
    let lease = instance.lease_info.unwrap_or_default();
    let times = at.lease_info.unwrap();
    Instance {
        status: rules.status(),
        lease_info: Some(LeaseInfo {
            renewal_interval_in_secs: lease.renewal_interval_in_secs,
            duration_in_secs: lease.duration_in_secs,
            ..times
        }),
        last_updated_timestamp: at.last_updated_timestamp,
        last_dirty_timestamp: instance.last_dirty_timestamp.or(at.last_dirty_timestamp),
        action_type: Some(ActionType::Added),
        // A Java server keeps the text that stands for none, and tells nobody.
        sid: None,
        ..instance.clone()
    }
}

fn agrees_with_java(file: &str) {
    let mut last: Option<Instance> = None;
    let mut first_stored: Option<Instance> = None;
    let (mut answers, mut compared) = (0, 0);
    for exchange in exchanges(file).iter().filter(|exchange| exchange.status != 415) {
        let about = format!("{}, {}", exchange.source, exchange.note);
        if exchange.method == "POST" {
            let ours = register(exchange);
            match exchange.status {
                204 => {
                    let instance = ours.unwrap_or_else(|reason| panic!("{about}: refused: {reason}"));
                    if exchange.note.contains("(stored like the first one") {
                        let first = first_stored.as_ref().unwrap();
                        assert_eq!(&stored(&instance, first), first, "{about}");
                        compared += 1;
                    }
                    last = Some(instance);
                }
                400 if TAKEN.contains(&&*exchange.note) => {
                    ours.unwrap_or_else(|reason| panic!("{about}: refused: {reason}"));
                }
                400 => {
                    let reason = ours.expect_err(&about);
                    let expected =
                        if exchange.answered.contains(CANNOT_PARSE) { CANNOT_PARSE } else { &exchange.answered };
                    assert_eq!(reason, expected, "{about}");
                }
                status => panic!("{about}: {status}"),
            }
            answers += 1;
        } else if matches!(&*exchange.note, "as stored" | "back as json" | "back as xml") {
            let bytes = exchange.answered.as_bytes();
            let read = if exchange.answered.starts_with('<') { xml::read_instance } else { json::read_instance };
            let theirs = read(bytes, &Limits::default()).unwrap();
            assert_eq!(stored(last.as_ref().unwrap(), &theirs), theirs, "{about}");
            first_stored.get_or_insert(theirs);
            compared += 1;
        }
    }
    assert!(answers > 5 && compared >= 3, "{answers}, {compared}");
}

#[test]
fn an_instance_a_java_server_refuses_is_refused_for_the_same_reason() {
    agrees_with_java("direct-register-validation");
}

#[test]
fn an_instance_is_stored_as_a_java_server_stores_it() {
    agrees_with_java("direct-register-parse");
}

#[test]
fn an_instance_that_registers_in_xml_is_stored_as_a_java_server_stores_it() {
    agrees_with_java("direct-register-xml");
}

#[test]
fn every_client_that_was_recorded_can_register() {
    let mut clients = 0;
    for exchange in exchanges("client-").iter().filter(|exchange| exchange.method == "POST") {
        let instance = register(exchange).unwrap_or_else(|reason| panic!("{}: {reason}", exchange.source));
        assert_eq!((instance.id(), &*instance.app), ("host1:orders:8080", "ORDERS"), "{}", exchange.source);
        assert_eq!(instance.lease_info.unwrap().renewal_interval_in_secs, 2, "{}", exchange.source);
        assert_eq!(instance.metadata.get("zone"), Some("z1"), "{}", exchange.source);
        assert!(instance.port.enabled && !instance.secure_port.enabled, "{}", exchange.source);
        clients += 1;
    }
    assert!(clients > 20, "{clients}");
}

#[test]
fn what_we_register_with_is_what_a_jersey_client_would_send() {
    let exchange =
        exchanges("client-spring-2025.0-jersey3").into_iter().find(|exchange| exchange.method == "POST").unwrap();
    let zone = Arc::<str>::from("z1");
    let instance = Instance {
        instance_id: Some("host1:orders:8080".into()),
        host_name: "host1".into(),
        app: "ORDERS".into(),
        ip_addr: "10.0.0.1".into(),
        port: hopvine::eureka::Port { number: 18080, enabled: true },
        secure_port: hopvine::eureka::Port { number: 443, enabled: false },
        data_center_info: Some(hopvine::eureka::DataCenterInfo::MyOwn),
        lease_info: Some(LeaseInfo { renewal_interval_in_secs: 2, duration_in_secs: 6, ..LeaseInfo::default() }),
        metadata: [("zone", zone), ("management.port", "18080".into())].into_iter().collect(),
        home_page_url: Some("http://host1:18080/".into()),
        status_page_url: Some("http://host1:18080/actuator/info".into()),
        health_check_url: Some("http://host1:18080/actuator/health".into()),
        vip_address: Some("orders".into()),
        secure_vip_address: Some("orders".into()),
        last_updated_timestamp: Some(1_795_349_791_938),
        last_dirty_timestamp: Some(1_795_349_792_576),
        ..Instance::default()
    };
    let mut document = Vec::new();
    json::write_instance(&instance, &mut document);
    assert_eq!(String::from_utf8(document).unwrap(), exchange.sent);
}
