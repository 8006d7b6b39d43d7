use super::*;
use crate::*;

fn now() -> DateTime<Utc> {
    "2025-03-04T09:15:22.480999Z".parse().unwrap()
}

fn query() -> DatabaseSessionQuery {
    DatabaseSessionQuery {
        metadata: Metadata { uid: "q".into(), index: 3, ..Metadata::default() },
        user: UserMetadata { user: "bob".into(), ..UserMetadata::default() },
        session: SessionMetadata { sid: "D1".into(), ..SessionMetadata::default() },
        database: DatabaseMetadata {
            db_service: "orders".into(),
            db_protocol: "postgres".into(),
            db_uri: "localhost:5432".into(),
            db_name: "app".into(),
            db_user: "alice".into(),
            db_labels: [("env".to_owned(), "test".to_owned())].into(),
            ..DatabaseMetadata::default()
        },
        query: "select $1".into(),
        parameters: vec!["42".into()],
        status: Status { success: true, ..Status::default() },
    }
}

#[test]
fn a_query_prints_as_documented() {
    let mut event = AuditEvent::from(query());
    event.prepare(now(), "c");
    let expected = concat!(
        r#"{"ei":3,"event":"db.session.query","uid":"q","code":"TDB02I","time":"2025-03-04T09:15:22.481Z","#,
        r#""cluster_name":"c","user":"bob","sid":"D1","db_service":"orders","db_protocol":"postgres","#,
        r#""db_uri":"localhost:5432","db_name":"app","db_user":"alice","db_labels":{"env":"test"},"#,
        r#""db_query":"select $1","db_query_parameters":["42"],"success":true}"#,
    );
    assert_eq!(event.to_json(), expected);
    assert_eq!(AuditEvent::from_json(expected).unwrap(), event);
}

#[test]
fn a_failed_query_is_the_same_message_under_its_own_type() {
    let status = Status { error: "syntax error".into(), ..Status::default() };
    let mut event = AuditEvent::from(DatabaseSessionQuery { status, ..query() });
    event.prepare(now(), "c");
    let metadata = event.metadata();
    assert_eq!(
        (event.kind(), event.event_type(), metadata.code.as_str()),
        ("db.session.query.failed", "db.session.query.failed", "TDB02W")
    );
    assert_eq!(AuditEvent::from_json(&event.to_json()).unwrap(), event);
    assert_eq!(AuditEvent::decode_one_of(&event.encode_one_of()).unwrap(), event);
    assert_eq!(columns("db.session.query"), columns("db.session.query.failed"));
    for view in ["db_session_query", "db_session_query_failed"] {
        assert!(views().iter().any(|known| known.name == view), "{view}");
    }
}

#[test]
fn parts_are_found_by_their_type() {
    let event = AuditEvent::from(query());
    assert_eq!(event.part::<DatabaseMetadata>().unwrap().db_name, "app");
    assert_eq!(event.part::<SessionMetadata>().unwrap().sid, "D1");
    assert!(event.part::<ServerMetadata>().is_none());
}

/// The event's number, type, code, and the numbers of the fields that are written.
fn outline(event: impl Into<AuditEvent>) -> String {
    let event = event.into();
    let envelope = event.encode_one_of();
    let mut bytes = envelope.as_slice();
    let (number, _) = decode_key(&mut bytes).unwrap();
    decode_varint(&mut bytes).unwrap();
    let mut fields = Vec::new();
    while bytes.has_remaining() {
        let (field, wire_type) = decode_key(&mut bytes).unwrap();
        prost::encoding::skip_field(wire_type, field, &mut bytes, Default::default()).unwrap();
        fields.push(field.to_string());
    }
    format!("{number} {} {} {}", event.kind(), event.default_code(), fields.join(","))
}

macro_rules! outlines {
    ($($name:ident { $($field:ident: $value:expr),* $(,)? })*) => {
        vec![$( outline($name { $($field: $value,)* ..$name::default() }) ),*]
    };
}

