use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use shared_types::{Resource, Role, Traits, UserName};

fn role(name: &str, spec: Value) -> Role {
    let document =
        json!({"kind": "role", "version": "v7", "metadata": {"name": name}, "spec": spec});
    match Resource::from_json(document).unwrap() {
        Resource::Role(role) => role,
        other => panic!("{other:?}"),
    }
}

fn set(specs: &[Value]) -> RoleSet {
    let traits: Traits = [("logins".to_owned(), vec!["joe".to_owned(), "-bad".to_owned()])].into();
    let roles = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| role(&format!("r{index}"), spec.clone()))
        .collect();
    RoleSet::new(roles, &traits, &UserName::new("joe").unwrap())
}

fn check(set: &RoleSet, login: &str, host: &str, address: &str) -> Result<Vec<String>, String> {
    let login = Login::new(login).unwrap();
    let target = SshTarget::unregistered(host, address.parse().unwrap(), 22);
    let rules =
        set.check_ssh(&login, &target).into_result().map_err(|reason| reason.to_string())?;
    Ok(rules.into_iter().map(|rule| rule.0).collect())
}

fn everything() -> Value {
    json!({"allow": {"logins": ["root"], "node_labels": {"*": "*"}}})
}

#[test]
fn a_wildcard_admits_unregistered_hosts() {
    let set = set(&[everything()]);
    assert_eq!(
        check(&set, "root", "db-7", "10.0.0.7"),
        Ok(vec!["r0: spec.allow.node_labels".to_owned()])
    );
    assert_eq!(
        check(&set, "joe", "db-7", "10.0.0.7").unwrap_err(),
        "no role allows the login joe there"
    );
}

#[test]
fn nothing_is_allowed_by_default() {
    assert_eq!(check(&set(&[]), "root", "h", "10.0.0.1").unwrap_err(), "no role admits the host");
    assert_eq!(
        check(&set(&[json!({})]), "root", "h", "10.0.0.1").unwrap_err(),
        "no role admits the host"
    );
    assert!(
        check(&set(&[json!({"allow": {"logins": ["root"]}})]), "root", "h", "10.0.0.1").is_err()
    );
    assert!(
        check(&set(&[json!({"allow": {"node_labels": {"*": "*"}}})]), "root", "h", "10.0.0.1")
            .is_err()
    );
    // Login and host have to come from the same role.
    let split = set(&[
        json!({"allow": {"logins": ["root"]}}),
        json!({"allow": {"node_labels": {"*": "*"}}}),
    ]);
    assert!(check(&split, "root", "h", "10.0.0.1").is_err());
}

#[test]
fn special_addresses_need_the_literal() {
    let wild = set(&[
        everything(),
        json!({"allow": {"logins": ["root"], "node_labels": {"teleport.dev/host": ["127.*", "^.*$"]}}}),
    ]);
    let named = set(&[
        json!({"allow": {"logins": ["root"], "node_labels": {"teleport.dev/host": ["127.0.0.1", "::1"]}}}),
    ]);
    for (host, address) in [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        ("::1", "::1"),
    ] {
        assert_eq!(
            check(&wild, "root", host, address).unwrap_err(),
            "loopback addresses need the literal address in a role",
            "{host}"
        );
        assert!(check(&named, "root", host, address).is_ok(), "{host}");
    }
    for (host, address, class) in [
        ("0.0.0.0", "0.0.0.0", "unspecified"),
        ("meta", "169.254.169.254", "metadata"),
        ("x", "fe80::1", "link-local"),
        ("m", "224.0.0.1", "multicast and reserved"),
    ] {
        let expected = format!("{class} addresses need the literal address in a role");
        assert_eq!(check(&wild, "root", host, address).unwrap_err(), expected);
        assert!(check(&named, "root", host, address).is_err());
    }
    let from_trait = json!({"allow": {"logins": ["root"], "node_labels": {"teleport.dev/host": "{{external.logins}}"}}});
    let traits: Traits = [("logins".to_owned(), vec!["127.0.0.1".to_owned()])].into();
    let set = RoleSet::new(vec![role("t", from_trait)], &traits, &UserName::new("joe").unwrap());
    assert!(check(&set, "root", "127.0.0.1", "127.0.0.1").is_err());
}

#[test]
fn the_clusters_own_addresses_need_the_literal() {
    let labels = Labels::new();
    let address = "10.0.0.5".parse().unwrap();
    let own = SshTarget {
        host: "auth",
        resolved: Some(address),
        port: 3025,
        labels: &labels,
        registered: false,
        protected: true,
    };
    let root = Login::new("root").unwrap();
    assert!(!set(&[everything()]).check_ssh(&root, &own).is_allowed());
    let named =
        json!({"allow": {"logins": ["root"], "node_labels": {"teleport.dev/host": "10.0.0.5"}}});
    assert!(set(&[named]).check_ssh(&root, &own).is_allowed());
}

