//! The instances that are registered: ten to an application.

use hopvine::eureka::{DataCenterInfo, Instance, InstanceStatus, LeaseInfo, Port, json};

const PER_APPLICATION: usize = 10;

/// When all of them changed last, at first.
const BORN: u64 = 1_790_000_000_000;

/// Ready-made requests for one instance. The time in them always has thirteen digits, so that it can be set in place.
pub(crate) struct Lease {
    heartbeat: Vec<u8>,
    register: Vec<u8>,
    dirty: u64,
}

impl Lease {
    pub(crate) fn new(number: usize) -> Self {
        let (app, id) = (app(number), id(number));
        let instance = instance(number);
        let mut document = Vec::new();
        json::write_instance(&instance, &mut document);
        let heartbeat = format!(
            "PUT /eureka/apps/{app}/{id}?status=UP&lastDirtyTimestamp={BORN} HTTP/1.1\r\nhost: eureka\r\ncontent-length: 0\r\n\r\n"
        );
        let head = format!(
            "POST /eureka/apps/{app} HTTP/1.1\r\nhost: eureka\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            document.len()
        );
        Self { heartbeat: heartbeat.into(), register: [head.as_bytes(), &document].concat(), dirty: BORN }
    }

    pub(crate) fn heartbeat(&self) -> &[u8] {
        &self.heartbeat
    }

    pub(crate) fn register(&self) -> &[u8] {
        &self.register
    }

    /// The instance has changed: both requests say so from now on.
    pub(crate) fn touch(&mut self) {
        let before = self.dirty.to_string();
        self.dirty += 1;
        let after = self.dirty.to_string();
        for request in [&mut self.heartbeat, &mut self.register] {
            // It stands in both once, and near the end.
            let at = request.windows(before.len()).rposition(|digits| digits == before.as_bytes());
            let at = at.expect("its own time");
            request[at..at + after.len()].copy_from_slice(after.as_bytes());
        }
    }
}

/// `GET` of everything, as Spring's client asks for it.
pub(crate) const FETCH: &[u8] =
    b"GET /eureka/apps HTTP/1.1\r\nhost: eureka\r\naccept: application/json\r\naccept-encoding: gzip\r\n\r\n";

pub(crate) const DELTA: &[u8] =
    b"GET /eureka/apps/delta HTTP/1.1\r\nhost: eureka\r\naccept: application/json\r\naccept-encoding: gzip\r\n\r\n";

fn app(number: usize) -> String {
    format!("SERVICE-{}", number / PER_APPLICATION)
}

fn id(number: usize) -> String {
    format!("host{number}:service-{}:8080", number / PER_APPLICATION)
}

fn instance(number: usize) -> Instance {
    let app = app(number);
    let name = app.to_lowercase();
    let host = format!("host{number}");
    Instance {
        instance_id: Some(id(number).into()),
        host_name: (*host).into(),
        app: app.into(),
        ip_addr: format!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255).into(),
        status: InstanceStatus::Up,
        port: Port { number: 8080, enabled: true },
        data_center_info: Some(DataCenterInfo::MyOwn),
        lease_info: Some(LeaseInfo::default()),
        metadata: [("zone", "z1"), ("management.port", "8080")].into_iter().collect(),
        home_page_url: Some(format!("http://{host}:8080/").into()),
        status_page_url: Some(format!("http://{host}:8080/actuator/info").into()),
        health_check_url: Some(format!("http://{host}:8080/actuator/health").into()),
        vip_address: Some((*name).into()),
        secure_vip_address: Some((*name).into()),
        last_updated_timestamp: Some(BORN - 1),
        last_dirty_timestamp: Some(BORN),
        ..Instance::default()
    }
}
