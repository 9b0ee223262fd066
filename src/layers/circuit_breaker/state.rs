use std::{
    sync::atomic::{
        AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
    time::Duration,
};

use super::{
    CircuitBreakerPolicy,
    window::{Totals, Window},
};

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Lets them through, and counts.
    Closed,
    /// Refuses them until its time is over.
    Open,
    /// Lets a few through, to see.
    HalfOpen,
    /// Refuses them until released.
    ForcedOpen,
    /// Lets them through until released, and does not count.
    ForcedClosed,
}

impl State {
    /// Its name, as in [`BreakerView`](crate::monitor::BreakerView).
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }

    fn of(word: u64) -> Self {
        match word {
            0 => Self::Closed,
            1 => Self::Open,
            2 => Self::HalfOpen,
            3 => Self::ForcedOpen,
            _ => Self::ForcedClosed,
        }
    }
}

/// The breaker without clock, randomness or runtime: told the time, tells what to do. Times are nanoseconds.
///
/// ```text
/// from       on                                                to         and
/// closed     a failure or slow call; rates over the window      open       for the open time
/// open       a call after the open time                         half-open  that call is the first probe
/// half-open  enough successes (80 % of the probes)              closed     with an empty window
/// half-open  too many failures for that                         open       for twice the open time
/// half-open  no report within the lease                         half-open  all probes anew
/// any        an operator                                        forced     until released, to closed
/// ```
///
/// Every transition makes a new generation. A call carries the generation of its admission, and its result counts in that one only: what was
/// admitted before the trip decides nothing after it.
#[derive(Debug)]
pub(super) struct Machine {
    word: AtomicU64,
    /// When an open breaker may be tried. Written before the state that it belongs to is published.
    open_until: AtomicU64,
    /// When the probes under way count as lost.
    lease_until: AtomicU64,
    closed_at: AtomicU64,
    /// Times it opened in a row: each doubles the open time.
    streak: AtomicU32,
    window: Window,
    settings: Settings,
}

#[derive(Debug, Default)]
struct Settings {
    minimum_calls: AtomicU64,
    failure_rate: AtomicU64,
    slow_call: AtomicU64,
    slow_rate: AtomicU64,
    window: AtomicU64,
    open_time: AtomicU64,
    open_time_max: AtomicU64,
    probes: AtomicU32,
    probe_lease: AtomicU64,
}

/// state:3 | generation:29 | leases:16 | successes:8 | failures:8
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    state: State,
    generation: u32,
    leases: u16,
    successes: u8,
    failures: u8,
}

const GENERATIONS: u32 = (1 << 29) - 1;

impl Word {
    fn pack(self) -> u64 {
        (self.state as u64) << 61
            | u64::from(self.generation) << 32
            | u64::from(self.leases) << 16
            | u64::from(self.successes) << 8
            | u64::from(self.failures)
    }

    fn unpack(word: u64) -> Self {
        Self {
            state: State::of(word >> 61),
            generation: (word >> 32) as u32 & GENERATIONS,
            leases: (word >> 16) as u16,
            successes: (word >> 8) as u8,
            failures: word as u8,
        }
    }

    fn to(self, state: State) -> Self {
        let generation = self.generation.wrapping_add(1) & GENERATIONS;
        Self { state, generation, leases: 0, successes: 0, failures: 0 }
    }
}

/// A call let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    generation: u32,
    pub(super) probe: bool,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    Success,
    Failure,
    /// Nothing: cancelled, or refused by a layer of ours inside.
    Nothing,
}

/// A change of state, told by the one thread that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) to: State,
    pub(super) totals: Totals,
    /// How long it stays open.
    pub(super) open_for: Option<Duration>,
}

impl Machine {
    pub(super) fn new(policy: &CircuitBreakerPolicy) -> Self {
        let machine = Self {
            word: AtomicU64::new(0),
            open_until: AtomicU64::new(0),
            lease_until: AtomicU64::new(0),
            closed_at: AtomicU64::new(0),
            streak: AtomicU32::new(0),
            window: Window::new(policy.window),
            settings: Settings::default(),
        };
        machine.set_policy(policy);
        machine
    }

