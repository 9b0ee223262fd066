//! What may go wrong in a TLS handshake. No request is sent to a server that has not shown who it is.

use hopvine::ErrorKind::Connect;

use super::{
    caller::Seen::Unsent,
    case::{Again, Case},
    fault::Fault,
};

async fn refused(fault: Fault) {
    Case { fault, seen: &[Unsent(Connect)], get: Again::Yes, post: Again::Yes }.holds().await;
}

#[tokio::test]
async fn a_certificate_of_another_name_is_not_believed_and_loses_no_request() {
    refused(Fault::WrongName).await;
}

#[tokio::test]
async fn an_expired_certificate_is_not_believed_and_loses_no_request() {
    refused(Fault::Expired).await;
}

#[tokio::test]
async fn a_certificate_of_tomorrow_is_not_believed_and_loses_no_request() {
    refused(Fault::NotYetValid).await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_issuer_is_not_believed_and_loses_no_request() {
    refused(Fault::UnknownIssuer).await;
}

#[tokio::test]
async fn a_handshake_that_is_never_answered_loses_no_request() {
    refused(Fault::SilentHandshake).await;
}

#[tokio::test]
async fn a_handshake_that_is_answered_in_the_clear_loses_no_request() {
    refused(Fault::PlainText).await;
}
