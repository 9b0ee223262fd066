//! What stands in the file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    marker::PhantomData,
    path::Path,
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

use super::InvalidFile;
use crate::{
    Endpoint,
    endpoint::{InvalidEndpoint, Status},
};

/// The endpoints of each service.
pub(super) type Services = BTreeMap<String, Vec<Endpoint>>;

#[derive(Clone, Copy, Debug)]
pub(super) enum Format {
    Toml,
    Json,
}

pub(super) fn parse(path: &Path, format: Format, text: &str) -> Result<Services, InvalidFile> {
    let mut services = Services::new();
    for (service, entries) in document(path, format, text)?.0 {
        if services.contains_key(&service) {
            return Err(InvalidFile::new(path, service, "stands there twice"));
        }
        let mut ids = BTreeSet::new();
        let mut endpoints = Vec::with_capacity(entries.len());
        for (number, entry) in entries.into_iter().enumerate() {
            let endpoint = entry
                .endpoint()
                .map_err(|(field, reason)| InvalidFile::new(path, format!("{service}[{number}]{field}"), reason))?;
            if !ids.insert(endpoint.id().clone()) {
                let reason = format!("{:?} stands there twice", endpoint.id().as_str());
                return Err(InvalidFile::new(path, format!("{service}[{number}].id"), reason));
            }
            endpoints.push(endpoint);
        }
        services.insert(service, endpoints);
    }
    Ok(services)
}

fn document(path: &Path, format: Format, text: &str) -> Result<Pairs<Vec<Entry>>, InvalidFile> {
    match format {
        Format::Json => {
            let mut reader = serde_json::Deserializer::from_str(text);
            let document = serde_path_to_error::deserialize(&mut reader)
                .map_err(|error| InvalidFile::new(path, field(error.path()), error.inner()))?;
            reader.end().map_err(|error| InvalidFile::new(path, "", error))?;
            Ok(document)
        }
        Format::Toml => {
            let reader =
                toml::Deserializer::parse(text).map_err(|error| InvalidFile::new(path, "", reason(text, &error)))?;
            serde_path_to_error::deserialize(reader)
                .map_err(|error| InvalidFile::new(path, field(error.path()), reason(text, error.inner())))
        }
    }
}

/// As `catalog[1].url`; nothing for the whole.
fn field(path: &serde_path_to_error::Path) -> String {
    if path.iter().next().is_none() { String::new() } else { path.to_string() }
}

/// In one line, with the number of the line that is wrong, as JSON's errors have it.
fn reason(text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return message.to_owned();
    };
    format!("{message} at line {}", 1 + before.matches('\n').count())
}

/// A table as it stands there, names that stand there twice too: the last would hide the others.
struct Pairs<T>(Vec<(String, T)>);

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

struct PairsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for PairsVisitor<T> {
    type Value = Pairs<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

/// An endpoint as it stands there.
enum Entry {
    Url(String),
    Table(Table),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    url: String,
    id: Option<String>,
    weight: Option<u32>,
    zone: Option<String>,
    server_name: Option<String>,
    authority: Option<String>,
    status: Option<String>,
    #[serde(default)]
    metadata: Pairs<String>,
}

/// By hand, since an untagged enum forgets which field is wrong.
impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL, or a table")
    }

    fn visit_str<E>(self, url: &str) -> Result<Entry, E> {
        Ok(Entry::Url(url.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map)).map(Entry::Table)
    }
}

