use std::{fmt, sync::Arc};

use super::{Instance, InstanceStatus, Text};

/// What one server tells another: something that happened to an instance. Many of them travel in one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replication {
    /// The application.
    pub app_name: Text,
    /// The [id](Instance::id) of the instance.
    pub id: Text,
    /// When the instance changed itself last, as the sender knows it, in milliseconds since 1970. A Java server takes no
    /// [`DeleteStatusOverride`](Action::DeleteStatusOverride) without it, and sends no [`Cancel`](Action::Cancel) with it.
    pub last_dirty_timestamp: Option<u64>,
    /// What happened.
    pub action: Action,
}

/// What happened to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It registered, or its metadata was changed.
    Register(Arc<Instance>),
    /// It was heard of.
    Heartbeat {
        /// Its status at the sender; nobody reads it.
        status: Option<InstanceStatus>,
        /// Its override at the sender, if it has one.
        overridden_status: Option<InstanceStatus>,
    },
    /// It left.
    Cancel,
    /// An operator set its status.
    StatusUpdate(InstanceStatus),
    /// An operator took that back; what it is until it says.
    DeleteStatusOverride(InstanceStatus),
}

impl Action {
    /// Its name on the wire.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Register(_) => "Register",
            Self::Heartbeat { .. } => "Heartbeat",
            Self::Cancel => "Cancel",
            Self::StatusUpdate(_) => "StatusUpdate",
            Self::DeleteStatusOverride(_) => "DeleteStatusOverride",
        }
    }
}

/// Why one item of a batch cannot be done; the others can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidReplication(pub(super) &'static str);

impl fmt::Display for InvalidReplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for InvalidReplication {}

/// The answer to one item of a batch. Answers stand in the order of the items, one for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationResponse {
    /// A status of HTTP: 200; 404 for an instance nobody knows; 409 for one that is known better; 500.
    pub status_code: u16,
    /// The instance as it is known better.
    pub instance: Option<Arc<Instance>>,
}
