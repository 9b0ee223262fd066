use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;

use super::{State, Watches};
use crate::{
    eureka::{Form, Text, json},
    registry::store::Changes,
};

/// What some watchers are told next; nothing if what changed is none of theirs.
struct Told {
    line: Option<Bytes>,
    position: u64,
}

/// Watchers that have seen the same and want the same.
type Group = (u64, Arc<[Text]>);

impl Watches {
    /// Tells each watcher what changed since it was last told.
    pub(super) fn round(&self) {
        let mut groups: HashMap<Group, Vec<u64>> = HashMap::new();
        for (number, watcher) in &self.state().watchers {
            groups.entry((watcher.position, Arc::clone(&watcher.applications))).or_default().push(*number);
        }
        let mut changes: HashMap<u64, Option<Changes>> = HashMap::new();
        for ((position, applications), numbers) in groups {
            let since = changes.entry(position).or_insert_with(|| self.store.changes_after(position));
            // What is forgotten can only be read whole.
            let told = since.as_ref().map(|changes| told(changes, &applications));
            let mut state = self.state();
            for number in numbers {
                match &told {
                    Some(told) => self.tell(&mut state, number, told),
                    None => self.cut(&mut state, number),
                }
            }
        }
    }

    fn tell(&self, state: &mut State, number: u64, told: &Told) {
        let Some(watcher) = state.watchers.get_mut(&number) else { return };
        watcher.position = told.position;
        if let Some(line) = &told.line
            && let Err(TrySendError::Full(_)) = watcher.lines.try_send(line.clone())
        {
            self.cut(state, number);
        }
    }

    /// The same line for all: a sign of life.
    pub(super) fn send_all(&self, line: &Bytes) {
        let mut state = self.state();
        let full = state
            .watchers
            .iter()
            .filter(|(_, watcher)| matches!(watcher.lines.try_send(line.clone()), Err(TrySendError::Full(_))));
        let full: Vec<u64> = full.map(|(number, _)| *number).collect();
        for number in full {
            self.cut(&mut state, number);
        }
    }

    /// Closes the connection of a watcher that is too far behind: it comes again, and reads everything.
    fn cut(&self, state: &mut State, number: u64) {
        let Some(watcher) = state.watchers.remove(&number) else { return };
        self.count.store(state.watchers.len(), std::sync::atomic::Ordering::Relaxed);
        self.store.counters().slow_watchers.add();
        watcher.connection.close();
        self.broke(state, &watcher);
    }
}

fn told(changes: &Changes, applications: &[Text]) -> Told {
    let mut wanted = changes.applications.clone();
    if !applications.is_empty() {
        wanted.applications.retain(|application| applications.contains(&application.name));
    }
    let line = (!wanted.applications.is_empty()).then(|| {
        let mut line = Vec::new();
        json::write_applications(&wanted, Form::Full, &mut line);
        line.push(b'\n');
        line.into()
    });
    Told { line, position: changes.last }
}