impl Entry {
    /// The endpoint, or the field that is wrong and why.
    fn endpoint(self) -> Result<Endpoint, (String, String)> {
        let url = |url: &str, field: &str| {
            url.parse::<Endpoint>().map_err(|error: InvalidEndpoint| (field.to_owned(), error.to_string()))
        };
        let table = match self {
            Self::Url(text) => return url(&text, ""),
            Self::Table(table) => table,
        };
        let mut endpoint = url(&table.url, ".url")?.with_weight(table.weight.unwrap_or(1));
        if let Some(id) = table.id {
            endpoint = endpoint.with_id(id);
        }
        if let Some(zone) = table.zone {
            endpoint = endpoint.with_zone(zone);
        }
        if let Some(name) = table.server_name {
            endpoint = endpoint.with_server_name(name);
        }
        if let Some(authority) = table.authority {
            endpoint = endpoint.with_authority(authority);
        }
        let status = match table.status.as_deref() {
            None | Some("up") => Status::Up,
            Some("draining") => Status::Draining,
            Some("down") => Status::Down,
            Some(other) => return Err((".status".to_owned(), format!("{other:?} is none of up, draining and down"))),
        };
        let mut metadata = BTreeMap::new();
        for (name, text) in table.metadata.0 {
            let field = format!(".metadata.{name}");
            if metadata.insert(name, text).is_some() {
                return Err((field, "stands there twice".to_owned()));
            }
        }
        Ok(endpoint.with_status(status).with_metadata(metadata))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toml(text: &str) -> Result<Services, InvalidFile> {
        parse(Path::new("shop.toml"), Format::Toml, text)
    }

    fn json(text: &str) -> Result<Services, InvalidFile> {
        parse(Path::new("shop.json"), Format::Json, text)
    }

    #[test]
    fn both_forms_say_the_same() {
        let table = toml(
            "[[catalog]]\nurl = \"http://10.0.0.7:80\"\nid = \"a\"\nzone = \"z\"\nweight = 3\nstatus = \"draining\"\nmetadata = { v = \"1\" }",
        )
        .unwrap();
        let text = r#"{"catalog": [{"url": "http://10.0.0.7:80", "id": "a", "zone": "z", "weight": 3, "status": "draining", "metadata": {"v": "1"}}]}"#;
        assert_eq!(json(text).unwrap(), table);
        let endpoint = &table["catalog"][0];
        assert_eq!((endpoint.id().as_str(), endpoint.zone(), endpoint.weight()), ("a", Some("z"), 3));
        assert_eq!((endpoint.status(), endpoint.metadata()["v"].as_str()), (Status::Draining, "1"));
        assert_eq!(toml("catalog = [\"10.0.0.7:80\"]").unwrap()["catalog"].len(), 1);
    }

    #[test]
    fn an_error_names_the_file_the_field_and_the_value() {
        for (text, field, value) in [
            ("[[a]]\nurl = \"http://x:99999\"", "a[0].url", "99999"),
            ("[[a]]\nurl = \"http://x:1\"\nweight = \"much\"", "a[0].weight", "much"),
            ("[[a]]\nurl = \"http://x:1\"\nwieght = 1", "a[0].wieght", "wieght"),
            ("[[a]]\nurl = \"http://x:1\"\nstatus = \"gone\"", "a[0].status", "gone"),
            ("a = [\"http://x:1\", \"http://x:1\"]", "a[1].id", "x:1"),
            ("a = 5", "a", "5"),
            ("a = [\"http://x:1\", 5]", "a[1]", "5"),
            ("a = [", "", "line 1"),
            ("a = []\n\nb = c", "", "line 3"),
        ] {
            let error = toml(text).unwrap_err();
            assert_eq!(error.field(), field, "{error}");
            assert!(error.to_string().starts_with("shop.toml") && error.to_string().contains(value), "{error}");
        }
    }

    #[test]
    fn an_error_of_the_whole_file_names_no_field() {
        for text in ["", "5", "null", "[]", "{}{}"] {
            let error = json(text).unwrap_err();
            assert_eq!(error.field(), "", "{error}");
            assert!(error.to_string().starts_with("shop.json: "), "{error}");
        }
    }

    #[test]
    fn no_endpoint_is_lost_because_a_name_stands_there_twice() {
        for (text, field) in [
            (r#"{"a": ["http://x:1"], "b": [], "a": ["http://x:2"]}"#, "a"),
            (r#"{"a": [{"url": "http://x:1", "metadata": {"v": "1", "v": "2"}}]}"#, "a[0].metadata.v"),
            (r#"{"a": [{"url": "http://x:1", "url": "http://x:2"}]}"#, "a[0]"),
        ] {
            let error = json(text).unwrap_err();
            assert!(
                error.field() == field
                    && (error.to_string().contains("twice") || error.to_string().contains("duplicate")),
                "{error}"
            );
        }
    }

    #[test]
    fn an_endpoint_is_a_url_or_a_table_and_its_status_a_word() {
        for (text, field) in [
            (r#"{"a": [["http://x:1", "1", 1, null, null, null, "up", {}]]}"#, "a[0]"),
            (r#"{"a": [null]}"#, "a[0]"),
            (r#"{"a": [{"url": "http://x:1", "status": {"up": null}}]}"#, "a[0].status"),
        ] {
            assert_eq!(json(text).unwrap_err().field(), field);
        }
        assert_eq!(toml("[[a]]\nurl = \"http://x:1\"\nweight = nan").unwrap_err().field(), "a[0].weight");
    }
}
