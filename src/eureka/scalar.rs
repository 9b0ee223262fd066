use std::borrow::Cow;

use super::{
    ActionType, DataCenterInfo, Instance, InstanceStatus, LeaseInfo, Metadata, Text, field::Field, instance::is_no_sid,
    metadata::put, reading::Reading,
};

/// A value that is not made of others. Writers disagree on whether a number is one or a text, so that readers take either.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar<'a> {
    Null,
    Flag(bool),
    Whole(i128),
    Real(f64),
    Text(&'a str),
}

impl<'a> Scalar<'a> {
    fn string(self) -> Option<Cow<'a, str>> {
        Some(match self {
            Self::Null => return None,
            Self::Flag(flag) => (if flag { "true" } else { "false" }).into(),
            Self::Whole(number) => number.to_string().into(),
            Self::Real(number) => number.to_string().into(),
            Self::Text(text) => text.into(),
        })
    }

    /// As a text, and shared with others of the document if `shared`. `None` is null.
    pub(super) fn text(self, reading: &Reading<'_>, shared: bool) -> Option<Text> {
        self.string().map(|text| reading.text(&text, shared))
    }

    /// As a text in upper case, which may be longer.
    fn upper(self, reading: &Reading<'_>) -> Option<Text> {
        let text = self.string()?;
        let is_upper = text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_lowercase());
        Some(if is_upper { reading.text(&text, true) } else { reading.text(&text.to_uppercase(), true) })
    }

    /// As a whole number. `None` is null, or an empty text.
    pub(super) fn whole<T: TryFrom<i128>>(self) -> Result<Option<T>, String> {
        let number = match self {
            Self::Null => return Ok(None),
            Self::Whole(number) => Some(number),
            Self::Real(number) if number.fract() == 0.0 => Some(number as i128),
            Self::Text(text) if text.trim().is_empty() => return Ok(None),
            // Nearly always it is one that a register holds.
            Self::Text(text) => text.parse::<i64>().map(i128::from).or_else(|_| text.trim().parse()).ok(),
            Self::Flag(_) | Self::Real(_) => None,
        };
        let number = number.ok_or_else(|| format!("{} is not a whole number", self.shown()))?;
        T::try_from(number).map(Some).map_err(|_| format!("{number} is out of range"))
    }

    /// As milliseconds since 1970, as a Java server reads them: what is no number, or is before, is 0.
    fn timestamp(self) -> Option<u64> {
        match self {
            Self::Null => None,
            _ => Some(self.whole::<i64>().ok().flatten().and_then(|time| u64::try_from(time).ok()).unwrap_or(0)),
        }
    }

    /// As yes or no. `None` is null.
    pub(super) fn flag(self) -> Result<Option<bool>, String> {
        match self {
            Self::Null | Self::Text("") => Ok(None),
            Self::Flag(flag) => Ok(Some(flag)),
            Self::Text(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Self::Text(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            _ => Err(format!("{} is neither true nor false", self.shown())),
        }
    }

    /// As seconds, as a Java server reads them: `default` if there are none.
    fn seconds(self, default: u32) -> Result<u32, String> {
        Ok(self
            .whole::<i32>()?
            .and_then(|seconds| u32::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
            .unwrap_or(default))
    }

    /// How it looks in an error: its beginning.
    pub(super) fn shown(self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Flag(flag) => flag.to_string(),
            Self::Whole(number) => number.to_string(),
            Self::Real(number) => number.to_string(),
            Self::Text(text) if text.chars().nth(64).is_some() => {
                format!("{:?}...", text.chars().take(64).collect::<String>())
            }
            Self::Text(text) => format!("{text:?}"),
        }
    }
}

/// Where a scalar goes, and how it is read.
pub(super) enum Slot<'a> {
    /// Absent if null.
    Text(&'a mut Option<Text>),
    /// As [`Text`](Self::Text), and often the same in many instances.
    Shared(&'a mut Option<Text>),
    /// As [`Shared`](Self::Shared), but for what stands for none.
    Sid(&'a mut Option<Text>),
    /// As [`Shared`](Self::Shared), in upper case.
    Upper(&'a mut Option<Text>),
    /// Empty if null.
    Required(&'a mut Text),
    /// The application: required, shared, in upper case.
    App(&'a mut Text),
    Status(&'a mut InstanceStatus),
    Action(&'a mut Option<ActionType>),
    Timestamp(&'a mut Option<u64>),
    LeaseTimestamp(&'a mut u64),
    Seconds(&'a mut u32, u32),
    Number(&'a mut i32),
    Flag(&'a mut bool),
}

impl<'a> Slot<'a> {
    /// The slot of an instance's field, if that is a scalar.
    pub(super) fn of_instance(instance: &'a mut Instance, field: Field) -> Option<Self> {
        Some(match field {
            Field::InstanceId => Self::Text(&mut instance.instance_id),
            Field::HostName => Self::Required(&mut instance.host_name),
            Field::App => Self::App(&mut instance.app),
            Field::IpAddr => Self::Required(&mut instance.ip_addr),
            Field::Sid => Self::Sid(&mut instance.sid),
            Field::Status => Self::Status(&mut instance.status),
            Field::OverriddenStatus => Self::Status(&mut instance.overridden_status),
            Field::CountryId => Self::Number(&mut instance.country_id),
            Field::AppGroupName => Self::Upper(&mut instance.app_group_name),
            Field::HomePageUrl => Self::Text(&mut instance.home_page_url),
            Field::StatusPageUrl => Self::Text(&mut instance.status_page_url),
            Field::HealthCheckUrl => Self::Text(&mut instance.health_check_url),
            Field::SecureHealthCheckUrl => Self::Text(&mut instance.secure_health_check_url),
            Field::VipAddress => Self::Shared(&mut instance.vip_address),
            Field::SecureVipAddress => Self::Shared(&mut instance.secure_vip_address),
            Field::IsCoordinatingDiscoveryServer => Self::Flag(&mut instance.is_coordinating_discovery_server),
            Field::LastUpdatedTimestamp => Self::Timestamp(&mut instance.last_updated_timestamp),
            Field::LastDirtyTimestamp => Self::Timestamp(&mut instance.last_dirty_timestamp),
            Field::ActionType => Self::Action(&mut instance.action_type),
            Field::AsgName => Self::Shared(&mut instance.asg_name),
            _ => return None,
        })
    }

    /// The slot of a lease's field.
    pub(super) fn of_lease(lease: &'a mut LeaseInfo, field: Field) -> Option<Self> {
        Some(match field {
            Field::RenewalIntervalInSecs => Self::Seconds(&mut lease.renewal_interval_in_secs, 30),
            Field::DurationInSecs => Self::Seconds(&mut lease.duration_in_secs, 90),
            Field::RegistrationTimestamp => Self::LeaseTimestamp(&mut lease.registration_timestamp),
            Field::LastRenewalTimestamp => Self::LeaseTimestamp(&mut lease.last_renewal_timestamp),
            Field::EvictionTimestamp => Self::LeaseTimestamp(&mut lease.eviction_timestamp),
            Field::ServiceUpTimestamp => Self::LeaseTimestamp(&mut lease.service_up_timestamp),
            _ => return None,
        })
    }

    /// Reads the scalar into it; null leaves it as it is.
    pub(super) fn fill(self, scalar: Scalar<'_>, reading: &Reading<'_>) -> Result<(), String> {
        if matches!(scalar, Scalar::Null) {
            return Ok(());
        }
        match self {
            Self::Text(slot) => *slot = scalar.text(reading, false),
            Self::Shared(slot) => *slot = scalar.text(reading, true),
            Self::Sid(slot) => *slot = scalar.text(reading, true).filter(|sid| !is_no_sid(sid)),
            Self::Upper(slot) => *slot = scalar.upper(reading),
            Self::Required(slot) => *slot = scalar.text(reading, false).unwrap_or_default(),
            Self::App(slot) => *slot = scalar.upper(reading).unwrap_or_default(),
            Self::Status(slot) => *slot = status(scalar),
            Self::Action(slot) => {
                *slot = match scalar {
                    Scalar::Text(name) => ActionType::named(name),
                    _ => None,
                }
            }
            Self::Timestamp(slot) => *slot = scalar.timestamp(),
            Self::LeaseTimestamp(slot) => *slot = scalar.timestamp().unwrap_or(0),
            Self::Seconds(slot, default) => *slot = scalar.seconds(default)?,
            Self::Number(slot) => {
                if let Some(number) = scalar.whole()? {
                    *slot = number;
                }
            }
            Self::Flag(slot) => {
                if let Some(flag) = scalar.flag()? {
                    *slot = flag;
                }
            }
        }
        Ok(())
    }
}

/// A word that is no status is `UNKNOWN`, as is one in lower case.
fn status(scalar: Scalar<'_>) -> InstanceStatus {
    match scalar {
        Scalar::Text(name) => InstanceStatus::named(name).unwrap_or(InstanceStatus::Unknown),
        _ => InstanceStatus::Unknown,
    }
}

/// Metadata as it is read.
#[derive(Default)]
pub(super) struct MetadataDraft {
    entries: Vec<(Text, Text)>,
    bytes: usize,
}

impl MetadataDraft {
    /// Adds an entry, unless it is one too many.
    pub(super) fn add(&mut self, name: Text, text: Text, reading: &Reading<'_>) {
        let limits = reading.limits;
        self.bytes += name.len() + text.len();
        if self.bytes > limits.metadata_bytes {
            reading.beyond(format_args!("more than {} bytes", limits.metadata_bytes));
        } else if self.entries.len() >= limits.metadata_entries {
            reading.beyond(format_args!("more than {} entries", limits.metadata_entries));
        } else {
            put(&mut self.entries, name, text);
        }
    }

    pub(super) fn finish(self) -> Metadata {
        Metadata::of(self.entries)
    }
}

/// The data centre of this name, with this metadata.
pub(super) fn data_center(name: Option<&str>, metadata: Metadata, amazon: bool) -> Result<DataCenterInfo, String> {
    match name {
        Some("Amazon") => Ok(DataCenterInfo::Amazon(metadata)),
        _ if amazon => Ok(DataCenterInfo::Amazon(metadata)),
        Some("MyOwn") => Ok(DataCenterInfo::MyOwn),
        Some("Netflix") => Ok(DataCenterInfo::Netflix),
        Some(other) => Err(format!("{} is none of MyOwn, Netflix and Amazon", Scalar::Text(other).shown())),
        None => Ok(DataCenterInfo::Unnamed),
    }
}
