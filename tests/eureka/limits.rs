//! What is too much is refused, what is odd is taken, and an error says where.

use hopvine::eureka::{Applications, EndpointSettings, Instance, InstanceStatus, Limits, ReadError, json, xml};

fn read(document: &str) -> Result<Instance, ReadError> {
    json::read_instance(document.as_bytes(), &Limits::default())
}

fn read_xml(document: &str) -> Result<Instance, ReadError> {
    xml::read_instance(document.as_bytes(), &Limits::default())
}

#[test]
fn an_odd_client_can_register() {
    let instance = read(
        r#"{"instance": {"app": "orders", "hostName": "host1", "ipAddr": 7, "status": null, "overriddenstatus": "DOWN",
            "colour": {"deep": [1, {"er": null}]}, "port": 8080, "securePort": {"$": "8443", "@enabled": true, "x": []},
            "countryId": "2", "dataCenterInfo": {"name": "MyOwn", "x": {}}, "leaseInfo": {"durationInSecs": "15", "x": [[]], "renewalIntervalInSecs": -1},
            "metadata": {"number": 5, "yes": true, "none": null, "@class": "java.util.HashMap", "text": "t", "number": 6.5},
            "isCoordinatingDiscoveryServer": "true", "lastDirtyTimestamp": "soon", "lastUpdatedTimestamp": 12.0, "actionType": "DANCED",
            "vipAddress": null, "asgName": false}}"#,
    )
    .unwrap();
    assert_eq!((&*instance.app, &*instance.ip_addr, instance.country_id), ("ORDERS", "7", 2));
    assert_eq!((instance.status, instance.overridden_status), (InstanceStatus::Up, InstanceStatus::Down));
    assert_eq!((instance.port.number, instance.port.enabled), (8080, true));
    assert_eq!((instance.secure_port.number, instance.secure_port.enabled), (8443, true));
    let lease = instance.lease_info.unwrap();
    assert_eq!((lease.duration_in_secs, lease.renewal_interval_in_secs), (15, 30));
    let metadata: Vec<_> = instance.metadata.iter().collect();
    assert_eq!(metadata, [("number", "6.5"), ("yes", "true"), ("none", "null"), ("text", "t")]);
    assert_eq!((instance.last_dirty_timestamp, instance.last_updated_timestamp), (Some(0), Some(12)));
    assert_eq!(
        (instance.action_type, instance.vip_address.as_deref(), instance.asg_name.as_deref()),
        (None, None, Some("false"))
    );
    assert!(instance.is_coordinating_discovery_server);
}

#[test]
fn a_client_reads_the_lists_of_old_servers() {
    let one = br#"{"applications":{"versions_delta":3,"apps_hashcode":"UP_1_","x":[],"application":{"instance":{"instanceId":"i1","status":"UP"},"name":"ORDERS"}}}"#;
    let read = json::read_applications(one, &Limits::default()).unwrap();
    assert_eq!((read.version, &*read.hash), (3, "UP_1_"));
    let instance = &read.application("ORDERS").unwrap().instances[0];
    assert_eq!((instance.id(), &*instance.app), ("i1", "ORDERS"), "it is of the application it stands in");

    let none = br#"{"applications":{"application":null}}"#;
    assert!(json::read_applications(none, &Limits::default()).unwrap().applications.is_empty());
    let holes = br#"{"applications":{"application":[null,{"name":"A","instance":[null,{"instanceId":"i1"}]}]}}"#;
    assert_eq!(json::read_applications(holes, &Limits::default()).unwrap().instances().count(), 1);
}