    pub(super) fn set_policy(&self, policy: &CircuitBreakerPolicy) {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let settings = &self.settings;
        settings.minimum_calls.store(u64::from(policy.minimum_calls), Relaxed);
        settings.failure_rate.store(policy.failure_rate.0.to_bits(), Relaxed);
        settings.slow_call.store(policy.slow_call.map_or(u64::MAX, nanos), Relaxed);
        settings.slow_rate.store(policy.slow_rate.0.to_bits(), Relaxed);
        settings.window.store(nanos(policy.window), Relaxed);
        settings.open_time.store(nanos(policy.open_time), Relaxed);
        settings.open_time_max.store(nanos(policy.open_time_max), Relaxed);
        settings.probes.store(policy.probes, Relaxed);
        settings.probe_lease.store(nanos(policy.probe_lease), Relaxed);
        self.window.set_length(policy.window);
    }

    pub(super) fn state(&self) -> State {
        self.load().state
    }

    pub(super) fn totals(&self, now: u64) -> Totals {
        self.window.totals(now)
    }

    /// Probes under way.
    pub(super) fn probes(&self) -> u32 {
        u32::from(self.load().leases)
    }

    /// How long it still stays open.
    pub(super) fn open_for(&self, now: u64) -> Option<Duration> {
        let left = || Duration::from_nanos(self.open_until.load(Acquire).saturating_sub(now));
        (self.state() == State::Open).then(left)
    }

    /// Lets a call through, or not. The transition is the half-opening, if this call caused it.
    pub(super) fn admit(&self, now: u64) -> (Option<Admitted>, Option<Transition>) {
        let mut word = self.load();
        loop {
            let next = match word.state {
                State::Closed | State::ForcedClosed => {
                    return (Some(Admitted { generation: word.generation, probe: false }), None);
                }
                State::ForcedOpen => return (None, None),
                State::Open if now < self.open_until.load(Acquire) => return (None, None),
                State::Open => Word { leases: 1, ..word.to(State::HalfOpen) },
                // Nobody reported in time: those probes are lost, and a late report of theirs counts no more.
                State::HalfOpen if now >= self.lease_until.load(Acquire) => {
                    Word { leases: 1, ..word.to(State::HalfOpen) }
                }
                State::HalfOpen if taken(word) >= self.settings.probes.load(Relaxed) => return (None, None),
                State::HalfOpen => Word { leases: word.leases + 1, ..word },
            };
            // Before the state is there to be read; if somebody else is faster, theirs is the same to a moment.
            self.lease_until.store(now.saturating_add(self.settings.probe_lease.load(Relaxed)), Release);
            match self.exchange(word, next) {
                Ok(()) => {
                    let transition = (word.state == State::Open).then(|| Transition {
                        to: State::HalfOpen,
                        totals: self.window.totals(now),
                        open_for: None,
                    });
                    return (Some(Admitted { generation: next.generation, probe: true }), transition);
                }
                Err(now) => word = now,
            }
        }
    }

    /// Whether a call of this length is slow.
    pub(super) fn is_slow(&self, took: Duration) -> bool {
        took.as_nanos() > u128::from(self.settings.slow_call.load(Relaxed))
    }

    /// Takes a result. `jitter` stretches the open time: 0.9 to 1.1.
    pub(super) fn report(
        &self,
        admitted: Admitted,
        report: Report,
        slow: bool,
        now: u64,
        jitter: f64,
    ) -> Option<Transition> {
        if admitted.probe {
            self.report_probe(admitted, report, slow, now, jitter)
        } else {
            self.report_call(admitted, report, slow, now, jitter)
        }
    }

