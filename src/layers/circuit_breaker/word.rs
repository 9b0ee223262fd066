//! The breaker's first word: its layout, and what a transition does to it.
//!
//! ```text
//!     state:3 | period:8 | streak:5 | turn:24 | leased:8 | succeeded:8 | failed:8
//! ```

use super::state::State;

/// The first word, unpacked. The first stay is closed, period 0, turn 0: all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) state: State,
    pub(super) period: u8,
    pub(super) streak: u8,
    pub(super) turn: u32,
    pub(super) leased: u8,
    pub(super) succeeded: u8,
    pub(super) failed: u8,
}

pub(super) const STATE_SHIFT: u32 = 61;
const PERIOD_SHIFT: u32 = 53;
const STREAK_SHIFT: u32 = 48;
const TURN_SHIFT: u32 = 24;
pub(super) const STREAK_MAX: u8 = 31;
pub(super) const TURN_MASK: u32 = (1 << 24) - 1;
pub(super) const COUNTERS: u64 = (1 << TURN_SHIFT) - 1;

impl Word {
    pub(super) fn unpack(word: u64) -> Self {
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

    pub(super) fn pack(self) -> u64 {
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
    pub(super) fn turn_to(self, state: State) -> Self {
        let period = if state.collects() { self.period.wrapping_add(1) } else { self.period };
        Self { state, period, turn: (self.turn + 1) & TURN_MASK, leased: 0, succeeded: 0, failed: 0, ..self }
    }

    /// Probes given out and not handed back.
    pub(super) fn used(self) -> u64 {
        u64::from(self.leased) + u64::from(self.succeeded) + u64::from(self.failed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_word_survives_packing(
            state in prop::sample::select(
                &[State::Closed, State::Open, State::HalfOpen, State::ForcedOpen, State::ForcedClosed][..],
            ),
            (period, streak, turn) in (any::<u8>(), 0..=STREAK_MAX, 0..=TURN_MASK),
            (leased, succeeded, failed) in any::<(u8, u8, u8)>(),
        ) {
            let word = Word { state, period, streak, turn, leased, succeeded, failed };
            prop_assert_eq!(Word::unpack(word.pack()), word);
        }
    }
}
