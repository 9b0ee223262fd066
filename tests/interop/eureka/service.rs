use std::{path::Path, process::Command};

use http::StatusCode;
use libtest_mimic::Failed;

use crate::support::{Process, free_port, get, install};

/// A service that is not ours: registered, called, and calling.
pub(super) struct Service {
    pub(super) name: String,
    pub(super) id: String,
    process: Process,
    url: String,
}

/// A Java program on a port of 127.0.0.1.
pub(super) fn java(programs: &Path, jar: &str, port: u16) -> Command {
    let folder = programs.join(jar);
    let mut command = Command::new("java");
    command
        // Quick to start and small, instead of quick in the long run; what it leaves behind when it is killed, it leaves here.
        .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx96m"])
        .arg(format!("-Djava.io.tmpdir={}", folder.display()))
        .arg("-jar")
        .arg(folder.join(format!("{jar}.jar")))
        .args([&format!("--server.port={port}"), "--server.address=127.0.0.1", "--spring.main.banner-mode=off"]);
    command
}

impl Service {
    /// A Spring service, with the settings that choose its transport. `registry` may be several URLs with commas between.
    pub(super) fn java(programs: &Path, jar: &str, name: &str, registry: &str, more: &[&str]) -> Result<Self, Failed> {
        let port = free_port()?;
        let mut command = java(programs, jar, port);
        command
            .args([
                &format!("--spring.application.name={name}"),
                &format!("--eureka.instance.instance-id={name}:{port}"),
                &format!("--eureka.client.service-url.defaultZone={registry}"),
            ])
            .args([
                "--eureka.instance.hostname=127.0.0.1",
                "--eureka.instance.lease-renewal-interval-in-seconds=1",
                "--eureka.instance.lease-expiration-duration-in-seconds=10",
                "--eureka.client.registry-fetch-interval-seconds=1",
                // What is known is used at once; and in the old train by the same load balancer as in the new ones.
                "--spring.cloud.loadbalancer.cache.enabled=false",
                "--spring.cloud.loadbalancer.ribbon.enabled=false",
            ])
            .args(more);
        Self::start(name, port, &mut command)
    }

    pub(super) fn node(modules: &Path, name: &str, registry_port: u16, deltas: bool) -> Result<Self, Failed> {
        let port = free_port()?;
        let mut command = Command::new("node");
        command.env("NODE_PATH", modules.join("node_modules")).arg(install::sources("node").join("client.js")).args([
            name,
            &port.to_string(),
            &registry_port.to_string(),
            if deltas { "deltas" } else { "full" },
        ]);
        Self::start(name, port, &mut command)
    }

    pub(super) fn python(environment: &Path, name: &str, registry: &str) -> Result<Self, Failed> {
        let port = free_port()?;
        let mut command = Command::new(environment.join("bin/python"));
        command.arg(install::sources("python").join("client.py")).args([name, &port.to_string(), registry]);
        Self::start(name, port, &mut command)
    }

    fn start(name: &str, port: u16, command: &mut Command) -> Result<Self, Failed> {
        let process = Process::start(name, command)?;
        Ok(Self {
            name: name.to_owned(),
            id: format!("{name}:{port}"),
            process,
            url: format!("http://127.0.0.1:{port}"),
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) async fn ready(&mut self) -> Result<(), Failed> {
        self.process.ready(&format!("{}/hello", self.url)).await
    }

    /// The instances of a service that it would call.
    pub(super) async fn instances(&self, service: &str) -> Result<Vec<String>, String> {
        let body = self.get(&format!("instances/{service}")).await?;
        let mut instances: Vec<String> = serde_json::from_str(&body).map_err(|error| format!("{body}: {error}"))?;
        instances.sort();
        Ok(instances)
    }

    /// What it is answered when it calls a service.
    pub(super) async fn call(&self, service: &str) -> Result<String, String> {
        self.get(&format!("call/{service}")).await
    }

    async fn get(&self, path: &str) -> Result<String, String> {
        let answer = get(&format!("{}/{path}", self.url)).await?;
        if answer.status == StatusCode::OK { Ok(answer.body) } else { Err(format!("{answer:?}")) }
    }

    /// Stops it as an operator would.
    pub(super) async fn stop(self) -> Result<(), Failed> {
        self.process.stop().await
    }
}
