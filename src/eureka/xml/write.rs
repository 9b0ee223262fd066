use std::{fmt::Display, io::Write as _};

use super::{element::is_character, name};
use crate::eureka::{
    ActionType, Application, Applications, DataCenterInfo, Form, Instance, LeaseInfo, Metadata, Port, field::Field,
    metadata::EMPTY_MAP,
};

/// Writes `<instance>`: what a server says of one instance, and what an instance may register with. There is no compact form of it.
pub fn write_instance(instance: &Instance, document: &mut Vec<u8>) {
    Elements::new(document, Form::Full).full(instance);
}

/// Writes `<application>`.
pub fn write_application(application: &Application, form: Form, document: &mut Vec<u8>) {
    Elements::new(document, form).application(application, form);
}

/// Writes `<applications>`: a registry, or a delta.
pub fn write_applications(applications: &Applications, form: Form, document: &mut Vec<u8>) {
    Elements::new(document, form).applications(applications, form);
}

/// The document as far as it is written.
struct Elements<'d> {
    document: &'d mut Vec<u8>,
    /// The full form is indented, the compact one stands on one line.
    indented: bool,
    begun: bool,
    depth: usize,
}

impl<'d> Elements<'d> {
    fn new(document: &'d mut Vec<u8>, form: Form) -> Self {
        Self { document, indented: form == Form::Full, begun: false, depth: 0 }
    }

    fn applications(&mut self, applications: &Applications, form: Form) {
        self.element(Field::Applications.as_str(), None, |inside| {
            let list = |inside: &mut Self| {
                for application in &applications.applications {
                    inside.application(application, form);
                }
            };
            if form == Form::Compact {
                list(inside);
            }
            inside.number(Field::Version, applications.version);
            inside.text(Field::Hash, &applications.hash);
            if form == Form::Full {
                list(inside);
            }
        });
    }

    fn application(&mut self, application: &Application, form: Form) {
        self.element(Field::Application.as_str(), None, |inside| {
            inside.text(Field::Name, &application.name);
            for instance in &application.instances {
                match form {
                    Form::Full => inside.full(instance),
                    Form::Compact => inside.compact(instance),
                }
            }
        });
    }

    /// An instance with all its fields, in the order of Java's own codec.
    fn full(&mut self, instance: &Instance) {
        self.element(Field::Instance.as_str(), None, |inside| {
            inside.text_if_some(Field::InstanceId, instance.instance_id.as_deref());
            inside.text(Field::HostName, &instance.host_name);
            inside.text(Field::App, &instance.app);
            inside.text(Field::IpAddr, &instance.ip_addr);
            inside.text_if_some(Field::Sid, instance.sid_to_tell());
            inside.text(Field::Status, instance.status.as_str());
            // In XML, and there alone, in lower case.
            inside.leaf("overriddenstatus", None, instance.overridden_status.as_str());
            inside.ports(instance);
            inside.number(Field::CountryId, instance.country_id);
            inside.data_center_info(instance.data_center_info.as_ref());
            if let Some(lease) = &instance.lease_info {
                inside.lease_info(lease);
            }
            inside.metadata(&instance.metadata);
            inside.text_if_some(Field::AppGroupName, instance.app_group_name.as_deref());
            inside.text_if_some(Field::HomePageUrl, instance.home_page_url.as_deref());
            inside.text_if_some(Field::StatusPageUrl, instance.status_page_url.as_deref());
            inside.text_if_some(Field::HealthCheckUrl, instance.health_check_url.as_deref());
            inside.text_if_some(Field::SecureHealthCheckUrl, instance.secure_health_check_url.as_deref());
            inside.text_if_some(Field::VipAddress, instance.vip_address.as_deref());
            inside.text_if_some(Field::SecureVipAddress, instance.secure_vip_address.as_deref());
            inside.number(Field::IsCoordinatingDiscoveryServer, instance.is_coordinating_discovery_server);
            inside.number_if_some(Field::LastUpdatedTimestamp, instance.last_updated_timestamp);
            inside.number_if_some(Field::LastDirtyTimestamp, instance.last_dirty_timestamp);
            inside.text_if_some(Field::ActionType, instance.action_type.map(ActionType::as_str));
            inside.text_if_some(Field::AsgName, instance.asg_name.as_deref());
        });
    }

    /// An instance with what is needed to call it, in the order of Java's codec for that.
    fn compact(&mut self, instance: &Instance) {
        self.element(Field::Instance.as_str(), None, |inside| {
            inside.text_if_some(Field::InstanceId, instance.instance_id.as_deref());
            inside.text(Field::App, &instance.app);
            inside.text(Field::IpAddr, &instance.ip_addr);
            inside.text_if_some(Field::VipAddress, instance.vip_address.as_deref());
            inside.text_if_some(Field::SecureVipAddress, instance.secure_vip_address.as_deref());
            inside.data_center_info(instance.data_center_info.as_ref());
            inside.text(Field::HostName, &instance.host_name);
            inside.text(Field::Status, instance.status.as_str());
            inside.number_if_some(Field::LastUpdatedTimestamp, instance.last_updated_timestamp);
            inside.text_if_some(Field::ActionType, instance.action_type.map(ActionType::as_str));
            inside.text_if_some(Field::AsgName, instance.asg_name.as_deref());
            inside.ports(instance);
        });
    }

