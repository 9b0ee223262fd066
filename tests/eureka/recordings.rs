//! What real programs said to each other; see `tests/golden/eureka/README.md`.

use std::{fs, path::Path};

use serde_json::Value;

/// One request and its answer.
pub(crate) struct Exchange {
    /// The file and the line.
    pub(crate) source: String,
    pub(crate) note: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) sent: String,
    pub(crate) status: u64,
    pub(crate) answered: String,
}

impl Exchange {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// All exchanges of all files whose names begin so, in order.
pub(crate) fn exchanges(prefix: &str) -> Vec<Exchange> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/eureka");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(prefix))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no recordings of {prefix}");
    files.iter().flat_map(|path| of_file(path)).collect()
}

fn of_file(path: &Path) -> Vec<Exchange> {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let text = fs::read_to_string(path).unwrap();
    let of_line = |(number, line): (usize, &str)| {
        let line: Value = serde_json::from_str(line).unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let request = &line["request"];
        request.is_object().then(|| Exchange {
            source: format!("{name}:{}", number + 1),
            note: text(&line["note"]),
            method: text(&request["method"]),
            path: text(&request["path"]),
            headers: request["headers"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|pair| (text(&pair[0]), text(&pair[1])))
                .collect(),
            sent: text(&request["body"]),
            status: line["response"]["status"].as_u64().unwrap_or(0),
            answered: text(&line["response"]["body"]),
        })
    };
    text.lines().enumerate().filter_map(of_line).collect()
}
