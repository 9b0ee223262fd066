//! Every document that was recorded is read, and every one that Java wrote with the codec of its servers is written again byte for byte.

use hopvine::eureka::{Form, Limits, ReadError, json};

use crate::recordings::{Exchange, exchanges};

/// Where our bytes differ from a Java server's on purpose; see `docs/differences.md`.
const DIFFERENT: [(&str, &str); 1] =
    [("\"registeredApplicationsEmpty\":", "one release of Eureka has it, in the compact form")];

/// Reads a document and writes it again, in its own form. `None` if it is none of Eureka's.
fn again(document: &str) -> Result<Option<String>, ReadError> {
    let (bytes, limits, mut written) = (document.as_bytes(), Limits::default(), Vec::new());
    // The forms begin differently, or hold different fields.
    let compact = document.starts_with(r#"{"applications":{"application":"#)
        || (document.starts_with(r#"{"application":"#) && !document.contains("countryId"));
    let form = if compact { Form::Compact } else { Form::Full };
    if document.starts_with(r#"{"applications":"#) {
        json::write_applications(&json::read_applications(bytes, &limits)?, form, &mut written);
    } else if document.starts_with(r#"{"application":"#) {
        json::write_application(&json::read_application(bytes, &limits)?, form, &mut written);
    } else if document.starts_with(r#"{"instance":"#) {
        json::write_instance(&json::read_instance(bytes, &limits)?, &mut written);
    } else if document.starts_with(r#"{"replicationList":"#) {
        let items: Vec<_> = json::read_replications(bytes, &limits)?.into_iter().map(Result::unwrap).collect();
        json::write_replications(&items, &mut written);
    } else if document.starts_with(r#"{"responseList":"#) {
        json::write_replication_responses(&json::read_replication_responses(bytes, &limits)?, &mut written);
    } else {
        return Ok(None);
    }
    Ok(Some(String::from_utf8(written).unwrap()))
}

/// The documents of an exchange that Java wrote with the codec of its servers: answers that were not made up, and requests of peers and of Jersey's clients,
/// which say who they are.
fn by_java(exchange: &Exchange) -> impl Iterator<Item = &str> {
    let made_up = exchange.source.starts_with("peer-odd-replies");
    let answer = (exchange.status == 200 && !made_up).then_some(&*exchange.answered);
    let request = exchange.header("DiscoveryIdentity-Name").map(|_| &*exchange.sent);
    answer.into_iter().chain(request).filter(|document| !document.is_empty())
}

#[test]
fn a_strict_java_client_gets_from_us_the_bytes_it_gets_from_a_java_server() {
    let (mut same, mut different) = (0, 0);
    for exchange in &exchanges("") {
        for document in by_java(exchange) {
            let ours = again(document).unwrap_or_else(|error| panic!("{}: {error}\n{document}", exchange.source));
            let Some(ours) = ours else { continue };
            if DIFFERENT.iter().any(|(theirs, _)| document.contains(theirs)) {
                assert_ne!(ours, document, "{}: no difference any more", exchange.source);
                different += 1;
            } else {
                assert_eq!(ours, document, "{}", exchange.source);
                same += 1;
            }
        }
    }
    println!("{same} documents are the same, {different} differ as listed");
    assert!(same > 250 && different > 0, "{same}, {different}");
}
