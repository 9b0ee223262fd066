use crate::sync::{Acquire, AtomicBool, AtomicU8, AtomicU64, Mutex, MutexGuard, PoisonError, Relaxed, Release};

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
///
/// Calls only read it, without a lock. What changes an ejection is rare, and takes one per endpoint, since it changes
/// several words, and the count of the whole group with them.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Health {
    /// 0: healthy. Written under the lock, always before the generation in `run`.
    ejected_until: AtomicU64,
    /// It asked to be left alone until then.
    held_until: AtomicU64,
    /// The generation in the high half, the failures in a row since it began in the low half: one word, so that a
    /// result of an older generation is never counted into this one.
    run: AtomicU64,
    operator: AtomicU8,
    /// As its source says.
    up: AtomicBool,
    /// Its source no longer lists it. Written under the lock, since the group counts who is ejected and not removed.
    removed: AtomicBool,
    // What is above is what calls read of an endpoint that is well, and is kept in one line with its load.
    /// Twice the time the probe's lease ends, plus one once a call carries it; 0: none. Written under the lock.
    probe: AtomicU64,
    history: Mutex<History>,
}

/// What is remembered from one ejection to the next.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Ejections in a row, less those forgiven: what makes the next one longer (E7).
    pub(crate) in_a_row: u32,
    /// When it last returned.
    pub(crate) returned: u64,
}

/// What a call's result will speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// A healthy endpoint.
    Healthy,
    /// One that is ejected and stays so: the call was sent all the same, for want of others.
    Ejected,
    /// One whose time is over. The call that carries the probe's lease knows it.
    Due(Option<Lease>),
}

