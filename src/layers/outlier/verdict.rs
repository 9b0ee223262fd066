use std::{fmt, sync::Arc, time::Duration};

use super::{OutlierPolicy, ejection};
use crate::{
    Classify, EndpointHandle, Error, Live, Outcome,
    context::{self, DropCause},
    endpoint::Standing,
};

/// An endpoint that is watched.
pub(super) struct Target<C> {
    handle: EndpointHandle,
    policy: Live<OutlierPolicy>,
    classify: Arc<C>,
}

impl<C> Target<C> {
    pub(super) fn new(handle: EndpointHandle, policy: Live<OutlierPolicy>, classify: Arc<C>) -> Self {
        Self { handle, policy, classify }
    }
}

impl<C> fmt::Debug for Target<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("handle", &self.handle).field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// What a call under way will say of its endpoint, once. Dropped before, it was cancelled, or a timer ended it.
pub(super) struct Verdict<C> {
    target: Arc<Target<C>>,
    generation: u32,
    standing: Standing,
    given: bool,
}

impl<C> Verdict<C> {
    pub(super) fn new(target: Arc<Target<C>>) -> Self {
        let (generation, standing) = target.handle.health().admit(|| {
            let _clock = context::enter_clock();
            context::now_nanos()
        });
        Self { target, generation, standing, given: false }
    }

    /// What this result says.
    pub(super) fn of<T>(&mut self, result: Result<&T, &Error>)
    where
        C: Classify<T>,
    {
        self.give(self.target.classify.classify(result));
    }

    fn give(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.given, true) {
            return;
        }
        match outcome {
            Outcome::Success => self.success(),
            Outcome::Failure(_) | Outcome::TimedOut => self.failure(),
            // It lives, and wants fewer calls: the lease runs out by itself.
            Outcome::Throttled(_) => {}
            Outcome::Cancelled | Outcome::Ignored => self.nothing(),
        }
    }

    fn success(&self) {
        match self.standing {
            Standing::Healthy => self.target.handle.health().count_success(self.generation),
            Standing::Ejected => {}
            Standing::Due(_) => {
                if self.target.handle.restore_in(self.generation) {
                    let endpoint = self.target.handle.endpoint();
                    tracing::info!(
                        target: "hopvine::outlier",
                        service = &**self.target.handle.service(),
                        endpoint = %endpoint.id(),
                        "endpoint restored"
                    );
                }
            }
        }
    }

    fn failure(&self) {
        match self.standing {
            Standing::Healthy => {
                if let Some(run) = self.target.handle.health().count_failure(self.generation) {
                    let policy = self.target.policy.get();
                    if run >= policy.consecutive_failures {
                        self.eject(&policy, run);
                    }
                }
            }
            Standing::Ejected => {}
            Standing::Due(_) => self.eject(&self.target.policy.get(), 1),
        }
    }

    fn nothing(&self) {
        if let Standing::Due(Some(lease)) = self.standing {
            self.target.handle.health().return_lease(lease);
        }
    }

    fn eject(&self, policy: &OutlierPolicy, failures: u32) {
        let handle = &self.target.handle;
        let most = ejection::most(policy, handle.group().size());
        if self.standing == Standing::Healthy && handle.group().ejected() >= most {
            // In an outage every further failure comes here: without the lock.
            return;
        }
        let now = context::now_nanos();
        let until = handle.eject_in(self.generation, most, |history| {
            let healthy = match self.standing {
                Standing::Healthy => Duration::from_nanos(now.saturating_sub(history.returned)),
                _ => Duration::ZERO,
            };
            let in_a_row = ejection::in_a_row(policy, history.in_a_row, healthy);
            let length = ejection::length(policy, in_a_row, fastrand::f64());
            (in_a_row, now.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
        });
        if let Some(until) = until {
            let endpoint = handle.endpoint();
            tracing::warn!(
                target: "hopvine::outlier",
                service = &**handle.service(),
                endpoint = %endpoint.id(),
                address = %endpoint.address(),
                failures,
                again = self.standing != Standing::Healthy,
                length = ?Duration::from_nanos(until.saturating_sub(now)),
                "endpoint ejected"
            );
        }
    }
}

impl<C> Drop for Verdict<C> {
    fn drop(&mut self) {
        self.give(match context::drop_cause() {
            DropCause::TimedOut => Outcome::TimedOut,
            DropCause::Cancelled => Outcome::Cancelled,
        });
    }
}

impl<C> fmt::Debug for Verdict<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verdict")
            .field("target", &self.target)
            .field("generation", &self.generation)
            .field("standing", &self.standing)
            .field("given", &self.given)
            .finish()
    }
}
