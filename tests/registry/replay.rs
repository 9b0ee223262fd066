//! Every request that was recorded, sent to our registry: it answers as the Java server did, or its difference is told in `differences.tsv`, with the reason.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    path::Path,
};

use hopvine::{
    eureka::{Form, Limits, json, xml},
    registry::{By, RegistryHandle},
};
use serde_json::Value;

use crate::{
    client::{Client, fresh, start},
    recordings::{Line, Message, lines, names},
};

/// One row of `differences.tsv`: the recording; the note, or else method and path; our status; why.
struct Difference {
    file: String,
    what: String,
    status: u16,
    used: bool,
}

fn differences() -> Vec<Difference> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/registry/differences.tsv");
    let text = fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let [file, what, status, reason] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("four columns: {line}")
        };
        assert!(!reason.is_empty());
        Difference { file: file.to_owned(), what: what.to_owned(), status: status.parse().unwrap(), used: false }
    };
    text.lines().filter(|line| !line.starts_with('#')).map(row).collect()
}

#[tokio::test]
async fn programs_that_talk_to_a_java_server_hear_the_same_from_ours() {
    let mut differences = differences();
    let mut same = 0;
    let mut wrong = Vec::new();
    for file in names("direct-").into_iter().chain(names("client-")) {
        let mut replay = Replay::new(&file).await;
        for line in lines(&file) {
            let Some((ours, theirs)) = replay.step(&line).await else { continue };
            let request = line.request.as_ref().unwrap();
            let what = match &*line.note {
                "" => format!("{} {}#{}", request.method, request.path, line.number),
                note => note.to_owned(),
            };
            let row = differences.iter_mut().find(|row| row.file == file && row.what == what);
            match (compare(&ours, &theirs, &replay, request), row) {
                (None, None) => same += 1,
                (None, Some(_)) => wrong.push(format!("{file}:{} {what}: no difference any more", line.number)),
                (Some(_), Some(row)) if row.status == ours.status => row.used = true,
                (Some(difference), _) => wrong.push(format!("{file}:{} {what}: {difference}", line.number)),
            }
        }
        replay.registry.shutdown().await;
    }
    wrong.extend(differences.iter().filter(|row| !row.used).map(|row| format!("unused: {} {}", row.file, row.what)));
    println!("{same} answers are the same, {} differ as listed", differences.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(same > 400, "{same}");
}

/// One recording, played to a registry of its own.
struct Replay {
    registry: RegistryHandle,
    client: Client,
    /// Instances that this registry has seen.
    seen: HashSet<(String, String)>,
    /// All that clients sent, in one text.
    sent: String,
    is_stopped: bool,
    /// They took the instance out before each registration, which is not in the recording.
    begins_anew: bool,
}

impl Replay {
    async fn new(file: &str) -> Self {
        let registry = start(fresh()).await;
        let client = Client::connect(registry.local_addr()).await;
        let requests = lines(file).into_iter().filter_map(|line| line.request);
        let sent = requests.map(|request| request.path + &request.body).collect();
        Self {
            registry,
            client,
            seen: HashSet::new(),
            sent,
            is_stopped: false,
            begins_anew: file == "direct-register-parse",
        }
    }

    /// Our answer and theirs, if there is a request on this line.
    async fn step(&mut self, line: &Line) -> Option<(Message, Message)> {
        if line.note.contains("freshly started, empty server") || line.note.contains("started again") {
            let fresh = start(fresh()).await;
            self.client = Client::connect(fresh.local_addr()).await;
            std::mem::replace(&mut self.registry, fresh).shutdown().await;
            self.seen.clear();
        }
        let (request, theirs) = (line.request.as_ref()?, line.response.as_ref());
        // They stopped their server.
        let Some(theirs) = theirs else {
            self.is_stopped = true;
            return None;
        };
        if std::mem::take(&mut self.is_stopped) {
            let fresh = start(fresh()).await;
            self.client = Client::connect(fresh.local_addr()).await;
            std::mem::replace(&mut self.registry, fresh).shutdown().await;
            self.seen.clear();
        }
        self.bystanders(theirs).await;
        if request.method == "POST" {
            if self.begins_anew {
                let (store, now) = (self.registry.store(), self.registry.now());
                store.cancel("ORDERS", "host1:orders:8080", By::Client, now);
            }
            self.remember(&request.body);
        }
        Some((self.client.send(request).await, theirs.clone()))
    }

    fn remember(&mut self, body: &str) {
        let id = |instance: &hopvine::eureka::Instance| (instance.app.to_string(), instance.id().to_owned());
        let limits = Limits::default();
        let read =
            json::read_instance(body.as_bytes(), &limits).or_else(|_| xml::read_instance(body.as_bytes(), &limits));
        self.seen.extend(read.ok().map(|instance| id(&instance)));
    }

    /// Registers what others registered while the recording was made.
    async fn bystanders(&mut self, theirs: &Message) {
        let Some(document) = document(&theirs.body) else { return };
        for instance in instances(&document) {
            let (app, id) = key(instance);
            let is_here = self.registry.store().instance(&app, &id, self.registry.now()).is_some();
            if app == "STOCK" && id.starts_with("host2") && instance["actionType"] != "DELETED" && !is_here {
                let body = serde_json::json!({ "instance": instance }).to_string();
                assert_eq!(self.client.post(&format!("/eureka/apps/{app}"), &body).await.status, 204);
                self.seen.insert((app, id));
            }
        }
    }
}

/// What differs, in words.
fn compare(ours: &Message, theirs: &Message, replay: &Replay, request: &Message) -> Option<String> {
    if ours.status != theirs.status {
        return Some(format!("{} where they answer {}: {}", ours.status, theirs.status, ours.body));
    }
    for header in ["allow", "content-encoding"] {
        let of = |message: &Message| -> BTreeSet<String> {
            let values = message.header(header).unwrap_or_default().split(',').map(|value| value.trim().to_owned());
            values.filter(|value| value != "HEAD" && !value.is_empty()).collect()
        };
        if of(ours) != of(theirs) {
            return Some(format!("{header} {:?}, theirs {:?}", of(ours), of(theirs)));
        }
    }
    // The pages with which Java servers tell of errors are none of Eureka's: a body there breaks Java's own clients.
    if theirs.body.contains("\"timestamp\":") || theirs.body.starts_with("<Map>") {
        return (!ours.body.is_empty()).then(|| format!("a body: {}", ours.body));
    }
    if theirs.body.contains("cannot parse request body") {
        return (!ours.body.starts_with("cannot parse request body: ")).then(|| format!("{:?}", ours.body));
    }
    if ours.status < 400 && !theirs.body.is_empty() && ours.header("content-type") != theirs.header("content-type") {
        return Some(format!("{:?}, theirs {:?}", ours.header("content-type"), theirs.header("content-type")));
    }
    let normal = |message: &Message| -> Value {
        match document(&message.body) {
            Some(document) => normal(document, replay, request.path.contains("delta")),
            None => message.body.clone().into(),
        }
    };
    let (own, other) = (normal(ours), normal(theirs));
    (own != other).then(|| format!("\n  ours   {own}\n  theirs {other}"))
}

/// A document as JSON, if it is one.
fn document(body: &str) -> Option<Value> {
    if !body.starts_with('<') {
        return serde_json::from_str(body).ok();
    }
    let (bytes, limits, mut written) = (body.as_bytes(), Limits::default(), Vec::new());
    let form = if body.starts_with("<applications>\n") || body.starts_with("<application>\n") {
        Form::Full
    } else {
        Form::Compact
    };
    if let Ok(read) = xml::read_applications(bytes, &limits) {
        json::write_applications(&read, form, &mut written);
    } else if let Ok(read) = xml::read_application(bytes, &limits) {
        json::write_application(&read, form, &mut written);
    } else if let Ok(read) = xml::read_instance(bytes, &limits) {
        json::write_instance(&read, &mut written);
    }
    serde_json::from_slice(&written).ok()
}

fn instances(document: &Value) -> Vec<&Value> {
    let applications = document["applications"]["application"].as_array().into_iter().flatten();
    let applications = applications.chain(document.get("application"));
    let all = applications.flat_map(|application| application["instance"].as_array().into_iter().flatten());
    all.chain(document.get("instance")).collect()
}

fn key(instance: &Value) -> (String, String) {
    let text = |name: &str| instance[name].as_str().unwrap_or_default().to_owned();
    let id = Some(text("instanceId")).filter(|id| !id.is_empty()).unwrap_or_else(|| text("hostName"));
    (text("app"), id)
}

/// The document without what differs from run to run: times, numbers of deltas, the order of instances, and what earlier runs left in a delta.
fn normal(mut document: Value, replay: &Replay, is_delta: bool) -> Value {
    if let Some(applications) = document.get_mut("applications") {
        if is_delta {
            applications["versions__delta"] = "N".into();
        }
        if let Some(list) = applications.get_mut("application").and_then(Value::as_array_mut) {
            for application in list.iter_mut() {
                let instances = application["instance"].as_array_mut().unwrap();
                instances.retain(|instance| !is_delta || replay.seen.contains(&key(instance)));
                instances.sort_by_key(key);
            }
            list.retain(|application| !application["instance"].as_array().unwrap().is_empty());
            list.sort_by_key(|application| application["name"].to_string());
        }
    }
    let times = |value: &mut Value, name: &str| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let is_sent = name == "lastDirtyTimestamp" && replay.sent.contains(&text);
        if text != "0" && text.parse::<u64>().is_ok() && name.ends_with("Timestamp") && !is_sent {
            *value = "a time".into();
        }
    };
    walk(&mut document, &times);
    document
}

fn walk(value: &mut Value, each: &impl Fn(&mut Value, &str)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                each(value, name);
                walk(value, each);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| walk(value, each)),
        _ => {}
    }
}
