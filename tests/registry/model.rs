//! The store beside a model that keeps everything in one list and looks through it each time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use InstanceStatus::{OutOfService, Unknown, Up};
use hopvine::{
    eureka::{ActionType, Application, DataCenterInfo, Instance, InstanceStatus, Replication},
    registry::{
        By, Moment, RegistryPolicy, ReplicationSink, Store,
        store::{Heartbeat, Renewed},
    },
};
use proptest::{collection::vec, option, prelude::*, sample::select};

const START: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

/// What may happen to one of a few instances.
#[derive(Clone, Debug)]
enum Step {
    Register { status: InstanceStatus, overridden: InstanceStatus, dirty: u64 },
    Heartbeat { dirty: Option<u64>, overridden: Option<InstanceStatus> },
    Cancel,
    SetStatus { status: InstanceStatus, dirty: Option<u64> },
    ClearStatus { status: InstanceStatus, dirty: Option<u64> },
    Metadata,
    Wait { millis: u64 },
}

/// One instance in the model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    status: InstanceStatus,
    overridden: InstanceStatus,
    dirty: u64,
    action: ActionType,
    updated: u64,
    metadata: usize,
    /// What an operator set, and when somebody last asked.
    word: Option<(InstanceStatus, u64)>,
}

type Key = (&'static str, &'static str);

#[derive(Default)]
struct Model {
    now: u64,
    kept: BTreeMap<Key, Kept>,
    /// When each changed last, and how it was then; the latest last.
    changes: Vec<(Key, u64, Kept)>,
    told: usize,
}

impl Model {
    fn word(&mut self, key: Key) -> Option<InstanceStatus> {
        let now = self.now;
        let (status, asked) = self.kept.get_mut(&key)?.word.as_mut()?;
        if now - *asked > HOUR {
            return None;
        }
        *asked = now;
        Some(*status)
    }

    fn changed(&mut self, key: Key, kept: Kept) {
        self.changes.retain(|(other, ..)| *other != key);
        self.changes.push((key, self.now, kept));
    }

    fn change(&mut self, key: Key, action: ActionType, change: impl FnOnce(&mut Kept)) {
        let kept = self.kept.get_mut(&key).unwrap();
        change(kept);
        kept.action = action;
        kept.updated = self.now;
        let kept = kept.clone();
        self.changed(key, kept);
    }

    fn register(&mut self, key: Key, mut new: Kept, by: By) {
        self.told += usize::from(by == By::Client);
        let word = self.word(key);
        let former = self.kept.get(&key).cloned();
        if let Some(former) = &former
            && former.dirty > new.dirty
        {
            new = former.clone();
        }
        let word = word.or(Some(new.overridden).filter(|status| *status != Unknown));
        new.word = word.map(|status| (status, self.now));
        if let Some(word) = word {
            new.overridden = word;
        }
        let is_serving = |status: InstanceStatus| status == Up || status == OutOfService;
        if is_serving(new.status) {
            let kept = former.map(|former| former.status).filter(|status| is_serving(*status) && by == By::Client);
            new.status = word.or(kept).unwrap_or(new.status);
        }
        self.kept.insert(key, new);
        self.change(key, ActionType::Added, |_| {});
    }