#[test]
fn an_error_names_the_field_and_the_value() {
    for (document, field, reason) in [
        (r#"{"instance":{"port":{"$":"http"}}}"#, "instance.port.$", "\"http\" is not a whole number"),
        (r#"{"instance":{"port":{"$":99999999999}}}"#, "instance.port.$", "99999999999 is out of range"),
        (
            r#"{"instance":{"port":{"@enabled":"maybe"}}}"#,
            "instance.port.@enabled",
            "\"maybe\" is neither true nor false",
        ),
        (r#"{"instance":{"hostName":["a"]}}"#, "instance.hostName", "sequence"),
        (r#"{"instance":{"metadata":{"a":{"b":1}}}}"#, "instance.metadata.a", "map"),
        (r#"{"instance":{"metadata":"x"}}"#, "instance.metadata", "\"x\""),
        (r#"{"instance":{"dataCenterInfo":{"name":"Moon"}}}"#, "instance.dataCenterInfo.name", "\"Moon\""),
        (r#"{"instance":{"leaseInfo":{"durationInSecs":"long"}}}"#, "instance.leaseInfo.durationInSecs", "\"long\""),
        (r#"{"instance":{"status":"UP"}}"#, "instance.app", "missing"),
        (r#"{"instance":{"app":null}}"#, "instance.app", "missing"),
        (r#"{"instance":null}"#, "instance", "null"),
        (r#"{"instance":{"app":"A"},"x":1}"#, "", "alone"),
        (r#"{"x":1,"instance":{"app":"A"}}"#, "", "alone"),
        (r#"{"instance":{"app":"A"}} x"#, "", "trailing"),
        ("{}", "", "\"instance\""),
        ("[]", "", "sequence"),
        ("null", "", "null"),
        ("", "", "EOF"),
    ] {
        let error = read(document).unwrap_err();
        assert_eq!(error.field(), field, "{document}: {error}");
        assert!(error.to_string().contains(reason), "{document}: {error}");
    }
    let deep = br#"{"applications":{"application":[{"name":"A","instance":[]},{"name":"B","instance":[{},{"countryId":"x"}]}]}}"#;
    let error = json::read_applications(deep, &Limits::default()).unwrap_err();
    assert_eq!(error.field(), "applications.application[1].instance[1].countryId");
    let long = format!(r#"{{"instance":{{"countryId":"{}"}}}}"#, "9x".repeat(2000));
    assert!(read(&long).unwrap_err().to_string().len() < 200, "an error shows the beginning of a long value");
    let long = format!(r#"{{"instance":{{"metadata":{{"{0}":{{}}}},"leaseInfo":"{0}"}}}}"#, "ä".repeat(4000));
    assert!(read(&long).unwrap_err().to_string().len() < 1200, "and of a long name");
}

#[test]
fn an_error_in_xml_names_the_field_and_the_value() {
    for (document, field, reason) in [
        ("<instance><port>http</port></instance>", "instance.port", "\"http\" is not a whole number"),
        ("<instance><hostName><b/></hostName></instance>", "instance.hostName", "an element, where a text should be"),
        (
            "<instance><dataCenterInfo><name>Moon</name></dataCenterInfo></instance>",
            "instance.dataCenterInfo.name",
            "\"Moon\"",
        ),
        ("<instance><metadata><a><b/></a></metadata></instance>", "instance.metadata.a", "an element"),
        ("<instance><hostName>a", "instance.hostName", "ends"),
        ("<instance></instance><instance/>", "", "more than one"),
        ("<instance></wrong>", "instance", "wrong"),
        ("<application/>", "", "\"application\", where \"instance\" should be"),
        ("x", "", "no element"),
        ("", "", "no element"),
        ("<?xml version='1.0' encoding='ISO-8859-1'?><instance/>", "", "\"ISO-8859-1\""),
    ] {
        let error = read_xml(document).unwrap_err();
        assert_eq!(error.field(), field, "{document}: {error}");
        assert!(error.to_string().contains(reason), "{document}: {error}");
    }
    assert!(xml::read_instance(b"<instance><app>\xff</app></instance>", &Limits::default()).is_err());
}

#[test]
fn xml_cannot_make_a_server_read_files_or_grow_without_bound() {
    let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><instance><app>&b;</app></instance>"#;
    assert!(read_xml(bomb).unwrap_err().to_string().contains("document type"));
    let file = r#"<?xml version="1.0"?><!DOCTYPE x SYSTEM "file:///etc/passwd"><instance/>"#;
    assert!(read_xml(file).unwrap_err().to_string().contains("document type"));
    let error = read_xml("<instance><app>&passwd;</app></instance>").unwrap_err();
    assert!(error.to_string().contains("the entity \"passwd\" is not known"), "{error}");
    let taken = read_xml("\u{feff}<?xml version='1.0' encoding='utf-8'?><!-- a --><instance><app>&#x61;&amp;<![CDATA[<b>]]><!-- c --></app></instance>\n").unwrap();
    assert_eq!(&*taken.app, "A&<B>");
}

#[test]
fn a_document_of_any_depth_is_refused_and_not_followed() {
    for (depth, fits) in [(20, true), (31, false), (100_000, false)] {
        let array = format!(r#"{{"instance":{{"app":"A","x":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth));
        let object = format!(r#"{{"instance":{{"app":"A","x":{}1{}}}}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let element =
            format!("<instance><app>A</app><x>{}{}</x></instance>", "<a>".repeat(depth), "</a>".repeat(depth));
        for read in [read(&array), read(&object), read_xml(&element)] {
            assert_eq!(read.is_ok(), fits, "{depth}: {read:?}");
            if let Err(error) = read {
                assert!(error.to_string().contains("nested deeper than 32"), "{error}");
            }
        }
    }
}

#[test]
fn an_instance_cannot_take_more_than_its_share() {
    let limits = Limits { text_bytes: 8, metadata_bytes: 12, metadata_entries: 2, instances: 3, nesting: 32 };
    let instance =
        |inside: &str| json::read_instance(format!(r#"{{"instance":{{"app":"A",{inside}}}}}"#).as_bytes(), &limits);
    let element = |inside: &str| xml::read_instance(format!("<instance>{inside}</instance>").as_bytes(), &limits);

    assert!(instance(r#""hostName":"12345678""#).is_ok() && element("<hostName>12345678</hostName>").is_ok());
    for error in
        [instance(r#""hostName":"123456789""#), element("<hostName>123456789</hostName>")].map(Result::unwrap_err)
    {
        assert_eq!(error.field(), "instance.hostName");
        assert!(error.to_string().contains("longer than 8 bytes"), "{error}");
    }
    assert!(
        instance(r#""metadata":{"123456789":1}"#).is_err() && element("<metadata><a23456789/></metadata>").is_err()
    );

    assert!(instance(r#""metadata":{"a":"12345","b":"12345"}"#).is_ok());
    for error in [
        instance(r#""metadata":{"a":"12345","b":"123456"}"#),
        element("<metadata><a>12345</a><b>123456</b></metadata>"),
    ] {
        assert!(error.unwrap_err().to_string().contains("more than 12 bytes"));
    }
    for error in [instance(r#""metadata":{"a":1,"b":1,"c":1}"#), element("<metadata><a/><b/><c/></metadata>")] {
        assert!(error.unwrap_err().to_string().contains("more than 2 entries"));
    }

    let list =
        |count: usize| format!(r#"{{"application":{{"name":"A","instance":[{}]}}}}"#, vec!["{}"; count].join(","));
    assert!(json::read_application(list(3).as_bytes(), &limits).is_ok());
    let error = json::read_application(list(4).as_bytes(), &limits).unwrap_err();
    assert!(error.to_string().contains("more than 3 in the document"), "{error}");
    let elements = format!("<application><name>A</name>{}</application>", "<instance/>".repeat(4));
    let error = xml::read_application(elements.as_bytes(), &limits).unwrap_err();
    assert!(error.to_string().contains("more than 3 in the document"), "{error}");
}

#[test]
fn a_character_that_xml_does_not_have_is_refused_and_json_may_have_it() {
    for inside in ["a\u{1}b", "a\0b", "&#1;", "&#xffff;"] {
        let error = xml::read_instance(
            format!("<instance><hostName>{inside}</hostName></instance>").as_bytes(),
            &Limits::default(),
        );
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("is no character of XML"), "{error}");
    }
    let document = br#"{"instance":{"app":"A","hostName":"a\u0001b"}}"#;
    assert_eq!(&*json::read_instance(document, &Limits::default()).unwrap().host_name, "a\u{1}b");
}

/// A list in both formats, of instances whose fields are these.
fn lists(app: &str, hash: &str, instances: &[&[(&str, &str)]]) -> [Applications; 2] {
    let object = |fields: &&[(&str, &str)]| {
        let fields: Vec<_> = fields.iter().map(|(name, text)| format!("\"{name}\":\"{text}\"")).collect();
        format!("{{{}}}", fields.join(","))
    };
    let element = |fields: &&[(&str, &str)]| {
        let fields: Vec<_> = fields.iter().map(|(name, text)| format!("<{name}>{text}</{name}>")).collect();
        format!("<instance>{}</instance>", fields.join(""))
    };
    let objects: Vec<_> = instances.iter().map(object).collect();
    let elements: Vec<_> = instances.iter().map(element).collect();
    let json = format!(
        r#"{{"applications":{{"apps__hashcode":"{hash}","application":[{{"name":"{app}","instance":[{}]}}]}}}}"#,
        objects.join(",")
    );
    let xml = format!(
        "<applications><apps__hashcode>{hash}</apps__hashcode><application><name>{app}</name>{}</application></applications>",
        elements.join("")
    );
    let limits = Limits::default();
    [
        json::read_applications(json.as_bytes(), &limits).unwrap(),
        xml::read_applications(xml.as_bytes(), &limits).unwrap(),
    ]
}

fn gone(id: &str) -> [(&str, &str); 2] {
    [("instanceId", id), ("actionType", "DELETED")]
}

#[test]
fn one_instance_beyond_the_limits_does_not_cost_a_client_the_others() {
    let long = "x".repeat(9000);
    let (id, id_2) = (format!("{long}1"), format!("{long}2"));
    let good: &[_] = &[("instanceId", "i1"), ("hostName", "host1"), ("status", "UP")];
    let bad: &[_] = &[("instanceId", "i2"), ("hostName", "host2"), ("status", "DOWN"), ("homePageUrl", &*long)];
    let (nameless, other): (&[_], &[_]) = (&[("instanceId", &*id)], &[("instanceId", &*id_2)]);
    for (format, list) in lists("ORDERS", "DOWN_1_UP_3_", &[good, bad, nameless, other]).into_iter().enumerate() {
        let mut copy = Applications::default();
        assert!(copy.apply(&list), "the hash is that of all");
        let can_be_called = |instance: &Instance| instance.endpoint(&EndpointSettings::default()).is_ok();
        let called: Vec<_> = copy.instances().filter(|one| can_be_called(one)).map(|one| one.id().to_owned()).collect();
        assert_eq!(called, ["i1"]);
        let long = copy.instances().nth(2).unwrap().id().len();
        assert_eq!(long, Limits::default().text_bytes);
        // And they leave by their names.
        let delta = lists("ORDERS", "UP_1_", &[&gone("i2"), &gone(&id), &gone(&id_2)]);
        assert!(copy.apply(&delta[format]));
        assert_eq!(copy.instances().count(), 1);
    }
    // One whose application is too long costs no other application.
    let [json, xml] = lists(&long, "UP_1_", &[&[("hostName", "host1")]]);
    for list in [json, xml] {
        let application = &list.applications[0];
        assert!(application.name.len() <= 8192 && application.instances[0].host_name.is_empty());
    }
}

#[test]
fn a_batch_loses_only_what_is_beyond_the_limits() {
    let limits = Limits::default();
    let register = |id: &str, host: &str| {
        format!(
            r#"{{"appName":"ORDERS","id":"{id}","action":"Register","instanceInfo":{{"instanceId":"{id}","app":"ORDERS","hostName":"{host}"}}}}"#
        )
    };
    let cancel = |id: &str| format!(r#"{{"appName":"ORDERS","id":"{id}","action":"Cancel"}}"#);
    let long = "x".repeat(9000);
    let items = [register("i1", "host1"), register("i2", &long), cancel(&long), cancel("i3")];
    let batch = format!(r#"{{"replicationList":[{}]}}"#, items.join(","));
    let read = json::read_replications(batch.as_bytes(), &limits).unwrap();
    assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, true]);

    let answer = format!(
        r#"{{"responseList":[{{"statusCode":409,"responseEntity":{{"hostName":"{long}"}}}},{{"statusCode":409,"responseEntity":{{"hostName":"host1"}}}}]}}"#
    );
    let answers = json::read_replication_responses(answer.as_bytes(), &limits).unwrap();
    assert!(answers.iter().all(|answer| answer.status_code == 409));
    assert!(answers[0].instance.is_none() && answers[1].instance.is_some());
}

#[test]
fn what_grows_as_it_is_taken_is_not_more_than_anybody_reads() {
    // Two bytes, and six in upper case.
    let grows = "\u{390}".repeat(4096);
    for field in ["app", "appGroupName"] {
        let json = format!(r#"{{"instance":{{"app":"A","{field}":"{grows}"}}}}"#);
        let xml = format!("<instance><app>A</app><{field}>{grows}</{field}></instance>");
        for error in [read(&json), read_xml(&xml)].map(Result::unwrap_err) {
            assert_eq!(error.to_string(), format!("instance.{field}: longer than 8192 bytes"));
        }
    }
    let limits = Limits { text_bytes: 64, ..Limits::default() };
    assert!(json::read_instance(br#"{"instance":{"app":"A","hostName":1e300}}"#, &limits).is_err());
}

#[test]
fn a_registry_of_many_small_applications_is_read() {
    let limits = Limits { instances: 3, ..Limits::default() };
    let list = |count: usize| {
        let application = r#"{"name":"A","instance":[{}]}"#;
        format!(r#"{{"applications":{{"application":[{}]}}}}"#, vec![application; count].join(","))
    };
    let elements = |count: usize| {
        let application = "<application><name>A</name><instance/></application>";
        format!("<applications>{}</applications>", application.repeat(count))
    };
    for (count, fits) in [(3, true), (4, false)] {
        assert_eq!(json::read_applications(list(count).as_bytes(), &limits).is_ok(), fits);
        assert_eq!(xml::read_applications(elements(count).as_bytes(), &limits).is_ok(), fits);
    }
}

/// Each text of a short document is a part of it. Of a long one that would let a registrant keep as much memory as a body may be.
#[test]
fn what_is_kept_of_a_document_is_not_all_that_was_sent() {
    let read = |padding: &str| {
        read(&format!(
            r#"{{"instance": {{"app": "A", "hostName": "host1", "padding": "{padding}", "ipAddr": "10.0.0.1"}}}}"#
        ))
        .unwrap()
    };
    let short = read("");
    assert_eq!(short.host_name.parent().as_ptr(), short.ip_addr.parent().as_ptr());
    let long = read(&"x".repeat(8_000));
    assert_eq!((&*long.host_name, &**long.host_name.parent()), ("host1", "host1"));
    assert_eq!((&*long.ip_addr, &**long.ip_addr.parent()), ("10.0.0.1", "10.0.0.1"));
}
