//! The client and our own registry.

use std::{net::SocketAddr, time::Duration};

use hopvine::{
    ServiceHandle,
    connect::http::Tls,
    discover::eureka::{
        Eureka, EurekaPolicy, HoldMode, Registration, RegistrationBuilder, RegistrationPolicy, Servers,
    },
    endpoint::Status,
    eureka::InstanceStatus,
    registry::{Registry, RegistryHandle, RegistryPolicy, ServerTls},
};
use rcgen::ExtendedKeyUsagePurpose;
use tokio::time::Instant;

use super::{discovery::directory, server::eventually};
use crate::certificates::{issuer, leaf};

const LONG: Duration = Duration::from_secs(10);

async fn registry(address: &str, policy: RegistryPolicy) -> RegistryHandle {
    let builder = Registry::builder().policy(policy).bind(address.parse().unwrap());
    builder.credential("shop", "secret").start().await.unwrap()
}

fn url(address: SocketAddr) -> String {
    format!("http://shop:secret@{address}/eureka/")
}

fn orders(address: SocketAddr, heartbeat: Duration) -> RegistrationBuilder {
    instance(address, "orders", heartbeat)
}

fn instance(address: SocketAddr, service: &str, heartbeat: Duration) -> RegistrationBuilder {
    let policy = RegistrationPolicy { heartbeat_interval: heartbeat, leave_wait: Duration::ZERO, ..Default::default() };
    let builder = Registration::builder(&*url(address), service, 8080).host_name("10.0.0.1");
    builder.status(InstanceStatus::Up).policy(policy)
}

fn statuses(service: &ServiceHandle) -> Vec<Status> {
    service.snapshot().endpoints().iter().map(|endpoint| endpoint.status()).collect()
}

async fn until(service: &ServiceHandle, wanted: &[Status]) {
    eventually(&format!("{wanted:?}"), || service.snapshot().version() > 0 && statuses(service) == wanted).await;
}

#[tokio::test]
async fn every_change_of_an_instance_reaches_a_client_by_push() {
    let registry = registry("127.0.0.1:0", RegistryPolicy::default()).await;
    let eureka = Eureka::builder(&*url(registry.local_addr())).build().unwrap();
    let directory = directory(eureka.clone());
    let service = directory.service("orders");
    until(&service, &[]).await;
    assert!(eureka.view().pushed);

    let registration = orders(registry.local_addr(), LONG).start().unwrap();
    until(&service, &[Status::Up]).await;
    registration.set_status(InstanceStatus::OutOfService);
    until(&service, &[Status::Draining]).await;
    registration.up();
    until(&service, &[Status::Up]).await;
    registration.set_metadata("zone", "b");
    eventually("zone b", || service.snapshot().endpoints()[0].zone() == Some("b")).await;
    registration.set_status(InstanceStatus::Down);
    until(&service, &[Status::Down]).await;
    registration.up();
    until(&service, &[Status::Up]).await;
    let start = Instant::now();
    registration.leave().await;
    until(&service, &[]).await;
    println!("a leave reached the client within {:?}", start.elapsed());
    assert!(eureka.view().pushed);
    registry.shutdown().await;
}

#[tokio::test]
async fn a_restart_of_the_registry_heals() {
    for policy in [
        EurekaPolicy::default(),
        EurekaPolicy { push: hopvine::discover::eureka::PushMode::Off, ..super::discovery::often() },
    ] {
        let first = registry("127.0.0.1:0", RegistryPolicy::default()).await;
        let address = first.local_addr();
        let eureka = Eureka::builder(&*url(address)).policy(policy).build().unwrap();
        let directory = directory(eureka.clone());
        let service = directory.service("orders");
        let heartbeat = Duration::from_millis(50);
        let registration = orders(address, heartbeat).start().unwrap();
        // Others, so that one that leaves is not most of the registry.
        let others = ["a", "b", "c"].map(|name| instance(address, name, heartbeat).start().unwrap());
        until(&service, &[Status::Up]).await;
        eventually("all", || eureka.view().instances == 4).await;
        first.shutdown().await;
        eventually("it is noticed", || registration.view().error.is_some() && eureka.view().error.is_some()).await;
        assert_eq!(statuses(&service), [Status::Up]);

        // It comes back, and knows nobody.
        let second = registry(&address.to_string(), RegistryPolicy::default()).await;
        registration.registered(LONG).await.unwrap();
        eventually("registered", || registration.view().error.is_none()).await;
        // Until the client sees that, it keeps the set of before.
        eventually("seen", || eureka.view().error.is_none() && eureka.view().instances == 4).await;
        until(&service, &[Status::Up]).await;
        registration.leave().await;
        until(&service, &[]).await;
        drop(others);
        second.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_dies_holding_its_connection_is_out_within_seconds() {
    let policy = RegistryPolicy { expel_on_disconnect: true, ..Default::default() };
    let registry = registry("127.0.0.1:0", policy).await;
    let address = registry.local_addr();
    let directory = directory(Eureka::builder(&*url(address)).build().unwrap());
    let service = directory.service("orders");

    // A runtime of its own, which ends as a process does that is killed: every connection breaks, and nobody says anything.
    let process = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let registration = {
        let _inside = process.enter();
        let policy = RegistrationPolicy { hold: HoldMode::On, ..Default::default() };
        orders(address, LONG).policy(policy).start().unwrap()
    };
    until(&service, &[Status::Up]).await;
    // The connection is held when the registry says so, or soon after.
    eventually("held", || registry.monitor().snapshot().registries[0].watchers >= 2).await;
    let start = Instant::now();
    process.shutdown_background();
    until(&service, &[]).await;
    println!("a dead instance was out after {:?}", start.elapsed());
    drop(registration);
    registry.shutdown().await;
}

#[tokio::test]
async fn over_tls_only_who_shows_a_certificate_registers_and_sees_anything() {
    let issuer = issuer();
    let (certificate, key) = leaf(&issuer, "localhost", ExtendedKeyUsagePurpose::ServerAuth, |_| {});
    let tls = ServerTls::new(certificate.as_bytes(), key.as_bytes()).unwrap();
    let tls = tls.client_roots(issuer.pem().as_bytes()).unwrap();
    let registry = Registry::builder().bind(([127, 0, 0, 1], 0).into()).tls(tls).start().await.unwrap();
    let url = format!("https://localhost:{}/eureka/", registry.local_addr().port());
    let stranger = || Tls::pem_roots(issuer.pem().as_bytes()).unwrap();
    let (certificate, key) = leaf(&issuer, "orders", ExtendedKeyUsagePurpose::ClientAuth, |_| {});
    let known = stranger().client_certificate(certificate.as_bytes(), key.as_bytes()).unwrap();
    let servers = |tls: Tls| Servers::new([&url]).unwrap().tls(tls);

    let registration = Registration::builder(servers(known.clone()), "orders", 8080).host_name("10.0.0.1");
    let registration = registration.status(InstanceStatus::Up).start().unwrap();
    registration.registered(LONG).await.unwrap();
    let eureka = Eureka::builder(servers(known)).build().unwrap();
    let directory = directory(eureka.clone());
    until(&directory.service("orders"), &[Status::Up]).await;
    assert!(eureka.view().pushed);

    let refused = Registration::builder(servers(stranger()), "orders", 8081).host_name("10.0.0.2").start().unwrap();
    let error = refused.registered(Duration::from_secs(2)).await.unwrap_err();
    assert!(error.to_string().contains("localhost"), "{error}");
    assert_eq!(registry.store().counted().instances, 1);
    registry.shutdown().await;
}