#[test]
fn host_and_port_labels() {
    let role = json!({"allow": {"logins": ["root"], "node_labels": {"teleport.dev/host": ["*.example.com", "10.0.*"], "teleport.dev/port": "22"}}});
    let set = set(&[role]);
    assert!(check(&set, "root", "DB.Example.COM.", "10.9.0.1").is_ok());
    assert!(check(&set, "root", "other", "10.0.0.1").is_ok());
    assert!(check(&set, "root", "other", "10.9.0.1").is_err());
    // A name that looks like the addresses allowed is not one of them.
    assert!(check(&set, "root", "10.0.attacker.net", "192.0.2.1").is_err());
    let target = SshTarget {
        port: 2222,
        ..SshTarget::unregistered("a.example.com", "10.9.0.1".parse().unwrap(), 22)
    };
    assert!(!set.check_ssh(&Login::new("root").unwrap(), &target).is_allowed());
    let names =
        json!({"allow": {"logins": ["root"], "node_labels": {"teleport.dev/host": "^db-[0-9]+$"}}});
    assert!(check(&super::tests::set(&[names]), "root", "db-12", "192.0.2.1").is_ok());
}

#[test]
fn deny_wins_in_every_spelling() {
    for deny in [
        json!({"logins": ["root"]}),
        json!({"logins": ["*"]}),
        json!({"logins": ["ro*"]}),
        json!({"logins": ["^r.*$"]}),
        json!({"logins": ["{{broken"]}),
        json!({"node_labels": {"*": "*"}}),
        json!({"node_labels": {"teleport.dev/host": "db-7.example.com"}}),
        json!({"node_labels": {"teleport.dev/host": "10.0.0.*"}}),
        json!({"node_labels": {"teleport.dev/host": "10.0.0.7"}}),
        json!({"node_labels": {"teleport.dev/port": "22"}}),
        json!({"node_labels": {"env": "^($"}}),
        json!({"node_labels_expression": "labels.env == \"\""}),
        json!({"node_labels_expression": "what is this"}),
        json!({"node_labels_expression": "contains(session.participants, \"x\")"}),
    ] {
        for order in [[everything(), json!({"deny": deny})], [json!({"deny": deny}), everything()]]
        {
            let result = check(&set(&order), "root", "DB-7.example.com", "10.0.0.7");
            assert!(
                result.as_ref().is_err_and(|text| text.starts_with("denied by r")),
                "{deny} {result:?}"
            );
        }
    }
    let other = set(&[
        everything(),
        json!({"deny": {"node_labels": {"env": "prod"}, "logins": ["admin"]}}),
    ]);
    assert!(check(&other, "root", "db-7", "10.0.0.7").is_ok());
}

#[test]
fn expressions_on_labels() {
    let allow = |extra: Value| {
        let mut allow =
            json!({"logins": ["root"], "node_labels_expression": "labels[\"env\"] == \"dev\""});
        allow.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        set(&[json!({"allow": allow})])
    };
    let dev: Labels =
        [("env".to_owned(), "dev".to_owned()), ("team".to_owned(), "a".to_owned())].into();
    let root = Login::new("root").unwrap();
    let target = SshTarget::registered("n1", None, 3022, &dev);
    assert!(allow(json!({})).check_ssh(&root, &target).is_allowed());
    assert!(allow(json!({"node_labels": {"team": "a"}})).check_ssh(&root, &target).is_allowed());
    assert!(!allow(json!({"node_labels": {"team": "b"}})).check_ssh(&root, &target).is_allowed());
    assert!(check(&allow(json!({})), "root", "h", "10.0.0.1").is_err());
}

#[test]
fn an_unresolved_name_is_refused() {
    let labels = Labels::new();
    let node = SshTarget::registered("localhost", None, 22, &labels);
    let target = SshTarget { registered: false, ..node };
    let decision = set(&[everything()]).check_ssh(&Login::new("root").unwrap(), &target);
    assert_eq!(decision, Decision::Deny { reason: DenyReason::Unresolved });
    let literal = SshTarget { host: "127.0.0.1", ..target };
    assert!(!set(&[everything()]).check_ssh(&Login::new("root").unwrap(), &literal).is_allowed());
}

