//! What a document says of services, read field by field from the plain values.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hopvine::{
    Endpoint,
    endpoint::{Scheme, Status},
};
use serde_json::{Map, Value};

const KNOWN: [&str; 8] = ["url", "id", "weight", "zone", "server_name", "authority", "status", "metadata"];

/// An endpoint, as it is said to be.
#[derive(Debug, PartialEq)]
pub(super) struct Said {
    id: String,
    address: String,
    scheme: Scheme,
    weight: u64,
    status: Status,
    /// Zone, server name, authority.
    texts: [Option<String>; 3],
    metadata: BTreeMap<String, String>,
}

impl Said {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        Self {
            id: endpoint.id().to_string(),
            address: endpoint.address().to_string(),
            scheme: endpoint.scheme(),
            weight: u64::from(endpoint.weight()),
            status: endpoint.status(),
            texts: [endpoint.zone(), endpoint.server_name(), endpoint.authority()].map(|text| text.map(str::to_owned)),
            metadata: endpoint.metadata().clone(),
        }
    }
}

/// What is said of all services, and which fields are wrong.
pub(super) fn read(document: &Value) -> (BTreeMap<String, Vec<Said>>, Vec<String>) {
    let (mut services, mut wrong) = (BTreeMap::new(), Vec::new());
    let Value::Object(document) = document else {
        return (services, vec![String::new()]);
    };
    for (service, entries) in document {
        let Value::Array(entries) = entries else {
            wrong.push(service.clone());
            continue;
        };
        let mut endpoints: Vec<Said> = Vec::new();
        for (number, entry) in entries.iter().enumerate() {
            let place = format!("{service}[{number}]");
            match said(entry) {
                Ok(endpoint) if endpoints.iter().any(|other| other.id == endpoint.id) => {
                    wrong.push(format!("{place}.id"));
                }
                Ok(endpoint) => endpoints.push(endpoint),
                Err(fields) => wrong.extend(fields.into_iter().map(|field| place.clone() + &field)),
            }
        }
        services.insert(service.clone(), endpoints);
    }
    (services, wrong)
}

/// One endpoint, or which of its fields are wrong.
fn said(entry: &Value) -> Result<Said, Vec<String>> {
    let mut wrong = Vec::new();
    let fields = match entry {
        Value::String(url) => &Map::from_iter([("url".to_owned(), url.clone().into())]),
        Value::Object(fields) => fields,
        _ => return Err(vec![String::new()]),
    };
    let mut text = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        None | Some(Value::Null) => None,
        Some(_) => {
            wrong.push(format!(".{name}"));
            None
        }
    };
    let (id, texts, status) = (text("id"), ["zone", "server_name", "authority"].map(&mut text), text("status"));
    let weight = match fields.get("weight") {
        None | Some(Value::Null) => Some(1),
        Some(weight) => weight.as_u64().filter(|weight| *weight < 1 << 32),
    };
    let status = match status.as_deref() {
        None | Some("up") => Status::Up,
        Some("draining") => Status::Draining,
        Some("down") => Status::Down,
        Some(_) => {
            wrong.push(".status".to_owned());
            Status::Up
        }
    };
    if weight.is_none() {
        wrong.push(".weight".to_owned());
    }
    let mut metadata = BTreeMap::new();
    match fields.get("metadata") {
        None => {}
        Some(Value::Object(texts)) => {
            for (name, text) in texts {
                match text {
                    Value::String(text) => _ = metadata.insert(name.clone(), text.clone()),
                    _ => wrong.push(format!(".metadata.{name}")),
                }
            }
        }
        Some(_) => wrong.push(".metadata".to_owned()),
    }
    wrong.extend(fields.keys().filter(|name| !KNOWN.contains(&name.as_str())).map(|name| format!(".{name}")));
    let address = fields.get("url").and_then(Value::as_str).and_then(address);
    if address.is_none() {
        // What is not there has no place, and a URL alone no name.
        let named = entry.is_object() && fields.contains_key("url");
        wrong.push(if named { ".url" } else { "" }.to_owned());
    }
    match (address, weight) {
        (Some((scheme, address)), Some(weight)) if wrong.is_empty() => {
            let id = id.unwrap_or_else(|| address.clone());
            Ok(Said { id, address, scheme, weight, status, texts, metadata })
        }
        _ => Err(wrong),
    }
}

/// `[http[s]://]host[:port][/]`, where the host is an IPv4 address, an IPv6 address in brackets, or a name; and not one that
/// nobody can be sent to. The port may be left out behind a scheme.
fn address(url: &str) -> Option<(Scheme, String)> {
    let (scheme, port, rest) = if let Some(rest) = url.strip_prefix("http://") {
        (Scheme::Http, Some("80"), rest)
    } else if let Some(rest) = url.strip_prefix("https://") {
        (Scheme::Https, Some("443"), rest)
    } else {
        (Scheme::Http, None, url)
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rfind(':') {
        Some(colon) if !rest[colon..].contains(']') => (&rest[..colon], &rest[colon + 1..]),
        _ => (rest, port?),
    };
    let digits = !port.is_empty() && port.chars().all(|digit| digit.is_ascii_digit());
    let port: u16 = if digits { port.parse().ok().filter(|port| *port > 0)? } else { return None };
    let host = if let Some(inside) = host.strip_prefix('[') {
        let inside = inside.strip_suffix(']')?;
        let (ip, scope) = inside.split_once('%').map_or((inside, None), |(ip, scope)| (ip, Some(scope)));
        let ip: Ipv6Addr = ip.parse().ok()?;
        let scope = match scope {
            None => String::new(),
            Some(scope) if !scope.is_empty() && scope.chars().all(|digit| digit.is_ascii_digit()) => {
                let scope: u32 = scope.parse().ok()?;
                if scope == 0 { String::new() } else { format!("%{scope}") }
            }
            Some(_) => return None,
        };
        may_be_called(ip.to_canonical()).then(|| format!("[{ip}{scope}]"))?
    } else if let Ok(ip) = host.parse::<Ipv4Addr>() {
        may_be_called(ip.into()).then(|| ip.to_string())?
    } else {
        is_name(host).then(|| host.to_ascii_lowercase())?
    };
    Some((scheme, format!("{host}:{port}")))
}

fn may_be_called(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => match ip.octets() {
            [0, 0, 0, 0] | [255, 255, 255, 255] | [169, 254, ..] => false,
            [first, ..] => !(224..240).contains(&first),
        },
        IpAddr::V6(ip) => match ip.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => false,
            [first, ..] => first & 0xff00 != 0xff00 && first & 0xffc0 != 0xfe80,
        },
    }
}

/// Labels of letters, digits, dashes and underscores; the last not all digits.
fn is_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let labels: Vec<&str> = host.split('.').collect();
    let is_label = |label: &&str| {
        let inside = label.chars().all(|each| each.is_ascii_alphanumeric() || each == '-' || each == '_');
        (1..=63).contains(&label.len()) && inside && !label.starts_with('-') && !label.ends_with('-')
    };
    host.len() <= 253
        && labels.iter().all(is_label)
        && labels.last().is_some_and(|last| last.contains(|each: char| !each.is_ascii_digit()))
}
