//! The breaker itself: a state machine in two words. No clock, no randomness, no lock.
//!
//! ```text
//! from        | when                                                   | to            | with
//! ------------+--------------------------------------------------------+---------------+----------------------------------
//! closed      | a result arrives and the window trips                  | open          | until: open time; streak + 1, or 0
//! open        | a call arrives at `until` or later                     | half_open     | until: lease; the call is a probe
//! half_open   | a probe succeeds, and 80 % have                        | closed        | a fresh window; until: + window
//! half_open   | a probe fails, and 80 % are out of reach               | open          | until: open time; streak + 1
//! half_open   | a call arrives, no probe is free, `until` has passed   | half_open     | all probes anew; until: lease
//! not forced_open   | an operator's word                               | forced_open   |
//! not forced_closed | an operator's word                               | forced_closed | a fresh window
//! forced_*    | an operator's word                                     | closed        | a fresh window; streak 0
//! ```
//!
//! The first word is the state, and every step is one compare-exchange of it, so a transition has exactly one winner:
//!
//! ```text
//!     state:3 | period:8 | streak:5 | turn:24 | leased:8 | succeeded:8 | failed:8
//! ```
//!
//! *Turn* counts transitions. The upper 40 bits, without the counters of half open, name one stay in one state: a [`Pass`]
//! carries them from admission to report, and what comes back to another stay is dropped. *Period* counts the stays in
//! which the window collects, *streak* the openings in a row.
//!
//! The second word is `until`, whose meaning depends on the state: open, when probes may start; half open, when the youngest lease
//! ends; closed, for how long the streak is remembered.
//!
//! ```text
//!     turn:16 | time:48, in units of 4096 ns
//! ```
//!
//! The winner of a transition writes it *after* it won, tagged with its turn. Written before, it could be one of a loser that was
//! held up, and belong to no state at all. Until it is there, nothing that depends on it happens: an open breaker stays open for that
//! moment. Within one turn it only grows, and the tag only goes forward, so nobody who was held up overwrites a later one.

use super::{
    policy::Rules,
    window::{Sums, Verdict, Window},
    word::{COUNTERS, STATE_SHIFT, STREAK_MAX, Word},
};
use crate::sync::{AcqRel, Acquire, AtomicU64};

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Lets every call through, and counts.
    Closed,
    /// Refuses every call.
    Open,
    /// Lets a few calls through to find out.
    HalfOpen,
    /// Refuses every call, by an operator's word.
    ForcedOpen,
    /// Lets every call through whatever its result, by an operator's word.
    ForcedClosed,
}

impl State {
    /// Its name: `closed`, `open`, `half_open`, `forced_open` or `forced_closed`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }

    /// Whether results are counted in it.
    pub(super) fn collects(self) -> bool {
        matches!(self, Self::Closed | Self::ForcedClosed)
    }
}

/// The breaker.
#[derive(Debug, Default)]
pub(super) struct Machine {
    word: AtomicU64,
    until: AtomicU64,
    window: Window,
}

/// One admission, to be handed back to [`Machine::report`] once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass(u64);

/// A transition, told to the one who won it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) from: State,
    pub(super) to: State,
    /// What the window held, when that decided.
    pub(super) sums: Sums,
    /// How long it stays so at least; 0 where that is not known.
    pub(super) stays: u64,
}

/// A call is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// For how long none will be, where that is known.
    pub(super) wait: Option<u64>,
}

/// All of it at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    pub(super) state: State,
    pub(super) sums: Sums,
    /// Probes under way.
    pub(super) leased: u32,
    /// While open: for how much longer.
    pub(super) wait: Option<u64>,
}

const UNTIL_SHIFT: u32 = 48;
const UNTIL_MASK: u64 = (1 << UNTIL_SHIFT) - 1;
pub(super) const UNTIL_UNIT: u64 = 4096;

impl Pass {
    /// Whether its call is a probe.
    #[inline]
    pub(super) fn is_probe(self) -> bool {
        Word::unpack(self.0).state == State::HalfOpen
    }

