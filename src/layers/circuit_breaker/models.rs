//! Every interleaving of two threads at the machine and at the window.

use std::sync::Arc;

use super::{
    policy::Rules,
    state::{Change, Machine, Pass, State, UNTIL_UNIT},
    window::{BUCKETS, Sums, Verdict, Window},
};
use crate::sync::{explore, race};

const OK: Verdict = Verdict::Ended { failed: false, slow: false };
const FAILED: Verdict = Verdict::Ended { failed: true, slow: false };

const RULES: Rules = Rules {
    width: 10 * UNTIL_UNIT,
    minimum_calls: 2,
    failure_rate: 0.5,
    slow_call: u64::MAX,
    slow_rate: 1.0,
    open_time: 50 * UNTIL_UNIT,
    open_time_max: 50 * UNTIL_UNIT,
    probes: 2,
    probe_lease: 80 * UNTIL_UNIT,
};

const ONE_PROBE: Rules = Rules { probes: 1, ..RULES };

/// When it trips.
const TRIP: u64 = 1_000 * UNTIL_UNIT;

/// When its probes may start.
const LATER: u64 = TRIP + RULES.open_time;

/// The lanes of two threads.
const ONE: usize = 0;
const OTHER: usize = 1;

fn report(machine: &Machine, pass: Pass, verdict: Verdict, now: u64) -> Option<Change> {
    machine.report(pass, Some(verdict), now, ONE, &RULES, || 1.0)
}

/// A closed breaker, and two passes of it.
fn closed() -> (Arc<Machine>, Pass, Pass) {
    let machine = Machine::default();
    let [one, other] = [machine.pass(), machine.pass()].map(|pass| pass.expect("closed"));
    (Arc::new(machine), one, other)
}

/// A breaker that was tripped.
fn open() -> Arc<Machine> {
    let (machine, one, other) = closed();
    assert_eq!(report(&machine, one, FAILED, TRIP), None);
    assert_eq!(report(&machine, other, FAILED, TRIP).map(|change| change.to), Some(State::Open));
    machine
}

fn probe(machine: &Machine) -> Pass {
    machine.admit(LATER, &RULES).expect("a probe").0
}

/// Whatever was forced, when all is over it lets calls through again.
fn assert_not_stuck(machine: &Machine, now: u64) {
    let wait = machine.look(now, &RULES).wait.unwrap_or(0);
    assert!(wait <= RULES.open_time && machine.admit(now + wait, &RULES).is_ok(), "stuck");
}

#[test]
fn two_failures_open_it_once() {
    explore(3, || {
        let (machine, one, other) = closed();
        let fail = |pass, lane, jitter: f64| {
            move |machine: &Arc<Machine>| machine.report(pass, Some(FAILED), TRIP, lane, &RULES, || jitter)
        };
        let (one, other) = race(&machine, fail(one, ONE, 0.5), fail(other, OTHER, 1.0));
        let changes: Vec<_> = [one, other].into_iter().flatten().collect();
        assert_eq!(changes.len(), 1);
        assert_eq!(machine.look(TRIP, &RULES).wait, Some(changes[0].stays), "the winner's");
        assert_not_stuck(&machine, TRIP);
    });
}

#[test]
fn two_callers_get_no_more_probes_than_there_are() {
    explore(3, || {
        let machine = open();
        let admit = |machine: &Arc<Machine>| [(); 2].map(|()| machine.admit(LATER, &RULES).ok());
        let (one, other) = race(&machine, admit, admit);
        let admitted: Vec<_> = one.into_iter().chain(other).flatten().collect();
        assert_eq!(admitted.len(), 2);
        assert_eq!(admitted.iter().filter(|(_, change)| change.is_some()).count(), 1, "half open, once");
        assert_eq!(machine.look(LATER, &RULES).leased, 2);
    });
}

#[test]
fn a_lease_given_back_is_the_next_callers() {
    explore(3, || {
        let machine = open();
        let (one, other) = (probe(&machine), probe(&machine));
        let give_back = |machine: &Machine, pass| machine.report(pass, None, LATER, ONE, &RULES, || 1.0);
        let (_, taken) = race(
            &machine,
            move |machine| give_back(machine, one),
            |machine| {
                give_back(machine, other);
                machine.admit(LATER, &RULES)
            },
        );
        assert!(matches!(taken, Ok((_, None))), "in the same stay");
        assert_eq!(machine.look(LATER, &RULES).leased, 1);
    });
}