/// Numbers and codes are an interface: this list changes only by additions.
#[test]
fn database_events_are_laid_out_as_established() {
    let x = || "x".to_owned();
    let xs = || vec![x()];
    let good = || Status { success: true, ..Status::default() };
    let list = outlines! {
        DatabaseSessionStart { postgres_pid: 1, status: good() }
        DatabaseSessionStart { session_recording: x(), record_session: x() }
        DatabaseSessionEnd { participants: xs(), recovered: x(), session_recording: x() }
        DatabaseSessionQuery { query: x(), parameters: xs(), status: good() }
        DatabaseSessionCommandResult { affected_records: 1 }
        DatabaseSessionMalformedPacket { payload: Bytes::from_static(b"x") }
        PostgresParse { statement_name: x(), query: x() }
        PostgresBind { statement_name: x(), portal_name: x(), parameters: xs() }
        PostgresExecute { portal_name: x() }
        PostgresClose { statement_name: x(), portal_name: x() }
        PostgresFunctionCall { function_oid: 1, function_args: xs() }
        MySqlStatementPrepare { query: x() }
        MySqlStatementExecute { statement_id: 1, parameters: xs() }
        MySqlStatementSendLongData { statement_id: 1, parameter_id: 1, data_size: 1 }
        MySqlStatementClose { statement_id: 1 }
        MySqlStatementReset { statement_id: 1 }
        MySqlStatementFetch { statement_id: 1, rows_count: 1 }
        MySqlStatementBulkExecute { statement_id: 1, parameters: xs() }
        MySqlInitDb { schema_name: x() }
        MySqlCreateDb { schema_name: x() }
        MySqlDropDb { schema_name: x() }
        MySqlShutDown {}
        MySqlProcessKill { process_id: 1 }
        MySqlDebug {}
        MySqlRefresh { subcommand: x() }
        DynamoDbRequest { status_code: 200, path: x(), raw_query: x(), method: x(), target: x(), body: Some(Struct::default()) }
        DynamoDbRequest { status_code: 400 }
        DatabaseCreate {}
        DatabaseUpdate {}
        DatabaseDelete {}
    };
    assert_eq!(
        list,
        [
            "40 db.session.start TDB00I 1,2,3,4,5,6,7,8,9",
            "40 db.session.start TDB00W 1,2,3,4,5,6,7,9,1001,1002",
            "41 db.session.end TDB01I 1,2,3,4,5,6,7,8,1001,1002",
            "42 db.session.query TDB02I 1,2,3,4,5,6,7",
            "159 db.session.result TDB10I 1,2,3,4,5,6",
            "90 db.session.malformed_packet TDB06I 1,2,3,4,5",
            "61 db.session.postgres.statements.parse TPG00I 1,2,3,4,5,6",
            "62 db.session.postgres.statements.bind TPG01I 1,2,3,4,5,6,7",
            "63 db.session.postgres.statements.execute TPG02I 1,2,3,4,5",
            "64 db.session.postgres.statements.close TPG03I 1,2,3,4,5,6",
            "65 db.session.postgres.function TPG04I 1,2,3,4,5,6",
            "72 db.session.mysql.statements.prepare TMY00I 1,2,3,4,5",
            "73 db.session.mysql.statements.execute TMY01I 1,2,3,4,5,6",
            "74 db.session.mysql.statements.send_long_data TMY02I 1,2,3,4,5,6,7",
            "75 db.session.mysql.statements.close TMY03I 1,2,3,4,5",
            "76 db.session.mysql.statements.reset TMY04I 1,2,3,4,5",
            "77 db.session.mysql.statements.fetch TMY05I 1,2,3,4,5,6",
            "78 db.session.mysql.statements.bulk_execute TMY06I 1,2,3,4,5,6",
            "81 db.session.mysql.init_db TMY07I 1,2,3,4,5",
            "82 db.session.mysql.create_db TMY08I 1,2,3,4,5",
            "83 db.session.mysql.drop_db TMY09I 1,2,3,4,5",
            "84 db.session.mysql.shut_down TMY10I 1,2,3,4",
            "85 db.session.mysql.process_kill TMY11I 1,2,3,4,5",
            "86 db.session.mysql.debug TMY12I 1,2,3,4",
            "87 db.session.mysql.refresh TMY13I 1,2,3,4,5",
            "109 db.session.dynamodb.request TDY01I 1,2,3,4,5,6,7,8,9,10",
            "109 db.session.dynamodb.request TDY01E 1,2,3,4,5",
            "53 db.create TDB03I 1,2,3,4",
            "54 db.update TDB04I 1,2,3,4",
            "55 db.delete TDB05I 1,2,3",
        ]
    );
}

#[test]
fn a_malformed_packet_is_base64_in_json() {
    let packet = DatabaseSessionMalformedPacket {
        payload: Bytes::from_static(b"\xff\x00x"),
        ..DatabaseSessionMalformedPacket::default()
    };
    let mut event = AuditEvent::from(packet);
    event.prepare(now(), "c");
    let json = event.to_json();
    assert!(json.ends_with(r#""payload":"/wB4"}"#), "{json}");
    assert_eq!(AuditEvent::from_json(&json).unwrap(), event);
    assert!(AuditEvent::from_json(&json.replace("/wB4", "!")).is_err());
    let columns = columns(DatabaseSessionMalformedPacket::KIND).unwrap();
    assert!(columns.iter().any(|column| column.name == "payload"));
}

#[test]
fn results_have_an_id_and_stay_in_the_recording() {
    let mut result = AuditEvent::from(DatabaseSessionCommandResult::default());
    result.prepare(now(), "c");
    assert!(result.is_recording_only());
    assert!(!result.metadata().uid.is_empty());
    assert!(!AuditEvent::from(query()).is_recording_only());
    assert!(AuditEvent::from(DatabaseSessionEnd::default()).ends_recording());
    assert!(!result.ends_recording());
}

#[test]
fn the_longest_statement_with_its_parameters_fits_a_record() {
    let traits =
        std::collections::BTreeMap::from([("groups".to_owned(), vec!["g".repeat(100); 100])]);
    let mut event = query();
    event.user.user_traits = traits.into();
    event.query = "q".repeat(MAX_STATEMENT);
    event.parameters = vec!["p".repeat(MAX_PARAMETERS)];
    assert!(AuditEvent::from(event).inner_len() <= MAX_RECORD);
}

#[test]
fn the_views_of_databases_have_the_documented_columns() {
    let names = |view: &str| -> Vec<String> {
        columns(view)
            .unwrap()
            .iter()
            .map(|column| format!("{} {}", column.name, column.sql_type))
            .collect()
    };
    let start = names("db.session.start");
    for column in [
        "db_service varchar",
        "db_protocol varchar",
        "db_user varchar",
        "db_labels_key varchar",
        "db_roles array(varchar)",
        "postgres_pid bigint",
        "success boolean",
        "error varchar",
        "addr_remote varchar",
        "user_agent varchar",
        "access_requests array(varchar)",
        "trusted_device_device_id varchar",
    ] {
        assert!(start.iter().any(|name| name == column), "{column} in {start:?}");
    }
    let query = names("db.session.query");
    for column in ["db_query varchar", "db_query_parameters array(varchar)", "success boolean"] {
        assert!(query.iter().any(|name| name == column), "{column} in {query:?}");
    }
    // Results are in no audit log.
    assert!(!views().iter().any(|view| view.name == "db_session_result"));
}