    fn report_call(&self, admitted: Admitted, report: Report, slow: bool, now: u64, jitter: f64) -> Option<Transition> {
        let failed = report == Report::Failure;
        let word = self.load();
        if word.state != State::Closed || word.generation != admitted.generation || (report == Report::Nothing && !slow)
        {
            return None;
        }
        self.window.record(now, failed, slow);
        if !failed && !slow {
            return None;
        }
        let totals = self.window.totals(now);
        let rate = |setting: &AtomicU64| f64::from_bits(setting.load(Relaxed));
        let trips = totals.calls >= self.settings.minimum_calls.load(Relaxed)
            && (totals.failure_rate() >= rate(&self.settings.failure_rate)
                || totals.slow > 0 && totals.slow_rate() >= rate(&self.settings.slow_rate));
        if !trips {
            return None;
        }
        // One that did not stay closed for a window's length has not recovered.
        let relapse = now.saturating_sub(self.closed_at.load(Relaxed)) < self.settings.window.load(Relaxed);
        let streak = if relapse { self.streak.load(Relaxed) } else { 0 };
        self.open(word, streak, totals, now, jitter)
    }

    fn report_probe(
        &self,
        admitted: Admitted,
        report: Report,
        slow: bool,
        now: u64,
        jitter: f64,
    ) -> Option<Transition> {
        let mut word = self.load();
        loop {
            if word.state != State::HalfOpen || word.generation != admitted.generation {
                return None;
            }
            let mut next = Word { leases: word.leases.saturating_sub(1), ..word };
            match report {
                Report::Nothing => {}
                Report::Success if !slow => next.successes = next.successes.saturating_add(1),
                Report::Success | Report::Failure => next.failures = next.failures.saturating_add(1),
            }
            let probes = self.settings.probes.load(Relaxed);
            let needed = (probes * 4).div_ceil(5);
            if u32::from(next.failures) > probes - needed {
                let totals = self.window.totals(now);
                let streak = self.streak.load(Relaxed);
                if let Some(transition) = self.open(word, streak, totals, now, jitter) {
                    return Some(transition);
                }
                word = self.load();
                continue;
            }
            let closes = u32::from(next.successes) >= needed;
            if closes {
                next = next.to(State::Closed);
                // Nobody records while half-open, so nothing of the new generation is lost.
                self.window.clear();
                self.closed_at.store(now, Relaxed);
            }
            match self.exchange(word, next) {
                Ok(()) => {
                    return closes.then_some(Transition {
                        to: State::Closed,
                        totals: Totals::default(),
                        open_for: None,
                    });
                }
                Err(now) => word = now,
            }
        }
    }

    fn open(&self, from: Word, streak: u32, totals: Totals, now: u64, jitter: f64) -> Option<Transition> {
        let (time, max) = (self.settings.open_time.load(Relaxed), self.settings.open_time_max.load(Relaxed));
        let grown = time.saturating_mul(1 << streak.min(20)).min(max.max(time));
        let open_for = (grown as f64 * jitter) as u64;
        self.open_until.store(now.saturating_add(open_for), Release);
        self.exchange(from, from.to(State::Open)).ok()?;
        self.streak.store(streak.saturating_add(1), Relaxed);
        Some(Transition { to: State::Open, totals, open_for: Some(Duration::from_nanos(open_for)) })
    }

    /// An operator's word, or its end. `false` if it is so already.
    pub(super) fn force(&self, state: State, now: u64) -> bool {
        let mut word = self.load();
        loop {
            let released = matches!(word.state, State::ForcedOpen | State::ForcedClosed);
            if word.state == state || (state == State::Closed && !released) {
                return false;
            }
            if state == State::Closed {
                self.window.clear();
                self.closed_at.store(now, Relaxed);
                self.streak.store(0, Relaxed);
            }
            match self.exchange(word, word.to(state)) {
                Ok(()) => return true,
                Err(now) => word = now,
            }
        }
    }

    fn load(&self) -> Word {
        Word::unpack(self.word.load(Acquire))
    }

    fn exchange(&self, from: Word, to: Word) -> Result<(), Word> {
        self.word.compare_exchange(from.pack(), to.pack(), AcqRel, Acquire).map(drop).map_err(Word::unpack)
    }
}