    fn of(word: u64) -> Self {
        Self(word & !COUNTERS)
    }
}

impl Machine {
    /// The hot path: one load. `None` if it takes [`admit`](Self::admit) to say.
    #[inline]
    pub(super) fn pass(&self) -> Option<Pass> {
        let word = self.word.load(Acquire);
        // Closed is 0, forced closed 1, and both have no counters.
        (word >> STATE_SHIFT <= 1).then_some(Pass(word))
    }

    /// Lets a call through or refuses it.
    pub(super) fn admit(&self, now: u64, rules: &Rules) -> Result<(Pass, Option<Change>), Refusal> {
        loop {
            let current = self.word.load(Acquire);
            let word = Word::unpack(current);
            let lease = now.saturating_add(rules.probe_lease);
            match word.state {
                State::Closed | State::ForcedClosed => return Ok((Pass::of(current), None)),
                State::Open => match self.until(word) {
                    Some(until) if until <= now => {}
                    until => return Err(Refusal { wait: until.map(|until| until - now) }),
                },
                State::HalfOpen if word.used() < rules.probes => {
                    // Before the lease is taken, so that nobody sees all taken and an older lease's end. One that is not
                    // taken after all only delays the end a little.
                    self.set_until(word, lease);
                    if self.exchange(current, Word { leased: word.leased + 1, ..word }) {
                        return Ok((Pass::of(current), None));
                    }
                    continue;
                }
                // Without a lease out there is nobody to wait for: the policy now gives fewer probes than have reported.
                State::HalfOpen if word.leased == 0 || self.until(word).is_some_and(|until| until <= now) => {}
                State::HalfOpen | State::ForcedOpen => return Err(Refusal { wait: None }),
            }
            let next = Word { leased: 1, ..word.turn_to(State::HalfOpen) };
            if let Some(change) = self.turn(current, next, lease) {
                return Ok((Pass::of(next.pack()), Some(change)));
            }
        }
    }

    /// Takes back a pass with what is known of its call, `None` if nothing: it was cancelled, or never left this side.
    ///
    /// It is counted in `lane`; `jitter` is asked for a factor of the open time, if it opens.
    pub(super) fn report(
        &self,
        pass: Pass,
        verdict: Option<Verdict>,
        now: u64,
        lane: usize,
        rules: &Rules,
        jitter: impl Fn() -> f64,
    ) -> Option<Change> {
        match Word::unpack(pass.0).state {
            State::HalfOpen => self.report_probe(pass, verdict, now, rules, jitter),
            State::Closed | State::ForcedClosed => self.report_call(pass, verdict?, now, lane, rules, jitter),
            State::Open | State::ForcedOpen => None,
        }
    }

    fn report_call(
        &self,
        pass: Pass,
        verdict: Verdict,
        now: u64,
        lane: usize,
        rules: &Rules,
        jitter: impl Fn() -> f64,
    ) -> Option<Change> {
        if self.word.load(Acquire) != pass.0 {
            return None;
        }
        // If it turns from here on, the window drops what belongs to an earlier period, and the exchange below fails.
        let word = Word::unpack(pass.0);
        self.window.record(lane, word.period, now, rules.width, verdict);
        if word.state == State::ForcedClosed || !verdict.is_bad() && self.window.is_clean(now, rules.width) {
            return None;
        }
        let sums = self.window.sums(word.period, now, rules.width);
        if !rules.trips(&sums) {
            return None;
        }
        let streak = match self.until(word) {
            Some(forgotten) if forgotten <= now => 0,
            _ => word.streak + 1,
        };
        let change = self.open(pass.0, streak, now, rules, jitter)?;
        Some(Change { sums, ..change })
    }

