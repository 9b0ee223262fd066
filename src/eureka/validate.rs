use std::fmt;

use super::{DataCenterInfo, Instance};

/// Why a server takes no such registration. Its text is that of a Java server, which sends it with a 400.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidRegistration {
    /// It has no id, nor anything that could serve as one.
    InstanceId,
    /// It has no host name.
    HostName,
    /// It has no address.
    IpAddress,
    /// It has no application.
    AppName,
    /// It is of another application than the path.
    OtherAppName {
        /// The path's.
        expected: Box<str>,
        /// Its own.
        found: Box<str>,
    },
    /// It does not say where it runs.
    DataCenterInfo,
    /// It says so without a name.
    DataCenterInfoName,
}

impl fmt::Display for InvalidRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InstanceId => "Missing instanceId",
            Self::HostName => "Missing hostname",
            Self::IpAddress => "Missing ip address",
            Self::AppName => "Missing appName",
            Self::OtherAppName { expected, found } => {
                return write!(f, "Mismatched appName, expecting {expected} but was {found}");
            }
            Self::DataCenterInfo => "Missing dataCenterInfo",
            Self::DataCenterInfoName => "Missing dataCenterInfo Name",
        })
    }
}

impl std::error::Error for InvalidRegistration {}

impl Instance {
    /// Whether a server takes it as a registration under this application, which the path names in any case.
    pub fn validate(&self, app: &str) -> Result<(), InvalidRegistration> {
        let app = app.to_uppercase();
        if self.id().is_empty() {
            Err(InvalidRegistration::InstanceId)
        } else if self.host_name.is_empty() {
            Err(InvalidRegistration::HostName)
        } else if self.ip_addr.is_empty() {
            Err(InvalidRegistration::IpAddress)
        } else if self.app.is_empty() {
            Err(InvalidRegistration::AppName)
        } else if *self.app != *app {
            Err(InvalidRegistration::OtherAppName { expected: app.into(), found: (*self.app).into() })
        } else {
            match &self.data_center_info {
                None => Err(InvalidRegistration::DataCenterInfo),
                Some(DataCenterInfo::Unnamed) => Err(InvalidRegistration::DataCenterInfoName),
                Some(_) => Ok(()),
            }
        }
    }
}
