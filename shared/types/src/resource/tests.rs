use super::*;
use serde_json::json;

fn error(document: serde_json::Value) -> String {
    let error = Resource::from_json(document).unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[test]
fn reads_a_role_as_people_write_it() {
    let document = json!({
        "kind": "role", "version": "v7", "metadata": {"name": "dev"},
        "spec": {
            "options": {"max_session_ttl": "8h", "forward_agent": "yes", "client_idle_timeout": "never", "require_session_mfa": false,
                        "idp": {"saml": {"enabled": true}}},
            "allow": {"logins": ["dev"], "node_labels": {"env": "dev", "team": ["a", "b"]},
                      "rules": [{"resources": ["session"], "verbs": ["list"], "where": "equals(user.metadata.name, \"x\")"}]},
            "deny": {"logins": null}
        }
    });
    let resource = Resource::from_json(document).unwrap();
    assert_eq!(resource.kind(), ResourceKind::Role);
    let Resource::Role(role) = &resource else { panic!("not a role") };
    assert_eq!(role.spec.options.forward_agent, Some(true));
    assert_eq!(role.spec.options.max_session_ttl.unwrap().to_string(), "8h0m0s");
    assert_eq!(role.spec.allow.node_labels["team"].len(), 2);
    assert_eq!(Resource::from_json(resource.to_json()).unwrap(), resource);
    assert_eq!(serde_json::from_value::<Resource>(resource.to_json()).unwrap(), resource);
}

#[test]
fn an_unknown_field_is_refused_everywhere() {
    let role = |spec: serde_json::Value| json!({"kind": "role", "version": "v7", "metadata": {"name": "x"}, "spec": spec});
    for (document, expected) in [
        (
            role(json!({"denny": {}})),
            "role document: unknown field `denny`, expected one of `options`, `allow`, `deny`",
        ),
        (role(json!({"allow": {"loggins": ["root"]}})), "unknown field `loggins`"),
        (role(json!({"options": {"forward_agents": true}})), "unknown field `forward_agents`"),
        (json!({"kind": "role", "metadata": {"nam": "x"}, "spec": {}}), "unknown field `nam`"),
        (
            json!({"kind": "role", "metadata": {"name": "x"}, "spec": {}, "specs": {}}),
            "unknown field `specs`",
        ),
        (
            json!({"kind": "user", "metadata": {"name": "x"}, "spec": {"role": ["access"]}}),
            "unknown field `role`",
        ),
        (
            json!({"kind": "session_recording_config", "spec": {"mod": "proxy"}}),
            "unknown field `mod`",
        ),
        (
            json!({"kind": "cluster_auth_preference", "spec": {"typ": "local"}}),
            "unknown field `typ`",
        ),
        (json!({"kind": "cluster_networking_config", "spec": {"x": 1}}), "unknown field `x`"),
        (
            json!({"kind": "token", "metadata": {"name": "x"}, "spec": {"roles": ["Proxy"], "x": 1}}),
            "unknown field `x`",
        ),
    ] {
        let text = error(document);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn errors_name_the_thing() {
    let role = |spec: serde_json::Value| json!({"kind": "role", "version": "v7", "metadata": {"name": "x"}, "spec": spec});
    for (document, expected) in [
        (json!({"version": "v7"}), "resource has no kind, expected one of role, user, token"),
        (json!({"kind": "rol"}), "unsupported resource: \"rol\""),
        (
            json!({"kind": "role", "version": "v7", "spec": {}}),
            "role document: role has no metadata.name",
        ),
        (
            json!({"kind": "role", "version": "v9", "metadata": {"name": "x"}, "spec": {}}),
            "role document: role has no version \"v9\", expected one of v3, v4, v5, v6, v7, v8",
        ),
        (
            json!({"kind": "user", "metadata": {"name": "-x;"}, "spec": {}}),
            "user document: metadata.name of user: user name may not contain ';'",
        ),
        (
            json!({"kind": "session_recording_config", "metadata": {"name": "x"}, "spec": {}}),
            "session_recording_config is named \"session-recording-config\", not \"x\"",
        ),
        (
            role(json!({"allow": {"node_labels": {"*": "x"}}})),
            "role document: spec.allow.node_labels: the key '*' takes only the value '*'",
        ),
        (
            role(json!({"allow": {"rules": [{"resources": ["role"], "verbs": ["raed"]}]}})),
            "spec.allow.rules[0].verbs: unknown verb \"raed\", expected one of *, list",
        ),
        (
            json!({"kind": "token", "metadata": {"name": "secret"}, "spec": {"roles": ["Prox"]}}),
            "unknown system role \"Prox\", expected one of Auth, Admin, Proxy, Node, Db",
        ),
        (
            json!({"kind": "token", "metadata": {"name": "secret"}, "spec": {"roles": ["Proxy"], "join_method": "iam"}}),
            "spec.join_method: unknown join method \"iam\", expected token",
        ),
        (
            json!({"kind": "session_recording_config", "spec": {"mode": "proxi"}}),
            "invalid value: string \"proxi\", expected one of node, node-sync, proxy, proxy-sync, off",
        ),
        (
            role(json!({"options": {"max_session_ttl": "a while"}})),
            "\"a while\" is not a duration, expected a form like 12h, 30m or 1h30m0s",
        ),
    ] {
        let text = error(document);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn singletons_name_themselves() {
    let config = Resource::from_json(json!({
        "kind": "session_recording_config", "version": "v2", "spec": {"mode": "proxy", "proxy_checks_host_keys": "no"}
    }))
    .unwrap();
    assert_eq!(config.name(), "session-recording-config");
    let Resource::SessionRecordingConfig(config) = config else { panic!("wrong kind") };
    assert_eq!(config.spec.mode, RecordingMode::Proxy);
    assert!(!config.spec.proxy_checks_host_keys);
    let off = json!({"kind": "session_recording_config", "spec": {"mode": false}});
    let Resource::SessionRecordingConfig(config) = Resource::from_json(off).unwrap() else {
        panic!("wrong kind")
    };
    assert_eq!(config.spec.mode, RecordingMode::Off);
}

#[test]
fn a_token_is_not_in_debug_output() {
    let spec = TokenSpec { roles: vec![crate::SystemRole::Proxy], ..TokenSpec::default() };
    let token = ProvisionToken::new("hunter2", spec);
    assert!(!format!("{token:?}").contains("hunter2"));
    assert!(!format!("{:?}", Resource::from(token)).contains("hunter2"));
}

#[test]
fn version_three_fills_in_labels() {
    let mut role = Role::new("old", RoleSpec::default());
    role.version = "v3".to_owned();
    role.spec.allow.logins = vec!["root".to_owned()];
    assert!(role.clone().with_version_defaults().spec.allow.node_labels.contains_key("*"));
    role.version = "v7".to_owned();
    assert!(role.with_version_defaults().spec.allow.node_labels.is_empty());
}
