//! What waits to be told to one peer. Pure: it knows neither the store nor the peer, and is given the time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{
    eureka::{Action, Instance, InstanceStatus, Replication, Text},
    registry::{Moment, RegistryPolicy},
};

/// An application, and the id of an instance of it.
pub(super) type Key = (Text, Text);

/// Operations in the order in which they happened; of each kind the newest of each instance, since older ones say nothing more.
///
/// What cannot be told in time, or finds no room, becomes a debt: then the peer is told later how the instance is by then, whatever happened to it. Only a
/// heartbeat is forgotten, as another one comes. There are debts for as many instances as a registry may have.
#[derive(Debug, Default)]
pub(super) struct Queue {
    tasks: BTreeMap<i64, Task>,
    places: HashMap<Key, [Option<i64>; KINDS]>,
    /// Since when the first of them waits.
    waiting: Option<Moment>,
    owed: BTreeMap<Key, Debt>,
    /// What was not told and never will be.
    dropped: u64,
}

#[derive(Debug)]
struct Task {
    operation: Replication,
    until: Moment,
}

/// What a peer must be told of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Debt {
    /// How it registered.
    register: bool,
    /// What an operator says.
    status: bool,
    /// That it left.
    left: Option<Left>,
}

/// When an instance that left had changed itself last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Left(Option<u64>);

/// One operation on its way.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) operation: Replication,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Task { until: Moment },
    Debt(Debt),
}

const KINDS: usize = 5;

fn kind(action: &Action) -> usize {
    match action {
        Action::Heartbeat { .. } => 0,
        Action::Register(_) => 1,
        Action::Cancel => 2,
        Action::StatusUpdate(_) => 3,
        Action::DeleteStatusOverride(_) => 4,
    }
}

impl Queue {
    /// Puts an operation in line. Says whether whoever sends should look again.
    pub(super) fn push(&mut self, operation: Replication, now: Moment, policy: &RegistryPolicy) -> bool {
        let key = (operation.app_name.clone(), operation.id.clone());
        if matches!(operation.action, Action::Register(_))
            && let Some(debt) = self.owed.get_mut(&key)
        {
            // It is there again.
            debt.left = None;
            if *debt == Debt::default() {
                self.owed.remove(&key);
            }
        }
        let (was_idle, was_full) = (self.is_empty(), self.tasks.len() >= policy.peers.batch_items);
        let former = self.places.get(&key).and_then(|places| places[kind(&operation.action)]);
        if former.is_none() && self.tasks.len() >= policy.peers.queue {
            self.lose(operation, policy.limits.instances);
        } else {
            let until = now.after(policy.peers.task_time);
            let place = former.filter(|place| self.is_last_of(&key, *place));
            if let Some(former) = former.filter(|_| place.is_none()) {
                self.tasks.remove(&former);
            }
            let place = place.unwrap_or_else(|| self.tasks.last_key_value().map_or(0, |(last, _)| last + 1));
            self.put(key, place, Task { operation, until });
        }
        self.waiting.get_or_insert(now);
        was_idle || (!was_full && self.tasks.len() >= policy.peers.batch_items)
    }

    /// When there is enough, or it waited long enough, for a batch; never if there is nothing.
    pub(super) fn due(&self, policy: &RegistryPolicy) -> Option<Moment> {
        let waiting = self.waiting.filter(|_| !self.is_empty())?;
        Some(if self.tasks.len() >= policy.peers.batch_items {
            waiting
        } else {
            waiting.after(policy.peers.batch_wait)
        })
    }

    /// The first operations, and debts where there is room for them.
    pub(super) fn take(&mut self, now: Moment, policy: &RegistryPolicy) -> (Vec<Item>, Vec<(Key, Debt)>) {
        let mut items = Vec::new();
        while items.len() < policy.peers.batch_items
            && let Some(task) = self.pop()
        {
            let Task { operation, until } = task;
            if until < now {
                self.lose(operation, policy.limits.instances);
            } else {
                items.push(Item { operation, origin: Origin::Task { until } });
            }
        }
        let mut debts = Vec::new();
        // One debt may be two operations.
        while items.len() + 2 * debts.len() + 2 <= policy.peers.batch_items.max(2)
            && let Some(debt) = self.owed.pop_first()
        {
            debts.push(debt);
        }
        if self.is_empty() {
            self.waiting = None;
        }
        (items, debts)
    }

    /// Takes back what could not be told, to stand first again; what is newer of its kind stays.
    pub(super) fn put_back(&mut self, items: Vec<Item>, now: Moment, policy: &RegistryPolicy) {
        for Item { operation, origin } in items.into_iter().rev() {
            let key = (operation.app_name.clone(), operation.id.clone());
            match origin {
                Origin::Debt(debt) => self.owe(key, debt, policy.limits.instances),
                Origin::Task { until } => {
                    let newer = self.places.get(&key).is_some_and(|places| places[kind(&operation.action)].is_some());
                    if newer {
                        continue;
                    }
                    if until < now || self.tasks.len() >= policy.peers.queue {
                        self.lose(operation, policy.limits.instances);
                        continue;
                    }
                    let place = self.tasks.first_key_value().map_or(0, |(first, _)| first - 1);
                    self.put(key, place, Task { operation, until });
                }
            }
        }
        if !self.is_empty() {
            self.waiting.get_or_insert(now);
        }
    }

