//! What follows from a peer's answer. Pure.

use std::sync::Arc;

use http::StatusCode;

use super::queue::{Item, Key};
use crate::{
    eureka::{Action, Instance, Limits, ReplicationResponse, json},
    registry::Moment,
};

/// What a peer made of a batch.
#[derive(Debug)]
pub(super) enum Verdict {
    /// One answer for each item.
    Answered(Vec<ReplicationResponse>),
    /// It is there, but has no time: 503, or no answer in time.
    Busy(String),
    /// It could not be reached or understood.
    Broken(String),
    /// It does not take this now, and nobody knows why: another 5xx, 429, 408, or 401 and 403, until somebody mends the password.
    Denied(String),
    /// It will not have this batch, now or later.
    Refused(String),
}

/// What is to be done besides.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// The peer does not know this instance, or knows an older one: it is told how it registered.
    Register(Key),
    /// This instance left here, and the peer may have it: it is told.
    Cancel(Key, Option<u64>),
    /// The peer knows this instance better: it is taken if it is newer than what is here by now.
    Take(Key, Arc<Instance>),
    /// The peer knows a newer instance than the one that left here: it is taken too.
    TakeBack(Key, Arc<Instance>),
}

/// The sum of a batch's answers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) sent: u64,
    pub(super) failed: u64,
    pub(super) reactions: Vec<Reaction>,
}

/// What an answer with this status and body is to a batch of so many items.
pub(super) fn verdict(status: StatusCode, body: &[u8], items: usize, limits: &Limits) -> Verdict {
    if status == StatusCode::SERVICE_UNAVAILABLE {
        return Verdict::Busy(status.to_string());
    }
    let denied =
        [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
    if status.is_server_error() || denied.contains(&status) {
        return Verdict::Denied(status.to_string());
    }
    if !status.is_success() {
        return Verdict::Refused(status.to_string());
    }
    if body.is_empty() {
        return Verdict::Refused("an answer without a body".to_owned());
    }
    match json::read_replication_responses(body, limits) {
        Ok(answers) if answers.len() == items => Verdict::Answered(answers),
        // Nobody can say which answer is whose.
        Ok(answers) => Verdict::Refused(format!("{} answers for {items} operations", answers.len())),
        Err(error) => Verdict::Broken(error.to_string()),
    }
}

pub(super) fn outcome(items: Vec<Item>, answers: Vec<ReplicationResponse>) -> Outcome {
    let mut outcome = Outcome::default();
    for (item, answer) in items.into_iter().zip(answers) {
        let (is_question, operation) = (item.is_question(), item.operation);
        let key = (operation.app_name, operation.id);
        let is_heartbeat = matches!(operation.action, Action::Heartbeat { .. });
        let reaction = match (answer.status_code, answer.instance) {
            (200..300 | 404, _) if is_question => Some(Reaction::Cancel(key, operation.last_dirty_timestamp)),
            (200..300, _) => None,
            // What is not there has left.
            (404, _) if operation.action == Action::Cancel => None,
            (404, _) if is_heartbeat => Some(Reaction::Register(key)),
            (_, Some(instance)) if is_question => Some(Reaction::TakeBack(key, instance)),
            (_, Some(instance)) if is_heartbeat => Some(Reaction::Take(key, instance)),
            _ => {
                outcome.failed += 1;
                continue;
            }
        };
        outcome.sent += 1;
        outcome.reactions.extend(reaction);
    }
    outcome
}

/// How long a peer is left alone: longer each time it fails.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Option<Moment>,
}

impl Backoff {
    /// Until when; `first` is the wait after one failure.
    pub(super) fn failed(
        &mut self,
        now: Moment,
        first: std::time::Duration,
        most: std::time::Duration,
        chance: f64,
    ) -> Moment {
        let ceiling = first.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures += 1;
        // Several of us do not come back at once.
        let until = now.after(ceiling.mul_f64(0.75 + 0.25 * chance));
        self.until = Some(until);
        until
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub(super) fn until(&self) -> Option<Moment> {
        self.until
    }
}
