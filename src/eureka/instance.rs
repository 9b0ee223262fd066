use std::fmt;

use super::{InstanceStatus, Metadata, Text};

/// One instance as Eureka knows it: what it registered, and what the server added.
///
/// Fields have the names of the wire, in our spelling. `Default` is what a Java server takes for granted where a field is absent. Texts are shared: those of one
/// document that are the same are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name among the instances of its application; see [`id`](Self::id).
    pub instance_id: Option<Text>,
    /// The name it is reached by; empty if it said none.
    pub host_name: Text,
    /// The application, in upper case; empty if it said none.
    pub app: Text,
    /// The address it is reached by; empty if it said none.
    pub ip_addr: Text,
    /// Long out of use.
    pub sid: Option<Text>,
    /// What it is doing.
    pub status: InstanceStatus,
    /// What an operator set; [`Unknown`](InstanceStatus::Unknown) is nothing.
    pub overridden_status: InstanceStatus,
    /// The port in the clear.
    pub port: Port,
    /// The port over TLS.
    pub secure_port: Port,
    /// Long out of use.
    pub country_id: i32,
    /// Where it runs.
    pub data_center_info: Option<DataCenterInfo>,
    /// How long it may be silent, and since when it is what.
    pub lease_info: Option<LeaseInfo>,
    /// Whatever else it says.
    pub metadata: Metadata,
    /// A group of applications, in upper case.
    pub app_group_name: Option<Text>,
    /// A page for people.
    pub home_page_url: Option<Text>,
    /// A page about its state.
    pub status_page_url: Option<Text>,
    /// Where its health can be asked.
    pub health_check_url: Option<Text>,
    /// Where its health can be asked over TLS.
    pub secure_health_check_url: Option<Text>,
    /// Virtual names it serves, with commas between.
    pub vip_address: Option<Text>,
    /// Virtual names it serves over TLS, with commas between.
    pub secure_vip_address: Option<Text>,
    /// Whether it is the server that answered.
    pub is_coordinating_discovery_server: bool,
    /// When the server changed it last, in milliseconds since 1970; a server sets it where it is absent.
    pub last_updated_timestamp: Option<u64>,
    /// When the instance changed itself last, in milliseconds since 1970; a server sets it where it is absent.
    pub last_dirty_timestamp: Option<u64>,
    /// What happened to it last.
    pub action_type: Option<ActionType>,
    /// Its Amazon scaling group.
    pub asg_name: Option<Text>,
}

impl Default for Instance {
    fn default() -> Self {
        Self {
            instance_id: None,
            host_name: Text::new(),
            app: Text::new(),
            ip_addr: Text::new(),
            sid: None,
            status: InstanceStatus::Up,
            overridden_status: InstanceStatus::Unknown,
            port: Port { number: 7001, enabled: true },
            secure_port: Port { number: 7002, enabled: false },
            country_id: 1,
            data_center_info: None,
            lease_info: None,
            metadata: Metadata::default(),
            app_group_name: None,
            home_page_url: None,
            status_page_url: None,
            health_check_url: None,
            secure_health_check_url: None,
            vip_address: None,
            secure_vip_address: None,
            is_coordinating_discovery_server: false,
            last_updated_timestamp: None,
            last_dirty_timestamp: None,
            action_type: None,
            asg_name: None,
        }
    }
}

/// What Java says where there is no `sid`.
pub(super) fn is_no_sid(sid: &str) -> bool {
    matches!(sid, "na" | "unknown")
}

impl Instance {
    /// The name under which the server keeps it: its instance id, or else Amazon's, or else its host name.
    pub fn id(&self) -> &str {
        let given = self.instance_id.as_deref().filter(|id| !id.is_empty());
        given.or_else(|| self.amazon("instance-id").filter(|id| !id.is_empty())).unwrap_or(&self.host_name)
    }

