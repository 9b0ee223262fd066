use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::{eureka::Text, registry::Moment};

/// The share of a service's instances that may be expelled in a minute; at least one.
const SHARE: f64 = 0.15;
const MINUTE: Duration = Duration::from_secs(60);

/// An application and an id.
pub(super) type Key = (Text, Text);

/// Instances that hold watches as their own, and those whose watch broke. They are believed dead when they do not come back in time, within bounds:
///
/// - at most 15 % of an application's instances a minute, but one;
/// - nobody, where more than half of those that held a watch lost it within one suspicion: then the way to them broke, not they.
///
/// Who is spared falls back to its lease.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    held: HashMap<Key, usize>,
    /// In the order in which they broke; kept a while after they were decided on, since others are judged by them.
    broken: VecDeque<Break>,
    expelled: HashMap<Text, VecDeque<Moment>>,
}

#[derive(Debug)]
struct Break {
    at: Moment,
    key: Key,
    is_decided: bool,
}

impl Suspects {
    /// An instance has a watch, or one more, or again.
    pub(super) fn holds(&mut self, key: Key) {
        self.broken.retain(|broken| broken.key != key);
        *self.held.entry(key).or_default() += 1;
    }

    /// A watch broke. What has another one is not suspect.
    pub(super) fn broke(&mut self, key: &Key, now: Moment) {
        if self.let_go(key) {
            self.broken.push_back(Break { at: now, key: key.clone(), is_decided: false });
        }
    }

    /// A watch ended in order.
    pub(super) fn left(&mut self, key: &Key) {
        self.let_go(key);
    }

    /// Whether that was its last watch.
    fn let_go(&mut self, key: &Key) -> bool {
        let Some(held) = self.held.get_mut(key) else { return false };
        *held -= 1;
        let was_last = *held == 0;
        if was_last {
            self.held.remove(key);
        }
        was_last
    }

    /// When the next one has been suspect for long enough.
    pub(super) fn next(&self, suspicion: Duration) -> Option<Moment> {
        self.broken.iter().find(|broken| !broken.is_decided).map(|broken| broken.at.after(suspicion))
    }

    /// Who has been suspect for long enough and may be expelled; `instances` says how many an application has.
    pub(super) fn due(&mut self, now: Moment, suspicion: Duration, instances: impl Fn(&str) -> usize) -> Vec<Key> {
        self.expelled.retain(|_, times| {
            times.retain(|at| now.since(*at) < MINUTE);
            !times.is_empty()
        });
        let mut expelled = Vec::new();
        for place in 0..self.broken.len() {
            let Break { at, key, is_decided } = &self.broken[place];
            if *is_decided || at.after(suspicion) > now {
                continue;
            }
            let key = key.clone();
            let spared = self.broke_together(*at, &key.0, suspicion);
            self.broken[place].is_decided = true;
            if !spared && self.may_go(&key.0, now, instances(&key.0)) {
                expelled.push(key);
            }
        }
        while self.broken.front().is_some_and(|broken| broken.is_decided && broken.at.after(suspicion * 2) < now) {
            self.broken.pop_front();
        }
        expelled
    }

    /// Whether more than half of an application lost its watches with this one.
    fn broke_together(&self, at: Moment, app: &Text, suspicion: Duration) -> bool {
        let with_it = |broken: &&Break| {
            broken.key.0 == *app && broken.at.since(at) <= suspicion && at.since(broken.at) <= suspicion
        };
        let broke = self.broken.iter().filter(with_it).count();
        let held = self.held.keys().filter(|(other, _)| other == app).count();
        broke > 1 && broke > held
    }

    /// Whether the minute has room for one more of an application.
    fn may_go(&mut self, app: &Text, now: Moment, instances: usize) -> bool {
        let times = self.expelled.entry(app.clone()).or_default();
        // Those expelled in this minute were among them.
        let all = instances + times.len();
        let most = ((all as f64 * SHARE) as usize).max(1);
        let may = times.len() < most;
        if may {
            times.push_back(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUSPICION: Duration = Duration::from_secs(1);

    fn key(number: usize) -> Key {
        ("ORDERS".into(), format!("i{number}").into())
    }

    fn holding(count: usize) -> Suspects {
        let mut suspects = Suspects::default();
        (0..count).for_each(|number| suspects.holds(key(number)));
        suspects
    }

    fn due(suspects: &mut Suspects, at: u64, instances: usize) -> Vec<Key> {
        suspects.due(Moment(at), SUSPICION, |_| instances)
    }

    #[test]
    fn a_killed_instance_is_out_after_a_second() {
        let mut suspects = holding(2);
        suspects.broke(&key(1), Moment(500));
        assert_eq!(suspects.next(SUSPICION), Some(Moment(1500)));
        assert!(due(&mut suspects, 1499, 2).is_empty());
        assert_eq!(due(&mut suspects, 1500, 2), [key(1)]);
        assert_eq!(suspects.next(SUSPICION), None);
    }

    #[test]
    fn one_that_comes_back_in_time_stays() {
        let mut suspects = holding(2);
        suspects.broke(&key(1), Moment(0));
        suspects.holds(key(1));
        assert!(due(&mut suspects, 5000, 2).is_empty());
        // It came back before its old connection was noticed to be gone.
        suspects.holds(key(0));
        suspects.broke(&key(0), Moment(5000));
        assert!(due(&mut suspects, 9000, 2).is_empty());
    }

    #[test]
    fn the_restart_of_a_proxy_expels_nobody() {
        let mut suspects = holding(20);
        (0..20).for_each(|number| suspects.broke(&key(number), Moment(0)));
        assert!(due(&mut suspects, 1000, 20).is_empty());
        // Nor does one that is noticed of one after the other.
        let mut suspects = holding(20);
        (0..20).for_each(|number| suspects.broke(&key(number), Moment(number as u64 * 50)));
        for now in (1000..5000).step_by(10) {
            assert!(due(&mut suspects, now, 20).is_empty(), "{now}");
        }
        assert!(suspects.broken.is_empty());
    }

    #[test]
    fn at_most_15_percent_go_in_a_minute_and_the_rest_keeps_its_leases() {
        let mut suspects = holding(20);
        (0..5).for_each(|number| suspects.broke(&key(number), Moment(0)));
        assert_eq!(due(&mut suspects, 1000, 20), [key(0), key(1), key(2)]);
        suspects.broke(&key(6), Moment(30_000));
        assert!(due(&mut suspects, 31_000, 17).is_empty(), "three of twenty have gone");
        suspects.broke(&key(7), Moment(61_000));
        assert_eq!(due(&mut suspects, 62_000, 17), [key(7)]);
    }
}
