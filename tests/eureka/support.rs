//! Instances of all kinds.

use hopvine::eureka::{ActionType, DataCenterInfo, Instance, InstanceStatus, LeaseInfo, Metadata, Port, Text};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Any text that both formats can hold.
pub(crate) fn text() -> impl Strategy<Value = Text> {
    "[\\t\\n\\r\\x20-\\u{d7ff}\\u{e000}-\\u{fffd}\\u{10000}-\\u{10ffff}]{0,12}".prop_map(Text::from)
}

fn some_text() -> impl Strategy<Value = Option<Text>> {
    option::of(text())
}

fn upper() -> impl Strategy<Value = Text> {
    text()
        .prop_map(|text| text.to_uppercase().into())
        .prop_filter("again in upper case", |text: &Text| text.to_uppercase() == **text)
}

pub(crate) fn status() -> impl Strategy<Value = InstanceStatus> {
    select(InstanceStatus::ALL.to_vec())
}

pub(crate) fn metadata() -> impl Strategy<Value = Metadata> {
    let name = text().prop_filter("a name", |name| !name.is_empty() && &**name != "@class");
    vec((name, text()), 0..4).prop_map(|entries| entries.into_iter().collect())
}

fn data_center_info() -> impl Strategy<Value = DataCenterInfo> {
    prop_oneof![
        Just(DataCenterInfo::MyOwn),
        Just(DataCenterInfo::Netflix),
        Just(DataCenterInfo::Unnamed),
        metadata().prop_map(DataCenterInfo::Amazon),
    ]
}

fn time() -> impl Strategy<Value = u64> {
    0..=i64::MAX.unsigned_abs()
}

fn lease_info() -> impl Strategy<Value = LeaseInfo> {
    let seconds = || 1..=i32::MAX.unsigned_abs();
    (seconds(), seconds(), [time(), time(), time(), time()]).prop_map(|(renewal, duration, times)| LeaseInfo {
        renewal_interval_in_secs: renewal,
        duration_in_secs: duration,
        registration_timestamp: times[0],
        last_renewal_timestamp: times[1],
        eviction_timestamp: times[2],
        service_up_timestamp: times[3],
    })
}

fn port() -> impl Strategy<Value = Port> {
    (any::<i32>(), any::<bool>()).prop_map(|(number, enabled)| Port { number, enabled })
}

/// Any instance that both formats can hold.
pub(crate) fn instance() -> impl Strategy<Value = Instance> {
    let action = option::of(select(vec![ActionType::Added, ActionType::Modified, ActionType::Deleted]));
    let sid = some_text().prop_filter("none", |sid| !matches!(sid.as_deref(), Some("na" | "unknown")));
    (
        (some_text(), text(), upper(), text(), sid, status(), status(), port(), port(), any::<i32>()),
        (option::of(data_center_info()), option::of(lease_info()), metadata(), option::of(upper())),
        [some_text(), some_text(), some_text(), some_text(), some_text(), some_text(), some_text()],
        (any::<bool>(), option::of(time()), option::of(time()), action),
    )
        .prop_map(|(base, parts, texts, (coordinating, updated, dirty, action_type))| {
            let (instance_id, host_name, app, ip_addr, sid, status, overridden_status, port, secure_port, country_id) =
                base;
            let (data_center_info, lease_info, metadata, app_group_name) = parts;
            let [home, page, health, secure_health, vip, secure_vip, asg] = texts;
            Instance {
                instance_id,
                host_name,
                app,
                ip_addr,
                sid,
                status,
                overridden_status,
                port,
                secure_port,
                country_id,
                data_center_info,
                lease_info,
                metadata,
                app_group_name,
                home_page_url: home,
                status_page_url: page,
                health_check_url: health,
                secure_health_check_url: secure_health,
                vip_address: vip,
                secure_vip_address: secure_vip,
                is_coordinating_discovery_server: coordinating,
                last_updated_timestamp: updated,
                last_dirty_timestamp: dirty,
                action_type,
                asg_name: asg,
            }
        })
}
