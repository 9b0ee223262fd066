use std::{fmt::Debug, sync::Arc};

use hopvine::eureka::{
    Application, Applications, EndpointSettings, Form, HostChoice, Instance, Limits, PortChoice, ReadError,
    ReplicationResponse, Text, json, xml,
};
use serde_json::Value;

use super::twice::Twice;

/// What is small enough for a fuzzer to reach.
const FEW: Limits = Limits { text_bytes: 64, metadata_bytes: 96, metadata_entries: 4, instances: 3, nesting: 6 };

/// A document of Eureka in JSON, whichever it is.
pub fn eureka_json(data: &[u8]) {
    let document: Option<Value> = serde_json::from_slice(data).ok();
    let one = read(data, json::read_instance, json::write_instance, same);
    let application =
        read(data, json::read_application, |one, written| json::write_application(one, Form::Full, written), are_of);
    let all = read(
        data,
        json::read_applications,
        |all, written| json::write_applications(all, Form::Full, written),
        are_of_all,
    );
    let Some(document) = document else {
        assert!(one.is_none() && application.is_none() && all.is_none(), "no document at all");
        return;
    };
    if let Some(instance) = one {
        holds(&instance);
        if matches!(serde_json::from_slice(data), Ok(Twice(false))) {
            said(&instance, &document["instance"]);
        }
    }
    if let Some(application) = application {
        application.instances.iter().for_each(|instance| holds(instance));
    }
    if let Some(all) = all {
        follows(&all);
    }
}

/// A document of Eureka in XML, whichever it is.
pub fn eureka_xml(data: &[u8]) {
    let one = read(data, xml::read_instance, xml::write_instance, same);
    let application =
        read(data, xml::read_application, |one, written| xml::write_application(one, Form::Full, written), are_of);
    let all = read(
        data,
        xml::read_applications,
        |all, written| xml::write_applications(all, Form::Full, written),
        are_of_all,
    );
    for instance in one.iter().chain(application.iter().flat_map(|one| one.instances.iter().map(Arc::as_ref))) {
        holds(instance);
    }
    if let Some(all) = all {
        follows(&all);
    }
}

/// What servers tell each other, and the answer to it.
pub fn eureka_batch(data: &[u8]) {
    let is_document = serde_json::from_slice::<Value>(data).is_ok();
    if let Ok(items) = json::read_replications(data, &Limits::default()) {
        assert!(is_document);
        let items: Vec<_> = items.into_iter().flatten().collect();
        let mut written = Vec::new();
        json::write_replications(&items, &mut written);
        let again = json::read_replications(&written, &Limits::default()).expect("what is written is read");
        assert_eq!(again.into_iter().collect::<Result<Vec<_>, _>>(), Ok(items));
    }
    let answers = read(
        data,
        json::read_replication_responses,
        |answers, written| json::write_replication_responses(answers, written),
        |few, taken| {
            let same = |(few, taken): (&ReplicationResponse, &ReplicationResponse)| {
                few.status_code == taken.status_code && (few.instance.is_none() || few.instance == taken.instance)
            };
            few.len() == taken.len() && few.iter().zip(taken).all(same)
        },
    );
    assert!(answers.is_none() || is_document);
}

/// Reads it under both limits; what was read is the same when it is written and read again, under the limits under which it was read.
fn read<T: PartialEq + Debug>(
    data: &[u8],
    read: fn(&[u8], &Limits) -> Result<T, ReadError>,
    write: impl Fn(&T, &mut Vec<u8>),
    is_of: impl Fn(&T, &T) -> bool,
) -> Option<T> {
    let (taken, few) = (read(data, &Limits::default()), read(data, &FEW));
    for error in [&taken, &few].into_iter().filter_map(|read| read.as_ref().err()) {
        let text = error.to_string();
        assert!(text.starts_with(error.field()) && text.len() < 2 * 1024, "{text}");
    }
    let again = |taken: &T, limits: &Limits| {
        let mut written = Vec::new();
        write(taken, &mut written);
        assert_eq!(read(&written, limits).as_ref(), Ok(taken), "{}", String::from_utf8_lossy(&written));
    };
    let taken = taken.ok();
    if let Ok(few) = few {
        assert!(
            taken.as_ref().is_some_and(|taken| is_of(&few, taken)),
            "what fits into little fits into much: {few:?}"
        );
        again(&few, &FEW);
    }
    let taken = taken?;
    again(&taken, &Limits::default());
    Some(taken)
}

fn same<T: PartialEq>(few: &T, taken: &T) -> bool {
    few == taken
}

/// Whether these are those, but for what is beyond the limits, of which there is no more than a name.
fn are_of(few: &Application, taken: &Application) -> bool {
    let is_of = |(few, taken): (&Arc<Instance>, &Arc<Instance>)| {
        few == taken
            || (few.status == taken.status
                && few.action_type == taken.action_type
                && few.host_name.is_empty()
                && few.ip_addr.is_empty()
                && few.metadata.is_empty())
    };
    few.instances.len() == taken.instances.len() && few.instances.iter().zip(&taken.instances).all(is_of)
}

fn are_of_all(few: &Applications, taken: &Applications) -> bool {
    few.applications.len() == taken.applications.len()
        && few.applications.iter().zip(&taken.applications).all(|(few, taken)| are_of(few, taken))
        && few.counts() == taken.counts()
}

/// Whatever one says of itself: a registry can judge it, and a client can tell where it is.
fn holds(instance: &Instance) {
    let limits = Limits::default();
    assert!(instance.metadata.len() <= limits.metadata_entries && instance.metadata.bytes() <= limits.metadata_bytes);
    assert_eq!(*instance.app, *instance.app.to_uppercase());
    let _ = instance.validate(&instance.app);
    for host in [HostChoice::HostName, HostChoice::IpAddress] {
        for port in [PortChoice::SecureIfEnabled, PortChoice::Plain, PortChoice::Secure] {
            if let Ok(endpoint) = instance.endpoint(&EndpointSettings { host, port }) {
                assert_eq!(endpoint.id().as_str(), instance.id());
                let _ = endpoint.validate();
            }
        }
    }
}

/// A client that knows all takes it as a delta, twice over.
fn follows(all: &Applications) {
    all.instances().for_each(|instance| holds(instance));
    let mut copy = Applications::default();
    let first = copy.apply(all);
    assert_eq!(copy.counts().to_string() == *all.hash, first);
    let once = copy.clone();
    assert_eq!(copy.apply(all), first);
    assert_eq!(copy, once, "what is said twice is no harm");
    let mut written = Vec::new();
    json::write_applications(all, Form::Compact, &mut written);
    let compact = json::read_applications(&written, &Limits::default()).expect("what is written is read");
    let ids = |all: &Applications| -> Vec<(Text, usize)> {
        all.applications.iter().map(|Application { name, instances }| (name.clone(), instances.len())).collect()
    };
    assert_eq!(ids(&compact), ids(all));
}

/// The texts of a JSON document are those that were read.
fn said(instance: &Instance, document: &Value) {
    for (name, read) in [("hostName", &instance.host_name), ("ipAddr", &instance.ip_addr)] {
        match &document[name] {
            Value::String(text) => assert_eq!(**read, **text),
            Value::Null => assert_eq!(**read, *""),
            _ => {}
        }
    }
    let Some(texts) = document["metadata"].as_object() else { return };
    for (name, text) in texts {
        if let Value::String(text) = text
            && !name.is_empty()
            && !name.contains("class")
        {
            assert_eq!(instance.metadata.get(name), Some(&**text), "{name}");
        }
    }
}
