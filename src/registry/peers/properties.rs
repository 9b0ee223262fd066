//! The queue against a plain list, and a peer that forgets nothing against one that is told by it.

use std::collections::BTreeMap;

use http::StatusCode;
use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    queue::{Item, Key, Queue},
    reaction::{Outcome, Reaction, Verdict, outcome, verdict},
    *,
};
use crate::{
    eureka::{Action, Instance, InstanceStatus, Limits, ReplicationResponse, json},
    registry::{Moment, RegistryPolicy},
};

/// A policy under which little has room.
fn policy(queue: usize, batch_items: usize) -> RegistryPolicy {
    let peers = PeerPolicy { batch_items, queue, ..PeerPolicy::default() };
    RegistryPolicy { peers, ..RegistryPolicy::default() }
}

fn instance(id: &str, dirty: u64, status: InstanceStatus, overridden: InstanceStatus) -> Arc<Instance> {
    Arc::new(Instance {
        instance_id: Some(id.into()),
        app: "A".into(),
        last_dirty_timestamp: Some(dirty),
        status,
        overridden_status: overridden,
        ..Instance::default()
    })
}

fn operation(id: &str, dirty: u64, action: Action) -> Replication {
    Replication { app_name: "A".into(), id: id.into(), last_dirty_timestamp: Some(dirty), action }
}

fn heartbeat() -> Action {
    Action::Heartbeat { status: None, overridden_status: None }
}

fn key(id: &str) -> Key {
    ("A".into(), id.into())
}

/// What an operation is, in short.
fn short(operation: &Replication) -> (String, &'static str, Option<u64>) {
    (operation.id.to_string(), operation.action.as_str(), operation.last_dirty_timestamp)
}

#[derive(Clone, Debug)]
enum Step {
    Push(&'static str, usize),
    /// And whether it comes back.
    Take(bool),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (select(vec!["1", "2", "3"]), 0..4_usize).prop_map(|(id, kind)| Step::Push(id, kind)),
        2 => any::<bool>().prop_map(Step::Take),
        1 => select(vec![100, 500, 10_000, 31_000]).prop_map(Step::Wait),
    ];
    vec(step, 1..60)
}

