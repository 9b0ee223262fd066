use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use hopvine::registry::{Registry, RegistryBuilder, RegistryPolicy};
use http::{Method, StatusCode};
use libtest_mimic::Failed;

use super::service::java;
use crate::support::{Process, get, request};

/// Ours, whose leases end as soon as those of Spring's server in these suites.
pub(super) fn ours(port: u16) -> RegistryBuilder {
    let policy = RegistryPolicy {
        self_preservation: false,
        eviction_interval: Duration::from_millis(500),
        ..Default::default()
    };
    Registry::builder().policy(policy).bind(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Spring Cloud's server.
pub(super) struct JavaServer {
    process: Process,
    url: String,
}

impl JavaServer {
    /// Starts it on a port of 127.0.0.1, with a log of the given name.
    fn start(programs: &Path, jar: &str, log: &str, port: u16, more: &[&str]) -> Result<Self, Failed> {
        let mut command: Command = java(programs, jar, port);
        command.args([
            // Lists are as fresh as they are asked for; leases end.
            "--eureka.server.use-read-only-response-cache=false",
            // One that is made while something changes stays as it was before, until the next change or that long.
            "--eureka.server.response-cache-auto-expiration-in-seconds=2",
            "--eureka.server.enable-self-preservation=false",
            "--eureka.server.eviction-interval-timer-in-ms=500",
        ]);
        let process = Process::start(log, command.args(more))?;
        Ok(Self { process, url: format!("http://127.0.0.1:{port}/eureka/") })
    }

    /// One that has no peers.
    pub(super) fn alone(programs: &Path, jar: &str, log: &str, port: u16) -> Result<Self, Failed> {
        let alone = ["--eureka.client.register-with-eureka=false", "--eureka.client.fetch-registry=false"];
        Self::start(programs, jar, log, port, &alone)
    }

    /// One that has these peers, and registers at one of them as a service of this name.
    pub(super) fn with_peers(
        programs: &Path,
        jar: &str,
        (name, log): (&str, &str),
        port: u16,
        peers: &str,
    ) -> Result<Self, Failed> {
        let settings = [
            &*format!("--spring.application.name={name}"),
            // Its own: a peer whose host is called the same is taken for itself.
            &format!("--eureka.instance.hostname={name}"),
            &format!("--eureka.instance.instance-id={name}"),
            &format!("--eureka.client.service-url.defaultZone={peers}"),
            "--eureka.client.registry-fetch-interval-seconds=1",
            "--eureka.instance.lease-renewal-interval-in-seconds=1",
            // As long as there is nothing to copy at the start.
            "--eureka.server.registry-sync-retry-wait-ms=500",
        ];
        Self::start(programs, jar, log, port, &settings)
    }

    pub(super) async fn ready(&mut self) -> Result<(), Failed> {
        self.process.ready(&format!("{}apps", self.url)).await
    }

    pub(super) async fn stop(self) -> Result<(), Failed> {
        self.process.stop().await
    }
}

/// How an instance stands at a registry: its status, and whether that is an operator's word.
pub(super) async fn standing(registry: &str, service: &str, id: &str) -> String {
    let instance = match instance(registry, service, id).await {
        Ok(Some(instance)) => instance,
        Ok(None) => return "gone".to_owned(),
        Err(error) => return error,
    };
    let text = |field: &str| instance[field].as_str().unwrap_or("nothing").to_owned();
    match (text("status"), &*text("overriddenStatus")) {
        (status, "UNKNOWN") => status,
        (status, overridden) => format!("{status}, told {overridden}"),
    }
}

/// One text of an instance's metadata, as a registry has it.
pub(super) async fn metadata(registry: &str, service: &str, id: &str, name: &str) -> Result<Option<String>, String> {
    let instance = instance(registry, service, id).await?;
    Ok(instance.and_then(|instance| instance["metadata"][name].as_str().map(str::to_owned)))
}

/// An instance's document.
async fn instance(registry: &str, service: &str, id: &str) -> Result<Option<serde_json::Value>, String> {
    let answer = get(&format!("{registry}apps/{}/{id}", service.to_uppercase())).await?;
    match answer.status {
        StatusCode::NOT_FOUND => Ok(None),
        StatusCode::OK => {
            let mut document: serde_json::Value =
                serde_json::from_str(&answer.body).map_err(|error| format!("{}: {error}", answer.body))?;
            Ok(Some(document["instance"].take()))
        }
        _ => Err(format!("{answer:?}")),
    }
}

/// What an operator says of an instance, or takes back.
pub(super) async fn operator(registry: &str, service: &str, id: &str, status: Option<&str>) -> Result<(), Failed> {
    let path = format!("{registry}apps/{}/{id}/status", service.to_uppercase());
    let answer = match status {
        Some(status) => request(Method::PUT, &format!("{path}?value={status}")).await,
        None => request(Method::DELETE, &path).await,
    };
    match answer? {
        answer if answer.status == StatusCode::OK => Ok(()),
        answer => Err(format!("{path}: {answer:?}").into()),
    }
}
