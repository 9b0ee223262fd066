use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::Refused;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a registry counted since its start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(pub(super) $name: Counter,)*
        }

        impl Counters {
            /// The counts, as of now.
            pub fn view(&self) -> CountersView {
                CountersView { $($name: self.$name.get(),)* }
            }
        }

        /// [`Counters`] at one moment: what was done, and what each limit refused.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct CountersView {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl CountersView {
            /// Each with its name.
            pub fn named(&self) -> [(&'static str, u64); [$(stringify!($name)),*].len()] {
                [$((stringify!($name), self.$name)),*]
            }
        }
    };
}

counters! {
    /// Registrations, repeated ones included.
    registrations,
    /// Instances that left.
    cancels,
    /// Instances whose lease ended.
    evictions,
    /// Instances whose watch broke and did not come back.
    expelled,
    /// Documents rendered.
    rendered,
    /// Registrations beyond `limits.instances`.
    refused_instances,
    /// Registrations beyond `limits.instances_per_application`.
    refused_instances_per_application,
    /// Overrides beyond `limits.overrides`.
    refused_overrides,
    /// Metadata beyond `limits.document`, set by an operator.
    refused_metadata,
    /// Documents that were none, or beyond `limits.document`.
    refused_documents,
    /// Bodies beyond `limits.body_bytes` or `limits.batch_bytes`, or slower than `limits.body_time`.
    refused_bodies,
    /// Batches beyond `limits.batch_items`.
    refused_batches,
    /// Times that a connection had to wait for `limits.connections`.
    refused_connections,
    /// Connections closed since a head took longer than `limits.head_time`.
    refused_heads,
    /// Watchers beyond `limits.watchers`.
    refused_watchers,
    /// Requests with no or a wrong credential.
    refused_credentials,
    /// Watchers cut off since they were `limits.watcher_lines` behind.
    slow_watchers,
}

/// One count.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.add_many(1);
    }

    pub(super) fn add_many(&self, many: u64) {
        self.0.fetch_add(many, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Counters {
    pub(super) fn refused(&self, refused: Refused) {
        match refused {
            Refused::Instances(_) => self.refused_instances.add(),
            Refused::InstancesPerApplication(_) => self.refused_instances_per_application.add(),
            Refused::Overrides(_) => self.refused_overrides.add(),
            Refused::MetadataBytes(_) | Refused::MetadataEntries(_) | Refused::TextBytes(_) => {
                self.refused_metadata.add();
            }
        }
    }
}