    fn report_probe(
        &self,
        pass: Pass,
        verdict: Option<Verdict>,
        now: u64,
        rules: &Rules,
        jitter: impl Fn() -> f64,
    ) -> Option<Change> {
        loop {
            let current = self.word.load(Acquire);
            if Pass::of(current) != pass {
                return None;
            }
            let word = Word::unpack(current);
            let mut next = Word { leased: word.leased - 1, ..word };
            let change = match verdict {
                // A slow probe fails: else a breaker that opened for slowness would close on it.
                Some(verdict) if verdict.is_bad() => {
                    next.failed += 1;
                    let opens = u64::from(next.failed) >= rules.failures_to_open();
                    opens.then(|| self.open(current, word.streak + 1, now, rules, &jitter))
                }
                Some(_) => {
                    next.succeeded += 1;
                    let closes = u64::from(next.succeeded) >= rules.successes_to_close();
                    let remembered = now.saturating_add(rules.window());
                    closes.then(|| self.turn(current, word.turn_to(State::Closed), remembered))
                }
                None => None,
            };
            match change {
                Some(Some(change)) => return Some(change),
                None if self.exchange(current, next) => return None,
                None | Some(None) => {} // Another thread was faster: look again.
            }
        }
    }

    /// An operator's word: forced open or closed, or, with [`State::Closed`], to decide for itself again. `None` if it is so.
    pub(super) fn force(&self, to: State, now: u64) -> Option<Change> {
        loop {
            let current = self.word.load(Acquire);
            let word = Word::unpack(current);
            let forced = matches!(word.state, State::ForcedOpen | State::ForcedClosed);
            if word.state == to || to == State::Closed && !forced {
                return None;
            }
            let next = Word { streak: 0, ..word.turn_to(to) };
            if let Some(change) = self.turn(current, next, now) {
                return Some(change);
            }
        }
    }

    /// Forgets what the window holds: its length has changed.
    pub(super) fn clear_window(&self) {
        self.window.clear();
    }

    /// What it is like at `now`.
    pub(super) fn look(&self, now: u64, rules: &Rules) -> Look {
        let word = Word::unpack(self.word.load(Acquire));
        let open = (word.state == State::Open).then(|| self.until(word)).flatten();
        Look {
            state: word.state,
            sums: self.window.sums(word.period, now, rules.width),
            leased: word.leased.into(),
            wait: open.map(|until| until.saturating_sub(now)),
        }
    }

    /// Its state.
    pub(super) fn state(&self) -> State {
        Word::unpack(self.word.load(Acquire)).state
    }

    fn open(&self, current: u64, streak: u8, now: u64, rules: &Rules, jitter: impl Fn() -> f64) -> Option<Change> {
        let streak = streak.min(STREAK_MAX);
        let stays = (rules.open_time(streak) as f64 * jitter()) as u64;
        let next = Word { streak, ..Word::unpack(current).turn_to(State::Open) };
        let change = self.turn(current, next, now.saturating_add(stays))?;
        Some(Change { stays, ..change })
    }

    /// Makes a transition, if no other was faster.
    fn turn(&self, current: u64, next: Word, until: u64) -> Option<Change> {
        if next.state.collects() {
            // Before calls can be counted in it. If the exchange fails, no harm is done: the next to close starts the same.
            self.window.start(next.period);
        }
        self.exchange(current, next).then(|| {
            self.set_until(next, until);
            Change { from: Word::unpack(current).state, to: next.state, sums: Sums::default(), stays: 0 }
        })
    }

    fn exchange(&self, current: u64, next: Word) -> bool {
        self.word.compare_exchange(current, next.pack(), AcqRel, Acquire).is_ok()
    }

    /// `until` of this stay, once it is written.
    fn until(&self, word: Word) -> Option<u64> {
        let until = self.until.load(Acquire);
        (until >> UNTIL_SHIFT == u64::from(word.turn as u16)).then_some((until & UNTIL_MASK) * UNTIL_UNIT)
    }

