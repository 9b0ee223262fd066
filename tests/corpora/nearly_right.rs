//! Texts after the grammar, with a slip or two in most of them: what a fuzzer needs long to find.

use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};

use super::checks;

/// With some bytes put in, taken out or changed.
fn with_slips(text: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::sample::select(b"-,=:;. \t\n\"'[]{}+%/@_019adfgAGHMST\\\x7f\xff".as_slice());
    let slip = (any::<Index>(), 0..3, byte);
    (text, prop::collection::vec(slip, 0..3)).prop_map(|(text, slips)| {
        let mut bytes = text.into_bytes();
        for (at, kind, byte) in slips {
            let at = at.index(bytes.len() + 1);
            match kind {
                0 => bytes.insert(at, byte),
                1 if at < bytes.len() => _ = bytes.remove(at),
                2 if at < bytes.len() => bytes[at] = byte,
                _ => {}
            }
        }
        bytes
    })
}

/// A date of HTTP in one of its three forms; some of their days there are.
fn date() -> impl Strategy<Value = String> {
    let month = || "(Jan|Feb|Apr|Nov|Dec)";
    let time = || "[0-2][0-9]:[0-5][0-9]:[0-6][0-9]";
    prop_oneof![
        ("(Mon|Tue|Sun), [0-3][0-9] ", month(), " (19[6-9][0-9]|20[0-9]{2}) ", time(), " GMT"),
        ("(Monday|Tuesday|Wednesday|Sunday), [0-3][0-9]-", month(), "-[0-9]{2} ", time(), " GMT"),
        ("(Mon|Wed|Sun) ", month(), " ( [1-9]|[0-3][0-9]) ", time(), " (19[6-9][0-9]|20[0-9]{2})"),
    ]
    .prop_map(|(begin, month, middle, time, end)| [begin, month, middle, time, end].concat())
}

/// What is said of an endpoint: mostly right, and now and then of another kind.
fn endpoint() -> impl Strategy<Value = Value> {
    let host = r"(10\.0\.0\.[0-3]|\[(fd00::[0-3]|::ffff:10\.0\.0\.1|fe80::1)\]|[a-cA-C]\.x|0\.0\.0\.0|fd00::1)";
    let url = || proptest::string::string_regex(&format!("(http://|https://)?{host}(:[0-9]{{1,5}})?/?")).unwrap();
    let text = || prop_oneof![9 => "[a-b\"\\\\\u{7f}é\n]{0,3}".prop_map(Value::from), 1 => wrong()];
    let weight = prop_oneof![9 => any::<u32>().prop_map(Value::from), 1 => wrong()];
    let status = prop_oneof![9 => "(up|draining|down|gone)".prop_map(Value::from), 1 => wrong()];
    let metadata = prop::collection::btree_map("[ab.]{0,2}", text(), 0..3).prop_map(|texts| json!(texts));
    let metadata = prop_oneof![9 => metadata, 1 => wrong()];
    let field = prop_oneof![
        ("(id|zone|server_name|authority|wieght)", text()),
        (Just("weight".to_owned()), weight),
        (Just("status".to_owned()), status),
        (Just("metadata".to_owned()), metadata),
    ];
    let table = (url(), prop::collection::vec(field, 0..4)).prop_map(|(url, mut fields)| {
        fields.push(("url".to_owned(), url.into()));
        Value::from_iter(fields)
    });
    prop_oneof![4 => url().prop_map(Value::from), 8 => table, 1 => wrong()]
}

fn wrong() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(-1),
        json!(1.0),
        json!(true),
        json!([]),
        json!({}),
        json!(["a"]),
        json!(1_u64 << 32),
    ])
}

fn services() -> impl Strategy<Value = Value> {
    let endpoints = prop::collection::vec(endpoint(), 0..4).prop_map(Value::from);
    let service = prop_oneof![12 => endpoints, 1 => wrong()];
    prop::collection::btree_map("[ab.\\[\n]{0,2}", service, 0..4).prop_map(|services| json!(services))
}

proptest! {
    // What breaks something is kept in a corpus.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_trace_is_lost_or_made_up_by_w3c(
        parent in with_slips("(00|00|01|cc|ff)-(0{32}|[0-9a-f]{32})-(0{16}|[0-9a-f]{16})-[0-9a-f]{2}(-x)?"),
        state in with_slips("([a-z0-9][a-z0-9_*/@-]{0,4}=[ -~]{1,6}[,\n]){0,34}k=v"),
    ) {
        checks::traceparent(&parent);
        checks::tracestate(&state);
    }

    #[test]
    fn no_trace_is_lost_or_made_up_by_b3(
        single in with_slips("([01d]|(0{16}|[0-9a-f]{16}|[0-9a-f]{32})-[0-9a-f]{16}(-[01d])?(-[0-9a-f]{16})?)"),
        several in with_slips("(x-b3-traceid: [0-9a-f]{1,33}\n)?(x-b3-spanid: [0-9a-f]{1,17}\n)?(x-b3-parentspanid: [0-9a-f]{0,16}\n)?(x-b3-sampled: (0|1|d|true|FALSE)\n)?(x-b3-flags: [012])?"),
    ) {
        checks::b3_single(&single);
        checks::b3_multi(&several);
    }

    #[test]
    fn no_caller_s_deadline_is_misread(text in with_slips("[0-9]{1,9}[HSMmun]")) {
        checks::grpc_timeout(&text);
    }

    #[test]
    fn no_server_that_asks_for_patience_is_misread(
        seconds in with_slips("[0-9]{1,22}"), date in with_slips(date()), milliseconds in with_slips("[+-]?[0-9]{1,22}"),
    ) {
        checks::retry_after(&seconds);
        checks::retry_after(&date);
        checks::grpc_retry_pushback(&milliseconds);
    }

    #[test]
    fn no_endpoint_of_a_file_is_lost_or_misread(
        json in with_slips(services().prop_map(|services| services.to_string())),
        toml in with_slips(services().prop_map(|services| toml::to_string(&services).unwrap())),
    ) {
        checks::endpoint_file_json(&json);
        checks::endpoint_file_toml(&toml);
    }
}