#[test]
fn a_node_is_known_by_its_certificate_and_not_by_its_address() {
    let labels: Labels = [("env".to_owned(), "dev".to_owned())].into();
    let none = Labels::new();
    let root = Login::new("root").unwrap();
    let everything = set(&[everything()]);
    let here = Some("127.0.0.1".parse().unwrap());
    for address in [None, here] {
        for labels in [&none, &labels] {
            let node = SshTarget::registered("n1", address, 3022, labels);
            assert!(everything.check_ssh(&root, &node).is_allowed(), "{address:?} {labels:?}");
            assert!(everything.reaches(&node));
            assert!(
                !everything.check_ssh(&root, &SshTarget { protected: true, ..node }).is_allowed()
            );
        }
    }
    let dev = set(&[json!({"allow": {"logins": ["joe"], "node_labels": {"env": "dev"}}})]);
    assert!(dev.reaches(&SshTarget::registered("n1", None, 3022, &labels)));
    assert!(!dev.reaches(&SshTarget::registered("n1", None, 3022, &none)));
    let nobody = set(&[json!({"allow": {"node_labels": {"*": "*"}}})]);
    assert!(!nobody.reaches(&SshTarget::registered("n1", None, 3022, &labels)), "no login");
}

#[test]
fn a_demand_that_cannot_be_met_refuses() {
    for demand in [
        json!({"options": {"require_session_mfa": true}}),
        json!({"options": {"device_trust_mode": "required"}}),
        json!({"allow": {"require_session_join": [{"name": "x"}]}}),
    ] {
        let error = check(&set(&[everything(), demand]), "root", "h", "10.0.0.1").unwrap_err();
        assert!(error.starts_with("r1: spec.") && error.ends_with("cannot be met"), "{error}");
    }
    assert!(
        check(
            &set(&[everything(), json!({"options": {"require_session_mfa": "no"}})]),
            "root",
            "h",
            "10.0.0.1"
        )
        .is_ok()
    );
}

#[test]
fn logins_are_valid_and_not_denied() {
    let logins =
        |specs: &[Value]| set(specs).logins().iter().map(ToString::to_string).collect::<Vec<_>>();
    let allow = json!({"allow": {"logins": ["{{internal.logins}}", "root", "a b", "{{broken", "adm-{{external.x}}"]}});
    assert_eq!(logins(std::slice::from_ref(&allow)), ["joe", "root"]);
    assert_eq!(logins(&[allow, json!({"deny": {"logins": ["root"]}})]), ["joe"]);
}

fn any_labels() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        Just("*"),
        Just("a"),
        Just("b*"),
        Just("^[ab]$"),
        Just("{{external.logins}}"),
        Just("^($")
    ];
    let key = prop_oneof![
        Just("env"),
        Just("team"),
        Just("teleport.dev/host"),
        Just("teleport.dev/port")
    ];
    prop_oneof![
        Just(json!({"*": "*"})),
        proptest::collection::btree_map(key, proptest::collection::vec(value, 1..3), 0..3)
            .prop_map(|map| json!(map)),
    ]
}

proptest! {
    #[test]
    fn a_deny_never_gives_access(
        allow in any_labels(), deny in any_labels(), deny_root in any::<bool>(), deny_first in any::<bool>(),
        env in "[ab]{1,2}", host in "[ab]{1,3}"
    ) {
        let labels: Labels = [("env".to_owned(), env)].into();
        let target = SshTarget::registered(&host, Some("10.1.1.1".parse().unwrap()), 22, &labels);
        let root = Login::new("root").unwrap();
        let allow = json!({"allow": {"logins": ["root"], "node_labels": allow}});
        let logins = if deny_root { vec!["root"] } else { vec![] };
        let deny = json!({"deny": {"logins": logins, "node_labels": deny}});
        let without = set(std::slice::from_ref(&allow)).check_ssh(&root, &target).is_allowed();
        let order = if deny_first { [deny, allow] } else { [allow, deny] };
        let with = set(&order).check_ssh(&root, &target).is_allowed();
        prop_assert!(!with || without);
        prop_assert!(!with || !deny_root);
    }

    #[test]
    fn the_same_map_denied_refuses_what_it_allows(map in any_labels(), env in "[ab]{1,2}", host in "[ab]{1,3}") {
        let labels: Labels = [("env".to_owned(), env)].into();
        let target = SshTarget::registered(&host, Some("10.1.1.1".parse().unwrap()), 22, &labels);
        let root = Login::new("root").unwrap();
        let allowing = json!({"allow": {"logins": ["root"], "node_labels": map}});
        prop_assume!(set(std::slice::from_ref(&allowing)).check_ssh(&root, &target).is_allowed());
        let both = set(&[everything(), json!({"deny": {"node_labels": map}})]);
        prop_assert!(!both.check_ssh(&root, &target).is_allowed());
    }
}