    /// Owes the peer what it did not take: it is told how things stand by then. Heartbeats are forgotten.
    pub(super) fn owe_all(&mut self, items: Vec<Item>, now: Moment, policy: &RegistryPolicy) {
        for Item { operation, origin } in items {
            match origin {
                Origin::Debt(debt) => self.owe((operation.app_name, operation.id), debt, policy.limits.instances),
                Origin::Task { .. } => self.lose(operation, policy.limits.instances),
            }
        }
        if !self.is_empty() {
            self.waiting.get_or_insert(now);
        }
    }

    /// Owes the peer what an operator says of an instance: it may have an older word.
    pub(super) fn owe_status(&mut self, key: Key, now: Moment, policy: &RegistryPolicy) {
        self.owe(key, Debt { status: true, ..Debt::default() }, policy.limits.instances);
        self.waiting.get_or_insert(now);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.owed.is_empty()
    }

    pub(super) fn queued(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn owed(&self) -> usize {
        self.owed.len()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether nothing that happened to the instance later waits.
    fn is_last_of(&self, key: &Key, place: i64) -> bool {
        self.places.get(key).is_none_or(|places| places.iter().flatten().all(|other| *other <= place))
    }

    fn put(&mut self, key: Key, place: i64, task: Task) {
        self.places.entry(key).or_default()[kind(&task.operation.action)] = Some(place);
        self.tasks.insert(place, task);
    }

    fn pop(&mut self) -> Option<Task> {
        let (_, task) = self.tasks.pop_first()?;
        let key = (task.operation.app_name.clone(), task.operation.id.clone());
        if let Some(places) = self.places.get_mut(&key) {
            places[kind(&task.operation.action)] = None;
            if places.iter().all(Option::is_none) {
                self.places.remove(&key);
            }
        }
        Some(task)
    }

    /// An operation that will not be told as such.
    fn lose(&mut self, operation: Replication, most: usize) {
        let debt = match &operation.action {
            Action::Heartbeat { .. } => {
                self.dropped += 1;
                return;
            }
            Action::Register(_) => Debt { register: true, ..Debt::default() },
            // If it is back by then, it is without the override that it left with.
            Action::Cancel => Debt { left: Some(Left(operation.last_dirty_timestamp)), status: true, register: false },
            Action::StatusUpdate(_) | Action::DeleteStatusOverride(_) => Debt { status: true, ..Debt::default() },
        };
        self.owe((operation.app_name, operation.id), debt, most);
    }

    fn owe(&mut self, key: Key, debt: Debt, most: usize) {
        if let Some(owed) = self.owed.get_mut(&key) {
            owed.register |= debt.register;
            owed.status |= debt.status;
            owed.left = debt.left.or(owed.left);
        } else if self.owed.len() < most {
            // Texts of their own: a peer may be away for long, and the document need not wait for it.
            let (app_name, id) = key;
            self.owed.insert((app_name.as_str().into(), id.as_str().into()), debt);
        } else {
            self.dropped += 1;
        }
    }
}

impl Debt {
    /// What to tell of it, as the instance is now; `None`: it is gone.
    ///
    /// Of one that left it is first asked whether the peer knows a newer one of that name: by a heartbeat, which is answered 409 then.
    pub(super) fn items(self, (app_name, id): Key, now: Option<Arc<Instance>>) -> Vec<Item> {
        let item = |last_dirty_timestamp, action, debt| {
            let (app_name, id) = (app_name.clone(), id.clone());
            Item { operation: Replication { app_name, id, last_dirty_timestamp, action }, origin: Origin::Debt(debt) }
        };
        let Some(instance) = now else {
            let question = Action::Heartbeat { status: None, overridden_status: None };
            let ask = |Left(dirty)| item(dirty, question, Self { register: false, ..self });
            return self.left.map(ask).into_iter().collect();
        };
        let (dirty, status) = (instance.last_dirty_timestamp, instance.status);
        let overridden = match instance.overridden_status {
            InstanceStatus::Unknown => Action::DeleteStatusOverride(status),
            overridden => Action::StatusUpdate(overridden),
        };
        let register = || item(dirty, Action::Register(instance), Self { register: true, ..Self::default() });
        let status = || item(dirty, overridden, Self { status: true, ..Self::default() });
        let items = [self.register.then(register), self.status.then(status)];
        items.into_iter().flatten().collect()
    }
}

impl Item {
    /// As it travels.
    pub(super) fn on_the_wire(&self) -> Replication {
        let mut operation = self.operation.clone();
        // Known here for a debt; Java servers do not say it to each other.
        if operation.action == Action::Cancel {
            operation.last_dirty_timestamp = None;
        }
        operation
    }

    /// Whether it only asks if the peer still has an instance that left.
    pub(super) fn is_question(&self) -> bool {
        matches!(self.origin, Origin::Debt(Debt { left: Some(_), .. }))
    }

    #[cfg(test)]
    pub(super) fn is_debt(&self) -> bool {
        matches!(self.origin, Origin::Debt(_))
    }
}
