//! When leases end: the figures that were measured at Java servers, on a clock that the test sets.

use std::{sync::Arc, time::Duration};

use hopvine::{
    eureka::{DataCenterInfo, Form, Instance, LeaseInfo, Limits, json},
    live::Ratio,
    registry::{
        By, Moment, RegistryPolicy, Store,
        store::{Heartbeat, Renewed},
    },
};

use crate::recordings::lines;

const START: Moment = Moment(1_700_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn at(millis: u64) -> Moment {
    START.after(Duration::from_millis(millis))
}

fn unpreserved() -> RegistryPolicy {
    RegistryPolicy { self_preservation: false, eviction_interval: SECOND / 2, ..RegistryPolicy::default() }
}

fn instance(id: &str, duration: u32) -> Instance {
    Instance {
        instance_id: Some(id.into()),
        host_name: "host1".into(),
        app: "ORDERS".into(),
        ip_addr: "10.0.0.1".into(),
        data_center_info: Some(DataCenterInfo::MyOwn),
        lease_info: Some(LeaseInfo { duration_in_secs: duration, ..LeaseInfo::default() }),
        ..Instance::default()
    }
}

fn store(policy: RegistryPolicy, instances: usize, duration: u32) -> Store {
    let store = Store::new(policy, START).unwrap();
    for number in 0..instances {
        store.register(instance(&format!("i{number}"), duration), By::Client, START).unwrap();
    }
    store
}

/// Lets time pass as the server does, and says when the instance was gone.
fn gone(store: &Store, id: &str, from: Moment, until: Moment) -> Option<Duration> {
    let mut now = from;
    while now < until {
        now = now.after(SECOND / 2);
        store.tick(now);
        store.evict(now, |_| 0);
        if store.application("ORDERS").is_none_or(|all| all.instances.iter().all(|instance| instance.id() != id)) {
            return Some(now.since(START));
        }
    }
    None
}

/// `lease-fields`: what a Java server said of leases, byte for byte.
#[test]
fn a_lease_is_told_in_the_words_of_a_java_server() {
    let recorded: Vec<_> = lines("lease-fields").into_iter().map(|line| line.response.unwrap().body).collect();
    // As the recording has it, registered when that says.
    let register = |recorded: &Instance| {
        let born = Moment(recorded.lease_info.unwrap().registration_timestamp);
        let store = Store::new(unpreserved(), born).unwrap();
        let lease = recorded.lease_info.map(|lease| LeaseInfo {
            renewal_interval_in_secs: lease.renewal_interval_in_secs,
            duration_in_secs: lease.duration_in_secs,
            ..LeaseInfo::default()
        });
        let instance =
            Instance { lease_info: lease, action_type: None, last_updated_timestamp: None, ..recorded.clone() };
        store.register(instance, By::Client, born).unwrap();
        store
    };
    let mut written = Vec::new();

    // Evicted, silent from the beginning. The milliseconds of Java's two clocks differ by one.
    let delta = recorded[0].replace("1795351769304", "1795351769303");
    let left = json::read_applications(delta.as_bytes(), &Limits::default()).unwrap();
    let left = &left.applications[0].instances[0];
    let store = register(left);
    let evicted = Moment(left.last_updated_timestamp.unwrap());
    // The one before came in time, or this one would give the lease longer.
    assert!(store.evict(Moment(evicted.0 - 400), |_| 0).is_empty());
    assert_eq!(store.evict(evicted, |_| 0).len(), 1);
    let mut told = store.delta();
    // Theirs counts what a cache has read, ours what changed.
    told.version = 1;
    json::write_applications(&told, Form::Full, &mut written);
    assert_eq!(String::from_utf8(written).unwrap(), delta);

    // Heard of: the last renewal is told a whole lease ahead.
    let kept = json::read_instance(recorded[1].as_bytes(), &Limits::default()).unwrap();
    let (store, lease) = (register(&kept), kept.lease_info.unwrap());
    let heard = Moment(lease.last_renewal_timestamp - 1000 * u64::from(lease.duration_in_secs));
    assert_eq!(store.renew("ORDERS", "once", Heartbeat::default(), By::Client, heard), Renewed::Yes);
    let mut written = Vec::new();
    json::write_instance(&store.instance("ORDERS", "once", heard).unwrap(), &mut written);
    assert_eq!(String::from_utf8(written).unwrap(), recorded[1]);
}

#[test]
fn a_silent_instance_is_gone_after_one_duration_and_after_two_once_it_sent_a_heartbeat() {
    let never = store(unpreserved(), 1, 3);
    assert_eq!(gone(&never, "i0", START, at(20_000)), Some(Duration::from_millis(3500)));

    let once = store(unpreserved(), 1, 3);
    assert_eq!(once.renew("ORDERS", "i0", Heartbeat::default(), By::Client, START), Renewed::Yes);
    assert_eq!(gone(&once, "i0", START, at(20_000)), Some(Duration::from_millis(6500)));

    let exact = store(RegistryPolicy { exact_leases: true, ..unpreserved() }, 1, 3);
    assert_eq!(exact.renew("ORDERS", "i0", Heartbeat::default(), By::Client, START), Renewed::Yes);
    assert_eq!(gone(&exact, "i0", START, at(20_000)), Some(Duration::from_millis(3500)));

    let usual = store(unpreserved(), 1, 0);
    assert_eq!(
        gone(&usual, "i0", START, at(200_000)),
        Some(Duration::from_millis(90_500)),
        "90 s where nothing is said"
    );
}

#[test]
fn registering_again_begins_a_new_lease() {
    let store = store(unpreserved(), 1, 3);
    store.renew("ORDERS", "i0", Heartbeat::default(), By::Client, at(1000));
    store.register(instance("i0", 3), By::Client, at(2000)).unwrap();
    assert_eq!(gone(&store, "i0", at(2000), at(20_000)), Some(Duration::from_millis(5500)));
}

#[test]
fn documents_tell_the_stamps_of_a_java_server() {
    let store = store(unpreserved(), 1, 3);
    let lease = |now| store.instance("ORDERS", "i0", now).unwrap().lease_info.unwrap();
    let registered = lease(START);
    assert_eq!(registered.registration_timestamp, START.0);
    assert_eq!(registered.last_renewal_timestamp, START.0);
    assert_eq!((registered.eviction_timestamp, registered.service_up_timestamp), (0, START.0));
    store.renew("ORDERS", "i0", Heartbeat::default(), By::Client, at(1000));
    assert_eq!(lease(at(1000)).last_renewal_timestamp, at(4000).0, "a duration ahead");

    store.cancel("ORDERS", "i0", By::Client, at(2000));
    let left = &store.delta().applications[0].instances[0];
    assert_eq!(left.lease_info.unwrap().eviction_timestamp, at(2000).0);
}

#[test]
fn who_names_no_lease_keeps_the_registrys_own_when_its_metadata_changes_and_after_a_restart() {
    let policy = RegistryPolicy { default_lease: SECOND * 1000, ..unpreserved() };
    let is_there = |store: &Store, millis| store.instance("ORDERS", "i1", at(millis)).is_some();
    let store = Store::new(policy.clone(), START).unwrap();
    store.register(Instance { lease_info: None, ..instance("i1", 0) }, By::Client, START).unwrap();
    let said = store.instance("ORDERS", "i1", START).unwrap();
    assert_eq!(said.lease_info.unwrap().duration_in_secs, 1000);

    let entries = vec![("a".to_owned(), "b".to_owned())];
    assert_eq!(store.add_metadata("ORDERS", "i1", entries, By::Client, START), Ok(true));
    assert_eq!([1_000_000, 1_000_001].map(|millis| is_there(&store, millis)), [true, false]);

    let restarted = Store::new(policy, START).unwrap();
    restarted.restore(Arc::unwrap_or_clone(said), START).unwrap();
    assert_eq!([1_000_000, 1_000_001].map(|millis| is_there(&restarted, millis)), [true, false]);
}

#[test]
fn an_eviction_takes_15_percent_at_most_so_that_a_broken_network_does_not_empty_the_registry() {
    let store = store(unpreserved(), 20, 3);
    let mut left = Vec::new();
    let mut now = at(10_000);
    store.evict(now, |_| 0);
    left.push(store.counted().instances);
    while *left.last().unwrap() > 0 {
        now = now.after(SECOND / 2);
        store.evict(now, |below| below - 1);
        left.push(store.counted().instances);
    }
    // The first came late and gave the leases as much longer; 10 s were more than that.
    let left: Vec<_> = left.into_iter().skip_while(|left| *left == 20).collect();
    assert_eq!(left, [17, 14, 11, 9, 7, 5, 4, 3, 2, 1, 0]);
}

#[test]
fn an_eviction_draws_who_goes() {
    let run = |draw: fn(usize) -> usize| {
        let store = store(unpreserved(), 20, 3);
        let now = at(4000);
        store.evict(at(3500), |_| 0);
        let mut ids: Vec<_> = store.evict(now, draw).iter().map(|instance| instance.id().to_owned()).collect();
        ids.sort();
        ids
    };
    let (first, last) = (run(|_| 0), run(|below| below - 1));
    assert_eq!((first.len(), last.len()), (3, 3));
    assert_ne!(first, last);
}

#[test]
fn a_late_eviction_gives_leases_as_much_longer() {
    let store = store(unpreserved(), 1, 3);
    // The machine slept: nobody could send heartbeats.
    assert!(store.evict(at(60_000), |_| 0).is_empty(), "59.5 s late, 3 s lease");
    assert_eq!(store.evict(at(60_500), |_| 0).len(), 1);
}

#[test]
fn a_heartbeat_revives_a_lease_that_is_over_and_reads_of_one_instance_do_not_see_it_before() {
    let store = store(unpreserved(), 1, 3);
    let now = at(3001);
    assert!(store.instance("ORDERS", "i0", now).is_none());
    assert!(store.instance_of_any("i0", now).is_none());
    assert_eq!(
        store.set_status("ORDERS", "i0", hopvine::eureka::InstanceStatus::Down, None, By::Client, now),
        Ok(false)
    );
    assert_eq!(store.application("ORDERS").unwrap().instances.len(), 1);
    assert_eq!(store.renew("ORDERS", "i0", Heartbeat::default(), By::Client, now), Renewed::Yes);
    assert!(store.instance("ORDERS", "i0", now).is_some());
}

#[test]
fn the_threshold_is_that_of_a_spring_server() {
    let store = store(RegistryPolicy::default(), 10, 90);
    assert_eq!((store.counted().expected, store.counted().renewals_threshold), (11, 18));
    store.cancel("ORDERS", "i0", By::Client, START);
    assert_eq!((store.counted().expected, store.counted().renewals_threshold), (10, 17));
}

#[test]
fn self_preservation_keeps_everybody_while_too_few_heartbeats_come() {
    let store = store(RegistryPolicy::default(), 10, 3);
    let beat = |minute: u64, count: usize| {
        for number in 0..count {
            store.renew(
                "ORDERS",
                &format!("i{}", number % 9),
                Heartbeat::default(),
                By::Client,
                at(minute * 60_000 + 1000),
            );
        }
    };
    beat(0, 19);
    store.tick(at(59_999));
    assert!(!store.counted().eviction_allowed, "nothing is counted in the first minute");
    assert!(store.evict(at(59_999), |_| 0).is_empty());
    store.tick(at(60_000));
    assert_eq!(store.counted().renewals_last_minute, 19);
    assert!(store.counted().eviction_allowed, "19 is more than 18");
    assert!(store.instance("ORDERS", "i9", at(60_000)).is_none(), "over, and may end");

    beat(1, 18);
    store.tick(at(120_000));
    assert!(!store.counted().eviction_allowed, "18 is not more than 18");
    assert!(store.evict(at(120_000), |_| 0).is_empty());
    assert!(store.instance("ORDERS", "i9", at(120_000)).is_some());
}

#[test]
fn under_thirteen_instances_self_preservation_never_lets_go_of_one_that_was_killed() {
    let lets_go = |instances: usize| {
        let store = store(RegistryPolicy::default(), instances, 90);
        // The others send what they should, two a minute.
        let heartbeats = 2 * (instances as u64 - 1);
        for _ in 0..heartbeats {
            store.renew("ORDERS", "i1", Heartbeat::default(), By::Client, at(30_000));
        }
        store.tick(at(60_000));
        store.counted().eviction_allowed
    };
    let first = (2..40).find(|instances| lets_go(*instances)).unwrap();
    assert!((12..=14).contains(&first), "{first}");
    assert!((2..first).all(|instances| !lets_go(instances)));
}

#[test]
fn the_expected_number_follows_the_instances_unless_most_are_gone() {
    let policy = RegistryPolicy { threshold_update_interval: Duration::from_secs(900), ..RegistryPolicy::default() };
    let store = store(policy, 20, 100_000);
    store.tick(at(899_000));
    assert_eq!(store.counted().expected, 21);
    store.tick(at(900_000));
    assert_eq!(store.counted().expected, 20);

    let few = RegistryPolicy { renewal_threshold: Ratio(0.85), ..RegistryPolicy::default() };
    let store = Store::new(few, START).unwrap();
    store.expect(100);
    store.register(instance("i0", 90), By::Peer, START).unwrap();
    store.tick(at(900_000));
    assert_eq!(store.counted().expected, 101, "one of a hundred: the rest may only be out of sight");
}

#[test]
fn a_delta_forgets_after_three_minutes() {
    let store = store(RegistryPolicy::default(), 1, 90);
    store.tick(at(180_000));
    assert_eq!(store.delta().applications.len(), 1);
    store.tick(at(180_001));
    assert!(store.delta().applications.is_empty());
    assert_eq!(&*store.delta().hash, "UP_1_");
}

#[test]
fn self_preservation_keeps_those_who_were_silent_since_a_restart_only_if_the_others_are_silent_too() {
    let restored = || {
        let store = Store::new(RegistryPolicy::default(), START).unwrap();
        for number in 0..40 {
            store.restore(instance(&format!("i{number}"), 90), START).unwrap();
        }
        assert_eq!((store.counted().instances, store.counted().expected), (40, 1));
        store
    };
    // Each half a minute, these send their heartbeats; the first time one of them registers again instead.
    let after = |store: &Store, minutes: u64, living: usize| {
        for half in 1..=minutes * 2 {
            let now = at(half * 30_000 - 1000);
            for number in 0..living {
                let id = format!("i{number}");
                if half == 1 && number == 0 {
                    store.register(instance(&id, 90), By::Client, now).unwrap();
                } else {
                    assert_eq!(store.renew("ORDERS", &id, Heartbeat::default(), By::Client, now), Renewed::Yes);
                }
            }
            store.tick(at(half * 30_000));
            if half % 2 == 0 {
                store.evict(at(half * 30_000), |_| 0);
            }
        }
        store.counted()
    };
    // 30 live: their heartbeats are all that is expected, and the ten who died are out.
    let counted = after(&restored(), 8, 30);
    assert_eq!((counted.instances, counted.expected), (30, 31));
    // Nobody comes through: it is the network, and all are kept.
    let counted = after(&restored(), 20, 0);
    assert_eq!(counted.instances, 40);
    // Those who were there and are silent then are kept, as ever.
    let store = restored();
    after(&store, 2, 40);
    assert_eq!(store.counted().expected, 41);
    store.tick(at(240_000));
    assert!(store.evict(at(600_000), |_| 0).is_empty());
}

#[test]
fn what_is_restored_does_not_replace_who_registered_meanwhile() {
    let store = store(RegistryPolicy::default(), 1, 90);
    let older = Instance { status: hopvine::eureka::InstanceStatus::Down, ..instance("i0", 90) };
    store.restore(older, at(1000)).unwrap();
    assert_eq!(store.instance("ORDERS", "i0", at(1000)).unwrap().status, hopvine::eureka::InstanceStatus::Up);
    assert_eq!(store.counted().expected, 2);
}