    fn ports(&mut self, instance: &Instance) {
        let mut port = |field: Field, port: Port| {
            let enabled = if port.enabled { "true" } else { "false" };
            self.start(field.as_str(), Some(("enabled", enabled)));
            self.display(port.number);
            self.end(field.as_str());
        };
        port(Field::Port, instance.port);
        port(Field::SecurePort, instance.secure_port);
    }

    fn data_center_info(&mut self, data_center: Option<&DataCenterInfo>) {
        let Some(data_center) = data_center else { return };
        self.element(Field::DataCenterInfo.as_str(), Some(("class", data_center.class())), |inside| {
            inside.text_if_some(Field::Name, data_center.name());
            if let DataCenterInfo::Amazon(metadata) = data_center {
                inside.metadata(metadata);
            }
        });
    }

    fn lease_info(&mut self, lease: &LeaseInfo) {
        self.element(Field::LeaseInfo.as_str(), None, |inside| {
            inside.number(Field::RenewalIntervalInSecs, lease.renewal_interval_in_secs);
            inside.number(Field::DurationInSecs, lease.duration_in_secs);
            inside.number(Field::RegistrationTimestamp, lease.registration_timestamp);
            inside.number(Field::LastRenewalTimestamp, lease.last_renewal_timestamp);
            inside.number(Field::EvictionTimestamp, lease.eviction_timestamp);
            inside.number(Field::ServiceUpTimestamp, lease.service_up_timestamp);
        });
    }

    fn metadata(&mut self, metadata: &Metadata) {
        // XML has no element without a name.
        let named = || metadata.iter().filter(|(name, _)| !name.is_empty());
        if named().next().is_none() {
            self.indent();
            let _ = write!(self.document, "<{} class=\"{EMPTY_MAP}\"/>", Field::Metadata.as_str());
            return;
        }
        self.element(Field::Metadata.as_str(), None, |inside| {
            for (name, text) in named() {
                inside.leaf(&name::encode(name), None, text);
            }
        });
    }

    fn text_if_some(&mut self, field: Field, text: Option<&str>) {
        if let Some(text) = text {
            self.text(field, text);
        }
    }

    fn text(&mut self, field: Field, text: &str) {
        self.leaf(field.as_str(), None, text);
    }

    fn number_if_some(&mut self, field: Field, number: Option<impl Display>) {
        if let Some(number) = number {
            self.number(field, number);
        }
    }

    fn number(&mut self, field: Field, number: impl Display) {
        self.start(field.as_str(), None);
        self.display(number);
        self.end(field.as_str());
    }

    /// An element with a text in it.
    fn leaf(&mut self, name: &str, attribute: Option<(&str, &str)>, text: &str) {
        self.start(name, attribute);
        escape(text, self.document);
        self.end(name);
    }

    /// An element with elements in it.
    fn element(&mut self, name: &str, attribute: Option<(&str, &str)>, write: impl FnOnce(&mut Self)) {
        self.start(name, attribute);
        self.depth += 1;
        write(self);
        self.depth -= 1;
        self.indent();
        self.end(name);
    }

    fn start(&mut self, name: &str, attribute: Option<(&str, &str)>) {
        self.indent();
        self.document.push(b'<');
        self.document.extend_from_slice(name.as_bytes());
        if let Some((key, value)) = attribute {
            for part in [" ", key, "=\"", value, "\""] {
                self.document.extend_from_slice(part.as_bytes());
            }
        }
        self.document.push(b'>');
    }

    fn end(&mut self, name: &str) {
        self.document.extend_from_slice(b"</");
        self.document.extend_from_slice(name.as_bytes());
        self.document.push(b'>');
    }

    fn display(&mut self, value: impl Display) {
        let _ = write!(self.document, "{value}");
    }

    fn indent(&mut self) {
        if self.indented && self.begun {
            self.document.push(b'\n');
            self.document.resize(self.document.len() + 2 * self.depth, b' ');
        }
        self.begun = true;
    }
}

/// Writes a text as `XStream` escapes it; but what XML cannot hold at all, which it would write and no parser read, is the replacement character.
fn escape(text: &str, document: &mut Vec<u8>) {
    let mut written = 0;
    for (at, character) in text.char_indices() {
        let escaped: &str = match character {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&quot;",
            '\'' => "&apos;",
            '\r' => "&#xd;",
            _ if is_character(character) => continue,
            _ => "\u{fffd}",
        };
        document.extend_from_slice(&text.as_bytes()[written..at]);
        document.extend_from_slice(escaped.as_bytes());
        written = at + character.len_utf8();
    }
    document.extend_from_slice(&text.as_bytes()[written..]);
}