    fn heartbeat(&mut self, key: Key, dirty: Option<u64>, overridden: Option<InstanceStatus>, by: By) -> &'static str {
        let word = self.word(key);
        let Some(kept) = self.kept.get(&key) else { return "unknown" };
        let status =
            if kept.status == Up || kept.status == OutOfService { word.unwrap_or(kept.status) } else { kept.status };
        if status == Unknown {
            return "unknown";
        }
        self.told += usize::from(by == By::Client);
        let (is_newer, is_older) = (dirty > Some(kept.dirty), dirty.is_some_and(|dirty| dirty < kept.dirty));
        let new_word =
            overridden.filter(|status| *status != Unknown && is_newer && by == By::Peer && word != Some(*status));
        if status != kept.status || new_word.is_some() {
            let now = self.now;
            self.change(key, ActionType::Modified, |kept| {
                kept.status = status;
                if let Some(new) = new_word {
                    kept.overridden = new;
                    kept.word = Some((new, now));
                }
            });
        }
        match (is_newer, is_older && by == By::Peer) {
            (true, _) => "newer",
            (_, true) => "older",
            _ => "yes",
        }
    }

    fn cancel(&mut self, key: Key, by: By) -> bool {
        let Some(mut kept) = self.kept.remove(&key) else { return false };
        self.told += usize::from(by == By::Client);
        kept.action = ActionType::Deleted;
        kept.updated = self.now;
        self.changed(key, kept);
        true
    }

    fn set_status(&mut self, key: Key, status: InstanceStatus, dirty: Option<u64>, by: By) -> bool {
        let now = self.now;
        let Some(kept) = self.kept.get(&key) else { return false };
        self.told += usize::from(by == By::Client);
        if kept.status != status {
            self.change(key, ActionType::Modified, |kept| {
                kept.status = status;
                kept.overridden = status;
                kept.word = Some((status, now));
                kept.dirty = kept.dirty.max(dirty.unwrap_or(0));
            });
        }
        true
    }

    fn clear_status(&mut self, key: Key, status: InstanceStatus, dirty: Option<u64>, by: By) -> bool {
        if !self.kept.contains_key(&key) {
            return false;
        }
        self.told += usize::from(by == By::Client);
        let word = self.word(key);
        let kept = self.kept.get_mut(&key).unwrap();
        if kept.word.take().is_some() {
            kept.overridden = Unknown;
            let (action, updated) = (kept.action, kept.updated);
            self.change(key, ActionType::Modified, |kept| {
                if word.is_some() {
                    kept.status = status;
                    kept.dirty = kept.dirty.max(dirty.unwrap_or(0));
                }
            });
            if word.is_none() {
                // Its time was over: only the trace of it goes.
                let kept = self.kept.get_mut(&key).unwrap();
                (kept.action, kept.updated) = (action, updated);
                let kept = kept.clone();
                self.changed(key, kept);
            }
        }
        true
    }

    fn hash(&self) -> String {
        let count = |status: &InstanceStatus| self.kept.values().filter(|kept| kept.status == *status).count();
        let mut statuses = InstanceStatus::ALL.map(|status| (status.as_str(), count(&status)));
        statuses.sort_unstable();
        let of_each = statuses.iter().filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name}_{count}_"));
        of_each.collect::<Vec<_>>().concat()
    }
}

#[derive(Default)]
struct Told(Mutex<usize>);

impl ReplicationSink for Told {
    fn replicate(&self, _: Replication) {
        *self.0.lock().unwrap() += 1;
    }
}

fn instance((app, id): Key, status: InstanceStatus, overridden: InstanceStatus, dirty: u64) -> Instance {
    Instance {
        instance_id: Some(id.into()),
        host_name: "host1".into(),
        app: app.into(),
        ip_addr: "10.0.0.1".into(),
        status,
        overridden_status: overridden,
        data_center_info: Some(DataCenterInfo::MyOwn),
        last_dirty_timestamp: Some(dirty),
        ..Instance::default()
    }
}

fn seen(applications: &[Application]) -> BTreeMap<(String, String), Kept> {
    let all = applications.iter().flat_map(|application| &application.instances);
    let of = |instance: &Arc<Instance>| {
        let kept = Kept {
            status: instance.status,
            overridden: instance.overridden_status,
            dirty: instance.last_dirty_timestamp.unwrap(),
            action: instance.action_type.unwrap(),
            updated: instance.last_updated_timestamp.unwrap(),
            metadata: instance.metadata.len(),
            word: None,
        };
        ((instance.app.to_string(), instance.id().to_owned()), kept)
    };
    all.map(of).collect()
}

fn expected<'a>(kept: impl IntoIterator<Item = (&'a Key, &'a Kept)>) -> BTreeMap<(String, String), Kept> {
    kept.into_iter()
        .map(|((app, id), kept)| (((*app).to_owned(), (*id).to_owned()), Kept { word: None, ..kept.clone() }))
        .collect()
}

