use tower_layer::Layer;

use super::Respond;

/// Answers every error of what is inside with a response, so that nothing can fail.
///
/// Its error is [`Infallible`](std::convert::Infallible), as axum's `Router::layer` and servers want it. Which error becomes
/// which response is in the docs of [the module](super).
///
/// ```
/// use axum::{Router, body::Body, routing::get};
/// use hopvine::layers::{deadline::{ServerDeadlineLayer, ServerDeadlinePolicy}, respond::RespondLayer};
/// use tower::{ServiceBuilder, ServiceExt};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let deadline = ServerDeadlineLayer::new(ServerDeadlinePolicy::default())?;
/// let app: Router = Router::new()
///     .route("/", get(std::future::pending::<()>))
///     .layer(ServiceBuilder::new().layer(RespondLayer::new()).layer(deadline));
/// let response = app.oneshot(http::Request::new(Body::empty())).await?;
/// assert_eq!(response.status(), http::StatusCode::GATEWAY_TIMEOUT);
/// # Ok(())
/// # }
/// ```
///
/// In a tonic server, outermost too; the response is then one of gRPC:
///
/// ```
/// use std::time::Duration;
/// use hopvine::layers::{deadline::{ServerDeadlineLayer, ServerDeadlinePolicy}, respond::RespondLayer};
/// use tower::ServiceBuilder;
///
/// let policy = ServerDeadlinePolicy { default: Duration::from_secs(5), ..Default::default() };
/// let layers = ServiceBuilder::new().layer(RespondLayer::new()).layer(ServerDeadlineLayer::new(policy)?);
/// // tonic::transport::Server::builder().layer(layers).add_service(..)
/// # let _ = layers;
/// # Ok::<(), hopvine::PolicyError>(())
/// ```
///
/// # State
///
/// None.
///
/// # Placement
///
/// In a server, outermost, or just below a server trace. Below it stands whatever may fail.
///
/// # Errors
///
/// None. A service that fails to become ready is not asked again; every call then gets that error's response.
///
/// # Cancellation
///
/// Dropping the response future drops the call inside.
#[derive(Clone, Copy, Debug, Default)]
pub struct RespondLayer {
    _private: (),
}

impl RespondLayer {
    /// The layer.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Respond<S> {
        Respond::new(inner)
    }
}
