//! Every interleaving of two threads at an endpoint's load and health, and at its group's counts.

use std::{sync::Arc, time::Duration};

use super::{Admission, EndpointHandle, Group, Health, Load, Standing};
use crate::sync::{explore, race};

const DECAY: Duration = Duration::from_secs(10);
const NOW: u64 = 1 << 40;

fn endpoint(group: &Arc<Group>) -> EndpointHandle {
    let endpoint = "127.0.0.1:80".parse().expect("an endpoint");
    EndpointHandle::new("catalog".into(), Arc::new(endpoint), Arc::clone(group))
}

fn ejected(until: u64) -> Health {
    let health = Health::default();
    health.change(until, &mut health.lock());
    health
}

#[test]
fn calls_that_start_and_end_leave_none_in_flight() {
    explore(3, || {
        let load = Arc::new(Load::default());
        let call = |load: &Arc<Load>| {
            load.start();
            let seen = load.in_flight();
            load.end();
            seen
        };
        let (one, other) = race(&load, call, call);
        assert!((1..=2).contains(&one) && (1..=2).contains(&other));
        assert_eq!(load.in_flight(), 0);
    });
}

#[test]
fn the_longer_of_two_penalties_stays() {
    let [short, long] = [10, 100].map(Duration::from_millis);
    explore(3, move || {
        let load = Arc::new(Load::default());
        race(&load, move |load| load.at_least(short, NOW, DECAY), move |load| load.at_least(long, NOW, DECAY));
        assert_eq!(load.latency(), Some(long));
    });
}

#[test]
fn a_fast_answer_does_not_undo_a_penalty_of_the_same_moment() {
    let [short, long] = [10, 100].map(Duration::from_millis);
    explore(3, move || {
        let load = Arc::new(Load::default());
        race(&load, move |load| load.observe(short, NOW, DECAY), move |load| load.at_least(long, NOW, DECAY));
        assert_eq!(load.latency(), Some(long));
    });
}

#[test]
fn no_failure_is_lost_and_none_of_before_an_ejection_counts_after_it() {
    explore(3, || {
        let health = Arc::new(Health::default());
        let before = health.generation();
        let fail = move |health: &Arc<Health>| health.count_failure(before);
        let (one, other) = race(&health, fail, fail);
        let (one, other) = (one.expect("counted"), other.expect("counted"));
        assert_eq!((one.min(other), one.max(other)), (1, 2));

        race(&health, fail, |health| health.change(1, &mut health.lock()));
        assert_eq!(health.count_failure(health.generation()), Some(1));
    });
}

#[test]
fn a_success_of_before_an_ejection_does_not_end_the_run_after_it() {
    explore(3, || {
        let health = Arc::new(Health::default());
        let before = health.generation();
        health.count_failure(before);
        race(
            &health,
            move |health| health.count_success(before),
            |health| {
                health.change(1, &mut health.lock());
                health.count_failure(health.generation());
            },
        );
        assert_eq!(health.count_failure(health.generation()), Some(2));
    });
}

#[test]
fn a_result_that_counts_speaks_of_what_the_endpoint_is_now() {
    explore(3, || {
        let health = Arc::new(Health::default());
        let ((generation, standing), ()) =
            race(&health, |health| health.admit(|| 5), |health| health.change(10, &mut health.lock()));
        if generation == health.generation() {
            assert_eq!(standing, Standing::Ejected);
        }
    });
}

#[test]
fn one_of_two_callers_has_the_probe() {
    explore(3, || {
        let health = Arc::new(ejected(10));
        let probe = |health: &Arc<Health>| health.try_probe(20, 30).then(|| health.admit(|| 20).1);
        let (one, other) = race(&health, probe, probe);
        let probes: Vec<_> = [one, other].into_iter().flatten().collect();
        assert!(matches!(probes[..], [Standing::Due(Some(_))]), "{probes:?}");
    });
}

#[test]
fn a_lease_returned_late_is_nobody_elses() {
    explore(3, || {
        let health = Arc::new(ejected(10));
        assert!(health.try_probe(20, 30));
        let (_, Standing::Due(Some(lease))) = health.admit(|| 20) else { panic!("carries the lease") };
        let ((), second) = race(&health, move |health| health.return_lease(lease), |health| health.try_probe(30, 40));
        assert!(second, "the first has ended");
        assert_eq!(health.admission(39), Admission::Closed, "the second has not");
    });
}

#[test]
fn a_cap_of_one_lets_one_of_two_endpoints_be_ejected() {
    explore(3, || {
        let group = Arc::default();
        let endpoints = Arc::new([endpoint(&group), endpoint(&group)]);
        let (one, other) = race(&endpoints, |all| all[0].eject(10, 1), |all| all[1].eject(10, 1));
        assert!(one != other);
        assert_eq!(group.ejected(), 1);
    });
}

/// Whatever two threads do to it, the group counts what it is, and nothing once it is gone.
fn counts_hold(before: fn(&EndpointHandle), one: fn(&EndpointHandle), other: fn(&EndpointHandle)) {
    explore(3, move || {
        let group: Arc<Group> = Arc::default();
        let endpoint = Arc::new(endpoint(&group));
        before(&endpoint);
        race(&endpoint, move |endpoint| one(endpoint), move |endpoint| other(endpoint));
        let there = !endpoint.is_removed();
        assert_eq!(group.ejected(), u32::from(there && endpoint.health().is_ejected()));
        assert_eq!(group.held(), u32::from(there && endpoint.health().is_operator_ejected()));
        assert_eq!(group.drained(), u32::from(there && endpoint.health().is_drained()));
        drop(endpoint);
        assert_eq!((group.ejected(), group.held(), group.drained()), (0, 0, 0));
    });
}

fn eject(endpoint: &EndpointHandle) {
    endpoint.eject(10, 1);
}

fn restore(endpoint: &EndpointHandle) {
    endpoint.restore();
}

#[test]
fn a_removal_leaks_no_place_in_the_cap() {
    counts_hold(|_| {}, eject, EndpointHandle::remove);
    counts_hold(eject, restore, EndpointHandle::remove);
    counts_hold(eject, EndpointHandle::remove, EndpointHandle::remove);
}

#[test]
fn a_return_takes_no_place_in_the_cap_too_many() {
    let removed = |endpoint: &EndpointHandle| {
        eject(endpoint);
        endpoint.remove();
    };
    counts_hold(removed, restore, EndpointHandle::revive);
    counts_hold(removed, EndpointHandle::remove, EndpointHandle::revive);
    counts_hold(EndpointHandle::remove, eject, EndpointHandle::revive);
}

#[test]
fn an_ejection_and_the_end_of_one_count_once() {
    counts_hold(|_| {}, eject, eject);
    counts_hold(eject, restore, restore);
    counts_hold(eject, restore, eject);
}

#[test]
fn operators_words_are_counted_while_it_comes_and_goes() {
    counts_hold(|_| {}, EndpointHandle::operator_eject, EndpointHandle::remove);
    counts_hold(EndpointHandle::operator_drain, EndpointHandle::operator_restore, EndpointHandle::remove);
    counts_hold(EndpointHandle::remove, EndpointHandle::operator_drain, EndpointHandle::revive);
    counts_hold(|_| {}, EndpointHandle::operator_eject, EndpointHandle::operator_drain);
}
