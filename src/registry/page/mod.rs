//! What people see of a registry: one page, made of the store for each request and bounded in size, whatever the registry holds.
//!
//! No page is kept: with 100 000 instances one takes 2 to 9 ms, during which changes, and heartbeats behind them, wait; and who may look may
//! change everything anyway.

use askama::Template;

mod escape;
mod link;
mod rows;
mod words;

use rows::{Group, Other};
use words::{Protection, Span};

use super::{http::Desk, store::Part};
use crate::monitor::RegistryView;

/// How many applications a page shows.
const APPLICATIONS: usize = 200;

/// How many instances a page shows.
const INSTANCES: usize = 500;

/// How many instances of one application among others.
const INSTANCES_OF_EACH: usize = 25;

/// Up to so many instances, all applications are unfolded.
const UNFOLDED: usize = 50;

/// What a browser may do with the page: nothing that does not come from here, and of that only the template's `<style>` and `<script>`, by their hashes. A test
/// says what those must be.
pub(super) const SECURITY_POLICY: &str = "default-src 'none'; connect-src 'self'; form-action 'self'; img-src data:; \
    style-src 'sha256-NCGAEN/uHfHJKo3d/vNTrjrwtwOBXvTPf/sYqNbvQT4='; \
    script-src 'sha256-l4jZ2fG8VR68/US99vf1BhgmUU/D21XzCRoZYNRKTGk='; \
    base-uri 'none'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "page.html", config = "src/registry/page/askama.toml")]
struct Page<'a> {
    version: &'static str,
    uptime: Span,
    view: RegistryView,
    protection: Protection,
    /// The only application that is shown, if one was asked for.
    application: Option<&'a str>,
    after: Option<&'a str>,
    /// Whether lists are answered.
    is_open: bool,
    groups: Vec<Group>,
    unfolded: bool,
    more: Option<More>,
    peers: Vec<Other>,
    snapshot: Option<String>,
    done: Vec<(String, u64)>,
    refused: Vec<(String, u64)>,
    refusals: u64,
}

/// What comes after what is shown.
struct More {
    count: usize,
    what: &'static str,
    link: String,
}

impl Desk {
    /// The page, of all applications or of one: what comes after a name, or an id.
    pub(super) fn render(&self, application: Option<&str>, after: Option<&str>) -> Result<String, askama::Error> {
        let now = self.clock.now();
        let instances_of_each = INSTANCES_OF_EACH;
        let part = Part { application, after, applications: APPLICATIONS, instances: INSTANCES, instances_of_each };
        let overview = self.store.overview(part, now);
        let more = match (application, overview.applications.last()) {
            (_, None) => None,
            (None, Some(last)) => (overview.further > 0).then(|| More {
                count: overview.further,
                what: "applications",
                link: link::part(&[("after", &last.name)]),
            }),
            (Some(_), Some(only)) => only.instances.last().filter(|_| only.further > 0).map(|last| More {
                count: only.further,
                what: "instances",
                link: link::part(&[("app", &only.name), ("after", &last.id)]),
            }),
        };
        let groups: Vec<Group> = overview.applications.iter().map(|seen| Group::new(seen, now)).collect();
        let shown: usize = groups.iter().map(|group| group.rows.len()).sum();
        let view = self.view(&self.name);
        let uptime = now.since(self.clock.began());
        let counts = |refused: bool| {
            let is_refusal = |name: &str| name.starts_with("refused_") || name == "slow_watchers";
            let counts = view.counts.iter().filter(move |(name, _)| is_refusal(name) == refused);
            let named = |(name, count): &(&str, u64)| (name.trim_start_matches("refused_").replace('_', " "), *count);
            counts.map(named).collect::<Vec<_>>()
        };
        let (done, refused) = (counts(false), counts(true));
        let page = Page {
            version: env!("CARGO_PKG_VERSION"),
            uptime: Span::seconds(uptime),
            protection: Protection::new(&view, &self.store.policy().get(), uptime),
            application,
            after,
            unfolded: application.is_some() || shown <= UNFOLDED,
            is_open: self.opening.is_open(self.clock),
            groups,
            more,
            peers: view.peers.iter().map(Other::new).collect(),
            snapshot: view.snapshot.as_ref().map(rows::snapshot),
            done,
            refusals: refused.iter().map(|(_, count)| count).sum(),
            refused,
            view,
        };
        page.render()
    }
}
