use std::{collections::BTreeMap, fmt::Write as _};

use hopvine::{
    Endpoint,
    discover::file::File,
    endpoint::{Scheme, Status},
};
use serde_json::{Value, json};

use super::{
    endpoint_model::{self, Said},
    twice::Twice,
};

type Services = BTreeMap<String, Vec<Endpoint>>;

/// The endpoint file in TOML.
pub fn endpoint_file_toml(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    check("endpoints.toml", text, toml::from_str(text).ok().map(plain));
}

/// The endpoint file in JSON.
pub fn endpoint_file_json(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(Twice(true)) = serde_json::from_str(text) {
        assert!(read("endpoints.json", text).is_err(), "one of two of a name is lost: {text}");
        return;
    }
    check("endpoints.json", text, serde_json::from_str(text).ok());
}

fn read(path: &str, text: &str) -> Result<Services, (String, String)> {
    let file = File::open(path).expect("a known extension");
    file.parse(text).map_err(|error| (error.field().to_owned(), error.to_string()))
}

/// As JSON would have it.
fn plain(value: toml::Value) -> Value {
    match value {
        toml::Value::String(text) => text.into(),
        toml::Value::Integer(number) => number.into(),
        // What is no finite number would be none at all.
        toml::Value::Float(_) => 0.5.into(),
        toml::Value::Boolean(truth) => truth.into(),
        // As serde has it.
        toml::Value::Datetime(date) => json!({ "$__toml_private_datetime": date.to_string() }),
        toml::Value::Array(list) => list.into_iter().map(plain).collect(),
        toml::Value::Table(table) => table.into_iter().map(|(name, value)| (name, plain(value))).collect(),
    }
}

fn check(path: &str, text: &str, document: Option<Value>) {
    let read = read(path, text);
    let Some(document) = document else {
        assert!(read.is_err(), "no document: {text}");
        return;
    };
    let (said, wrong) = endpoint_model::read(&document);
    match read {
        Ok(services) => {
            assert!(wrong.is_empty(), "{wrong:?} passed in {text}");
            let of = |endpoints: &Vec<Endpoint>| endpoints.iter().map(Said::of).collect();
            let taken: BTreeMap<_, Vec<_>> =
                services.iter().map(|(name, endpoints)| (name.clone(), of(endpoints))).collect();
            assert_eq!(taken, said);
            again(&services);
        }
        Err((field, message)) => {
            assert!(wrong.contains(&field), "{field:?} is not one of {wrong:?}: {message}");
            let place = if field.is_empty() { format!("{path}: ") } else { format!("{path}, {field}: ") };
            assert!(message.starts_with(&place) && message.len() > place.len(), "{message}");
        }
    }
}

/// Written again in either form, it says the same.
fn again(services: &Services) {
    for endpoint in services.values().flatten() {
        assert_eq!(endpoint.validate(), Ok(()));
        let parsed: Endpoint = url(endpoint).parse().expect("what was read is read");
        assert_eq!((parsed.address(), parsed.scheme()), (endpoint.address(), endpoint.scheme()));
        assert_eq!(parsed.id().as_str(), endpoint.address().to_string());
    }
    assert_eq!(read("endpoints.json", &in_json(services)).as_ref(), Ok(services));
    assert_eq!(read("endpoints.toml", &in_toml(services)).as_ref(), Ok(services));
}

fn url(endpoint: &Endpoint) -> String {
    let scheme = match endpoint.scheme() {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    format!("{scheme}://{}", endpoint.address())
}

fn fields(endpoint: &Endpoint) -> Vec<(&'static str, Value)> {
    let status = match endpoint.status() {
        Status::Up => "up",
        Status::Draining => "draining",
        Status::Down => "down",
        other => panic!("{other:?}"),
    };
    let mut fields = vec![
        ("url", json!(url(endpoint))),
        ("id", json!(endpoint.id().as_str())),
        ("weight", json!(endpoint.weight())),
        ("status", json!(status)),
        ("metadata", json!(endpoint.metadata())),
    ];
    let texts =
        [("zone", endpoint.zone()), ("server_name", endpoint.server_name()), ("authority", endpoint.authority())];
    fields.extend(texts.into_iter().filter_map(|(name, text)| Some((name, json!(text?)))));
    fields
}

fn in_json(services: &Services) -> String {
    let table = |endpoint| Value::from_iter(fields(endpoint));
    let document: BTreeMap<_, Vec<_>> =
        services.iter().map(|(name, endpoints)| (name, endpoints.iter().map(table).collect())).collect();
    serde_json::to_string_pretty(&document).expect("texts and numbers")
}

fn in_toml(services: &Services) -> String {
    let mut text = String::new();
    for (name, endpoints) in services {
        if endpoints.is_empty() {
            // Before all tables, or it would belong to one.
            text.insert_str(0, &format!("{} = []\n", toml_text(name)));
        }
        for endpoint in endpoints {
            writeln!(text, "[[{}]]", toml_text(name)).unwrap();
            for (name, value) in fields(endpoint) {
                writeln!(text, "{name} = {}", toml_value(&value)).unwrap();
            }
        }
    }
    text
}

fn toml_value(value: &Value) -> String {
    match value {
        Value::String(text) => toml_text(text),
        Value::Object(texts) => {
            let pairs: Vec<_> =
                texts.iter().map(|(name, value)| format!("{} = {}", toml_text(name), toml_value(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        number => number.to_string(),
    }
}

fn toml_text(text: &str) -> String {
    let escape = |each: char| match each {
        '"' | '\\' => format!("\\{each}"),
        each if each.is_control() => format!("\\u{:04x}", u32::from(each)),
        each => each.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}
