use std::{fmt::Display, sync::Arc};

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::eureka::{
    ActionType, Application, Applications, DataCenterInfo, Form, Instance, LeaseInfo, Metadata, Port, field::Field,
    metadata::EMPTY_MAP,
};

/// Writes `{"instance":{...}}`: what a server says of one instance, and what an instance registers with. There is no compact form of it.
pub fn write_instance(instance: &Instance, document: &mut Vec<u8>) {
    write(&Root(Field::Instance, Full(instance)), document);
}

/// Writes `{"application":{...}}`.
pub fn write_application(application: &Application, form: Form, document: &mut Vec<u8>) {
    write(&Root(Field::Application, InForm(application, form)), document);
}

/// Writes `{"applications":{...}}`: a registry, or a delta.
pub fn write_applications(applications: &Applications, form: Form, document: &mut Vec<u8>) {
    write(&Root(Field::Applications, InForm(applications, form)), document);
}

pub(super) fn write(value: &impl Serialize, document: &mut Vec<u8>) {
    let written = serde_json::to_writer(document, value);
    debug_assert!(written.is_ok(), "a vector takes all bytes, and all keys are texts");
}

/// A value under the one key of a document.
struct Root<T>(Field, T);

impl<T: Serialize> Serialize for Root<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.0.as_str(), &self.1)])
    }
}

struct InForm<'a, T: ?Sized>(&'a T, Form);

impl Serialize for InForm<'_, Applications> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(applications, form) = self;
        let list = InForm(&*applications.applications, *form);
        let mut fields = Fields(serializer.serialize_map(None)?);
        if *form == Form::Compact {
            fields.put(Field::Application, &list)?;
        }
        fields.put(Field::Version, &AsText(applications.version))?;
        fields.put(Field::Hash, &*applications.hash)?;
        if *form == Form::Full {
            fields.put(Field::Application, &list)?;
        }
        fields.0.end()
    }
}

impl Serialize for InForm<'_, [Application]> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|application| InForm(application, self.1)))
    }
}

impl Serialize for InForm<'_, Application> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(application, form) = self;
        let mut fields = Fields(serializer.serialize_map(None)?);
        fields.put(Field::Name, &*application.name)?;
        fields.put(Field::Instance, &InForm(&*application.instances, *form))?;
        fields.0.end()
    }
}

impl Serialize for InForm<'_, [Arc<Instance>]> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.1 {
            Form::Full => serializer.collect_seq(self.0.iter().map(|instance| Full(instance))),
            Form::Compact => serializer.collect_seq(self.0.iter().map(|instance| Compact(instance))),
        }
    }
}

/// An instance with all its fields, in the order of Java's own codec.
pub(super) struct Full<'a>(pub(super) &'a Instance);

impl Serialize for Full<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let instance = self.0;
        let mut fields = Fields(serializer.serialize_map(None)?);
        fields.put_some(Field::InstanceId, instance.instance_id.as_deref())?;
        fields.put(Field::HostName, &*instance.host_name)?;
        fields.put(Field::App, &*instance.app)?;
        fields.put(Field::IpAddr, &*instance.ip_addr)?;
        fields.put_some(Field::Sid, instance.sid_to_tell())?;
        fields.put(Field::Status, instance.status.as_str())?;
        fields.put(Field::OverriddenStatus, instance.overridden_status.as_str())?;
        fields.put(Field::Port, &InObject(&instance.port))?;
        fields.put(Field::SecurePort, &InObject(&instance.secure_port))?;
        fields.put(Field::CountryId, &instance.country_id)?;
        fields.put_some(Field::DataCenterInfo, instance.data_center_info.as_ref().map(InObject))?;
        fields.put_some(Field::LeaseInfo, instance.lease_info.as_ref().map(InObject))?;
        fields.put(Field::Metadata, &InObject(&instance.metadata))?;
        fields.put_some(Field::AppGroupName, instance.app_group_name.as_deref())?;
        fields.put_some(Field::HomePageUrl, instance.home_page_url.as_deref())?;
        fields.put_some(Field::StatusPageUrl, instance.status_page_url.as_deref())?;
        fields.put_some(Field::HealthCheckUrl, instance.health_check_url.as_deref())?;
        fields.put_some(Field::SecureHealthCheckUrl, instance.secure_health_check_url.as_deref())?;
        fields.put_some(Field::VipAddress, instance.vip_address.as_deref())?;
        fields.put_some(Field::SecureVipAddress, instance.secure_vip_address.as_deref())?;
        let coordinating = if instance.is_coordinating_discovery_server { "true" } else { "false" };
        fields.put(Field::IsCoordinatingDiscoveryServer, coordinating)?;
        fields.put_some(Field::LastUpdatedTimestamp, instance.last_updated_timestamp.map(AsText))?;
        fields.put_some(Field::LastDirtyTimestamp, instance.last_dirty_timestamp.map(AsText))?;
        fields.put_some(Field::ActionType, instance.action_type.map(ActionType::as_str))?;
        fields.put_some(Field::AsgName, instance.asg_name.as_deref())?;
        fields.0.end()
    }
}