#[test]
fn two_probes_that_succeed_close_it_once_with_a_fresh_window() {
    explore(3, || {
        let machine = open();
        let (one, other) = (probe(&machine), probe(&machine));
        let (one, other) =
            race(&machine, move |machine| report(machine, one, OK, LATER), |machine| report(machine, other, OK, LATER));
        let changes: Vec<_> = [one, other].into_iter().flatten().map(|change| change.to).collect();
        assert_eq!(changes, [State::Closed]);
        assert_eq!(machine.look(LATER, &RULES).sums, Sums::default());
        assert_eq!(report(&machine, machine.pass().expect("closed"), FAILED, LATER), None);
        assert_eq!(machine.look(LATER, &RULES).sums.failures, 1, "it counts again");
    });
}

#[test]
fn a_probe_that_succeeds_and_one_that_fails_open_it_once() {
    explore(3, || {
        let machine = open();
        let (one, other) = (probe(&machine), probe(&machine));
        let (one, other) = race(
            &machine,
            move |machine| report(machine, one, OK, LATER),
            |machine| report(machine, other, FAILED, LATER),
        );
        assert_eq!((one, other.map(|change| change.to)), (None, Some(State::Open)));
        assert_not_stuck(&machine, LATER);
    });
}

#[test]
fn a_caller_that_is_late_for_a_probe_does_not_move_the_next_open_time() {
    explore(3, || {
        let machine = open();
        let failing = probe(&machine);
        let (opened, _) = race(
            &machine,
            move |machine| report(machine, failing, FAILED, LATER),
            |machine| machine.admit(LATER, &RULES),
        );
        assert_eq!(opened.map(|change| change.to), Some(State::Open));
        assert_eq!(machine.look(LATER, &RULES).wait, Some(RULES.open_time));
    });
}

#[test]
fn a_probe_whose_lease_ended_either_decides_or_is_replaced() {
    explore(3, || {
        let machine = open();
        let lost = machine.admit(LATER, &ONE_PROBE).expect("a probe").0;
        let end = LATER + ONE_PROBE.probe_lease;
        let (closed, admitted) = race(
            &machine,
            move |machine| machine.report(lost, Some(OK), end, ONE, &ONE_PROBE, || 1.0),
            move |machine| machine.admit(end, &ONE_PROBE),
        );
        // One who looked just before it closed is refused, once.
        let renewed = admitted.map_or(None, |(_, change)| change);
        assert_eq!([closed, renewed].iter().flatten().count(), 1);
        let (now, look) = (machine.state(), machine.look(end, &ONE_PROBE));
        assert_eq!((now, look.leased), if closed.is_some() { (State::Closed, 0) } else { (State::HalfOpen, 1) });
    });
}

#[test]
fn a_probe_just_given_out_is_not_taken_for_a_lost_one() {
    explore(3, || {
        let machine = open();
        probe(&machine);
        let end = LATER + RULES.probe_lease;
        let admit = move |machine: &Arc<Machine>| machine.admit(end, &RULES).ok();
        let (one, other) = race(&machine, admit, admit);
        let admitted: Vec<_> = [one, other].into_iter().flatten().map(|(_, change)| change).collect();
        assert_eq!(admitted, [None], "the second of two");
    });
}

#[test]
fn an_operators_word_stands_whatever_trips_meanwhile() {
    for word in [State::ForcedOpen, State::ForcedClosed] {
        explore(3, move || {
            let (machine, one, other) = closed();
            assert_eq!(report(&machine, one, FAILED, TRIP), None);
            let (tripped, forced) = race(
                &machine,
                move |machine| report(machine, other, FAILED, TRIP),
                move |machine| machine.force(word, TRIP),
            );
            let from = tripped.map_or(State::Closed, |change| change.to);
            assert_eq!(forced.map(|change| (change.from, change.to)), Some((from, word)));
            assert_eq!(machine.state(), word);
            machine.force(State::Closed, TRIP);
            assert_eq!(machine.look(TRIP, &RULES).sums, Sums::default(), "what was before is not counted");
            assert_not_stuck(&machine, TRIP);
        });
    }
}

