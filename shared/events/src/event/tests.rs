use super::*;
use crate::*;

fn start() -> SessionStart {
    SessionStart {
        metadata: Metadata {
            uid: "3f1c7a52-6d0e-4b8c-9a57-0c5b2f7e9d11".into(),
            ..Metadata::default()
        },
        user: UserMetadata {
            user: "alice".into(),
            login: "deploy".into(),
            user_kind: 1,
            user_roles: vec!["access".into()],
            user_traits: std::collections::BTreeMap::from([(
                "logins".to_owned(),
                vec!["deploy".to_owned()],
            )])
            .into(),
            user_cluster_name: "example.test".into(),
            ..UserMetadata::default()
        },
        session: SessionMetadata {
            sid: "b6a1d0c4-93f7-4f55-8f1e-2f6f3c1f7a10".into(),
            private_key_policy: "none".into(),
            ..SessionMetadata::default()
        },
        server: ServerMetadata {
            namespace: "default".into(),
            server_id: "5c9e3f5e-0a44-4d0e-8b2b-f4a7d1a2c3b4".into(),
            server_hostname: "web-1".into(),
            server_addr: "[::]:3022".into(),
            server_labels: [("env".to_owned(), "test".to_owned())].into(),
            server_version: "17.5.0".into(),
            ..ServerMetadata::default()
        },
        connection: ConnectionMetadata {
            local_addr: "10.0.0.7:3022".into(),
            remote_addr: "192.0.2.15:50112".into(),
            proto: "ssh".into(),
        },
        size: "120:40".into(),
        session_recording: "node".into(),
        ..SessionStart::default()
    }
}

fn now() -> DateTime<Utc> {
    "2025-03-04T09:15:22.480999Z".parse().unwrap()
}

#[test]
fn session_start_prints_as_documented() {
    let mut event = AuditEvent::from(start());
    event.prepare(now(), "example.test");
    let expected = concat!(
        r#"{"ei":0,"event":"session.start","uid":"3f1c7a52-6d0e-4b8c-9a57-0c5b2f7e9d11","code":"T2000I","#,
        r#""time":"2025-03-04T09:15:22.481Z","cluster_name":"example.test","#,
        r#""user":"alice","login":"deploy","user_kind":1,"user_roles":["access"],"#,
        r#""user_traits":{"logins":["deploy"]},"user_cluster_name":"example.test","#,
        r#""sid":"b6a1d0c4-93f7-4f55-8f1e-2f6f3c1f7a10","private_key_policy":"none","#,
        r#""namespace":"default","server_id":"5c9e3f5e-0a44-4d0e-8b2b-f4a7d1a2c3b4","#,
        r#""server_hostname":"web-1","server_addr":"[::]:3022","server_labels":{"env":"test"},"#,
        r#""server_version":"17.5.0","#,
        r#""addr.local":"10.0.0.7:3022","addr.remote":"192.0.2.15:50112","proto":"ssh","#,
        r#""size":"120:40","session_recording":"node"}"#,
    );
    assert_eq!(event.to_json(), expected);
    assert_eq!(AuditEvent::from_json(expected).unwrap(), event);
    assert_eq!(AuditEvent::decode_one_of(&event.encode_one_of()).unwrap(), event);
    assert_eq!(event.encode_one_of().len(), event.one_of_len());
}

#[test]
fn the_wire_layout_is_the_established_one() {
    let print = SessionPrint {
        chunk_index: 3,
        data: Bytes::from_static(b"hi"),
        bytes: 2,
        ms: 300,
        ..SessionPrint::default()
    };
    // Written by hand from the field numbers: 7 SessionPrint, 1 Metadata {5 time}, 2 ci, 3 data, 4 bytes, 5 ms.
    let mut expected = vec![0x3a, 0];
    expected.extend([0x0a, 13, 0x2a, 11]);
    expected.extend([0x08, 0x80, 0x92, 0xb8, 0xc3, 0x98, 0xfe, 0xff, 0xff, 0xff, 0x01]);
    expected.extend([0x10, 3, 0x1a, 2, b'h', b'i', 0x20, 2, 0x28, 0xac, 0x02]);
    expected[1] = u8::try_from(expected.len() - 2).unwrap();
    assert_eq!(AuditEvent::from(print).encode_one_of(), expected);
}

