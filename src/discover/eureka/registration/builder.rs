use std::{net::IpAddr, sync::Arc};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    Registration, RegistrationPolicy, RegistrationView, address,
    handle::Leaving,
    health::HealthCheck,
    lease::{Desired, Lease, State},
};
use crate::{
    Policy as _,
    discover::eureka::{InvalidEureka, Servers, calls::Calls},
    eureka::{DataCenterInfo, Instance, InstanceStatus, LeaseInfo, Metadata, Port, Text},
};

/// Puts a [`Registration`] together. What is not said:
///
/// | | default |
/// |---|---|
/// | `host_name` | this machine's name, as the system has it |
/// | `ip_address` | of the interfaces that are up, without loopback and link-local ones: IPv4 before IPv6, then the one that the system numbers lowest; 127.0.0.1 if there is none. Nothing is sent anywhere to find it. |
/// | `instance_id` | `host:service:port` |
/// | `virtual_name`, `secure_virtual_name` | the service |
/// | `home_page` | `http://host:port/` |
/// | `status_page`, `health_page` | none |
/// | metadata `zone` | [`Servers::zone`](crate::discover::eureka::Servers::zone) |
/// | data centre | `MyOwn` |
///
/// ```
/// use std::time::Duration;
/// use hopvine::{discover::eureka::{Registration, RegistrationPolicy}, eureka::InstanceStatus};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registration = Registration::builder("http://127.0.0.1:1/eureka/", "orders", 8080)
///     .host_name("orders-7.shop.internal")
///     .health_page("/health")
///     .metadata("weight", "2")
///     .health(|| async { InstanceStatus::Up }) // asked each 10 s
///     .policy(RegistrationPolicy { leave_wait: Duration::from_secs(60), ..Default::default() }) // for Java callers
///     .start()?;
/// assert_eq!(registration.instance().id(), "orders-7.shop.internal:orders:8080");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct RegistrationBuilder {
    servers: Result<Servers, InvalidEureka>,
    service: String,
    port: Port,
    secure_port: Port,
    host_name: Option<String>,
    ip_address: Option<IpAddr>,
    by_address: bool,
    instance_id: Option<String>,
    virtual_name: Option<String>,
    secure_virtual_name: Option<String>,
    group: Option<String>,
    pages: [Option<String>; 3],
    metadata: Vec<(Text, Text)>,
    status: Option<InstanceStatus>,
    health: Option<HealthCheck>,
    policy: RegistrationPolicy,
}

impl RegistrationBuilder {
    pub(super) fn new(servers: Result<Servers, InvalidEureka>, service: &str, port: u16) -> Self {
        Self {
            servers,
            service: service.to_owned(),
            port: Port { number: port.into(), enabled: true },
            secure_port: Port { number: 443, enabled: false },
            host_name: None,
            ip_address: None,
            by_address: false,
            instance_id: None,
            virtual_name: None,
            secure_virtual_name: None,
            group: None,
            pages: [Some("/".to_owned()), None, None],
            metadata: Vec::new(),
            status: None,
            health: None,
            policy: RegistrationPolicy::default(),
        }
    }

    /// The name by which others reach us.
    pub fn host_name(mut self, name: &str) -> Self {
        self.host_name = Some(name.to_owned());
        self
    }

    /// The address by which others reach us.
    pub fn ip_address(mut self, address: IpAddr) -> Self {
        self.ip_address = Some(address);
        self
    }

    /// Says the address where the name goes too, for callers that cannot resolve our name.
    pub fn prefer_ip_address(mut self) -> Self {
        self.by_address = true;
        self
    }

    /// Our name among the instances of the service.
    pub fn instance_id(mut self, id: &str) -> Self {
        self.instance_id = Some(id.to_owned());
        self
    }

    /// A port over TLS as well, which callers prefer.
    pub fn secure_port(mut self, port: u16) -> Self {
        self.secure_port = Port { number: port.into(), enabled: true };
        self
    }

    /// The port is one over TLS, and there is none in the clear.
    pub fn secure(mut self) -> Self {
        self.secure_port = Port { number: self.port.number, enabled: true };
        self.port.enabled = false;
        self
    }

    /// The virtual names (VIPs) we serve, with commas between.
    pub fn virtual_name(mut self, names: &str) -> Self {
        self.virtual_name = Some(names.to_owned());
        self
    }

    /// The virtual names we serve over TLS, with commas between.
    pub fn secure_virtual_name(mut self, names: &str) -> Self {
        self.secure_virtual_name = Some(names.to_owned());
        self
    }

    /// The group of applications we belong to.
    pub fn app_group(mut self, group: &str) -> Self {
        self.group = Some(group.to_owned());
        self
    }

    /// A page for people: a path, or a whole URL.
    pub fn home_page(mut self, page: &str) -> Self {
        self.pages[0] = Some(page.to_owned());
        self
    }

    /// A page about our state: a path, or a whole URL.
    pub fn status_page(mut self, page: &str) -> Self {
        self.pages[1] = Some(page.to_owned());
        self
    }

