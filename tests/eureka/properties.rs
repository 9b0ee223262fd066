//! Whatever is written is read again, in both formats; and nothing from outside makes a reader panic.

use std::sync::Arc;

use hopvine::eureka::{
    Action, Application, Applications, DataCenterInfo, Form, Instance, InstanceStatus, Limits, Replication,
    ReplicationResponse, Text, json, xml,
};
use proptest::{collection::vec, option, prelude::*};

use crate::support::{instance, status, text};

/// What the compact form keeps of an instance.
fn kept(instance: &Instance) -> Instance {
    let instance = instance.clone();
    Instance {
        instance_id: instance.instance_id,
        app: instance.app,
        ip_addr: instance.ip_addr,
        vip_address: instance.vip_address,
        secure_vip_address: instance.secure_vip_address,
        data_center_info: instance.data_center_info,
        host_name: instance.host_name,
        status: instance.status,
        last_updated_timestamp: instance.last_updated_timestamp,
        action_type: instance.action_type,
        asg_name: instance.asg_name,
        port: instance.port,
        secure_port: instance.secure_port,
        ..Instance::default()
    }
}

fn compact(applications: &Applications) -> Applications {
    let instances = |application: &Application| application.instances.iter().map(|it| Arc::new(kept(it))).collect();
    let application = |it: &Application| Application { name: it.name.clone(), instances: instances(it) };
    let applications_of = applications.applications.iter().map(application).collect();
    Applications { version: applications.version, hash: applications.hash.clone(), applications: applications_of }
}

fn in_order(instance: &Instance) -> Vec<(String, String)> {
    instance.metadata.iter().map(|(name, text)| (name.to_owned(), text.to_owned())).collect()
}

fn applications() -> impl Strategy<Value = Applications> {
    let application = (0..3_u8, vec(instance(), 0..3)).prop_map(|(number, instances)| {
        let name: Text = format!("APP{number}").into();
        // One without an application would be read as one of this.
        let named =
            instances.into_iter().map(|it| if it.app.is_empty() { Instance { app: name.clone(), ..it } } else { it });
        Application { instances: named.map(Arc::new).collect(), name }
    });
    (any::<i64>(), text(), vec(application, 0..3)).prop_map(|(version, hash, applications)| Applications {
        version,
        hash: (*hash).into(),
        applications,
    })
}

