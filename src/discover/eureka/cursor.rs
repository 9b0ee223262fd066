//! Which server is asked: pure, by numbers.

use std::time::Duration;

use tokio::time::Instant;

/// Servers that one request is tried at.
const TRIES: usize = 3;

/// The order in which servers are tried. One that answered is stayed with until its session is over, so that the copy of the registry comes from one place; then
/// they are shuffled, so that servers that came back get their share of clients.
#[derive(Debug)]
pub(super) struct Cursor {
    near: Vec<bool>,
    /// Near ones first, each part by chance.
    order: Vec<usize>,
    current: Option<usize>,
    /// Those that failed: tried last.
    quarantine: Vec<usize>,
    session: Duration,
    session_end: Instant,
}

impl Cursor {
    pub(super) fn new(near: Vec<bool>, session: Duration, now: Instant) -> Self {
        let mut cursor =
            Self { near, order: Vec::new(), current: None, quarantine: Vec::new(), session, session_end: now };
        cursor.shuffle(now);
        cursor
    }

    /// The servers to try, best first.
    pub(super) fn candidates(&mut self, now: Instant) -> Vec<usize> {
        if now >= self.session_end {
            self.shuffle(now);
        }
        let (avoided, others): (Vec<_>, Vec<_>) =
            self.order.iter().copied().partition(|server| self.quarantine.contains(server));
        let mut candidates: Vec<usize> = self.current.into_iter().collect();
        candidates.extend(others.into_iter().chain(avoided).filter(|server| Some(*server) != self.current));
        candidates.truncate(TRIES);
        candidates
    }

    /// When it is time for another server; never, if there is but one.
    pub(super) fn session_end(&self) -> Option<Instant> {
        (self.order.len() > 1).then_some(self.session_end)
    }

    pub(super) fn succeeded(&mut self, server: usize) {
        self.current = Some(server);
        self.quarantine.retain(|avoided| *avoided != server);
    }

    pub(super) fn failed(&mut self, server: usize) {
        if self.current == Some(server) {
            self.current = None;
        }
        if !self.quarantine.contains(&server) {
            self.quarantine.push(server);
        }
        // Where most have failed it is rather we who cannot reach them.
        if self.quarantine.len() * 3 >= self.order.len() * 2 {
            self.quarantine.clear();
        }
    }

    fn shuffle(&mut self, now: Instant) {
        let (mut near, mut far): (Vec<usize>, Vec<usize>) = (0..self.near.len()).partition(|server| self.near[*server]);
        fastrand::shuffle(&mut near);
        fastrand::shuffle(&mut far);
        near.append(&mut far);
        self.order = near;
        self.current = None;
        self.quarantine.clear();
        self.session_end = now + self.session.mul_f64(0.5 + fastrand::f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Duration = Duration::from_secs(1200);

    #[test]
    fn a_server_that_answers_is_stayed_with_and_one_that_fails_is_tried_last() {
        let now = Instant::now();
        let mut cursor = Cursor::new(vec![false; 4], SESSION, now);
        let first = cursor.candidates(now)[0];
        cursor.failed(first);
        let second = cursor.candidates(now)[0];
        assert_ne!(second, first);
        cursor.succeeded(second);
        for _ in 0..10 {
            let candidates = cursor.candidates(now);
            assert_eq!((candidates[0], candidates.len()), (second, 3));
            assert!(!candidates.contains(&first));
        }
        // All fail: none is avoided any more.
        (0..4).for_each(|server| cursor.failed(server));
        assert_eq!(cursor.candidates(now).len(), 3);
        let single = Cursor::new(vec![false], SESSION, now).candidates(now);
        assert_eq!(single, [0]);
    }

    #[test]
    fn our_own_zone_comes_first_and_others_after_it() {
        let now = Instant::now();
        let mut firsts = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let mut cursor = Cursor::new(vec![false, true, false, true], SESSION, now);
            let candidates = cursor.candidates(now);
            assert!([1, 3].contains(&candidates[0]) && [1, 3].contains(&candidates[1]), "{candidates:?}");
            assert!([0, 2].contains(&candidates[2]));
            firsts.insert(candidates[0]);
        }
        assert_eq!(firsts.len(), 2);
    }

    #[test]
    fn a_session_ends_so_that_a_server_that_came_back_gets_clients() {
        let now = Instant::now();
        let mut firsts = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let mut cursor = Cursor::new(vec![false, false], SESSION, now);
            cursor.failed(0);
            cursor.succeeded(1);
            assert_eq!(cursor.candidates(now + SESSION / 2 - Duration::from_secs(1))[0], 1);
            firsts.insert(cursor.candidates(now + SESSION * 3 / 2)[0]);
        }
        assert_eq!(firsts.len(), 2);
    }
}