    /// Where others may ask for our health: a path, or a whole URL.
    pub fn health_page(mut self, page: &str) -> Self {
        self.pages[2] = Some(page.to_owned());
        self
    }

    /// One text of the metadata. Clients know `zone`, and ours `weight`.
    pub fn metadata(mut self, name: impl Into<Text>, text: impl Into<Text>) -> Self {
        self.metadata.push((name.into(), text.into()));
        self
    }

    /// What we are from the start, instead of `STARTING` until somebody says otherwise.
    pub fn status(mut self, status: InstanceStatus) -> Self {
        self.status = Some(status);
        self
    }

    /// Asked how we are, every [`health_interval`](RegistrationPolicy::health_interval). With it there is no need of [`Registration::up`]. Of changes to and fro at most four a minute are
    /// told.
    pub fn health<F, Fut>(mut self, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = InstanceStatus> + Send + 'static,
    {
        self.health = Some(HealthCheck::new(check));
        self
    }

    /// Intervals, and how we leave.
    pub fn policy(mut self, policy: RegistrationPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Begins to register.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(mut self) -> Result<Registration, InvalidEureka> {
        let servers = std::mem::replace(&mut self.servers, Err(InvalidEureka::new("urls", "taken")))?;
        self.policy.validate()?;
        let calls = Calls::new(&servers, Instant::now())?;
        let instance = self.instance(&servers)?;
        let desired = Desired { by_hand: self.status, health: None, metadata: instance.metadata.clone(), wish: 0 };
        let desired = Arc::new(watch::Sender::new(desired));
        let (commands, received) = mpsc::channel(4);
        let (view, viewed) = watch::channel(RegistrationView::default());
        let (policy, health) = (self.policy.clone(), self.health);
        let started = Arc::new(instance.clone());
        let lease = Lease { servers, calls, policy, health, instance, view, state: State::default() };
        let task = tokio::spawn(lease.run(Arc::clone(&desired), received));
        Ok(Registration {
            instance: started,
            policy: self.policy,
            desired,
            commands,
            view: viewed,
            leaving: Arc::new(Leaving::default()),
            task,
        })
    }

    fn instance(&self, servers: &Servers) -> Result<Instance, InvalidEureka> {
        let plain = |name: &str| {
            !name.is_empty()
                && name.len() <= 256
                && !name.chars().any(|char| char.is_control() || "/?#%".contains(char))
        };
        if !plain(&self.service) {
            return Err(InvalidEureka::new("service", format!("{:?} is no name of a service", self.service)));
        }
        let ip = self.ip_address.unwrap_or_else(address::ip_address);
        let host = match &self.host_name {
            _ if self.by_address => ip.to_string(),
            Some(name) => name.clone(),
            None => address::host_name().unwrap_or_else(|| ip.to_string()),
        };
        let port = if self.port.enabled { self.port } else { self.secure_port };
        if port.number == 0 {
            return Err(InvalidEureka::new("port", "0: nobody could call us there"));
        }
        let id = self.instance_id.clone().unwrap_or_else(|| format!("{host}:{}:{}", self.service, port.number));
        if id.is_empty() || id.chars().any(char::is_control) {
            return Err(InvalidEureka::new("instance_id", format!("{id:?} is no id")));
        }
        let scheme = if self.port.enabled { "http" } else { "https" };
        // An IPv6 address stands in brackets there.
        let authority =
            if host.contains(':') { format!("[{host}]:{}", port.number) } else { format!("{host}:{}", port.number) };
        let page = |page: &Option<String>| -> Option<Text> {
            let page = page.as_deref()?;
            Some(if page.contains("://") { page.into() } else { format!("{scheme}://{authority}{page}").into() })
        };
        let zone = servers.zone.iter().map(|zone| (Text::from("zone"), Text::from(&**zone)));
        let metadata: Metadata = zone.chain(self.metadata.iter().cloned()).collect();
        let name = |given: &Option<String>| given.clone().unwrap_or_else(|| self.service.clone()).into();
        let seconds = |duration: std::time::Duration| duration.as_secs().clamp(1, i32::MAX as u64) as u32;
        Ok(Instance {
            instance_id: Some(id.into()),
            host_name: host.as_str().into(),
            app: self.service.to_uppercase().into(),
            ip_addr: ip.to_string().into(),
            status: InstanceStatus::Starting,
            port: self.port,
            secure_port: self.secure_port,
            data_center_info: Some(DataCenterInfo::MyOwn),
            lease_info: Some(LeaseInfo {
                renewal_interval_in_secs: seconds(self.policy.heartbeat_interval),
                duration_in_secs: seconds(self.policy.lease_duration),
                ..LeaseInfo::default()
            }),
            metadata,
            app_group_name: self.group.as_ref().map(|group| group.to_uppercase().into()),
            home_page_url: page(&self.pages[0]),
            status_page_url: page(&self.pages[1]),
            health_check_url: page(&self.pages[2]),
            vip_address: Some(name(&self.virtual_name)),
            secure_vip_address: Some(name(&self.secure_virtual_name)),
            ..Instance::default()
        })
    }
}
