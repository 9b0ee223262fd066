//! An instance as an endpoint: what is called, and how.

use hopvine::{
    Endpoint,
    endpoint::{Scheme, Status},
    eureka::{DataCenterInfo, EndpointSettings, HostChoice, Instance, InstanceStatus, Port, PortChoice},
};

fn instance() -> Instance {
    Instance {
        instance_id: Some("host1:orders:8080".into()),
        host_name: "Host1.example".into(),
        app: "ORDERS".into(),
        ip_addr: "10.0.0.1".into(),
        port: Port { number: 8080, enabled: true },
        secure_port: Port { number: 8443, enabled: false },
        ..Instance::default()
    }
}

fn endpoint(instance: &Instance, host: HostChoice, port: PortChoice) -> Endpoint {
    instance.endpoint(&EndpointSettings { host, port }).unwrap()
}

fn address(instance: &Instance, host: HostChoice, port: PortChoice) -> String {
    endpoint(instance, host, port).address().to_string()
}

#[test]
fn a_caller_reaches_the_port_that_is_enabled_at_the_host_it_chose() {
    use HostChoice::{HostName, IpAddress};
    use PortChoice::{Plain, Secure, SecureIfEnabled};
    let plain = instance();
    assert_eq!(address(&plain, HostName, SecureIfEnabled), "host1.example:8080");
    assert_eq!(address(&plain, IpAddress, Plain), "10.0.0.1:8080");
    assert!(plain.endpoint(&EndpointSettings { host: HostName, port: Secure }).is_err(), "not enabled");

    let secure = Instance { secure_port: Port { number: 8443, enabled: true }, ..plain.clone() };
    let by_name = endpoint(&secure, HostName, SecureIfEnabled);
    assert_eq!(
        (by_name.address().to_string().as_str(), by_name.scheme(), by_name.server_name()),
        ("host1.example:8443", Scheme::Https, None)
    );
    let by_address = endpoint(&secure, IpAddress, SecureIfEnabled);
    assert_eq!(by_address.address().to_string(), "10.0.0.1:8443");
    assert_eq!(by_address.server_name(), Some("Host1.example"), "the certificate is the host's, not the address's");
    assert_eq!(address(&secure, HostName, Plain), "host1.example:8080");

    let six = Instance { ip_addr: "fd00::7".into(), ..plain.clone() };
    assert_eq!(address(&six, IpAddress, Plain), "[fd00::7]:8080");
    let prefers_address = Instance { host_name: "10.0.0.1".into(), ..secure.clone() };
    assert_eq!(endpoint(&prefers_address, HostName, Secure).server_name(), None, "an address is no name");
    let without_name = Instance { host_name: "".into(), ..plain.clone() };
    assert_eq!(address(&without_name, HostName, Plain), "10.0.0.1:8080");
}

#[test]
fn an_instance_that_cannot_be_reached_is_refused_with_the_reason() {
    let settings = EndpointSettings::default();
    let nowhere = Instance { host_name: "".into(), ip_addr: "".into(), ..instance() };
    let disabled = Instance { port: Port { number: 8080, enabled: false }, ..instance() };
    let beyond = Instance { port: Port { number: 70_000, enabled: true }, ..instance() };
    for (instance, reason) in
        [(nowhere, "neither a host name nor an address"), (disabled, "not enabled"), (beyond, "not a port")]
    {
        let error = instance.endpoint(&settings).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("host1:orders:8080"), "{error}");
    }
}

#[test]
fn only_an_instance_that_is_up_takes_calls() {
    for (status, expected) in [
        (InstanceStatus::Up, Status::Up),
        (InstanceStatus::OutOfService, Status::Draining),
        (InstanceStatus::Down, Status::Down),
        (InstanceStatus::Starting, Status::Down),
        (InstanceStatus::Unknown, Status::Down),
    ] {
        let instance = Instance { status, ..instance() };
        assert_eq!(instance.endpoint(&EndpointSettings::default()).unwrap().status(), expected, "{status}");
    }
}

#[test]
fn zone_and_weight_come_from_the_metadata_and_the_rest_goes_along() {
    let metadata = [("zone", "a"), ("weight", "3"), ("version", "1.4")].into_iter().collect();
    let endpoint = Instance { metadata, ..instance() }.endpoint(&EndpointSettings::default()).unwrap();
    assert_eq!((endpoint.id().as_str(), endpoint.zone(), endpoint.weight()), ("host1:orders:8080", Some("a"), 3));
    assert_eq!(
        endpoint.metadata().iter().map(|(name, text)| (&**name, &**text)).collect::<Vec<_>>(),
        [("version", "1.4")]
    );

    let amazon = DataCenterInfo::Amazon([("availability-zone", "us-east-1a")].into_iter().collect());
    let metadata = [("weight", "heavy")].into_iter().collect();
    let instance = Instance { data_center_info: Some(amazon), metadata, ..instance() };
    let endpoint = instance.endpoint(&EndpointSettings::default()).unwrap();
    assert_eq!((endpoint.zone(), endpoint.weight()), (Some("us-east-1a"), 1));
}