    fn set_until(&self, word: Word, time: u64) {
        let tag = word.turn as u16;
        let time = time.div_ceil(UNTIL_UNIT).min(UNTIL_MASK);
        let _ = self.until.fetch_update(AcqRel, Acquire, |until| {
            let ahead = tag.wrapping_sub((until >> UNTIL_SHIFT) as u16).cast_signed();
            let later = ahead > 0 || ahead == 0 && time > until & UNTIL_MASK;
            later.then_some(u64::from(tag) << UNTIL_SHIFT | time)
        });
    }
}

#[cfg(all(test, not(hopvine_loom)))]
mod tests {
    use std::sync::{
        Barrier,
        atomic::{AtomicI32, AtomicU32, Ordering::SeqCst},
    };

    use proptest::prelude::*;

    use super::*;
    use crate::lanes;

    const LANE: usize = 0;
    const OK: Verdict = Verdict::Ended { failed: false, slow: false };
    const FAILED: Verdict = Verdict::Ended { failed: true, slow: false };

    /// Times in units in which `until` is exact.
    const RULES: Rules = Rules {
        width: 10 * UNTIL_UNIT,
        minimum_calls: 4,
        failure_rate: 0.5,
        slow_call: 0,
        slow_rate: 0.75,
        open_time: 50 * UNTIL_UNIT,
        open_time_max: 300 * UNTIL_UNIT,
        probes: 5,
        probe_lease: 80 * UNTIL_UNIT,
    };

    /// The same machine the slow and obvious way.
    struct Model {
        state: State,
        turn: u32,
        until: u64,
        streak: u8,
        calls: Vec<(u64, Verdict)>,
        probes: [u64; 3],
    }

    impl Model {
        fn go(&mut self, state: State, until: u64, streak: u8) {
            (self.state, self.turn, self.until, self.streak, self.probes) =
                (state, self.turn + 1, until, streak, [0; 3]);
            if state.collects() {
                self.calls.clear();
            }
        }

        fn admit(&mut self, now: u64) -> Result<u32, Option<u64>> {
            let over = now >= self.until;
            let full = self.probes.iter().sum::<u64>() >= RULES.probes;
            match self.state {
                State::ForcedOpen => return Err(None),
                State::Open if !over => return Err(Some(self.until - now)),
                State::HalfOpen if full && !over => return Err(None),
                State::Open => self.go(State::HalfOpen, 0, self.streak),
                State::HalfOpen if full => self.go(State::HalfOpen, 0, self.streak),
                _ => {}
            }
            if self.state == State::HalfOpen {
                self.until = now + RULES.probe_lease;
                self.probes[0] += 1;
            }
            Ok(self.turn)
        }

        fn report(&mut self, turn: u32, verdict: Option<Verdict>, now: u64) {
            if turn != self.turn {
                return;
            }
            let open = |streak: u8| now + (RULES.open_time << streak.min(10)).min(RULES.open_time_max);
            if self.state == State::HalfOpen {
                self.probes[0] -= 1;
                let Some(verdict) = verdict else { return };
                self.probes[if verdict == OK { 1 } else { 2 }] += 1;
                if self.probes[1] == 4 {
                    self.go(State::Closed, now + 100 * UNTIL_UNIT, self.streak);
                } else if self.probes[2] == 2 {
                    self.go(State::Open, open(self.streak + 1), self.streak + 1);
                }
            } else if let Some(verdict) = verdict {
                self.calls.push((now / RULES.width, verdict));
                let recent =
                    self.calls.iter().filter(|(epoch, _)| now / RULES.width - epoch < 10).map(|(_, verdict)| verdict);
                let count = |is: fn(&Verdict) -> bool| recent.clone().filter(|verdict| is(verdict)).count() as f64;
                let ended = count(|verdict| *verdict != Verdict::Abandoned);
                let failed = count(|verdict| matches!(verdict, Verdict::Ended { failed: true, .. }));
                let slow = count(|verdict| !matches!(verdict, Verdict::Ended { slow: false, .. }));
                let all = count(|_| true);
                let trips = ended >= 4.0 && failed / ended >= 0.5 || all >= 4.0 && slow / all >= 0.75;
                if trips && self.state == State::Closed {
                    let streak = if now >= self.until { 0 } else { self.streak + 1 };
                    self.go(State::Open, open(streak), streak);
                }
            }
        }

