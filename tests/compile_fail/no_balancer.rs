use hopvine::{connect::http::HttpClient, layers::retry::{RetryLayer, RetryPolicy}};

type Request = http::Request<http_body_util::Full<bytes::Bytes>>;

fn main() {
    let builder = tower::ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::default()).unwrap());
    let _ = hopvine::build::<Request, _, _>(builder, HttpClient::new());
}