    /// What is taken of one that is beyond the limits: what the hash and its leaving go by, and nothing by which it could be called.
    pub(super) fn reduced(self) -> Self {
        let id = Some(self.id()).filter(|id| !id.is_empty()).map(Text::from);
        Self { instance_id: id, app: self.app, status: self.status, action_type: self.action_type, ..Self::default() }
    }

    /// What Amazon says of it under this name, if it runs there.
    pub fn amazon(&self, name: &str) -> Option<&str> {
        match &self.data_center_info {
            Some(DataCenterInfo::Amazon(metadata)) => metadata.get(name),
            _ => None,
        }
    }

    /// The `sid` that is told: not what stands for none.
    pub(super) fn sid_to_tell(&self) -> Option<&str> {
        self.sid.as_deref().filter(|sid| !is_no_sid(sid))
    }

    /// Whether it serves this virtual name, as the server compares: exactly, spaces included.
    pub fn serves_vip(&self, vip: &str) -> bool {
        names(self.vip_address.as_deref()).any(|name| name == vip)
    }

    /// Whether it serves this virtual name over TLS, as the server compares.
    pub fn serves_secure_vip(&self, vip: &str) -> bool {
        names(self.secure_vip_address.as_deref()).any(|name| name == vip)
    }

    /// Whether it serves this virtual name, as clients compare: in any case.
    pub fn serves_vip_in_any_case(&self, vip: &str) -> bool {
        names(self.vip_address.as_deref()).any(|name| name.eq_ignore_ascii_case(vip))
    }
}

fn names(addresses: Option<&str>) -> impl Iterator<Item = &str> {
    addresses.into_iter().flat_map(|addresses| addresses.split(','))
}

/// A port, and whether it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its number; what a Java server took for one, which may be none.
    pub number: i32,
    /// Whether it is used.
    pub enabled: bool,
}

/// Where an instance runs. Its class on the wire follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataCenterInfo {
    /// A data centre of one's own: everybody but Netflix and Amazon.
    MyOwn,
    /// Netflix's.
    Netflix,
    /// Amazon's, and what it says of the instance.
    Amazon(Metadata),
    /// It said that it runs somewhere, but not where: no server takes that.
    Unnamed,
}

impl DataCenterInfo {
    /// Its name on the wire, if it has one.
    pub const fn name(&self) -> Option<&'static str> {
        match self {
            Self::MyOwn => Some("MyOwn"),
            Self::Netflix => Some("Netflix"),
            Self::Amazon(_) => Some("Amazon"),
            Self::Unnamed => None,
        }
    }

    /// Its Java class, which is part of the document.
    pub(super) const fn class(&self) -> &'static str {
        match self {
            Self::Amazon(_) => "com.netflix.appinfo.AmazonInfo",
            _ => "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo",
        }
    }
}

/// How long an instance may be silent, which it says; and the server's record, in milliseconds since 1970, 0 for never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Seconds between its heartbeats.
    pub renewal_interval_in_secs: u32,
    /// Seconds after which a silent one is gone.
    pub duration_in_secs: u32,
    /// When it registered.
    pub registration_timestamp: u64,
    /// When it was heard of; after a heartbeat a Java server adds the duration.
    pub last_renewal_timestamp: u64,
    /// When it left or was evicted.
    pub eviction_timestamp: u64,
    /// When it was up first.
    pub service_up_timestamp: u64,
}

impl Default for LeaseInfo {
    fn default() -> Self {
        Self {
            renewal_interval_in_secs: 30,
            duration_in_secs: 90,
            registration_timestamp: 0,
            last_renewal_timestamp: 0,
            eviction_timestamp: 0,
            service_up_timestamp: 0,
        }
    }
}

/// What happened to an instance last: what a delta is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionType {
    /// It registered.
    Added,
    /// Its status was changed by an operator.
    Modified,
    /// It left.
    Deleted,
}

impl ActionType {
    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }

    /// The action of this name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Added, Self::Modified, Self::Deleted].into_iter().find(|action| action.as_str() == name)
    }
}

impl fmt::Display for ActionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
