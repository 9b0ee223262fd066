//! A client that sends what it is told, byte for byte.

use std::{io::Read as _, net::SocketAddr, time::Duration};

use hopvine::registry::{Registry, RegistryHandle, RegistryPolicy};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpSocket, TcpStream},
};

use crate::recordings::Message;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) async fn start(policy: RegistryPolicy) -> RegistryHandle {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    Registry::builder().policy(policy).bind(local).start().await.unwrap()
}

/// A policy under which what is read is never old.
pub(crate) fn fresh() -> RegistryPolicy {
    RegistryPolicy { render_interval: Duration::ZERO, ..RegistryPolicy::default() }
}

/// A connection that may be used again and again.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: BufReader::new(TcpStream::connect(address).await.unwrap()) }
    }

    /// One that takes in little before it is read.
    pub(crate) async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self { stream: BufReader::new(socket.connect(address).await.unwrap()) }
    }

    /// Sends a request and waits for its answer, unzipped.
    pub(crate) async fn send(&mut self, request: &Message) -> Message {
        tokio::time::timeout(PATIENCE, async {
            self.write(request).await;
            self.read(request.method == "HEAD").await
        })
        .await
        .unwrap_or_else(|_| panic!("no answer to {} {}", request.method, request.path))
    }

    pub(crate) async fn get(&mut self, path: &str) -> Message {
        self.send(&request("GET", path, &[("Accept", "application/json")], "")).await
    }

    pub(crate) async fn put(&mut self, path: &str) -> Message {
        self.send(&request("PUT", path, &[], "")).await
    }

    pub(crate) async fn delete(&mut self, path: &str) -> Message {
        self.send(&request("DELETE", path, &[], "")).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Message {
        let json = [("Content-Type", "application/json"), ("Accept", "application/json")];
        self.send(&request("POST", path, &json, body)).await
    }

    pub(crate) async fn write(&mut self, request: &Message) {
        let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.path);
        let mut is_chunked = false;
        for (name, value) in &request.headers {
            match &*name.to_ascii_lowercase() {
                "content-length" | "connection" => continue,
                "transfer-encoding" => is_chunked = true,
                _ => {}
            }
            head.extend([name, ": ", value, "\r\n"]);
        }
        if request.header("host").is_none() {
            head += "Host: registry\r\n";
        }
        let body = &request.body;
        if is_chunked {
            let (first, second) = body.split_at(body.len() / 2);
            head += "\r\n";
            for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
                head.extend([&*format!("{:x}", part.len()), "\r\n", part, "\r\n"]);
            }
            head += "0\r\n\r\n";
        } else if body.is_empty() {
            head += "\r\n";
        } else {
            head.extend(["Content-Length: ", &*body.len().to_string(), "\r\n\r\n", body]);
        }
        self.stream.get_mut().write_all(head.as_bytes()).await.unwrap();
    }

    pub(crate) async fn read(&mut self, no_body: bool) -> Message {
        let mut answer = self.read_head().await;
        let mut body = Vec::new();
        if answer.header("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
            while let Some(chunk) = self.chunk().await {
                body.extend(chunk);
            }
        } else if !no_body {
            let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            body.resize(length, 0);
            self.stream.read_exact(&mut body).await.unwrap();
        }
        if answer.header("content-encoding").is_some_and(|encoding| encoding == "gzip") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
            body = plain;
        }
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    pub(crate) async fn read_head(&mut self) -> Message {
        let status = self.line().await;
        let status = status.split(' ').nth(1).unwrap_or_else(|| panic!("no answer: {status:?}")).parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Message { status, headers, ..Message::default() }
    }

    /// The next chunk of a body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(self.line().await.trim(), 16).ok()?;
        let mut chunk = vec![0; length];
        self.stream.read_exact(&mut chunk).await.ok()?;
        self.line().await;
        (length > 0).then_some(chunk)
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.stream.read_line(&mut line).await;
        line.trim_end().to_owned()
    }

    /// Whether the server closes the connection, within the patience of a test.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.is_ok()
    }
}

pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Message {
    Message {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.to_owned(),
        ..Message::default()
    }
}

/// What an instance registers with.
pub(crate) fn registration(app: &str, id: &str, status: &str) -> String {
    format!(
        r#"{{"instance":{{"instanceId":"{id}","hostName":"host1","app":"{app}","ipAddr":"10.0.0.1","status":"{status}",
        "port":{{"$":8080,"@enabled":"true"}},"vipAddress":"{}","dataCenterInfo":{{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
        "name":"MyOwn"}},"lastDirtyTimestamp":"1700000000000"}}}}"#,
        app.to_lowercase()
    )
}
