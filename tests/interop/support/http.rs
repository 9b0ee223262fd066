//! A plain HTTP client, so that what ours does is not seen through ours.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: String,
}

pub(crate) async fn get(url: &str) -> Result<Answer, String> {
    request(Method::GET, url).await
}

/// Asks for JSON. Each on a connection of its own: what is asked dies and comes back.
pub(crate) async fn request(method: Method, url: &str) -> Result<Answer, String> {
    let request = Request::builder().method(method).uri(url).header("accept", "application/json");
    let request = request.body(Full::<Bytes>::default()).map_err(|error| format!("{url}: {error}"))?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let response = client.request(request).await.map_err(|error| format!("{url}: {error}"))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| format!("{url}: {error}"))?.to_bytes();
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    };
    let time = std::time::Duration::from_secs(10);
    tokio::time::timeout(time, exchange).await.unwrap_or_else(|_| Err(format!("{url}: no answer within {time:?}")))
}