#[test]
fn print_data_is_not_in_json() {
    let print =
        SessionPrint { data: Bytes::from_static(b"secret"), bytes: 6, ..SessionPrint::default() };
    assert_eq!(
        AuditEvent::from(print).to_json(),
        r#"{"ei":0,"event":"","time":"0001-01-01T00:00:00Z","ci":0,"bytes":6,"ms":0,"offset":0}"#,
    );
}

#[test]
fn prints_get_neither_id_nor_code() {
    let mut print = AuditEvent::from(SessionPrint::default());
    print.prepare(now(), "c");
    assert_eq!((print.metadata().uid.as_str(), print.metadata().code.as_str()), ("", ""));
    assert_eq!(print.metadata().event, "print");
}

#[test]
fn the_outcome_chooses_the_code() {
    let code = |event: AuditEvent| event.default_code();
    let failed = CommandMetadata { exit_code: "1".into(), ..CommandMetadata::default() };
    let good = CommandMetadata { exit_code: "0".into(), ..CommandMetadata::default() };
    assert_eq!(code(Exec { command: failed, ..Exec::default() }.into()), "T3002E");
    assert_eq!(code(Exec { command: good.clone(), ..Exec::default() }.into()), "T3002I");
    assert_eq!(code(UserLogin::default().into()), "T1000W");
    assert_eq!(
        code(Scp { action: "upload".into(), command: good, ..Scp::default() }.into()),
        "T3005I"
    );
}

#[test]
fn an_sftp_event_has_the_code_of_its_action() {
    let code = |action: i32, error: &str| {
        let event = Sftp { action, error: error.into(), ..Sftp::default() };
        AuditEvent::from(event).default_code()
    };
    assert_eq!((code(1, ""), code(1, "no")), ("TS001I", "TS001E"));
    assert_eq!((code(2, ""), code(8, "")), ("TS002I", "TS008I"));
    assert_eq!((code(16, "no"), code(19, "")), ("TS016E", "TS019I"));
    assert_eq!([code(0, ""), code(20, ""), code(-1, "")], ["TS020E"; 3]);
}