/// The probe's lease, as the word that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease(u64);

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
    /// Its first so many bytes are all that calls read of an endpoint that is well.
    #[cfg(not(all(test, hopvine_loom)))]
    pub(super) const READ_BY_CALLS: usize = std::mem::offset_of!(Self, removed) + 1;

    pub(super) fn new(up: bool) -> Self {
        Self { up: AtomicBool::new(up), ..Self::default() }
    }

    /// Whether its source, and no operator, wants it to have calls.
    #[inline]
    pub(super) fn is_serving(&self) -> bool {
        !self.is_removed() && self.is_up() && !self.is_drained()
    }

    pub(super) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    pub(super) fn set_up(&self, up: bool) {
        self.up.store(up, Relaxed);
    }

    #[inline]
    pub(super) fn is_removed(&self) -> bool {
        self.removed.load(Acquire)
    }

    /// Tells what it was before. Under the lock.
    pub(super) fn set_removed(&self, removed: bool) -> bool {
        self.removed.swap(removed, Release)
    }

    /// Whether it may have a call now.
    pub fn admission(&self, now: u64) -> Admission {
        self.admission_by(|| now)
    }

    /// The same, where the clock is asked only if it matters.
    #[inline]
    pub(crate) fn admission_by(&self, now: impl FnOnce() -> u64) -> Admission {
        let (held, until) = (self.held_until.load(Relaxed), self.ejected_until.load(Acquire));
        if self.operator.load(Relaxed) != 0 {
            return Admission::Closed;
        }
        if held == 0 && until == 0 {
            return Admission::Open;
        }
        let now = now();
        if now < held {
            Admission::Closed
        } else if until == 0 {
            Admission::Open
        } else if now >= until && now >= self.probe.load(Acquire) >> 1 {
            Admission::Probe
        } else {
            Admission::Closed
        }
    }

    /// Takes the lease of the one probe, until `lease_end`. `false` if somebody else has it, or none is due.
    pub fn try_probe(&self, now: u64, lease_end: u64) -> bool {
        let _history = self.lock();
        let due = self.admission(now) == Admission::Probe;
        if due {
            self.probe.store(lease_end.min(u64::MAX >> 1) << 1, Release);
        }
        due
    }

    /// Gives the probe's lease back without a verdict: the next call may probe.
    pub fn end_probe(&self) {
        let _history = self.lock();
        self.probe.store(0, Release);
    }

    /// Whether it is ejected by our own data, a probe that is due or under way included.
    #[inline]
    pub fn is_ejected(&self) -> bool {
        self.ejected_until.load(Acquire) != 0
    }

    /// What a result must have been admitted under to count.
    #[inline]
    pub fn generation(&self) -> u32 {
        (self.run.load(Acquire) >> 32) as u32
    }

    /// Whether a probe is under way.
    pub fn is_probing(&self, now: u64) -> bool {
        self.is_ejected() && now < self.probe.load(Acquire) >> 1
    }

    /// It asks to be left alone until `until`: no calls before, in a panic neither.
    pub fn hold(&self, until: u64) {
        self.held_until.fetch_max(until, Relaxed);
    }

    /// Until when it asked to be left alone; in the past, or 0, if it did not.
    #[inline]
    pub fn held_until(&self) -> u64 {
        self.held_until.load(Relaxed)
    }

    /// When it may have calls again, if time alone decides that.
    pub(crate) fn opens_at(&self) -> Option<u64> {
        let ejected = self.ejected_until.load(Acquire).max(self.probe.load(Acquire) >> 1);
        let until = ejected.max(self.held_until());
        (until > 0 && self.operator_word() != Operator::Eject).then_some(until)
    }

    /// Whether an operator drained it.
    #[inline]
    pub fn is_drained(&self) -> bool {
        self.operator_word() == Operator::Drain
    }

    /// Whether an operator ejected it.
    pub fn is_operator_ejected(&self) -> bool {
        self.operator_word() == Operator::Eject
    }

    #[inline]
    pub(crate) fn operator_word(&self) -> Operator {
        Operator::of(self.operator.load(Relaxed))
    }

    /// Puts an operator's word into force, and tells the one before. Under the lock.
    pub(super) fn operator(&self, word: Operator) -> Operator {
        Operator::of(self.operator.swap(word as u8, Relaxed))
    }

    /// What the result of a call that is made now will speak of, and the generation it belongs to. `now` is asked
    /// only if the endpoint is ejected. The first call after [`try_probe`](Self::try_probe) carries its lease.
    #[inline]
    pub(crate) fn admit(&self, now: impl FnOnce() -> u64) -> (u32, Standing) {
        // In this order: a change in between leaves a generation that is older than what is read after it, and the
        // result is dropped.
        let generation = self.generation();
        let until = self.ejected_until.load(Acquire);
        let standing = match until {
            0 => Standing::Healthy,
            _ if now() < until => Standing::Ejected,
            _ => Standing::Due(self.carry_lease(generation)),
        };
        (generation, standing)
    }

    fn carry_lease(&self, generation: u32) -> Option<Lease> {
        let _history = self.lock();
        let free = self.probe.load(Relaxed);
        let carried = free | 1;
        if free == 0 || free == carried || self.generation() != generation {
            return None;
        }
        self.probe.store(carried, Release);
        Some(Lease(carried))
    }

    /// Gives back the lease a call carried, unless it ended and another took it.
    pub(crate) fn return_lease(&self, lease: Lease) {
        let _history = self.lock();
        if self.probe.load(Relaxed) == lease.0 {
            self.probe.store(0, Release);
        }
    }

    /// Counts a failure of this generation. How many in a row that makes; `None` if the generation is over.
    pub(crate) fn count_failure(&self, generation: u32) -> Option<u32> {
        let counted = self.run.fetch_update(Relaxed, Relaxed, |run| {
            let (current, count) = ((run >> 32) as u32, run as u32);
            (current == generation).then(|| pack(generation, count.saturating_add(1)))
        });
        counted.ok().map(|before| (before as u32).saturating_add(1))
    }

    /// A success of this generation ends the run of failures.
    #[inline]
    pub(crate) fn count_success(&self, generation: u32) {
        // Read first: nearly always there is nothing to reset, and no line to write.
        let run = self.run.load(Relaxed);
        if (run >> 32) as u32 == generation && run as u32 != 0 {
            // A failure that gets in between stands after this success.
            let _ = self.run.compare_exchange(run, pack(generation, 0), Relaxed, Relaxed);
        }
    }

    /// The lock that every change of an ejection, and of the group's count of them, is made under.
    pub(super) fn lock(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the end of the ejection, 0 for none, and begins a new generation. Under the lock.
    pub(super) fn change(&self, until: u64, _lock: &mut History) {
        self.ejected_until.store(until, Release);
        self.probe.store(0, Release);
        // A store would do, but for loom, which lets one come between a call's reading and writing of the word (tokio-rs/loom#254).
        self.run.swap(pack(self.generation().wrapping_add(1), 0), Release);
    }
}