/// One line of the plain list: what it is, how long it is worth telling.
type Line = (String, &'static str, Option<u64>, u64);

proptest! {
    #[test]
    fn operations_leave_in_order_and_only_the_newest_of_each_kind(steps in steps()) {
        let policy = policy(1000, 4);
        let (mut queue, mut list, mut now, mut dirty) = (Queue::default(), Vec::<Line>::new(), 1_000_u64, 0);
        for step in steps {
            match step {
                Step::Push(id, kind) => {
                    dirty += 1;
                    let action = [
                        heartbeat(),
                        Action::Register(instance(id, dirty, InstanceStatus::Up, InstanceStatus::Unknown)),
                        Action::Cancel,
                        Action::StatusUpdate(InstanceStatus::Down),
                    ][kind].clone();
                    let operation = operation(id, dirty, action);
                    let (id, name, dirty) = short(&operation);
                    queue.push(operation, Moment(now), &policy);
                    let line = (id.clone(), name, dirty, now + 30_000);
                    // In the place of the former, unless something of that instance came after it.
                    match list.iter().position(|(other, kind, ..)| (other, *kind) == (&id, name)) {
                        Some(at) if list[at + 1..].iter().all(|(other, ..)| *other != id) => list[at] = line,
                        Some(at) => {
                            list.remove(at);
                            list.push(line);
                        }
                        None => list.push(line),
                    }
                }
                Step::Take(comes_back) => {
                    let (items, _) = queue.take(Moment(now), &policy);
                    let mut expected = Vec::new();
                    while expected.len() < 4 && !list.is_empty() {
                        let line = list.remove(0);
                        if line.3 >= now {
                            expected.push(line);
                        }
                    }
                    let taken: Vec<_> = items.iter().filter(|item| !item.is_debt()).map(|item| short(&item.operation)).collect();
                    let lines: Vec<_> = expected.iter().map(|(id, name, dirty, _)| (id.clone(), *name, *dirty)).collect();
                    prop_assert_eq!(taken, lines);
                    if comes_back {
                        queue.put_back(items, Moment(now), &policy);
                        list.splice(0..0, expected);
                    }
                }
                Step::Wait(millis) => now += millis,
            }
            prop_assert_eq!(queue.queued(), list.len());
            prop_assert_eq!(queue.due(&policy).is_none(), queue.is_empty());
            let due_at_once = list.len() >= 4;
            prop_assert!(!due_at_once || queue.due(&policy) <= Some(Moment(now)));
            prop_assert!(queue.due(&policy) <= Some(Moment(now + 500)));
        }
    }
}

/// A registry as far as peers are told of it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Plain(BTreeMap<String, (u64, InstanceStatus, InstanceStatus)>);

impl Plain {
    fn instance(&self, id: &str) -> Option<Arc<Instance>> {
        self.0.get(id).map(|(dirty, status, overridden)| instance(id, *dirty, *status, *overridden))
    }

    /// What a peer does with an operation, and answers.
    fn told(&mut self, operation: &Replication) -> ReplicationResponse {
        let id = operation.id.to_string();
        let answer = |status_code| ReplicationResponse { status_code, instance: None };
        let dirty = operation.last_dirty_timestamp;
        match &operation.action {
            Action::Register(new) => {
                let new_dirty = new.last_dirty_timestamp.unwrap();
                let kept = self.0.get(&id).copied();
                let overridden = kept.map(|kept| kept.2).filter(|kept| *kept != InstanceStatus::Unknown);
                let (dirty, status) =
                    kept.filter(|kept| kept.0 > new_dirty).map_or((new_dirty, new.status), |kept| (kept.0, kept.1));
                let overridden = overridden.unwrap_or(new.overridden_status);
                let status = if overridden == InstanceStatus::Unknown { status } else { overridden };
                self.0.insert(id, (dirty, status, overridden));
                answer(200)
            }
            Action::Cancel => answer(if self.0.remove(&id).is_some() { 200 } else { 404 }),
            Action::Heartbeat { .. } => match self.0.get(&id) {
                None => answer(404),
                Some((kept, ..)) if dirty > Some(*kept) => answer(404),
                Some((kept, ..)) if dirty.is_some() && dirty < Some(*kept) => {
                    ReplicationResponse { status_code: 409, instance: self.instance(&id) }
                }
                Some(_) => answer(200),
            },
            Action::StatusUpdate(status) => match self.0.get_mut(&id) {
                None => answer(404),
                Some(kept) => {
                    (kept.1, kept.2) = (*status, *status);
                    answer(200)
                }
            },
            Action::DeleteStatusOverride(status) => match self.0.get_mut(&id) {
                None => answer(404),
                Some(kept) => {
                    if kept.2 != InstanceStatus::Unknown {
                        (kept.1, kept.2) = (*status, InstanceStatus::Unknown);
                    }
                    answer(200)
                }
            },
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Register,
    Heartbeat,
    Cancel,
    Override,
    Clear,
    /// A batch is due: it arrives, it arrives and its answer is lost, or it does not arrive.
    Batch(u8),
    Wait(u64),
}

fn events() -> impl Strategy<Value = Vec<(&'static str, Event)>> {
    let event = prop_oneof![
        3 => Just(Event::Register),
        4 => Just(Event::Heartbeat),
        2 => Just(Event::Cancel),
        2 => Just(Event::Override),
        2 => Just(Event::Clear),
        4 => (0..3_u8).prop_map(Event::Batch),
        2 => select(vec![500, 10_000, 31_000]).prop_map(Event::Wait),
    ];
    vec((select(vec!["1", "2", "3", "4"]), event), 1..80)
}

/// One end that sends, and the other.
struct Pair {
    queue: Queue,
    here: Plain,
    there: Plain,
    now: Moment,
    policy: RegistryPolicy,
}

impl Pair {
    fn push(&mut self, operation: Replication) {
        self.queue.push(operation, self.now, &self.policy);
    }

    fn take(&mut self, id: &str, instance: &Arc<Instance>, or_none: bool) {
        let dirty = instance.last_dirty_timestamp.unwrap();
        if self.here.0.get(id).map_or(or_none, |known| known.0 < dirty) {
            self.here.told(&operation(id, dirty, Action::Register(Arc::clone(instance))));
            if instance.overridden_status != InstanceStatus::Unknown {
                self.here.told(&operation(id, dirty, Action::StatusUpdate(instance.overridden_status)));
            }
        }
    }

    fn batch(&mut self, how: u8) {
        let (mut items, debts) = self.queue.take(self.now, &self.policy);
        for (key, debt) in debts {
            let instance = self.here.instance(&key.1);
            items.extend(debt.items(key, instance));
        }
        if how == 2 {
            return self.queue.put_back(items, self.now, &self.policy);
        }
        let answers = items.iter().map(|item| self.there.told(&item.on_the_wire())).collect();
        if how == 1 {
            return self.queue.put_back(items, self.now, &self.policy);
        }
        for reaction in outcome(items, answers).reactions {
            match reaction {
                Reaction::Register((_, id)) => {
                    if let Some(instance) = self.here.instance(&id) {
                        let dirty = instance.last_dirty_timestamp.unwrap();
                        self.push(operation(&id, dirty, Action::Register(instance)));
                    }
                }
                Reaction::Cancel((_, id), dirty) => {
                    if self.here.0.contains_key(&*id) {
                        self.queue.owe_status(key(&id), self.now, &self.policy);
                    } else {
                        let cancel = operation(&id, 0, Action::Cancel);
                        self.push(Replication { last_dirty_timestamp: dirty, ..cancel });
                    }
                }
                Reaction::Take((_, id), instance) => self.take(&id, &instance, false),
                Reaction::TakeBack((_, id), instance) => self.take(&id, &instance, true),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// However small the queue is, and whatever is lost, in the end the peer knows what is known here; heartbeats go on, as they do.
    #[test]
    fn a_peer_knows_in_the_end_what_is_known_here(events in events(), room in 1..8_usize) {
        let (here, there) = (Plain::default(), Plain::default());
        let mut pair = Pair { queue: Queue::default(), here, there, now: Moment(1_000), policy: policy(room, 3) };
        let mut dirty = 0;
        for (id, event) in events {
            dirty += 1;
            let known = pair.here.0.get(id).copied();
            match (event, known) {
                (Event::Register, _) => {
                    let own = instance(id, dirty, InstanceStatus::Up, InstanceStatus::Unknown);
                    pair.here.told(&operation(id, dirty, Action::Register(own)));
                    let registered = pair.here.instance(id).unwrap();
                    pair.push(operation(id, dirty, Action::Register(registered)));
                }
                (Event::Heartbeat, Some((dirty, ..))) => pair.push(operation(id, dirty, heartbeat())),
                (Event::Cancel, Some((dirty, ..))) => {
                    pair.here.0.remove(id);
                    pair.push(operation(id, dirty, Action::Cancel));
                }
                (Event::Override, Some((dirty, ..))) => {
                    let set = operation(id, dirty, Action::StatusUpdate(InstanceStatus::OutOfService));
                    pair.here.told(&set);
                    pair.push(set);
                }
                (Event::Clear, Some((dirty, ..))) => {
                    let clear = operation(id, dirty, Action::DeleteStatusOverride(InstanceStatus::Up));
                    pair.here.told(&clear);
                    pair.push(clear);
                }
                (Event::Batch(how), _) => pair.batch(how),
                (Event::Wait(millis), _) => pair.now = Moment(pair.now.0 + millis),
                _ => {}
            }
        }
        for _ in 0..3 {
            for (id, (dirty, ..)) in pair.here.0.clone() {
                pair.push(operation(&id, dirty, heartbeat()));
            }
            for _ in 0..20 {
                pair.batch(0);
            }
        }
        prop_assert!(pair.queue.is_empty());
        prop_assert_eq!(pair.here, pair.there);
    }
}

fn items(operations: Vec<Replication>) -> Vec<Item> {
    let (mut queue, policy) = (Queue::default(), RegistryPolicy::default());
    for operation in operations {
        queue.push(operation, Moment(0), &policy);
    }
    queue.take(Moment(0), &policy).0
}

#[test]
fn each_answer_has_its_consequence() {
    let newer = instance("3", 9, InstanceStatus::Up, InstanceStatus::Unknown);
    let own = instance("5", 1, InstanceStatus::Up, InstanceStatus::Unknown);
    let items = items(vec![
        operation("1", 1, heartbeat()),
        operation("2", 1, heartbeat()),
        operation("3", 1, heartbeat()),
        operation("4", 1, heartbeat()),
        operation("5", 1, Action::Register(own)),
        operation("6", 1, Action::Cancel),
        operation("7", 1, Action::StatusUpdate(InstanceStatus::Down)),
    ]);
    let answer = |status_code, instance| ReplicationResponse { status_code, instance };
    let answers = vec![
        answer(200, None),
        answer(404, None),
        answer(409, Some(Arc::clone(&newer))),
        answer(500, None),
        answer(503, None),
        answer(404, None),
        answer(404, None),
    ];
    let reactions = vec![Reaction::Register(key("2")), Reaction::Take(key("3"), newer)];
    assert_eq!(outcome(items, answers), Outcome { sent: 4, failed: 3, reactions });
}

#[test]
fn what_waits_is_bounded_and_what_finds_no_room_is_counted() {
    let mut policy = policy(3, 2);
    policy.limits.instances = 2;
    let mut queue = Queue::default();
    for id in ["1", "2", "3", "4", "5", "6", "7"] {
        queue.push(operation(id, 1, Action::Cancel), Moment(0), &policy);
        queue.push(operation(id, 1, heartbeat()), Moment(0), &policy);
    }
    // Two of the first, one of the second; three heartbeats and more are forgotten, and two departures beyond the two that are owed.
    assert_eq!((queue.queued(), queue.owed()), (3, 2));
    assert_eq!(queue.dropped(), 14 - 3 - 2);
}

#[test]
fn a_java_servers_cancel_has_no_timestamp_and_neither_has_ours() {
    let items = items(vec![operation("1", 7, Action::Cancel)]);
    let mut document = Vec::new();
    json::write_replications(&[items[0].on_the_wire()], &mut document);
    assert_eq!(document, br#"{"replicationList":[{"appName":"A","id":"1","action":"Cancel"}]}"#);
}

#[test]
fn what_a_peer_answers_to_a_batch_says_whether_it_is_tried_again() {
    let ok = br#"{"responseList":[{"statusCode":200}]}"#;
    let of = |status, body: &[u8]| match verdict(StatusCode::from_u16(status).unwrap(), body, 1, &Limits::default()) {
        Verdict::Answered(_) => "answered",
        Verdict::Busy(_) => "busy",
        Verdict::Denied(_) => "denied",
        Verdict::Broken(_) => "broken",
        Verdict::Refused(_) => "refused",
    };
    assert_eq!(of(200, ok), "answered");
    assert_eq!(of(200, br#"{"responseList":[{"statusCode":200,"x":1}]}"#), "answered");
    assert_eq!(of(503, ok), "busy");
    for status in [401, 403, 408, 429, 500, 502, 504] {
        assert_eq!(of(status, ok), "denied", "{status}");
    }
    for status in [400, 404, 413, 302] {
        assert_eq!(of(status, ok), "refused", "{status}");
    }
    assert_eq!(of(200, b""), "refused");
    assert_eq!(of(200, br#"{"responseList":[]}"#), "refused");
    assert_eq!(of(200, br#"{"responseList":[{"statusCode":200},{"statusCode":200}]}"#), "refused");
    for garbage in [&b"<html>"[..], b"{}", br#"{"responseList":[{}]}"#, b"\xff"] {
        assert_eq!(of(200, garbage), "broken", "{garbage:?}");
    }
}

#[test]
fn a_peer_that_fails_is_left_alone_longer_and_longer_but_not_for_ever() {
    let (second, most) = (std::time::Duration::from_secs(1), std::time::Duration::from_secs(5));
    let mut backoff = reaction::Backoff::default();
    let waits: Vec<_> = (0..6).map(|_| backoff.failed(Moment(0), second, most, 1.0).0).collect();
    assert_eq!(waits, [1000, 2000, 4000, 5000, 5000, 5000]);
    backoff.succeeded();
    assert_eq!(backoff.until(), None);
    assert_eq!(backoff.failed(Moment(0), second, most, 0.0), Moment(750));
}