fn replication() -> impl Strategy<Value = Replication> {
    let action = prop_oneof![
        instance().prop_map(|it| Action::Register(Arc::new(it))),
        (option::of(status()), option::of(status()))
            .prop_map(|(status, overridden_status)| Action::Heartbeat { status, overridden_status }),
        Just(Action::Cancel),
        status().prop_map(Action::StatusUpdate),
        status().prop_map(Action::DeleteStatusOverride),
    ];
    (text(), 0..=i64::MAX.unsigned_abs(), action).prop_map(|(id, dirty, action)| Replication {
        app_name: "ORDERS".into(),
        id,
        last_dirty_timestamp: Some(dirty),
        action,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_instance_survives_json(instance in instance()) {
        let mut document = Vec::new();
        json::write_instance(&instance, &mut document);
        let read = json::read_instance(&document, &Limits::default()).unwrap();
        prop_assert_eq!(in_order(&read), in_order(&instance));
        prop_assert_eq!(read, instance);
    }

    #[test]
    fn an_instance_survives_xml(instance in instance()) {
        let mut document = Vec::new();
        xml::write_instance(&instance, &mut document);
        let read = xml::read_instance(&document, &Limits::default()).unwrap();
        prop_assert_eq!(in_order(&read), in_order(&instance));
        prop_assert_eq!(read, instance);
    }

    #[test]
    fn texts_that_xml_cannot_hold_still_make_a_document(text in "(?s).{0,12}") {
        let instance = Instance {
            host_name: (*text).into(),
            metadata: [(&*text, &*text)].into_iter().collect(),
            data_center_info: Some(DataCenterInfo::MyOwn),
            ..Instance::default()
        };
        let mut document = Vec::new();
        xml::write_instance(&instance, &mut document);
        let read = xml::read_instance(&document, &Limits::default()).unwrap();
        prop_assert_eq!(read.host_name.chars().count(), instance.host_name.chars().count());
        prop_assert_eq!(read.metadata.len(), usize::from(!text.is_empty()));
    }

    #[test]
    fn a_registry_survives_both_formats_in_both_forms(applications in applications()) {
        for (form, expected) in [(Form::Full, applications.clone()), (Form::Compact, compact(&applications))] {
            let mut document = Vec::new();
            json::write_applications(&applications, form, &mut document);
            prop_assert_eq!(&json::read_applications(&document, &Limits::default()).unwrap(), &expected);

            // Behind what stands there already.
            let mut document = b"...".to_vec();
            xml::write_applications(&applications, form, &mut document);
            prop_assert_eq!(&xml::read_applications(&document[3..], &Limits::default()).unwrap(), &expected);

            for (application, expected) in applications.applications.iter().zip(&expected.applications) {
                let mut document = Vec::new();
                json::write_application(application, form, &mut document);
                prop_assert_eq!(&json::read_application(&document, &Limits::default()).unwrap(), expected);
                document.clear();
                xml::write_application(application, form, &mut document);
                prop_assert_eq!(&xml::read_application(&document, &Limits::default()).unwrap(), expected);
            }
        }
    }

    #[test]
    fn a_batch_and_its_answer_survive(items in vec(replication(), 0..4), codes in vec((100..600_u16, option::of(instance())), 0..4)) {
        let mut document = Vec::new();
        json::write_replications(&items, &mut document);
        let read = json::read_replications(&document, &Limits::default()).unwrap();
        prop_assert_eq!(read.into_iter().collect::<Result<Vec<_>, _>>().unwrap(), items);

        let answers: Vec<_> = codes
            .into_iter()
            .map(|(status_code, instance)| ReplicationResponse { status_code, instance: instance.map(Arc::new) })
            .collect();
        document.clear();
        json::write_replication_responses(&answers, &mut document);
        prop_assert_eq!(json::read_replication_responses(&document, &Limits::default()).unwrap(), answers);
    }

    #[test]
    fn a_damaged_document_is_an_error_and_not_a_panic(
        applications in applications(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let damage = |document: &mut Vec<u8>| {
            let at = at.index(document.len());
            if cut { document.truncate(at) } else { document[at] = byte }
        };
        let mut document = Vec::new();
        json::write_applications(&applications, Form::Full, &mut document);
        damage(&mut document);
        prop_assert!(json::read_applications(&document, &Limits::default()).is_err() || !cut);

        document.clear();
        xml::write_applications(&applications, Form::Full, &mut document);
        damage(&mut document);
        prop_assert!(xml::read_applications(&document, &Limits::default()).is_err() || !cut);
    }

    #[test]
    fn any_bytes_at_all_are_an_error_and_not_a_panic(bytes in vec(any::<u8>(), 0..64)) {
        let limits = Limits::default();
        prop_assert!(json::read_instance(&bytes, &limits).is_err());
        prop_assert!(json::read_replications(&bytes, &limits).is_err());
        prop_assert!(xml::read_instance(&bytes, &limits).is_err());
    }

    #[test]
    fn the_hash_is_that_of_an_obvious_count(statuses in vec(status(), 0..40)) {
        let mut names: Vec<_> = statuses.iter().map(|status| status.as_str()).collect();
        names.sort_unstable();
        let mut expected = String::new();
        while let Some(name) = names.first().copied() {
            let same = names.iter().take_while(|other| **other == name).count();
            expected += &[name, "_", &same.to_string(), "_"].concat();
            names.drain(..same);
        }
        let instances = statuses.iter().map(|status| Arc::new(Instance { status: *status, ..Instance::default() })).collect();
        let applications = vec![Application { name: "APP".into(), instances }];
        let mut counts = Applications { applications, ..Applications::default() }.counts();
        prop_assert_eq!(counts.to_string(), expected);

        counts.add(InstanceStatus::Starting);
        counts.remove(InstanceStatus::Starting);
        for status in statuses {
            counts.remove(status);
        }
        prop_assert_eq!(counts.to_string(), "");
    }
}