/// Probes that are under way or have reported.
fn taken(word: Word) -> u32 {
    u32::from(word.leases) + u32::from(word.successes) + u32::from(word.failures)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn policy() -> CircuitBreakerPolicy {
        CircuitBreakerPolicy { minimum_calls: 4, slow_call: Some(Duration::from_secs(1)), ..Default::default() }
    }

    fn admit(machine: &Machine, now: u64) -> Option<Admitted> {
        machine.admit(now).0
    }

    fn trip(machine: &Machine, now: u64) {
        for _ in 0..4 {
            let call = admit(machine, now).unwrap();
            machine.report(call, Report::Failure, false, now, 1.0);
        }
        assert_eq!(machine.state(), State::Open);
    }

    #[test]
    fn a_late_result_from_before_the_trip_decides_nothing() {
        let machine = Machine::new(&policy());
        let late = [(); 8].map(|()| admit(&machine, 0).unwrap());
        trip(&machine, 0);
        machine.report(late[0], Report::Success, false, 1, 1.0);
        assert_eq!(machine.state(), State::Open);
        let probe = admit(&machine, 5 * SECOND).unwrap();
        for call in &late[1..] {
            machine.report(*call, Report::Failure, false, 5 * SECOND, 1.0);
        }
        assert_eq!((machine.state(), machine.probes()), (State::HalfOpen, 1));
        machine.report(probe, Report::Success, false, 5 * SECOND, 1.0);
        assert_eq!(machine.state(), State::HalfOpen);
    }

    #[test]
    fn probes_that_are_cancelled_give_their_place_back() {
        let machine = Machine::new(&policy());
        trip(&machine, 0);
        let now = 5 * SECOND;
        for _ in 0..100 {
            let probe = admit(&machine, now).unwrap();
            machine.report(probe, Report::Nothing, false, now, 1.0);
        }
        let probes = [(); 5].map(|()| admit(&machine, now).unwrap());
        assert_eq!(admit(&machine, now), None);
        for probe in &probes[..4] {
            machine.report(*probe, Report::Success, false, now, 1.0);
        }
        assert_eq!(machine.state(), State::Closed);
    }

    #[test]
    fn probes_that_never_report_are_issued_again() {
        let machine = Machine::new(&policy());
        trip(&machine, 0);
        let lost = [(); 5].map(|()| admit(&machine, 5 * SECOND).unwrap());
        assert_eq!(admit(&machine, 6 * SECOND), None);
        let probe = admit(&machine, 15 * SECOND).unwrap();
        assert!(probe.probe);
        machine.report(lost[0], Report::Failure, false, 15 * SECOND, 1.0);
        machine.report(lost[1], Report::Failure, false, 15 * SECOND, 1.0);
        assert_eq!(machine.state(), State::HalfOpen, "the lost ones count no more");
    }

    #[test]
    fn the_open_time_grows_and_starts_anew_after_a_while_closed() {
        let machine = Machine::new(&policy());
        let mut now = 0;
        let mut opened = Vec::new();
        trip(&machine, now);
        opened.push(machine.open_for(now).unwrap().as_secs());
        for _ in 0..4 {
            now += machine.open_for(now).unwrap().as_nanos() as u64;
            for _ in 0..2 {
                let probe = admit(&machine, now).unwrap();
                machine.report(probe, Report::Failure, false, now, 1.0);
            }
            opened.push(machine.open_for(now).unwrap().as_secs());
        }
        assert_eq!(opened, [5, 10, 20, 40, 60]);
        now += 60 * SECOND;
        for _ in 0..4 {
            let probe = admit(&machine, now).unwrap();
            machine.report(probe, Report::Success, false, now, 1.0);
        }
        assert_eq!(machine.state(), State::Closed);
        now += 10 * SECOND;
        trip(&machine, now);
        assert_eq!(machine.open_for(now).unwrap().as_secs(), 5);
    }

    #[test]
    fn contended_callers_never_get_more_probes_than_there_are() {
        let machine = Machine::new(&policy());
        trip(&machine, 0);
        let admitted = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        if admit(&machine, 5 * SECOND).is_some() {
                            admitted.fetch_add(1, Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 5);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Admit,
        Report(usize, Report, bool),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let report = prop_oneof![Just(Report::Success), Just(Report::Failure), Just(Report::Nothing)];
        prop_oneof![
            4 => Just(Step::Admit),
            4 => (0usize..8, report, prop::bool::weighted(0.1)).prop_map(|(which, report, slow)| Step::Report(which, report, slow)),
            1 => (0..4 * SECOND).prop_map(Step::Advance),
        ]
    }

    /// The same breaker, told as a story: lists instead of words.
    struct Model {
        state: State,
        generation: u32,
        calls: Vec<(u64, bool, bool)>,
        open_until: u64,
        lease_until: u64,
        closed_at: u64,
        streak: u32,
        leases: u32,
        results: Vec<bool>,
    }

    impl Model {
        fn admit(&mut self, now: u64) -> Option<(u32, bool)> {
            if self.state == State::Closed {
                return Some((self.generation, false));
            }
            let expired = self.state == State::HalfOpen && now >= self.lease_until;
            if (self.state == State::Open && now >= self.open_until) || expired {
                self.state = State::HalfOpen;
                self.generation += 1;
                self.leases = 0;
                self.results.clear();
            }
            if self.state == State::Open || self.leases + self.results.len() as u32 >= 5 {
                return None;
            }
            self.leases += 1;
            self.lease_until = now + 10 * SECOND;
            Some((self.generation, true))
        }

        fn open(&mut self, now: u64) {
            self.state = State::Open;
            self.generation += 1;
            self.open_until = now + (5 * SECOND << self.streak.min(20)).min(60 * SECOND);
            self.streak += 1;
        }

        fn report(&mut self, (generation, probe): (u32, bool), report: Report, slow: bool, now: u64) {
            if generation != self.generation {
                return;
            }
            if probe {
                self.leases -= 1;
                match report {
                    Report::Nothing => return,
                    Report::Success => self.results.push(!slow),
                    Report::Failure => self.results.push(false),
                }
                if self.results.iter().filter(|good| !**good).count() == 2 {
                    self.open(now);
                } else if self.results.iter().filter(|good| **good).count() == 4 {
                    self.state = State::Closed;
                    self.generation += 1;
                    self.calls.clear();
                    self.closed_at = now;
                }
            } else if report != Report::Nothing || slow {
                self.calls.push((now / SECOND, report == Report::Failure, slow));
                let inside: Vec<_> = self.calls.iter().filter(|(at, ..)| now / SECOND - at < 10).collect();
                let bad = inside.iter().filter(|(_, failed, _)| *failed).count();
                let all_slow = inside.iter().all(|(_, _, slow)| *slow);
                if (report == Report::Failure || slow) && inside.len() >= 4 && (bad * 2 >= inside.len() || all_slow) {
                    if now - self.closed_at >= 10 * SECOND {
                        self.streak = 0;
                    }
                    self.open(now);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn it_does_what_the_story_says_and_never_stays_shut(steps in prop::collection::vec(step(), 0..300)) {
            let machine = Machine::new(&policy());
            let mut model = Model {
                state: State::Closed, generation: 0, calls: Vec::new(), open_until: 0, lease_until: 0, closed_at: 0,
                streak: 0, leases: 0, results: Vec::new(),
            };
            let mut now = 0;
            let mut calls: Vec<(Admitted, (u32, bool))> = Vec::new();
            for step in steps {
                match step {
                    Step::Advance(by) => now += by,
                    Step::Admit => {
                        let (ours, theirs) = (admit(&machine, now), model.admit(now));
                        prop_assert_eq!(ours.map(|call| (call.generation, call.probe)), theirs);
                        calls.extend(ours.zip(theirs));
                    }
                    Step::Report(which, report, slow) if which < calls.len() => {
                        let (ours, theirs) = calls.remove(which);
                        machine.report(ours, report, slow, now, 1.0);
                        model.report(theirs, report, slow, now);
                    }
                    Step::Report(..) => {}
                }
                prop_assert_eq!(machine.state(), model.state);
                prop_assert!(machine.probes() <= 5);
            }
            for (call, _) in calls {
                machine.report(call, Report::Nothing, false, now, 1.0);
            }
            prop_assert!(admit(&machine, now + 60 * SECOND).is_some(), "shut for good: {:?}", machine);
        }
    }
}
