//! Batches between servers: what a Java server answered to each, and what follows from ours.

use hopvine::eureka::{Action, InstanceStatus, Limits, Replication, ReplicationResponse, json};

use crate::recordings::exchanges;

/// Batches that a Java server refuses whole, and of which we do the items we know; or the other way; see `docs/differences.md`.
const DIFFERENT: [&str; 6] = [
    "empty object",
    "unknown field in an item",
    "unknown field in the list",
    "unknown action",
    "action in lower case",
    "register, instance wrapped",
];

#[test]
fn one_bad_item_costs_a_peer_that_item_and_not_the_batch() {
    let mut batches = 0;
    let batch = |path: &str| path.contains("peerreplication/batch");
    for exchange in exchanges("direct-batch").iter().filter(|exchange| batch(&exchange.path) && exchange.status != 415)
    {
        let about = format!("{}, {}", exchange.source, exchange.note);
        let read = json::read_replications(exchange.sent.as_bytes(), &Limits::default());
        batches += 1;
        match (&*exchange.note, read) {
            ("empty object", read) => assert!(read.is_err(), "{about}"),
            ("unknown field in an item", read) => assert!(read.unwrap()[0].is_ok(), "{about}"),
            ("unknown field in the list", read) => assert!(read.unwrap().is_empty(), "{about}"),
            ("unknown action" | "action in lower case", read) => assert!(read.unwrap()[0].is_err(), "{about}"),
            ("register, instance wrapped", read) => assert_eq!(read.unwrap().len(), 1, "{about}"),
            (_, Err(_)) => assert_eq!(exchange.status, 400, "{about}"),
            (_, Ok(items)) => {
                assert_eq!(exchange.status, 200, "{about}");
                // Without an Accept the answer is XML, which no peer asks for.
                let Ok(answers) = json::read_replication_responses(exchange.answered.as_bytes(), &Limits::default())
                else {
                    assert_eq!(exchange.note, "Accept missing");
                    continue;
                };
                let failed: Vec<_> = answers.iter().map(|answer| answer.status_code == 500).collect();
                assert_eq!(items.iter().map(Result::is_err).collect::<Vec<_>>(), failed, "{about}");
            }
        }
    }
    assert!(batches > 25, "{batches}");
    for note in DIFFERENT {
        assert!(exchanges("direct-batch").iter().any(|exchange| exchange.note == note), "{note} was not recorded");
    }
}

#[test]
fn a_peer_is_told_what_happened_in_the_words_of_a_java_peer() {
    let item = |last_dirty_timestamp, action| Replication {
        app_name: "ORDERS".into(),
        id: "i1".into(),
        last_dirty_timestamp,
        action,
    };
    let out = InstanceStatus::OutOfService;
    let items = [
        item(Some(1), Action::StatusUpdate(out)),
        item(Some(1), Action::Heartbeat { status: Some(out), overridden_status: Some(out) }),
        item(None, Action::Cancel),
    ];
    let mut document = Vec::new();
    json::write_replications(&items, &mut document);
    assert_eq!(
        String::from_utf8(document).unwrap(),
        r#"{"replicationList":[{"appName":"ORDERS","id":"i1","lastDirtyTimestamp":1,"status":"OUT_OF_SERVICE","action":"StatusUpdate"},"#.to_owned()
            + r#"{"appName":"ORDERS","id":"i1","lastDirtyTimestamp":1,"overriddenStatus":"OUT_OF_SERVICE","status":"OUT_OF_SERVICE","action":"Heartbeat"},"#
            + r#"{"appName":"ORDERS","id":"i1","action":"Cancel"}]}"#
    );
}

#[test]
fn an_answer_without_a_status_is_told_from_one_with() {
    let read = |document: &str| json::read_replication_responses(document.as_bytes(), &Limits::default());
    let answers =
        read(r#"{"responseList":[{"statusCode":"409","responseEntity":{"instanceId":"i1"}},{"statusCode":404}]}"#)
            .unwrap();
    assert_eq!(answers[0].instance.as_ref().unwrap().id(), "i1");
    assert_eq!(answers[1], ReplicationResponse { status_code: 404, instance: None });
    assert_eq!(read(r#"{"responseList":[{"statusCode":200},{}]}"#).unwrap_err().field(), "responseList[1].statusCode");
    assert_eq!(read("{}").unwrap_err().field(), "responseList");
}