#[test]
fn a_call_of_a_fresh_period_is_counted_in_it_and_no_other() {
    explore(3, || {
        let (machine, before, _) = closed();
        let (_, fresh) = race(
            &machine,
            |machine| machine.force(State::ForcedClosed, TRIP),
            move |machine| {
                let pass = machine.pass().expect("closed, or forced so");
                report(machine, pass, FAILED, TRIP);
                pass != before
            },
        );
        assert_eq!(machine.look(TRIP, &RULES).sums.failures, u64::from(fresh));
    });
}

/// A moment in the bucket after a whole window: the same place in the ring as 0.
const ROUND: u64 = BUCKETS;

fn calls(calls: u64, failures: u64) -> Sums {
    Sums { calls, failures, ..Sums::default() }
}

#[test]
fn two_calls_that_both_find_an_old_bucket_are_both_counted() {
    for lane in [ONE, OTHER] {
        explore(3, move || {
            let window = Arc::new(Window::default());
            window.record(ONE, 0, 0, 1, FAILED);
            let record = |lane| move |window: &Arc<Window>| window.record(lane, 0, ROUND, 1, FAILED);
            race(&window, record(ONE), record(lane));
            assert_eq!(window.sums(0, ROUND, 1), calls(2, 2));
        });
    }
}

#[test]
fn a_call_that_read_the_clock_a_window_ago_neither_wipes_nor_joins_the_new_bucket() {
    for lane in [ONE, OTHER] {
        explore(3, move || {
            let window = Arc::new(Window::default());
            race(
                &window,
                |window| window.record(ONE, 0, 0, 1, FAILED),
                move |window| window.record(lane, 0, ROUND, 1, OK),
            );
            assert_eq!(window.sums(0, ROUND, 1), calls(1, 0));
        });
    }
}

#[test]
fn a_reader_never_sees_more_failures_than_calls() {
    explore(3, || {
        let window = Arc::new(Window::default());
        window.record(OTHER, 0, 0, 1, OK);
        let ((), seen) = race(
            &window,
            |window| (0..2).for_each(|_| window.record(ONE, 0, 0, 1, FAILED)),
            |window| window.sums(0, 0, 1),
        );
        assert!(seen.failures < seen.calls, "{seen:?}");
    });
}

#[test]
fn nobody_who_sees_a_failed_call_thinks_the_window_clean() {
    explore(3, || {
        let window = Arc::new(Window::default());
        let now = 100 * ROUND;
        race(
            &window,
            move |window| window.record(ONE, 0, now, 1, FAILED),
            move |window| assert!(window.sums(0, now, 1).calls == 0 || !window.is_clean(now, 1)),
        );
    });
}

#[test]
fn a_period_is_started_once_however_late_another_thread_starts_it_too() {
    explore(3, || {
        let window = Arc::new(Window::default());
        window.record(ONE, 0, 0, 1, FAILED);
        race(
            &window,
            |window| window.start(1),
            |window| {
                window.start(1);
                window.record(OTHER, 1, 0, 1, OK);
                window.record(OTHER, 0, 0, 1, FAILED);
            },
        );
        assert_eq!(window.sums(1, 0, 1), calls(1, 0));
    });
}

#[test]
fn clearing_never_brings_an_earlier_period_back() {
    explore(3, || {
        let window = Arc::new(Window::default());
        window.record(ONE, 0, 0, 1, FAILED);
        race(&window, |window| window.clear(), |window| window.start(1));
        assert_eq!(window.sums(0, 0, 1), Sums::default());
        window.record(ONE, 1, 0, 1, OK);
        assert_eq!(window.sums(1, 0, 1), calls(1, 0));
    });
}

#[test]
fn clearing_while_a_call_is_counted_forgets_all_from_before() {
    explore(3, || {
        let window = Arc::new(Window::default());
        window.record(ONE, 0, 0, 1, OK);
        race(&window, |window| window.clear(), |window| window.record(OTHER, 0, 0, 1, OK));
        assert!(window.sums(0, 0, 1).calls <= 1, "and perhaps the one meanwhile");
    });
}
