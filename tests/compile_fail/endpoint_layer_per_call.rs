use hopvine::{
    ServiceHandle,
    connect::http::HttpClient,
    layers::{balance::{BalanceLayer, DiscoverLayer, RoundRobin}, trace::AttemptTraceLayer},
};

type Request = http::Request<http_body_util::Full<bytes::Bytes>>;

fn main() {
    let builder = tower::ServiceBuilder::new()
        .layer(AttemptTraceLayer::new())
        .layer(DiscoverLayer::new(ServiceHandle::fixed("catalog", [])))
        .layer(BalanceLayer::new(RoundRobin::default()));
    let _ = hopvine::build::<Request, _, _>(builder, HttpClient::new());
}
