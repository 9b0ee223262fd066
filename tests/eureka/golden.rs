//! Every document that was recorded is read, and every one that Java wrote with the codec of its servers is written again byte for byte.

use hopvine::eureka::{Form, Limits, ReadError, json, xml};

use crate::recordings::{Exchange, exchanges};

/// What a Java server writes and we do not, and why; see `docs/differences.md`.
const LEFT_OUT: [(&str, &str); 2] = [
    (r#""registeredApplicationsEmpty":false,"#, "one release of Eureka has it, in the compact form"),
    ("<registeredApplicationsEmpty>false</registeredApplicationsEmpty>", "the same in XML"),
];

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
    } else if document.starts_with("<applications>") {
        let form = if document.contains('\n') { Form::Full } else { Form::Compact };
        xml::write_applications(&xml::read_applications(bytes, &limits)?, form, &mut written);
    } else if document.starts_with("<application>") {
        let form = if document.contains('\n') { Form::Full } else { Form::Compact };
        xml::write_application(&xml::read_application(bytes, &limits)?, form, &mut written);
    } else if document.starts_with("<instance>") {
        xml::write_instance(&xml::read_instance(bytes, &limits)?, &mut written);
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
            let expected = LEFT_OUT.iter().fold(document.to_owned(), |text, (left_out, _)| text.replace(left_out, ""));
            assert_eq!(ours, expected, "{}", exchange.source);
            if expected == document { same += 1 } else { different += 1 }
        }
    }
    assert_eq!((same, different), (294, 5), "documents that are the same, and that differ as listed");
}
