use std::{collections::HashMap, sync::Arc};

use super::ServiceHandle;
use crate::Endpoint;

/// All services of one or more sources. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    services: Arc<HashMap<Arc<str>, ServiceHandle>>,
}

impl Directory {
    /// A directory of services whose endpoints never change.
    pub fn fixed<N, E>(services: impl IntoIterator<Item = (N, E)>) -> Self
    where
        N: Into<Arc<str>>,
        E: IntoIterator<Item = Endpoint>,
    {
        let services = services.into_iter().map(|(name, endpoints)| {
            let name = name.into();
            (Arc::clone(&name), ServiceHandle::fixed(name, endpoints))
        });
        Self { services: Arc::new(services.collect()) }
    }

    /// The service of this name; empty as long as no source lists it.
    pub fn service(&self, name: &str) -> ServiceHandle {
        self.get(name).unwrap_or_else(|| ServiceHandle::fixed(name, []))
    }

    /// The service of this name, if a source lists it.
    pub fn get(&self, name: &str) -> Option<ServiceHandle> {
        self.services.get(name).cloned()
    }
}
