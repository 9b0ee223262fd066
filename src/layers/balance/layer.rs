use std::{sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{Balance, Picker, service::Settings};
use crate::{EndpointHandle, Monitor, NewService, ServiceHandle, outcome::Standard};

/// Chooses an endpoint for each attempt. See the [module](super).
#[derive(Debug)]
pub struct BalanceLayer<P, C = Standard> {
    picker: Arc<P>,
    classify: Arc<C>,
    settings: Settings,
}

impl<P: Picker> BalanceLayer<P> {
    /// By this picker.
    pub fn new(picker: P) -> Self {
        Self { picker: Arc::new(picker), classify: Arc::new(Standard), settings: Settings::default() }
    }
}

impl<P, C> BalanceLayer<P, C> {
    /// By a classification of your own.
    pub fn classify<D>(self, classify: D) -> BalanceLayer<P, D> {
        BalanceLayer { picker: self.picker, classify: Arc::new(classify), settings: self.settings }
    }

    /// How long a call waits for an endpoint, or for one to be ready; default 1 s. Never longer than the call's remaining time.
    #[must_use]
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.settings.max_wait = wait;
        self
    }

    /// Makes an endpoint's service as soon as it is listed, for a connector that opens connections ahead; by default on first use.
    #[must_use]
    pub fn eager(mut self) -> Self {
        self.settings.eager = true;
        self
    }

    /// Where the endpoints can be watched, ejected and drained; by default the directory's monitor.
    #[must_use]
    pub fn monitor(mut self, monitor: &Monitor) -> Self {
        self.settings.monitor = Some(monitor.clone());
        self
    }
}

impl<P, C> Clone for BalanceLayer<P, C> {
    fn clone(&self) -> Self {
        Self { picker: Arc::clone(&self.picker), classify: Arc::clone(&self.classify), settings: self.settings.clone() }
    }
}

impl<N, P, C> Layer<N> for BalanceLayer<P, C> {
    type Service = NewBalance<N, P, C>;

    fn layer(&self, inner: N) -> NewBalance<N, P, C> {
        NewBalance { inner, layer: self.clone() }
    }
}

/// Makes a [`Balance`] for each service. Not a service itself: [`DiscoverLayer`](super::DiscoverLayer) makes it one.
#[derive(Clone, Debug)]
pub struct NewBalance<N, P, C = Standard> {
    inner: N,
    layer: BalanceLayer<P, C>,
}

impl<N, P, C> NewService<ServiceHandle> for NewBalance<N, P, C>
where
    N: NewService<EndpointHandle> + Clone + Send + Sync + 'static,
    N::Service: Send + Sync + 'static,
    P: Picker,
    C: Send + Sync + 'static,
{
    type Service = Balance<N::Service, P, C>;

    fn new_service(&self, service: &ServiceHandle) -> Self::Service {
        let connector = self.inner.clone();
        Balance::new(
            service,
            Box::new(move |endpoint: &EndpointHandle| connector.new_service(endpoint)),
            Arc::clone(&self.layer.picker),
            Arc::clone(&self.layer.classify),
            &self.layer.settings,
        )
    }
}