/// An instance with what is needed to call it, in the order of Java's codec for that.
struct Compact<'a>(&'a Instance);

impl Serialize for Compact<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let instance = self.0;
        let mut fields = Fields(serializer.serialize_map(None)?);
        fields.put_some(Field::InstanceId, instance.instance_id.as_deref())?;
        fields.put(Field::App, &*instance.app)?;
        fields.put(Field::IpAddr, &*instance.ip_addr)?;
        fields.put_some(Field::VipAddress, instance.vip_address.as_deref())?;
        fields.put_some(Field::SecureVipAddress, instance.secure_vip_address.as_deref())?;
        fields.put_some(Field::DataCenterInfo, instance.data_center_info.as_ref().map(InObject))?;
        fields.put(Field::HostName, &*instance.host_name)?;
        fields.put(Field::Status, instance.status.as_str())?;
        fields.put_some(Field::LastUpdatedTimestamp, instance.last_updated_timestamp)?;
        fields.put_some(Field::ActionType, instance.action_type.map(ActionType::as_str))?;
        fields.put_some(Field::AsgName, instance.asg_name.as_deref())?;
        fields.put(Field::Port, &InObject(&instance.port))?;
        fields.put(Field::SecurePort, &InObject(&instance.secure_port))?;
        fields.0.end()
    }
}

/// A part of an instance that is an object of its own.
struct InObject<'a, T>(&'a T);

impl Serialize for InObject<'_, Port> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields(serializer.serialize_map(None)?);
        fields.put(Field::PortNumber, &self.0.number)?;
        fields.put(Field::PortEnabled, if self.0.enabled { "true" } else { "false" })?;
        fields.0.end()
    }
}

impl Serialize for InObject<'_, DataCenterInfo> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = Fields(serializer.serialize_map(None)?);
        fields.put(Field::Class, self.0.class())?;
        fields.put_some(Field::Name, self.0.name())?;
        if let DataCenterInfo::Amazon(metadata) = self.0 {
            fields.put(Field::Metadata, &Plain(metadata))?;
        }
        fields.0.end()
    }
}

impl Serialize for InObject<'_, LeaseInfo> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let lease = self.0;
        let mut fields = Fields(serializer.serialize_map(None)?);
        fields.put(Field::RenewalIntervalInSecs, &lease.renewal_interval_in_secs)?;
        fields.put(Field::DurationInSecs, &lease.duration_in_secs)?;
        fields.put(Field::RegistrationTimestamp, &lease.registration_timestamp)?;
        fields.put(Field::LastRenewalTimestamp, &lease.last_renewal_timestamp)?;
        fields.put(Field::EvictionTimestamp, &lease.eviction_timestamp)?;
        fields.put(Field::ServiceUpTimestamp, &lease.service_up_timestamp)?;
        fields.0.end()
    }
}

/// Java marks an empty map with its class, for clients long gone.
impl Serialize for InObject<'_, Metadata> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() {
            return serializer.collect_map([(Field::Class.as_str(), EMPTY_MAP)]);
        }
        Plain(self.0).serialize(serializer)
    }
}

/// Metadata without that mark.
struct Plain<'a>(&'a Metadata);

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

/// A number where Java writes a text.
pub(super) struct AsText<T>(pub(super) T);

impl<T: Display> Serialize for AsText<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The fields of an object, one after the other.
pub(super) struct Fields<M>(pub(super) M);

impl<M: SerializeMap> Fields<M> {
    pub(super) fn put<T: Serialize + ?Sized>(&mut self, field: Field, value: &T) -> Result<(), M::Error> {
        self.0.serialize_entry(field.as_str(), value)
    }

    /// What is absent is left out: `null` would break some readers.
    pub(super) fn put_some<T: Serialize>(&mut self, field: Field, value: Option<T>) -> Result<(), M::Error> {
        value.map_or(Ok(()), |value| self.put(field, &value))
    }
}
