use std::time::Duration;

use crate::sync::{AtomicU32, AtomicU64, Relaxed};

/// Calls in flight at an endpoint, and how long its answers take: the peak EWMA of Finagle. Times are nanoseconds of
/// [`context::nanos`](crate::context::nanos).
///
/// A slower answer than the average becomes the average at once; a faster one moves it by how long ago the last one was. Read later,
/// the average has decayed as if answers of no time had come since, so that an endpoint left alone is tried again.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    /// Connections refused in a row.
    refused: AtomicU32,
    /// The average as `f32` nanoseconds in the high half, when it was updated in [`TICK`]s in the low one; 0: no history.
    average: AtomicU64,
}

/// What the coarse time counts: 2^16 ns, about 65 us. It wraps after 78 h, which wrapping subtraction bridges.
const TICK: u32 = 16;

/// The cost of an endpoint without history that has calls in flight: one at a time may find out what it is like.
const UNKNOWN: f64 = 1e15;

impl Load {
    /// Calls under way.
    #[inline]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// The average as it was when last updated.
    pub fn latency(&self) -> Option<Duration> {
        let (average, _) = unpack(self.average.load(Relaxed))?;
        Some(Duration::from_nanos(average as u64))
    }

    /// What one more call would cost: the decayed average times the calls that would then be under way.
    #[inline]
    pub fn cost(&self, now: u64, decay: Duration) -> f64 {
        let in_flight = f64::from(self.in_flight());
        match unpack(self.average.load(Relaxed)) {
            Some((average, at)) => decayed(average, at, now, decay) * (in_flight + 1.0),
            None if in_flight > 0.0 => UNKNOWN + in_flight,
            None => 0.0,
        }
    }

    /// One more connection was refused; how many in a row that makes.
    pub(crate) fn refused(&self) -> u32 {
        self.refused.fetch_add(1, Relaxed) + 1
    }