#[test]
fn optional_numbers_are_wrapped_on_the_wire_and_bare_in_json() {
    let attributes =
        SftpAttributes { file_size: Some(0), permissions: Some(5), ..SftpAttributes::default() };
    let mut event = AuditEvent::from(Sftp { attributes: Some(attributes), ..Sftp::default() });
    event.prepare(now(), "c");
    let bytes = event.encode_one_of();
    // Field 10: field 1 with an empty UInt64Value, field 4 with a UInt32Value of 5.
    let wire = [0x52, 6, 0x0a, 0, 0x22, 2, 0x08, 5];
    assert!(bytes.windows(wire.len()).any(|window| window == wire), "{bytes:02x?}");
    assert_eq!(AuditEvent::decode_one_of(&bytes).unwrap(), event);
    let json = event.to_json();
    assert!(json.contains(r#""attributes":{"file_size":0,"permissions":5}"#), "{json}");
    assert_eq!(AuditEvent::from_json(&json).unwrap(), event);
    let sftp = columns("sftp").unwrap();
    for name in ["attributes_file_size", "sha256", "file_size", "direction", "bytes_read"] {
        assert!(sftp.iter().any(|column| column.name == name), "{name}");
    }
}

#[test]
fn members_without_a_struct_survive_untouched() {
    let raw = start().encode_to_vec();
    let mut bytes = Vec::new();
    encode_key(272, WireType::LengthDelimited, &mut bytes);
    encode_varint(raw.len() as u64, &mut bytes);
    bytes.extend(&raw);
    let event = AuditEvent::decode_one_of(&bytes).unwrap();
    assert_eq!(event.metadata().uid, start().metadata.uid);
    assert_eq!(event.encode_one_of(), bytes);
    let text = r#"{"ei":4,"event":"app.session.start","uid":"u","time":"2025-03-04T09:15:22.481Z","app_name":"x"}"#;
    assert_eq!(AuditEvent::from_json(text).unwrap().to_json(), text);
}

#[test]
fn texts_that_are_not_utf8_do_not_stop_a_reader() {
    let bytes = [0x9a, 0x01, 6, 0x0a, 0, 0x32, 2, 0x0a, 0];
    assert!(matches!(AuditEvent::decode_one_of(&bytes).unwrap(), AuditEvent::Exec(_)));
    let bytes = [0x9a, 0x01, 7, 0x0a, 0, 0x32, 3, 0x0a, 1, 0xff];
    assert!(matches!(AuditEvent::decode_one_of(&bytes).unwrap(), AuditEvent::Other(_)));
}

#[test]
fn an_empty_envelope_is_an_error() {
    assert!(matches!(AuditEvent::decode_one_of(&[]), Err(EventError::Empty)));
    assert!(matches!(AuditEvent::decode_one_of(&[0x3a, 5, 0]), Err(EventError::Overrun)));
}

#[test]
fn long_texts_are_cut_until_the_event_fits() {
    let mut event = AuditEvent::from(Exec {
        command: CommandMetadata { command: "ü".repeat(100_000), ..CommandMetadata::default() },
        ..Exec::default()
    });
    assert!(event.trim());
    assert!(event.inner_len() <= MAX_RECORD);
    let mut event = AuditEvent::from(SftpSummary {
        file_transfer_stats: vec![
            FileTransferStat {
                path: "p".repeat(300),
                ..FileTransferStat::default()
            };
            2_000
        ],
        ..SftpSummary::default()
    });
    assert!(event.trim());
}

#[test]
fn gaps_are_named() {
    let gap = OutputGap { offset: 16_777_216, bytes: 99 };
    let event = AuditEvent::decode_one_of(&gap.to_event().encode_one_of()).unwrap();
    assert_eq!(OutputGap::from_event(&event), Some(gap));
}

#[test]
fn views_have_the_documented_columns() {
    let names = |view: &str| -> Vec<String> {
        columns(view)
            .unwrap()
            .iter()
            .map(|column| format!("{} {}", column.name, column.sql_type))
            .collect()
    };
    let cert = names("cert.create");
    assert_eq!(cert[..3], ["event_date date", "event_time timestamp(3)", "cert_type varchar"]);
    for column in [
        "identity_user varchar",
        "identity_client_ip varchar",
        "identity_route_to_app_target_port bigint",
        "identity_allowed_resource_ids array(row(cluster varchar, kind varchar, name varchar, sub_resource varchar))",
        "identity_device_extensions_asset_tag varchar",
        "identity_disallow_reissue boolean",
        "user_agent varchar",
        "ei bigint",
    ] {
        assert!(cert.iter().any(|name| name == column), "{column} in {cert:?}");
    }
    let start = names("session.start");
    for column in [
        "addr_local varchar",
        "server_labels_key varchar",
        "initial_command array(varchar)",
        "trusted_device_device_id varchar",
    ] {
        assert!(start.iter().any(|name| name == column), "{column} in {start:?}");
    }
    assert!(names("lock.created").contains(&"lock_target_user varchar".to_owned()));
    assert!(names("user.login").contains(&"mfa_device_mfa_device_name varchar".to_owned()));
    assert!(names("exec").contains(&"exitCode varchar".to_owned()));
    assert!(views().iter().any(|view| view.name == "secreports_audit_query_run"));
    assert!(!views().iter().any(|view| view.name == "print"));
}

/// Numbers, types and codes are an interface: this list changes only by additions.
#[test]
fn the_catalogue_is_as_reviewed() {
    let list: String = KINDS.iter().map(|(kind, _)| format!("{kind}\n")).collect();
    insta::assert_snapshot!(list);
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
        if let Ok(event) = AuditEvent::decode_one_of(&bytes) {
            let again = AuditEvent::decode_one_of(&event.encode_one_of()).unwrap();
            proptest::prop_assert_eq!(again.to_json(), event.to_json());
        }
    }

    #[test]
    fn json_of_any_text_does_not_panic(text: String) {
        let _ = AuditEvent::from_json(&text);
    }
}
