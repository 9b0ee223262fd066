//! A copy that takes deltas is the copy that is fetched whole.

use std::{collections::BTreeMap, sync::Arc};

use hopvine::eureka::{ActionType, Application, Applications, Instance, InstanceStatus, Limits, Text, json};
use proptest::{collection::btree_map, prelude::*};

use crate::{recordings::exchanges, support::status};

/// Which instance of which application has which status.
type Registry = BTreeMap<(u8, u8), InstanceStatus>;

fn registry() -> impl Strategy<Value = Registry> {
    btree_map((0..4_u8, 0..6_u8), status(), 0..20)
}

fn instance(app: u8, id: u8, status: InstanceStatus, action_type: ActionType) -> Arc<Instance> {
    let app = format!("APP{app}").into();
    Arc::new(Instance {
        app,
        instance_id: Some(format!("i{id}").into()),
        status,
        action_type: Some(action_type),
        ..Instance::default()
    })
}

fn applications(registry: &Registry, instances: impl IntoIterator<Item = Arc<Instance>>) -> Applications {
    let mut by_name = BTreeMap::<Text, Vec<_>>::new();
    for instance in instances {
        by_name.entry(instance.app.clone()).or_default().push(instance);
    }
    let applications = by_name.into_iter().map(|(name, instances)| Application { name, instances }).collect();
    let hash = Applications { applications: full(registry), ..Applications::default() }.counts().to_string().into();
    Applications { version: 1, hash, applications }
}

fn full(registry: &Registry) -> Vec<Application> {
    let instances = registry.iter().map(|((app, id), status)| instance(*app, *id, *status, ActionType::Added));
    vec![Application { name: "ALL".into(), instances: instances.collect() }]
}

fn content(applications: &Applications) -> BTreeMap<(String, String), InstanceStatus> {
    applications.instances().map(|it| ((it.app.to_string(), it.id().to_owned()), it.status)).collect()
}

proptest! {
    #[test]
    fn a_delta_makes_of_the_old_copy_the_new_one(old in registry(), new in registry(), twice in any::<bool>()) {
        let all = |registry: &Registry| {
            let instances: Vec<_> = registry.iter().map(|((app, id), status)| instance(*app, *id, *status, ActionType::Added)).collect();
            applications(registry, instances)
        };
        let gone = old.iter().filter(|(key, _)| !new.contains_key(key)).map(|((app, id), status)| instance(*app, *id, *status, ActionType::Deleted));
        let changed = new.iter().filter(|(key, status)| old.get(key) != Some(status)).map(|((app, id), status)| {
            let action = if old.contains_key(&(*app, *id)) { ActionType::Modified } else { ActionType::Added };
            instance(*app, *id, *status, action)
        });
        let delta = applications(&new, gone.chain(changed));

        let mut copy = all(&old);
        prop_assert!(copy.apply(&delta), "the copy is whole");
        if twice {
            prop_assert!(copy.apply(&delta), "and still is");
        }
        prop_assert_eq!(content(&copy), content(&all(&new)));
        prop_assert!(copy.applications.iter().all(|application| !application.instances.is_empty()));
        prop_assert_eq!(copy.hash, all(&new).hash);
    }

    #[test]
    fn a_lost_change_is_seen(old in registry(), app in 4..6_u8) {
        let mut new = old.clone();
        new.insert((app, 0), InstanceStatus::Up);
        let mut copy = applications(&old, Vec::new());
        for application in full(&old) {
            copy.applications.push(application);
        }
        let nothing = applications(&new, Vec::new());
        prop_assert!(!copy.apply(&nothing), "an instance is missing, and nobody says so");
    }
}

#[test]
fn the_last_word_about_an_instance_counts() {
    let instances = vec![
        instance(0, 1, InstanceStatus::Up, ActionType::Added),
        instance(0, 1, InstanceStatus::Up, ActionType::Deleted),
        instance(0, 2, InstanceStatus::Up, ActionType::Deleted),
        instance(0, 2, InstanceStatus::Down, ActionType::Added),
    ];
    let delta = Applications {
        hash: "DOWN_1_".into(),
        version: 7,
        applications: vec![Application { name: "APP0".into(), instances }],
    };
    let mut copy = Applications::default();
    assert!(copy.apply(&delta));
    assert_eq!((copy.version, copy.instances().next().unwrap().id()), (7, "i2"));
}

#[test]
fn a_recorded_client_is_whole_after_each_delta() {
    let mut deltas = 0;
    for file in
        ["client-spring-2025.0-default", "client-spring-2025.1-default", "client-spring-hoxton-on-hoxton-server"]
    {
        let mut copy = Applications::default();
        for exchange in exchanges(file).iter().filter(|exchange| exchange.method == "GET" && exchange.status == 200) {
            let Ok(read) = json::read_applications(exchange.answered.as_bytes(), &Limits::default()) else { continue };
            if exchange.path.contains("delta") {
                // A Java client that finds it is not whole fetches all, which is recorded next.
                let _ = copy.apply(&read);
                deltas += 1;
            } else {
                copy = read;
                assert_eq!(copy.counts().to_string(), *copy.hash, "{}", exchange.source);
            }
        }
    }
    assert!(deltas > 5, "{deltas}");
}
