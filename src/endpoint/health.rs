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
    /// It asked to be left alone until then.
    held_until: AtomicU64,
    operator: AtomicU8,
}

/// What an operator said of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Operator {
    Silent,
    Eject,
    Drain,
}

impl Operator {
    fn of(word: u8) -> Self {
        match word {
            1 => Self::Eject,
            2 => Self::Drain,
            _ => Self::Silent,
        }
    }
}

impl Health {
    /// Whether it may have a call now.
    pub fn admission(&self, now: u64) -> Admission {
        if self.operator.load(Relaxed) != 0 || now < self.held_until.load(Relaxed) {
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

    /// Whether a probe is under way.
    pub fn is_probing(&self, now: u64) -> bool {
        self.is_ejected() && now < self.probe_until.load(Relaxed)
    }

    /// It asks to be left alone until `until`: no calls before, in a panic neither.
    pub fn hold(&self, until: u64) {
        self.held_until.fetch_max(until, Relaxed);
    }

    /// Until when it asked to be left alone; in the past, or 0, if it did not.
    pub fn held_until(&self) -> u64 {
        self.held_until.load(Relaxed)
    }

    /// When it may have calls again, if time alone decides that.
    pub(crate) fn opens_at(&self) -> Option<u64> {
        let until = self.ejected_until.load(Relaxed).max(self.probe_until.load(Relaxed)).max(self.held_until());
        (until > 0 && self.operator_word() != Operator::Eject).then_some(until)
    }

    /// Whether an operator drained it.
    pub fn is_drained(&self) -> bool {
        self.operator_word() == Operator::Drain
    }

    pub(crate) fn operator_word(&self) -> Operator {
        Operator::of(self.operator.load(Relaxed))
    }

    /// Puts an operator's word into force, and tells the one before.
    pub(super) fn operator(&self, word: Operator) -> Operator {
        Operator::of(self.operator.swap(word as u8, Relaxed))
    }

    /// The handle sees to it that one thread at a time ejects or restores.
    pub(super) fn eject(&self, until: u64) {
        self.generation.fetch_add(1, Release);
        self.end_probe();
        self.ejected_until.store(until.max(1), Release);
    }

    /// See [`eject`](Self::eject).
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
