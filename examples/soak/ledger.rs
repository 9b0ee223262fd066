//! What became of the requests that must not run twice. As large at the end as at the beginning.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// By request number, what both sides say.
pub struct Ledger {
    /// An instance said it ran.
    ran: Bits,
    /// The caller got its answer.
    answered: Bits,
    /// The caller was told that it surely never ran.
    unsent: Bits,
    twice: AtomicU64,
}

impl Ledger {
    pub fn new(requests: u64) -> Self {
        let bits = || Bits::new(requests);
        Self { ran: bits(), answered: bits(), unsent: bits(), twice: AtomicU64::new(0) }
    }

    pub fn ran(&self, request: u64) {
        if self.ran.set(request) {
            eprintln!("request {request} ran twice");
            self.twice.fetch_add(1, Relaxed);
        }
    }

    pub fn answered(&self, request: u64) {
        self.answered.set(request);
    }

    pub fn unsent(&self, request: u64) {
        self.unsent.set(request);
    }

    /// How many ran, ran twice, were answered but never ran, and ran though their callers were told they had not.
    pub fn totals(&self) -> Totals {
        Totals {
            ran: self.ran.count(|ran, _| ran, &self.ran),
            twice: self.twice.load(Relaxed),
            made_up: self.answered.count(|answered, ran| answered & !ran, &self.ran),
            denied: self.unsent.count(|unsent, ran| unsent & ran, &self.ran),
        }
    }
}

pub struct Totals {
    pub ran: u64,
    pub twice: u64,
    pub made_up: u64,
    pub denied: u64,
}

struct Bits(Box<[AtomicU64]>);

impl Bits {
    fn new(bits: u64) -> Self {
        Self((0..bits.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Whether it was set before. What is out of range nobody asked for.
    fn set(&self, bit: u64) -> bool {
        let mask = 1 << (bit % 64);
        self.0.get((bit / 64) as usize).is_some_and(|word| word.fetch_or(mask, Relaxed) & mask != 0)
    }

    fn count(&self, which: impl Fn(u64, u64) -> u64, other: &Self) -> u64 {
        let words = self.0.iter().zip(&other.0);
        words.map(|(own, other)| u64::from(which(own.load(Relaxed), other.load(Relaxed)).count_ones())).sum()
    }
}
