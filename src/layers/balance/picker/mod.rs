//! The rules that choose an endpoint, one file each.

use std::time::Duration;

use crate::{
    EndpointHandle, Outcome,
    context::{self, Attempt},
    endpoint::Admission,
};

mod p2c;
mod peak_ewma;
mod round_robin;

pub use p2c::P2cLeastRequest;
pub use peak_ewma::{P2cPeakEwma, PeakEwmaPolicy};
pub use round_robin::RoundRobin;

/// A rule that chooses an endpoint for an attempt, and learns from how attempts end.
pub trait Picker: Send + Sync + 'static {
    /// The index of the endpoint to try, or `None` if there is none that may be.
    ///
    /// Prefer endpoints of a better [`Pick::rank`], whatever else the rule says.
    fn pick<E: AsRef<EndpointHandle>>(&self, endpoints: &[E], pick: &Pick) -> Option<usize>;

    /// Whether it learns from how long attempts take. Where not, the clock is not read for it, and it is told zero.
    fn measures(&self) -> bool {
        true
    }

    /// An attempt at `endpoint` ended after `took`, at `now`. Cancelled ones are told, too: `took` is then a lower bound.
    fn observe(&self, _endpoint: &EndpointHandle, _outcome: Outcome, _took: Duration, _now: u64) {}
}

/// What a picker knows of the attempt.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    /// `None`: the reading that the layers share, made if anybody asks.
    now: Option<u64>,
    attempt: Attempt,
    panic: bool,
}

/// How good a candidate is before its load is looked at; the smaller the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Usable, and not tried by this call yet.
    Fresh,
    /// Usable, but this call tried it already.
    Tried,
    /// Not to be used.
    Unusable,
}

/// So few endpoints are all looked at to find two fresh ones.
const FEW: usize = 16;

/// Of more, so many further draws: with a third of them ejected one in 700 picks finds no second fresh one.
const REDRAWS: usize = 6;

impl Pick {
    /// A pick at `now`, nanoseconds of [`context::nanos`], for this attempt; in a panic, health is ignored.
    pub fn new(now: u64, attempt: Attempt, panic: bool) -> Self {
        Self { now: Some(now), attempt, panic }
    }

    /// For the call under way.
    #[inline]
    pub(super) fn under_way(panic: bool) -> Self {
        Self { now: None, attempt: context::attempt(), panic }
    }

    /// Now, in nanoseconds of [`context::nanos`].
    #[inline]
    pub fn now(&self) -> u64 {
        self.now.unwrap_or_else(context::now_nanos)
    }

    /// How good this candidate is.
    #[inline]
    pub fn rank(&self, endpoint: &EndpointHandle) -> Rank {
        let usable = if self.panic {
            endpoint.is_serving() && endpoint.health().held_until() <= self.now()
        } else {
            endpoint.admission_by(|| self.now()) != Admission::Closed
        };
        if !usable {
            Rank::Unusable
        } else if !self.attempt.is_fresh() && self.attempt.has_tried(endpoint.number()) {
            Rank::Tried
        } else {
            Rank::Fresh
        }
    }

    /// Whether this call is one to find out how an endpoint is, of those that are usable: its ejection is over, and the call has
    /// not failed elsewhere already.
    #[inline]
    fn may_probe(&self, usable: &EndpointHandle) -> bool {
        usable.health().is_ejected() && !self.panic && self.attempt.is_fresh()
    }

    /// The cheaper of two different endpoints drawn at random (ties to the first), every pair equally likely.
    ///
    /// Where a draw is not [`Rank::Fresh`], another one is drawn beside the one that is; where neither is, two are drawn among those of the best
    /// rank there is.
    pub fn cheaper_of_two<E: AsRef<EndpointHandle>>(
        &self,
        endpoints: &[E],
        cost: impl Fn(&EndpointHandle) -> f64,
    ) -> Option<usize> {
        let (first, second) = match endpoints.len() {
            0 => return None,
            1 => return (self.rank(endpoints[0].as_ref()) < Rank::Unusable).then_some(0),
            count => {
                // Both of one draw, a half each: with fewer than millions of endpoints none is preferred by a part in a thousand.
                let draw = fastrand::u64(..);
                let below = |half: u64, bound: usize| ((half * bound as u64) >> 32) as usize;
                let (first, second) = (below(draw >> 32, count), below(draw & 0xffff_ffff, count - 1));
                // Skipping the first makes the pair distinct without drawing again.
                (first, second + usize::from(second >= first))
            }
        };
        match (self.rank(endpoints[first].as_ref()), self.rank(endpoints[second].as_ref())) {
            (Rank::Fresh, Rank::Fresh) => Some(cheaper(endpoints, first, second, cost)),
            (Rank::Fresh, _) => self.cheaper_beside(endpoints, first, cost),
            (_, Rank::Fresh) => self.cheaper_beside(endpoints, second, cost),
            _ => self.cheaper_of_best(endpoints, cost),
        }
    }

    /// The same where one of the two draws was fresh. Taken without a choice, it would be called however slow it is, for as
    /// long as others are ejected.
    fn cheaper_beside<E: AsRef<EndpointHandle>>(
        &self,
        endpoints: &[E],
        fresh: usize,
        cost: impl Fn(&EndpointHandle) -> f64,
    ) -> Option<usize> {
        if endpoints.len() <= FEW {
            return self.cheaper_of_best(endpoints, cost);
        }
        for _ in 0..REDRAWS {
            let other = fastrand::usize(..endpoints.len());
            if other != fresh && self.rank(endpoints[other].as_ref()) == Rank::Fresh {
                return Some(cheaper(endpoints, fresh, other, cost));
            }
        }
        Some(fresh)
    }

    /// The same among the endpoints of the best rank there is, by looking at all of them.
    fn cheaper_of_best<E: AsRef<EndpointHandle>>(
        &self,
        endpoints: &[E],
        cost: impl Fn(&EndpointHandle) -> f64,
    ) -> Option<usize> {
        let best = endpoints
            .iter()
            .map(|endpoint| self.rank(endpoint.as_ref()))
            .min()
            .filter(|&rank| rank < Rank::Unusable)?;
        // Two of them, each pair equally likely, without collecting them.
        let mut drawn = [None; 2];
        let candidates = endpoints.iter().enumerate().filter(|(_, endpoint)| self.rank(endpoint.as_ref()) == best);
        for (seen, (index, _)) in candidates.enumerate() {
            let place = if seen < 2 { seen } else { fastrand::usize(..=seen) };
            if place < 2 {
                drawn[place] = Some(index);
            }
        }
        match drawn {
            [Some(first), Some(second)] => Some(cheaper(endpoints, first, second, cost)),
            // A rank may have changed between the two looks.
            [first, second] => first.or(second),
        }
    }
}

fn cheaper<E: AsRef<EndpointHandle>>(
    endpoints: &[E],
    first: usize,
    second: usize,
    cost: impl Fn(&EndpointHandle) -> f64,
) -> usize {
    if cost(endpoints[second].as_ref()) < cost(endpoints[first].as_ref()) { second } else { first }
}
