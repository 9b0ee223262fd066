use std::sync::atomic::{
    AtomicU8, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};

/// Whether an endpoint may have a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may.
    Open,
    /// Its ejection is over: it may have one call that shows whether it is well ([`Health::try_probe`]).
    Probe,
    /// It may not.
    Closed,
}

/// What our own data, and operators, say of an endpoint. Times are nanoseconds of [`context::nanos`](crate::context::nanos).
///
/// ```text
///              eject                until has passed             try_probe
///   healthy ---------> ejected ------------------> probe due ------------> probing
///      ^                  ^                            ^                      |
///      |                  |                            +--- lease ended ------+
///      |                  +--------------- eject (it failed) -----------------+
///      +---------------------------------- restore (it succeeded) ------------+
/// ```
#[derive(Debug, Default)]
pub struct Health {
    /// 0: healthy.
    ejected_until: AtomicU64,
    /// When the lease of the probe under way ends; 0: none is under way.
    probe_until: AtomicU64,
    /// One higher with every ejection and return: what was learned before one says nothing after it.
    generation: AtomicU32,
    /// Failures in a row.
    pub(crate) consecutive: AtomicU32,
    /// Ejections in a row, less one for each healthy while since: multiplies the next one's length (E7).
    pub(crate) ejections: AtomicU32,
    /// When it last returned, or `ejections` last went down.
    pub(crate) returned: AtomicU64,
    operator: AtomicU8,
}

const OPERATOR_EJECTED: u8 = 1;
const OPERATOR_DRAINED: u8 = 2;

impl Health {
    /// Whether it may have a call now.
    pub fn admission(&self, now: u64) -> Admission {
        if self.operator.load(Relaxed) != 0 {
            return Admission::Closed;
        }
        let until = self.ejected_until.load(Relaxed);
        if until == 0 {
            Admission::Open
        } else if now >= until && now >= self.probe_until.load(Relaxed) {
            Admission::Probe
        } else {
            Admission::Closed
        }
    }

    /// Takes the lease of the one probe, until `lease_end`. `false` if somebody else has it.
    pub fn try_probe(&self, now: u64, lease_end: u64) -> bool {
        let held = self.probe_until.load(Relaxed);
        now >= held && self.probe_until.compare_exchange(held, lease_end, AcqRel, Relaxed).is_ok()
    }

    /// Gives the probe's lease back without a verdict: the next call may probe.
    pub fn end_probe(&self) {
        self.probe_until.store(0, Release);
    }

    /// Whether it is ejected by our own data, a probe that is due or under way included.
    pub fn is_ejected(&self) -> bool {
        self.ejected_until.load(Relaxed) != 0
    }

    /// What a result must have been admitted under to count.
    pub fn generation(&self) -> u32 {
        self.generation.load(Acquire)
    }

    /// Whether an operator drained it.
    pub fn is_drained(&self) -> bool {
        self.operator.load(Relaxed) == OPERATOR_DRAINED
    }

    /// Whether an operator ejected it.
    pub fn is_operator_ejected(&self) -> bool {
        self.operator.load(Relaxed) == OPERATOR_EJECTED
    }

    /// An operator's word: no calls, but with too few endpoints left it is used all the same.
    pub fn operator_eject(&self) {
        self.operator.store(OPERATOR_EJECTED, Relaxed);
    }

    /// An operator's word: no new calls at all.
    pub fn operator_drain(&self) {
        self.operator.store(OPERATOR_DRAINED, Relaxed);
    }

    /// Takes the operator's word back.
    pub fn operator_restore(&self) {
        self.operator.store(0, Relaxed);
    }

    pub(super) fn eject(&self, until: u64, reserve: impl FnOnce() -> bool) -> bool {
        let until = until.max(1);
        let before = self.ejected_until.load(Relaxed);
        if before != 0 {
            // Its probe failed, or it failed on in a panic: the place in the cap is held already.
            if self.ejected_until.compare_exchange(before, until, AcqRel, Relaxed).is_ok() {
                self.generation.fetch_add(1, Release);
                self.end_probe();
            }
            return false;
        }
        if !reserve() {
            return false;
        }
        self.generation.fetch_add(1, Release);
        self.end_probe();
        // Only `eject` leaves 0, and the caller that reserved is the one that counted the last failure.
        self.ejected_until.store(until, Release);
        true
    }

    pub(super) fn restore(&self) -> bool {
        let was = self.ejected_until.swap(0, AcqRel) != 0;
        if was {
            self.generation.fetch_add(1, Release);
            self.consecutive.store(0, Relaxed);
            self.end_probe();
        }
        was
    }
}