fn pack(generation: u32, count: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(count)
}

#[cfg(all(test, not(hopvine_loom)))]
mod tests {
    use super::*;

    fn ejected(until: u64) -> Health {
        let health = Health::default();
        health.change(until, &mut health.lock());
        health
    }

    #[test]
    fn one_call_probes_and_no_second_until_its_lease_ends() {
        let health = ejected(100);
        assert_eq!(health.admission(99), Admission::Closed);
        assert!(!health.try_probe(99, 200), "not due yet");
        assert_eq!(health.admission(100), Admission::Probe);
        assert!(health.try_probe(100, 200));
        assert_eq!(health.admission(199), Admission::Closed);
        assert!(!health.try_probe(199, 300));
        assert_eq!(health.admission(200), Admission::Probe, "a probe that never answered shuts nobody out");
        assert!(health.try_probe(200, 300));
    }

    #[test]
    fn a_cancelled_call_gives_back_its_own_lease_and_nobody_elses() {
        let health = ejected(100);
        assert!(health.try_probe(100, 200));
        let (_, Standing::Due(Some(first))) = health.admit(|| 100) else { panic!("carries the lease") };
        assert_eq!(health.admit(|| 100).1, Standing::Due(None), "sent in a panic, beside the probe");

        assert!(health.try_probe(200, 300), "the first lease has ended");
        let (_, Standing::Due(Some(second))) = health.admit(|| 200) else { panic!("carries the lease") };
        health.return_lease(first);
        assert_eq!(health.admission(250), Admission::Closed, "the second probe is under way");
        health.return_lease(second);
        assert_eq!(health.admission(250), Admission::Probe);
    }

    #[test]
    fn who_waits_for_an_endpoint_is_told_when_it_opens_unless_only_an_operator_knows() {
        assert_eq!(Health::default().opens_at(), None);
        let health = ejected(100);
        assert_eq!((health.opens_at(), health.is_probing(150)), (Some(100), false));
        assert!(health.try_probe(100, 200));
        assert_eq!(health.opens_at(), Some(200));
        assert_eq!([199, 200, 201].map(|now| health.is_probing(now)), [true, false, false]);
        health.end_probe();
        assert_eq!((health.opens_at(), health.is_probing(150)), (Some(100), false));
        health.hold(300);
        assert_eq!((health.opens_at(), health.admission(299)), (Some(300), Admission::Closed));
        assert_eq!(health.admission(300), Admission::Probe, "what it asked for is over");
        assert!(!health.is_operator_ejected());
        health.operator(Operator::Eject);
        assert!(health.is_operator_ejected());
        assert_eq!(health.opens_at(), None);
    }

    #[test]
    fn a_result_of_before_an_ejection_says_nothing_after_it() {
        let health = Health::default();
        let (before, Standing::Healthy) = health.admit(|| unreachable!("no clock is read for a healthy endpoint"))
        else {
            panic!("healthy")
        };
        assert_eq!(health.count_failure(before), Some(1));
        health.change(100, &mut health.lock());
        health.change(0, &mut health.lock());
        assert_eq!(health.count_failure(before), None);
        let now = health.generation();
        assert_eq!(health.count_failure(now), Some(1));
        health.count_success(before);
        assert_eq!(health.count_failure(now), Some(2), "an old success does not reset the new run");
        health.count_success(now);
        assert_eq!(health.count_failure(now), Some(1));
    }

    /// E1: `(1 - p^5) / ((1 - p) p^5)` calls until five fail in a row.
    #[test]
    fn a_steady_error_rate_trips_as_often_as_chance_has_it() {
        fastrand::seed(1);
        for (p, expected) in [(0.5, 62.0), (0.9, 6.935), (1.0, 5.0)] {
            let health = Health::default();
            let mut trips = 0;
            for _ in 0..1_000_000 {
                let generation = health.generation();
                if fastrand::f64() >= p {
                    health.count_success(generation);
                } else if health.count_failure(generation) == Some(5) {
                    trips += 1;
                    health.change(0, &mut health.lock());
                }
            }
            let calls = 1_000_000.0 / f64::from(trips);
            assert!((calls / expected - 1.0).abs() < 0.05, "{p}: {calls}");
        }
    }
}
