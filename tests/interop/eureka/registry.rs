use std::{path::Path, process::Command};

use http::{Method, StatusCode};
use libtest_mimic::Failed;

use super::service::java;
use crate::support::{Process, get, request};

/// Spring Cloud's server.
pub(super) struct JavaServer {
    process: Process,
    url: String,
}

impl JavaServer {
    /// Starts it on a port of 127.0.0.1. Its log has the given name.
    pub(super) fn start(programs: &Path, jar: &str, name: &str, port: u16, more: &[String]) -> Result<Self, Failed> {
        let mut command: Command = java(programs, jar, port);
        command.args([
            // Lists are as fresh as they are asked for; leases end.
            "--eureka.server.use-read-only-response-cache=false",
            "--eureka.server.enable-self-preservation=false",
            "--eureka.server.eviction-interval-timer-in-ms=500",
        ]);
        let process = Process::start(name, command.args(more))?;
        Ok(Self { process, url: format!("http://127.0.0.1:{port}/eureka/") })
    }

    /// One that has no peers.
    pub(super) fn alone(programs: &Path, jar: &str, name: &str, port: u16) -> Result<Self, Failed> {
        let alone = ["--eureka.client.register-with-eureka=false", "--eureka.client.fetch-registry=false"];
        Self::start(programs, jar, name, port, &alone.map(str::to_owned))
    }

    pub(super) fn url(&self) -> &str {
        &self.url
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
    let app = service.to_uppercase();
    match get(&format!("{registry}apps/{app}/{id}")).await {
        Ok(answer) if answer.status == StatusCode::NOT_FOUND => "gone".to_owned(),
        Ok(answer) if answer.status == StatusCode::OK => {
            let document: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let text = |field: &str| document["instance"][field].as_str().unwrap_or("?").to_owned();
            match (text("status"), &*text("overriddenStatus")) {
                (status, "UNKNOWN") => status,
                (status, overridden) => format!("{status}, told {overridden}"),
            }
        }
        answer => format!("{answer:?}"),
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
