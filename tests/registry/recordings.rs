//! What real programs said to each other; see `tests/golden/eureka/README.md`.

use std::{fs, path::Path};

use serde_json::Value;

/// One line of a recording.
pub(crate) struct Line {
    pub(crate) number: usize,
    pub(crate) note: String,
    /// None: the line is only a note.
    pub(crate) request: Option<Message>,
    /// None: the connection was closed without an answer.
    pub(crate) response: Option<Message>,
}

/// A request or an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Message {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// The names of the recordings that begin so.
pub(crate) fn names(prefix: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/eureka");
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter_map(|name| name.strip_suffix(".jsonl").map(str::to_owned)).collect();
    names.retain(|name| name.starts_with(prefix));
    names.sort();
    assert!(!names.is_empty(), "no recordings of {prefix}");
    names
}

pub(crate) fn lines(name: &str) -> Vec<Line> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/eureka/{name}.jsonl"));
    let text = fs::read_to_string(path).unwrap();
    let line = |(number, line): (usize, &str)| {
        let line: Value = serde_json::from_str(line).unwrap();
        Line {
            number: number + 1,
            note: line["note"].as_str().unwrap_or_default().to_owned(),
            request: message(&line["request"]),
            response: message(&line["response"]),
        }
    };
    text.lines().enumerate().map(line).collect()
}

fn message(value: &Value) -> Option<Message> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    value.is_object().then(|| Message {
        method: text(&value["method"]),
        path: text(&value["path"]),
        status: u16::try_from(value["status"].as_u64().unwrap_or(0)).unwrap(),
        headers: value["headers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|pair| (text(&pair[0]), text(&pair[1])))
            .collect(),
        body: text(&value["body"]),
    })
}