    /// A connection was made.
    #[inline]
    pub(crate) fn reached(&self) {
        // Read first: nearly always there is nothing to write.
        if self.refused.load(Relaxed) != 0 {
            self.refused.store(0, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn start(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    #[inline]
    pub(crate) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// An answer came after `took`.
    pub(crate) fn observe(&self, took: Duration, now: u64, decay: Duration) {
        let took = nanoseconds(took);
        self.update(now, |average| match average {
            Some((average, at)) if took <= average => {
                let weight = remains(at, now, decay);
                Some(average * weight + took * (1.0 - weight))
            }
            _ => Some(took),
        });
    }

    /// It takes at least this long: a failure's penalty, or what a call had waited when it was given up. Never lowers.
    pub(crate) fn at_least(&self, took: Duration, now: u64, decay: Duration) {
        let took = nanoseconds(took);
        self.update(now, |average| {
            let known = average.map_or(0.0, |(average, at)| decayed(average, at, now, decay));
            (took > known).then_some(took)
        });
    }

    fn update(&self, now: u64, next: impl Fn(Option<(f64, u32)>) -> Option<f64>) {
        // Lost against two others, an average can do without this one.
        for _ in 0..2 {
            let before = self.average.load(Relaxed);
            let Some(next) = next(unpack(before)) else { return };
            if self.average.compare_exchange_weak(before, pack(next, now), Relaxed, Relaxed).is_ok() {
                return;
            }
        }
    }
}

fn pack(average: f64, now: u64) -> u64 {
    // At least 1 ns, so that no history and a very fast answer differ.
    u64::from((average.max(1.0) as f32).to_bits()) << 32 | u64::from((now >> TICK) as u32)
}

#[inline]
fn unpack(word: u64) -> Option<(f64, u32)> {
    (word != 0).then(|| (f64::from(f32::from_bits((word >> 32) as u32)), word as u32))
}

/// What is left by `now` of the weight that a value had `at`.
#[inline]
fn remains(at: u32, now: u64, decay: Duration) -> f64 {
    let ticks = ((now >> TICK) as u32).wrapping_sub(at);
    // No time has passed: nearly always so where calls are many. A reading older than the last update, of another thread, is no age at all.
    if ticks == 0 || ticks > u32::MAX / 2 {
        return 1.0;
    }
    let age = f64::from(ticks) * f64::from(1u32 << TICK) / nanoseconds(decay);
    // Of one that is called all the time, to a millionth.
    if age < 1e-3 { 1.0 - age } else { (-age).exp() }
}

#[inline]
fn decayed(average: f64, at: u32, now: u64, decay: Duration) -> f64 {
    average * remains(at, now, decay)
}

/// By way of `u64`, which one instruction converts.
fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as u64 as f64
}

#[cfg(all(test, not(hopvine_loom)))]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const DECAY: Duration = Duration::from_secs(10);

    /// The formula as it is written, in seconds, without rounding.
    #[derive(Clone, Copy, Debug, Default)]
    struct Model {
        known: Option<(f64, f64)>,
        in_flight: u32,
    }

    impl Model {
        fn decayed(&self, now: f64) -> Option<f64> {
            self.known.map(|(average, at)| average * ((at - now) / DECAY.as_secs_f64()).exp())
        }

        fn observe(&mut self, took: f64, now: f64) {
            let average = match self.known {
                Some((average, _)) if took > average => took,
                Some((average, at)) => {
                    let weight = ((at - now) / DECAY.as_secs_f64()).exp();
                    average * weight + took * (1.0 - weight)
                }
                None => took,
            };
            self.known = Some((average, now));
        }

        fn at_least(&mut self, took: f64, now: f64) {
            if took > self.decayed(now).unwrap_or(0.0) {
                self.known = Some((took, now));
            }
        }

        fn cost(&self, now: f64) -> f64 {
            self.decayed(now).map_or(0.0, |average| average * f64::from(self.in_flight + 1))
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Observe(Duration),
        AtLeast(Duration),
        Start,
        End,
    }

    fn step() -> impl Strategy<Value = Step> {
        let took = || (1..5_000_000_u64).prop_map(Duration::from_micros);
        prop_oneof![took().prop_map(Step::Observe), took().prop_map(Step::AtLeast), Just(Step::Start), Just(Step::End)]
    }

    fn ticks(ticks: u64) -> u64 {
        ticks << TICK
    }

    fn seconds(nanos: u64) -> f64 {
        Duration::from_nanos(nanos).as_secs_f64()
    }

    proptest! {
        /// The clock begins anywhere, so that the coarse time of some wraps in the middle.
        #[test]
        fn an_endpoint_costs_what_the_formula_says(
            began in prop_oneof![Just(1_u64), (1_u64 << 32) - 400_000..(1_u64 << 32)],
            steps in vec((0..300_000_u64, step()), 1..40),
        ) {
            let (load, mut model, mut now) = (Load::default(), Model::default(), ticks(began));
            for (later, step) in steps {
                now += ticks(later);
                let at = seconds(now - ticks(began));
                match step {
                    Step::Observe(took) => {
                        load.observe(took, now, DECAY);
                        model.observe(took.as_secs_f64(), at);
                    }
                    Step::AtLeast(took) => {
                        load.at_least(took, now, DECAY);
                        model.at_least(took.as_secs_f64(), at);
                    }
                    Step::Start => {
                        load.start();
                        model.in_flight += 1;
                    }
                    Step::End if model.in_flight > 0 => {
                        load.end();
                        model.in_flight -= 1;
                    }
                    Step::End => {}
                }
                prop_assert_eq!(load.in_flight(), model.in_flight);
                if model.known.is_none() {
                    let unknown = if model.in_flight == 0 { 0.0 } else { UNKNOWN + f64::from(model.in_flight) };
                    prop_assert_eq!(load.cost(now, DECAY).to_bits(), unknown.to_bits());
                    continue;
                }
                for age in [0, 1, 100_000] {
                    let (cost, expected) = (load.cost(now + ticks(age), DECAY) / 1e9, model.cost(at + seconds(ticks(age))));
                    // Kept as `f32`, and never less than 1 ns.
                    prop_assert!((cost - expected).abs() <= expected * 1e-4 + 2e-9, "{cost} for {expected}");
                }
                let (latency, average) = (load.latency().unwrap().as_secs_f64(), model.known.unwrap().0);
                prop_assert!((latency - average).abs() <= average * 1e-4 + 2e-9, "{latency} for {average}");
            }
        }
    }

    #[test]
    fn what_another_thread_knows_later_is_not_forgotten_by_one_that_read_the_clock_before() {
        let (load, took, at) = (Load::default(), Duration::from_millis(512), ticks(u64::from(u32::MAX)));
        load.observe(took, at, DECAY);
        let cost = |now| Duration::from_nanos(load.cost(now, DECAY) as u64);
        assert_eq!(cost(at - ticks(1)), took);
        // Half of the coarse time is the past, half of it the future.
        let half = u64::from(u32::MAX / 2);
        assert_eq!(cost(at + ticks(half)), Duration::ZERO);
        assert_eq!(cost(at + ticks(half + 1)), took);
    }

    #[test]
    fn an_answer_of_no_time_is_history_too() {
        let load = Load::default();
        load.observe(Duration::ZERO, 0, DECAY);
        assert_eq!(load.latency(), Some(Duration::from_nanos(1)));
    }

    #[test]
    fn refused_connections_count_until_one_is_made() {
        let load = Load::default();
        assert_eq!([load.refused(), load.refused()], [1, 2]);
        load.reached();
        assert_eq!(load.refused(), 1);
    }

    #[test]
    fn one_call_finds_out_what_a_new_endpoint_is_like_and_its_latency_is_then_seen() {
        let (load, decay) = (Load::default(), Duration::from_secs(10));
        assert_eq!((load.latency(), load.cost(0, decay).to_bits()), (None, 0.0_f64.to_bits()));
        load.start();
        let busy = load.cost(0, decay);
        load.start();
        assert!(busy >= UNKNOWN && load.cost(0, decay) > busy, "a second call goes elsewhere");
        load.end();
        load.end();
        load.observe(Duration::from_millis(8), 1 << 30, decay);
        assert_eq!(load.latency().map(|latency| latency.as_micros().div_ceil(1_000)), Some(8));
    }
}
