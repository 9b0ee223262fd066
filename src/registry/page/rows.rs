use std::borrow::Cow;

use super::{
    link::{self, Link},
    words::Span,
};
use crate::{
    eureka::{Instance, InstanceStatus, Port},
    monitor::{PeerView, SnapshotView},
    registry::{
        Moment,
        store::{ApplicationSeen, InstanceSeen},
    },
};

/// How much of a text is shown, in characters: what comes from outside may be long.
const SHOWN: usize = 120;

/// An application, and as many of its instances as have room.
pub(super) struct Group {
    pub(super) name: String,
    /// To all of it; none if the name is longer than anybody means it.
    pub(super) link: Option<String>,
    pub(super) counts: Vec<(InstanceStatus, u32)>,
    pub(super) rows: Vec<Row>,
    /// Instances for which there was no room.
    pub(super) further: usize,
}

/// An instance.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) status: InstanceStatus,
    pub(super) overridden: Option<InstanceStatus>,
    pub(super) addresses: Vec<String>,
    pub(super) host: Option<String>,
    pub(super) zone: String,
    pub(super) heartbeat: Option<String>,
    pub(super) registered: Span,
    pub(super) duration: Span,
    pub(super) due: String,
    pub(super) is_over: bool,
    pub(super) links: Vec<Link>,
}

/// Another registry.
pub(super) struct Other {
    pub(super) url: String,
    pub(super) state: String,
    pub(super) fails: bool,
    pub(super) numbers: [(&'static str, u64); 5],
}

impl Other {
    pub(super) fn new(peer: &PeerView) -> Self {
        let state = match (peer.failing_for, peer.reachable_for) {
            (Some(failing), _) => {
                format!("fails for {}: {}", Span::seconds(failing), cut(peer.error.as_deref().unwrap_or("no answer")))
            }
            (None, Some(reachable)) => format!("answers for {}", Span::seconds(reachable)),
            (None, None) => "nothing was to be told yet".to_owned(),
        };
        let numbers = [
            ("Queued", peer.queued as u64),
            ("Owed", peer.owed as u64),
            ("Sent", peer.sent),
            ("Failed", peer.failed),
            ("Dropped", peer.dropped),
        ];
        Self { url: cut(&peer.url).into_owned(), state, fails: peer.failing_for.is_some(), numbers }
    }
}

/// What is kept on disk, in words.
pub(super) fn snapshot(view: &SnapshotView) -> String {
    let written = match view.age {
        Some(age) => format!("written {} ago", Span::seconds(age)),
        None => "not written yet".to_owned(),
    };
    let error =
        view.error.as_ref().map_or_else(String::new, |error| format!("; it could not be written last: {error}"));
    format!("Kept in {}, {written}{error}.", view.path)
}

impl Group {
    pub(super) fn new(seen: &ApplicationSeen, now: Moment) -> Self {
        let name = cut(&seen.name);
        let link = matches!(name, Cow::Borrowed(_)).then(|| link::part(&[("app", &seen.name)]));
        let counts = InstanceStatus::ALL.map(|status| (status, seen.counts.of(status)));
        Self {
            name: name.into_owned(),
            link,
            counts: counts.into_iter().rev().filter(|(_, count)| *count > 0).collect(),
            rows: seen.instances.iter().map(|seen| Row::new(seen, now)).collect(),
            further: seen.further,
        }
    }
}

impl Row {
    fn new(seen: &InstanceSeen, now: Moment) -> Self {
        let instance = &*seen.instance;
        let pages = [("home", &instance.home_page_url), ("status", &instance.status_page_url)];
        let ago = |then| Span::seconds(now.since(then));
        let is_over = now > seen.due;
        Self {
            id: cut(&seen.id).into_owned(),
            status: instance.status,
            overridden: seen.overridden,
            addresses: addresses(instance),
            host: (instance.host_name != instance.ip_addr).then(|| cut(&instance.host_name).into_owned()),
            zone: cut(zone(instance)).into_owned(),
            heartbeat: seen.renewed.map(|renewed| format!("{} ago", ago(renewed))),
            registered: ago(seen.registered),
            duration: Span(seen.duration),
            due: if is_over {
                format!("over for {}", ago(seen.due))
            } else {
                format!("in {}", Span::seconds(seen.due.since(now)))
            },
            is_over,
            links: pages.into_iter().filter_map(|(name, url)| Link::new(name, url.as_deref())).collect(),
        }
    }
}

/// Where it is reached, by its ports that are in use.
fn addresses(instance: &Instance) -> Vec<String> {
    let ip = cut(&instance.ip_addr);
    let with = |port: Port, word| {
        let (open, close) = if ip.contains(':') { ("[", "]") } else { ("", "") };
        port.enabled.then(|| format!("{open}{ip}{close}:{}{word}", port.number))
    };
    let mut addresses: Vec<String> =
        [with(instance.port, ""), with(instance.secure_port, " TLS")].into_iter().flatten().collect();
    if addresses.is_empty() {
        addresses.push(ip.into_owned());
    }
    addresses
}

/// The zone, where Spring and Amazon's instances say it.
fn zone(instance: &Instance) -> &str {
    instance.metadata.get("zone").or_else(|| instance.amazon("availability-zone")).unwrap_or_default()
}

fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => Cow::Owned(format!("{}\u{2026}", &text[..end])),
        None => Cow::Borrowed(text),
    }
}
