use hopvine::{ServiceHandle, connect::http::HttpClient, layers::balance::{BalanceLayer, DiscoverLayer, RoundRobin}};

type Request = http::Request<http_body_util::Full<bytes::Bytes>>;

fn main() {
    let builder = tower::ServiceBuilder::new()
        .layer(DiscoverLayer::new(ServiceHandle::fixed("catalog", [])))
        .layer(BalanceLayer::new(RoundRobin::default()))
        .layer(tower::timeout::TimeoutLayer::new(std::time::Duration::from_secs(1)));
    let _ = hopvine::build::<Request, _, _>(builder, HttpClient::new());
}
