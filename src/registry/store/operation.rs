use std::fmt;

use crate::eureka::Replication;

/// Who says so. What a peer says is not told to peers again, and overrules what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// An instance, or an operator.
    Client,
    /// Another registry.
    Peer,
}

/// Who is told of each operation that did not come from a peer.
///
/// It is called with the store's lock held: it must only put the operation into a queue.
pub trait ReplicationSink: Send + Sync {
    /// Takes an operation to tell the peers.
    fn replicate(&self, operation: Replication);
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// There are as many instances as there may be.
    Instances(usize),
    /// The application has as many instances as it may.
    InstancesPerApplication(usize),
    /// There are as many overrides as there may be.
    Overrides(usize),
    /// The instance would have more bytes of metadata than it may.
    MetadataBytes(usize),
    /// The instance would have more texts in its metadata than it may.
    MetadataEntries(usize),
    /// A text of the metadata would be longer than it may.
    TextBytes(usize),
}

impl Refused {
    /// The setting that says so.
    pub fn limit(self) -> &'static str {
        match self {
            Self::Instances(_) => "limits.instances",
            Self::InstancesPerApplication(_) => "limits.instances_per_application",
            Self::Overrides(_) => "limits.overrides",
            Self::MetadataBytes(_) => "limits.document.metadata_bytes",
            Self::MetadataEntries(_) => "limits.document.metadata_entries",
            Self::TextBytes(_) => "limits.document.text_bytes",
        }
    }

    /// Whether it may be taken later, when others have left.
    pub fn is_for_now(self) -> bool {
        matches!(self, Self::Instances(_) | Self::InstancesPerApplication(_) | Self::Overrides(_))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Instances(most)
        | Self::InstancesPerApplication(most)
        | Self::Overrides(most)
        | Self::MetadataBytes(most)
        | Self::MetadataEntries(most)
        | Self::TextBytes(most)) = self;
        write!(f, "more than {} allows: {most}", self.limit())
    }
}

impl std::error::Error for Refused {}