fn steps() -> impl Strategy<Value = Vec<(Key, By, Step)>> {
    let status = || select(InstanceStatus::ALL.to_vec());
    let dirty = || 1..5_u64;
    let step = prop_oneof![
        4 => (status(), prop_oneof![3 => Just(Unknown), 1 => status()], dirty())
            .prop_map(|(status, overridden, dirty)| Step::Register { status, overridden, dirty }),
        4 => (option::of(dirty()), option::of(status())).prop_map(|(dirty, overridden)| Step::Heartbeat { dirty, overridden }),
        1 => Just(Step::Cancel),
        2 => (status(), option::of(dirty())).prop_map(|(status, dirty)| Step::SetStatus { status, dirty }),
        2 => (status(), option::of(dirty())).prop_map(|(status, dirty)| Step::ClearStatus { status, dirty }),
        1 => Just(Step::Metadata),
        2 => prop_oneof![0..1000_u64, Just(100_000), Just(HOUR), Just(HOUR + 1)].prop_map(|millis| Step::Wait { millis }),
    ];
    let key = select(vec![("A", "1"), ("A", "2"), ("B", "1"), ("B", "3")]);
    vec((key, select(vec![By::Client, By::Client, By::Peer]), step), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_store_knows_what_a_plain_list_would(steps in steps()) {
        // No lease ends: one that is over reads as gone as soon as enough heartbeats come, of which the model knows nothing.
        let default_lease = std::time::Duration::from_secs(365 * 86_400);
        let policy = RegistryPolicy { default_lease, ..RegistryPolicy::default() };
        let store = Store::new(policy, Moment(START)).unwrap();
        let sink = Arc::new(Told::default());
        store.replicate_to(Arc::clone(&sink) as Arc<dyn ReplicationSink>);
        let mut model = Model { now: START, ..Model::default() };

        for (key, by, step) in steps {
            let ((app, id), now) = (key, Moment(model.now));
            match step {
                Step::Register { status, overridden, dirty } => {
                    prop_assert!(store.register(instance(key, status, overridden, dirty), by, now).is_ok());
                    let new = Kept { status, overridden, dirty, action: ActionType::Added, updated: 0, metadata: 0, word: None };
                    model.register(key, new, by);
                }
                Step::Heartbeat { dirty, overridden } => {
                    let heartbeat = Heartbeat { last_dirty_timestamp: dirty, overridden_status: overridden };
                    let renewed = match store.renew(app, id, heartbeat, by, now) {
                        Renewed::Yes => "yes",
                        Renewed::Unknown => "unknown",
                        Renewed::Newer => "newer",
                        Renewed::Older(_) => "older",
                    };
                    prop_assert_eq!(renewed, model.heartbeat(key, dirty, overridden, by));
                }
                Step::Cancel => prop_assert_eq!(store.cancel(app, id, by, now), model.cancel(key, by)),
                Step::SetStatus { status, dirty } => {
                    prop_assert_eq!(store.set_status(app, id, status, dirty, by, now), Ok(model.set_status(key, status, dirty, by)));
                }
                Step::ClearStatus { status, dirty } => {
                    prop_assert_eq!(store.clear_status(app, id, status, dirty, by, now), model.clear_status(key, status, dirty, by));
                }
                Step::Metadata => {
                    let entries = vec![("a".to_owned(), "b".to_owned())];
                    let is_here = model.kept.contains_key(&key);
                    prop_assert_eq!(store.add_metadata(app, id, entries, by, now), Ok(is_here));
                    if let Some(kept) = model.kept.get(&key).cloned() {
                        model.register(key, Kept { metadata: 1, ..kept }, by);
                    }
                }
                Step::Wait { millis } => {
                    model.now += millis;
                    store.tick(Moment(model.now));
                    model.changes.retain(|(_, at, _)| model.now - at <= 180_000);
                }
            }
            let (all, counted) = (store.all(), store.counted());
            prop_assert_eq!(seen(&all.applications), expected(&model.kept));
            prop_assert_eq!(&*all.hash, model.hash());
            prop_assert_eq!(all.counts().to_string(), model.hash());
            prop_assert_eq!(counted.instances, model.kept.len());
            prop_assert_eq!(counted.overrides, model.kept.values().filter(|kept| kept.word.is_some()).count());
            let delta = store.delta();
            prop_assert_eq!(seen(&delta.applications), expected(model.changes.iter().map(|(key, _, kept)| (key, kept))));
            let mut copy = all.clone();
            prop_assert!(copy.apply(&delta), "a whole copy stays whole");
            prop_assert_eq!(*sink.0.lock().unwrap(), model.told);
        }
    }
}