        fn force(&mut self, to: State, now: u64) {
            let forced = matches!(self.state, State::ForcedOpen | State::ForcedClosed);
            if self.state != to && (to != State::Closed || forced) {
                self.go(to, now, 0);
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit,
        Report(prop::sample::Index, Option<Verdict>),
        Advance(u64),
        Force(State),
    }

    fn step() -> impl Strategy<Value = Step> {
        let verdict = prop_oneof![
            6 => Just(Some(OK)),
            6 => Just(Some(FAILED)),
            2 => any::<bool>().prop_map(|failed| Some(Verdict::Ended { failed, slow: true })),
            1 => Just(Some(Verdict::Abandoned)),
            2 => Just(None),
        ];
        prop_oneof![
            20 => Just(Step::Admit),
            20 => (any::<prop::sample::Index>(), verdict).prop_map(|(which, verdict)| Step::Report(which, verdict)),
            8 => (0_u64..15).prop_map(Step::Advance),
            3 => (15_u64..120).prop_map(Step::Advance),
            1 => prop::sample::select(&[State::ForcedOpen, State::ForcedClosed, State::Closed, State::Closed][..])
                .prop_map(Step::Force),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        #[test]
        fn it_does_what_the_model_does_and_never_stays_open(steps in prop::collection::vec(step(), 0..400)) {
            let machine = Machine::default();
            let mut model = Model {
                state: State::Closed, turn: 0, until: 0, streak: 0, calls: Vec::new(), probes: [0; 3],
            };
            let mut now = 1_000 * UNTIL_UNIT;
            let mut out: Vec<(Pass, u32)> = Vec::new();
            for step in steps {
                match step {
                    Step::Admit => {
                        let pass = machine.pass().map_or_else(|| machine.admit(now, &RULES).map(|(pass, _)| pass), Ok);
                        prop_assert_eq!(pass.map(|_| ()).map_err(|refusal| refusal.wait), model.admit(now).map(|turn| {
                            out.extend(pass.ok().map(|pass| (pass, turn)));
                        }));
                    }
                    Step::Report(which, verdict) if !out.is_empty() => {
                        let (pass, turn) = out.swap_remove(which.index(out.len()));
                        let before = machine.state();
                        let change = machine.report(pass, verdict, now, LANE, &RULES, || 1.0);
                        model.report(turn, verdict, now);
                        prop_assert_eq!(change.map(|change| change.from), (machine.state() != before).then_some(before));
                    }
                    Step::Report(..) => {}
                    Step::Advance(units) => now += units * UNTIL_UNIT,
                    Step::Force(to) => {
                        machine.force(to, now);
                        model.force(to, now);
                    }
                }
                let look = machine.look(now, &RULES);
                prop_assert_eq!(look.state, model.state);
                prop_assert_eq!(u64::from(look.leased), model.probes[0]);
                prop_assert!(u64::from(look.leased) <= RULES.probes);
            }
            for (pass, _) in out {
                machine.report(pass, None, now, LANE, &RULES, || 1.0);
            }
            machine.force(State::Closed, now); // of a forced one, nobody promises this
            let wait = machine.look(now, &RULES).wait.unwrap_or(0);
            prop_assert!(wait <= RULES.open_time_max);
            prop_assert!(machine.admit(now + wait, &RULES).is_ok(), "stuck");
        }
    }

    /// An open breaker, with the moment its probes may start.
    fn open() -> (Machine, u64) {
        let (machine, now) = (Machine::default(), 1_000 * UNTIL_UNIT);
        let trip = (0..4).find_map(|_| {
            let pass = machine.pass().expect("closed");
            machine.report(pass, Some(FAILED), now, LANE, &RULES, || 1.0)
        });
        assert_eq!(trip.expect("tripped").to, State::Open);
        (machine, now + RULES.open_time)
    }

    #[test]
    fn a_slow_failure_from_before_the_trip_does_not_decide_the_probes_or_the_next_window() {
        let (machine, now) = (Machine::default(), 1_000 * UNTIL_UNIT);
        let late: Vec<_> = (0..20).map(|_| machine.pass().expect("closed")).collect();
        let mut late = late.into_iter();
        for pass in late.by_ref().take(4) {
            machine.report(pass, Some(FAILED), now, LANE, &RULES, || 1.0);
        }
        let now = now + RULES.open_time;
        let (probe, _) = machine.admit(now, &RULES).expect("a probe");
        for pass in late.by_ref().take(5) {
            assert_eq!(machine.report(pass, Some(OK), now, LANE, &RULES, || 1.0), None, "closed by an old success");
        }
        for pass in late.by_ref().take(5) {
            assert_eq!(machine.report(pass, Some(FAILED), now, LANE, &RULES, || 1.0), None, "opened by an old failure");
        }
        assert_eq!((machine.look(now, &RULES).leased, machine.state()), (1, State::HalfOpen));
        machine.report(probe, Some(OK), now, LANE, &RULES, || 1.0);
        for _ in 0..3 {
            let (probe, _) = machine.admit(now, &RULES).expect("a probe");
            machine.report(probe, Some(OK), now, LANE, &RULES, || 1.0);
        }
        assert_eq!(machine.state(), State::Closed);
        for pass in late {
            assert_eq!(machine.report(pass, Some(FAILED), now, LANE, &RULES, || 1.0), None);
        }
        assert_eq!(machine.look(now, &RULES).sums, Sums::default(), "nor counted");
    }

    #[test]
    fn lost_probes_are_replaced_after_the_youngest_ones_lease() {
        let (machine, now) = open();
        let lost: Vec<_> =
            (0..5).map(|probe| machine.admit(now + probe * UNTIL_UNIT, &RULES).expect("a probe").0).collect();
        let end = now + 4 * UNTIL_UNIT + RULES.probe_lease;
        assert!(machine.admit(end - 1, &RULES).is_err());
        let (probe, change) = machine.admit(end, &RULES).expect("anew");
        assert_eq!(change.map(|change| (change.from, change.to)), Some((State::HalfOpen, State::HalfOpen)));
        for pass in lost {
            machine.report(pass, Some(FAILED), end, LANE, &RULES, || 1.0);
        }
        assert_eq!(machine.look(end, &RULES).leased, 1, "what comes after all gives back no lease of others");
        assert_eq!(machine.report(probe, Some(OK), end, LANE, &RULES, || 1.0), None);
        assert_eq!(machine.state(), State::HalfOpen);
    }

    #[test]
    fn a_clock_read_late_does_not_cut_the_youngest_lease_short() {
        let (machine, now) = open();
        for late in [0, 10, 5, 0, 7] {
            machine.admit(now + late * UNTIL_UNIT, &RULES).expect("a probe");
        }
        let end = now + 10 * UNTIL_UNIT + RULES.probe_lease;
        assert!(machine.admit(end - 1, &RULES).is_err());
        assert!(machine.admit(end, &RULES).is_ok());
    }

    #[test]
    fn fewer_probes_by_a_new_policy_do_not_leave_it_half_open() {
        let (machine, now) = open();
        let (first, _) = machine.admit(now, &RULES).expect("a probe");
        let (second, _) = machine.admit(now, &RULES).expect("a probe");
        machine.report(first, Some(OK), now, LANE, &RULES, || 1.0);
        let fewer = Rules { probes: 1, ..RULES };
        assert!(machine.admit(now, &fewer).is_err());
        machine.report(second, None, now, LANE, &fewer, || 1.0);
        let (third, _) = machine.admit(now, &fewer).expect("nobody is left to wait for");
        assert_eq!(
            machine.report(third, Some(OK), now, LANE, &fewer, || 1.0).map(|change| change.to),
            Some(State::Closed)
        );
    }

    #[test]
    fn the_open_time_doubles_to_its_maximum_and_starts_anew_after_a_calm_window() {
        let (machine, mut now) = open();
        let mut waits = Vec::new();
        for _ in 0..4 {
            for _ in 0..2 {
                let (probe, _) = machine.admit(now, &RULES).expect("a probe");
                let change = machine.report(probe, Some(FAILED), now, LANE, &RULES, || 1.0);
                waits.extend(change.map(|change| change.stays / UNTIL_UNIT));
            }
            now += waits[waits.len() - 1] * UNTIL_UNIT;
        }
        assert_eq!(waits, [100, 200, 300, 300]);
        let close_and_trip = |now: u64, calm: u64| {
            for _ in 0..4 {
                let (probe, _) = machine.admit(now, &RULES).expect("a probe");
                machine.report(probe, Some(OK), now, LANE, &RULES, || 1.0);
            }
            let now = now + calm;
            let trip = (0..4)
                .find_map(|_| machine.report(machine.pass().expect("closed"), Some(FAILED), now, LANE, &RULES, || 1.0));
            trip.expect("tripped").stays / UNTIL_UNIT
        };
        assert_eq!(close_and_trip(now, RULES.window() - 1), 300, "flapping");
        assert_eq!(close_and_trip(now + RULES.window() + 300 * UNTIL_UNIT, RULES.window()), 50, "calm");
    }

    /// Four probes that succeed.
    fn close(machine: &Machine, now: u64) {
        for _ in 0..4 {
            let (probe, _) = machine.admit(now, &RULES).expect("a probe");
            machine.report(probe, Some(OK), now, LANE, &RULES, || 1.0);
        }
        assert_eq!(machine.state(), State::Closed);
    }

    fn trip(machine: &Machine, now: u64, jitter: f64) -> Change {
        let change = (0..4).find_map(|_| machine.report(machine.pass()?, Some(FAILED), now, LANE, &RULES, || jitter));
        change.expect("tripped")
    }

    #[test]
    fn one_that_opens_again_at_once_stays_open_for_twice_as_long() {
        let (machine, now) = open();
        close(&machine, now);
        assert_eq!(trip(&machine, now, 1.0).stays, 2 * RULES.open_time);
    }

    #[test]
    fn an_operator_s_word_forgets_how_often_it_opened() {
        let (machine, now) = open();
        for _ in 0..2 {
            let (probe, _) = machine.admit(now, &RULES).expect("a probe");
            machine.report(probe, Some(FAILED), now, LANE, &RULES, || 1.0);
        }
        machine.force(State::ForcedClosed, now);
        machine.force(State::Closed, now + UNTIL_UNIT);
        // Before `until`: what it opens for is the word's streak, plus one.
        assert_eq!(trip(&machine, now, 1.0).stays, 2 * RULES.open_time);
    }

    #[test]
    fn the_open_time_is_spread_and_what_opened_it_is_told_and_stays_to_be_seen() {
        let (machine, now) = (Machine::default(), 1_000 * UNTIL_UNIT);
        let change = trip(&machine, now, 1.1);
        let sums = Sums { calls: 4, failures: 4, ..Sums::default() };
        assert_eq!((change.stays, change.sums), (RULES.open_time / 10 * 11, sums));
        assert_eq!(machine.look(now, &RULES).sums, sums, "while it is open");
        machine.clear_window();
        assert_eq!(machine.look(now, &RULES).sums, Sums::default(), "of a length that was replaced");
    }

    #[test]
    fn only_what_is_let_through_half_open_is_a_probe() {
        assert!(!Machine::default().pass().expect("closed").is_probe());
        let (machine, now) = open();
        assert!(machine.admit(now, &RULES).expect("a probe").0.is_probe());
        assert!(machine.admit(now, &RULES).expect("another").0.is_probe());
    }

    #[test]
    fn operators_and_monitors_find_each_state_by_its_name() {
        let states = [State::Closed, State::Open, State::HalfOpen, State::ForcedOpen, State::ForcedClosed];
        assert_eq!(states.map(State::name), ["closed", "open", "half_open", "forced_open", "forced_closed"]);
    }

    #[test]
    fn threads_trip_it_once_and_never_get_more_probes_than_there_are() {
        const ROUNDS: u64 = 300;
        for round in 0..ROUNDS {
            let machine = Machine::default();
            let (opened, probes, barrier) = (AtomicU32::new(0), AtomicU32::new(0), Barrier::new(4));
            let now = (1_000 + round) * UNTIL_UNIT;
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let passes: Vec<_> = (0..20).filter_map(|_| machine.pass()).collect();
                        barrier.wait();
                        for pass in passes {
                            let change = machine.report(pass, Some(FAILED), now, LANE, &RULES, || 1.0);
                            opened.fetch_add(change.map_or(0, |_| 1), SeqCst);
                        }
                        barrier.wait();
                        let later = now + RULES.open_time;
                        let admitted = (0..20).filter(|_| machine.admit(later, &RULES).is_ok()).count();
                        probes.fetch_add(admitted as u32, SeqCst);
                    });
                }
            });
            assert_eq!((opened.into_inner(), probes.into_inner()), (1, 5));
        }
    }

    /// Four threads, each holding up to four passes and handing one or all of them back at random.
    fn hammer(machine: &Machine, rules: &Rules, verdicts: &[Option<Verdict>], admitted: impl Fn(i32) + Sync) -> u64 {
        let clock = AtomicU64::new(2_000 * UNTIL_UNIT);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (clock, admitted) = (&clock, &admitted);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut held = Vec::new();
                    for step in 0..20_000 {
                        let now = clock.fetch_add(random.u64(0..UNTIL_UNIT), SeqCst);
                        if let Ok((pass, _)) = machine.admit(now, rules) {
                            admitted(1);
                            held.push(pass);
                        }
                        // All at once now and then, so that nobody waits for ever for what another holds.
                        let back = if held.len() == 4 || step == 19_999 { held.len() } else { random.usize(..2) };
                        for _ in 0..back.min(held.len()) {
                            let pass = held.swap_remove(random.usize(..held.len()));
                            admitted(-1);
                            let verdict = verdicts[random.usize(..verdicts.len())];
                            machine.report(pass, verdict, now, seed as usize % lanes::count(), rules, || 1.0);
                        }
                    }
                });
            }
        });
        clock.into_inner()
    }

    #[test]
    fn threads_never_hold_more_probes_than_there_are_while_leases_come_and_go() {
        let (machine, now) = open();
        let inside = AtomicI32::new(0);
        // None of these leases ends by time, so one that got lost would show, too.
        let rules = Rules { probe_lease: u64::MAX, ..RULES };
        let (first, _) = machine.admit(now, &rules).expect("a probe");
        machine.report(first, None, now, LANE, &rules, || 1.0);
        hammer(&machine, &rules, &[None], |change| {
            // Counted after the admission and before the report: perhaps one less than there are, never more.
            assert!(inside.fetch_add(change, SeqCst) + change <= 5, "too many probes");
        });
        let look = machine.look(now, &rules);
        assert_eq!((look.state, look.leased), (State::HalfOpen, 0));
        assert_eq!((0..9).filter(|_| machine.admit(now, &rules).is_ok()).count(), 5, "a lease got lost");
    }

    #[test]
    fn threads_that_use_it_wildly_leave_it_working() {
        let machine = Machine::default();
        let rules = Rules { probe_lease: u64::MAX, ..RULES };
        let now = hammer(&machine, &rules, &[None, Some(OK), Some(OK), Some(FAILED)], |_| {});
        let wait = machine.look(now, &rules).wait.unwrap_or(0);
        assert!(wait <= rules.open_time_max && machine.admit(now + wait, &rules).is_ok(), "stuck");
    }
}
