//! Which status a server gives an instance, and which virtual names it serves.

use hopvine::eureka::{
    Instance,
    InstanceStatus::{self, Down, OutOfService, Starting, Unknown, Up},
    StatusRules,
};

#[test]
fn an_operators_word_outlasts_what_the_instance_says() {
    for (said, overridden, kept, by_peer, expected) in [
        // What is down, starting or unknown is believed, whatever else is known.
        (Down, Some(OutOfService), Some(Up), false, Down),
        (Starting, Some(Up), Some(Up), false, Starting),
        (Unknown, Some(Up), Some(Up), true, Unknown),
        // An override stands above what is said and what is kept.
        (Up, Some(OutOfService), Some(Up), false, OutOfService),
        (OutOfService, Some(Up), Some(OutOfService), true, Up),
        (Up, Some(Down), None, false, Down),
        // Without one, an instance cannot change what is kept between the two.
        (OutOfService, None, Some(Up), false, Up),
        (Up, None, Some(OutOfService), false, OutOfService),
        // But a peer can, and so can an instance that was neither.
        (OutOfService, None, Some(Up), true, OutOfService),
        (Up, None, Some(Down), false, Up),
        (Up, None, Some(Starting), false, Up),
        (Up, None, None, false, Up),
        (OutOfService, None, None, false, OutOfService),
    ] {
        let rules = StatusRules { said, overridden, kept, by_peer };
        assert_eq!(rules.status(), expected, "{rules:?}");
    }
}

#[test]
fn a_status_is_known_by_its_exact_name() {
    for status in InstanceStatus::ALL {
        assert_eq!(InstanceStatus::named(status.as_str()), Some(status));
        assert_eq!(InstanceStatus::named(&status.as_str().to_lowercase()), None);
    }
}

#[test]
fn a_virtual_name_is_found_among_others_exactly() {
    let instance = Instance {
        vip_address: Some("orders,stock, spaced".into()),
        secure_vip_address: Some("orders-tls".into()),
        ..Instance::default()
    };
    for (vip, plain, secure, in_any_case) in [
        ("orders", true, false, true),
        ("stock", true, false, true),
        (" spaced", true, false, true),
        ("spaced", false, false, false),
        ("Orders", false, false, true),
        ("orders,stock", false, false, false),
        ("orders-tls", false, true, false),
        ("", false, false, false),
    ] {
        assert_eq!(instance.serves_vip(vip), plain, "{vip:?}");
        assert_eq!(instance.serves_secure_vip(vip), secure, "{vip:?}");
        assert_eq!(instance.serves_vip_in_any_case(vip), in_any_case, "{vip:?}");
    }
    assert!(!Instance::default().serves_vip(""), "one that serves none serves not even the empty name");
}

#[test]
fn an_instance_without_an_id_is_known_by_what_else_it_has() {
    use hopvine::eureka::DataCenterInfo;
    let amazon = DataCenterInfo::Amazon([("instance-id", "i-1")].into_iter().collect());
    let mut instance = Instance { host_name: "host1".into(), instance_id: Some("".into()), ..Instance::default() };
    assert_eq!(instance.id(), "host1");
    instance.data_center_info = Some(amazon);
    assert_eq!(instance.id(), "i-1");
    instance.instance_id = Some("mine".into());
    assert_eq!(instance.id(), "mine");
}
