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
    atomic::{AcqRel, Acquire, AtomicU64},
    policy::Rules,
    window::{Sums, Verdict, Window},
};

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

    fn collects(self) -> bool {
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

/// The first word, unpacked. The first stay is closed, period 0, turn 0: all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    state: State,
    period: u8,
    streak: u8,
    turn: u32,
    leased: u8,
    succeeded: u8,
    failed: u8,
}

const STATE_SHIFT: u32 = 61;
const PERIOD_SHIFT: u32 = 53;
const STREAK_SHIFT: u32 = 48;
const TURN_SHIFT: u32 = 24;
const STREAK_MAX: u8 = 31;
const TURN_MASK: u32 = (1 << 24) - 1;
const UNTIL_SHIFT: u32 = 48;
const UNTIL_MASK: u64 = (1 << UNTIL_SHIFT) - 1;
const UNTIL_UNIT: u64 = 4096;
const COUNTERS: u64 = (1 << TURN_SHIFT) - 1;

impl Word {
    fn unpack(word: u64) -> Self {
        Self {
            state: match word >> STATE_SHIFT {
                0 => State::Closed,
                1 => State::ForcedClosed,
                2 => State::HalfOpen,
                3 => State::Open,
                _ => State::ForcedOpen,
            },
            period: (word >> PERIOD_SHIFT) as u8,
            streak: (word >> STREAK_SHIFT) as u8 & STREAK_MAX,
            turn: (word >> TURN_SHIFT) as u32 & TURN_MASK,
            leased: (word >> 16) as u8,
            succeeded: (word >> 8) as u8,
            failed: word as u8,
        }
    }

    fn pack(self) -> u64 {
        let state = match self.state {
            State::Closed => 0_u64,
            State::ForcedClosed => 1,
            State::HalfOpen => 2,
            State::Open => 3,
            State::ForcedOpen => 4,
        };
        state << STATE_SHIFT
            | u64::from(self.period) << PERIOD_SHIFT
            | u64::from(self.streak) << STREAK_SHIFT
            | u64::from(self.turn) << TURN_SHIFT
            | u64::from(self.leased) << 16
            | u64::from(self.succeeded) << 8
            | u64::from(self.failed)
    }

    /// The next stay.
    fn turn_to(self, state: State) -> Self {
        let period = if state.collects() { self.period.wrapping_add(1) } else { self.period };
        Self { state, period, turn: (self.turn + 1) & TURN_MASK, leased: 0, succeeded: 0, failed: 0, ..self }
    }

    /// Probes given out and not handed back.
    fn used(self) -> u64 {
        u64::from(self.leased) + u64::from(self.succeeded) + u64::from(self.failed)
    }
}

impl Pass {
    /// Whether its call is a probe.
    pub(super) fn is_probe(self) -> bool {
        Word::unpack(self.0).state == State::HalfOpen
    }

    fn of(word: u64) -> Self {
        Self(word & !COUNTERS)
    }
}

impl Machine {
    /// The hot path: one load. `None` if it takes [`admit`](Self::admit) to say.
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
                State::ForcedOpen => return Err(Refusal { wait: None }),
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
                State::HalfOpen => return Err(Refusal { wait: None }),
            }
            let next = Word { leased: 1, ..word.turn_to(State::HalfOpen) };
            if let Some(change) = self.turn(current, next, lease) {
                return Ok((Pass::of(next.pack()), Some(change)));
            }
        }
    }

    /// Takes back a pass with what is known of its call, `None` if nothing: it was cancelled, or never left this side.
    ///
    /// `jitter` is asked for a factor of the open time, if it opens.
    pub(super) fn report(
        &self,
        pass: Pass,
        verdict: Option<Verdict>,
        now: u64,
        rules: &Rules,
        jitter: impl Fn() -> f64,
    ) -> Option<Change> {
        match Word::unpack(pass.0).state {
            State::HalfOpen => self.report_probe(pass, verdict, now, rules, jitter),
            State::Closed | State::ForcedClosed => self.report_call(pass, verdict?, now, rules, jitter),
            State::Open | State::ForcedOpen => None,
        }
    }

    fn report_call(
        &self,
        pass: Pass,
        verdict: Verdict,
        now: u64,
        rules: &Rules,
        jitter: impl Fn() -> f64,
    ) -> Option<Change> {
        if self.word.load(Acquire) != pass.0 {
            return None;
        }
        // If it turns from here on, the window drops what belongs to an earlier period, and the exchange below fails.
        let word = Word::unpack(pass.0);
        self.window.record(word.period, now, rules.width, verdict);
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
                Some(None) => {} // Another thread was faster: look again.
                None if self.exchange(current, next) => return None,
                None => {}
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
            let ahead = tag.wrapping_sub((until >> UNTIL_SHIFT) as u16) as i16;
            let later = ahead > 0 || ahead == 0 && time > until & UNTIL_MASK;
            later.then_some(u64::from(tag) << UNTIL_SHIFT | time)
        });
    }
}
