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
    let traits: Traits = [
        ("db_users".to_owned(), vec!["joe".to_owned()]),
        ("db_names".to_owned(), vec!["*".to_owned()]),
    ]
    .into();
    let roles = specs
        .iter()
        .enumerate()
        .map(|(index, spec)| role(&format!("r{index}"), spec.clone()))
        .collect();
    RoleSet::new(roles, &traits, &UserName::new("joe").unwrap())
}

fn dev() -> Labels {
    [("env".to_owned(), "dev".to_owned())].into()
}

fn check(set: &RoleSet, user: &str, name: Option<&str>) -> Result<Vec<String>, String> {
    check_as(set, DbProtocol::Postgres, user, name)
}

fn check_as(
    set: &RoleSet,
    protocol: DbProtocol,
    user: &str,
    name: Option<&str>,
) -> Result<Vec<String>, String> {
    let labels = dev();
    let target = DbTarget { service: "pg", labels: &labels, protocol, user, name };
    let decision = set.check_database(&target).into_result();
    Ok(decision.map_err(|reason| reason.to_string())?.into_iter().map(|rule| rule.0).collect())
}

fn everything() -> Value {
    json!({"allow": {"db_labels": {"*": "*"}, "db_users": ["*"], "db_names": ["*"]}})
}

#[test]
fn labels_user_and_name_come_from_one_role() {
    let all = set(&[everything()]);
    assert_eq!(check(&all, "alice", Some("app")), Ok(vec!["r0: spec.allow.db_labels".to_owned()]));
    assert_eq!(check(&set(&[]), "alice", None).unwrap_err(), "no role admits the database");
    let one = set(&[
        json!({"allow": {"db_labels": {"env": "dev"}, "db_users": ["alice"], "db_names": ["app"]}}),
    ]);
    assert!(check(&one, "alice", Some("app")).is_ok());
    assert!(check(&one, "alice", None).is_ok(), "not known yet");
    assert_eq!(
        check(&one, "bob", Some("app")).unwrap_err(),
        "no role allows the database user \"bob\" there"
    );
    assert_eq!(
        check(&one, "alice", Some("hr")).unwrap_err(),
        "no role allows the database name \"hr\" there"
    );
    // Case and spelling count.
    assert!(check(&one, "Alice", Some("app")).is_err());
    let other =
        json!({"allow": {"db_labels": {"env": "prod"}, "db_users": ["*"], "db_names": ["*"]}});
    assert_eq!(check(&set(&[other]), "a", None).unwrap_err(), "no role admits the database");
    let split = set(&[
        json!({"allow": {"db_labels": {"*": "*"}, "db_users": ["alice"]}}),
        json!({"allow": {"db_users": ["bob"], "db_names": ["*"]}}),
    ]);
    assert!(check(&split, "bob", Some("app")).is_err());
    assert!(check(&split, "alice", Some("app")).is_err());
}

#[test]
fn names_count_only_where_a_server_has_them() {
    let one = set(&[
        json!({"allow": {"db_labels": {"*": "*"}, "db_users": ["alice"]}, "deny": {"db_names": ["x"]}}),
    ]);
    for protocol in DbProtocol::ALL {
        let found = check_as(&one, protocol, "alice", Some("app")).is_ok();
        assert_eq!(found, !protocol.has_names(), "{protocol}");
    }
    assert!(check_as(&one, DbProtocol::Mysql, "alice", Some("x")).is_ok());
}

#[test]
fn templates_expand_and_a_star_from_a_trait_is_one() {
    let access = set(&[
        json!({"allow": {"db_labels": {"*": "*"}, "db_users": ["{{internal.db_users}}", "{{broken"], "db_names": ["{{internal.db_names}}"]}}),
    ]);
    assert!(check(&access, "joe", Some("anything")).is_ok());
    assert!(check(&access, "root", Some("anything")).is_err());
    // A glob is not one when it allows.
    let glob =
        set(&[json!({"allow": {"db_labels": {"*": "*"}, "db_users": ["a*"], "db_names": ["*"]}})]);
    assert!(check(&glob, "alice", Some("x")).is_err());
    assert!(check(&glob, "a*", Some("x")).is_ok());
}

#[test]
fn deny_wins_in_every_spelling() {
    for deny in [
        json!({"db_users": ["alice"]}),
        json!({"db_users": ["*"]}),
        json!({"db_users": ["al*"]}),
        json!({"db_users": ["^a.*$"]}),
        json!({"db_users": ["{{broken"]}),
        json!({"db_names": ["app"]}),
        json!({"db_names": ["{{internal.db_names}}"]}),
        json!({"db_labels": {"*": "*"}}),
        json!({"db_labels": {"env": "d*"}}),
        json!({"db_labels": {"x": "^($"}}),
        json!({"db_labels_expression": "labels.env == \"dev\""}),
        json!({"db_labels_expression": "what is this"}),
    ] {
        for order in [[everything(), json!({"deny": deny})], [json!({"deny": deny}), everything()]]
        {
            let result = check(&set(&order), "alice", Some("app"));
            assert!(
                result.as_ref().is_err_and(|text| text.starts_with("denied by r")),
                "{deny} {result:?}"
            );
        }
    }
    // A line break does not slip through a pattern.
    for deny in ["al*", "^al.*$", "*"] {
        let both = set(&[everything(), json!({"deny": {"db_users": [deny]}})]);
        assert!(check(&both, "al\nice", Some("app")).is_err(), "{deny}");
    }
    let other = json!({"deny": {"db_labels": {"env": "prod"}, "db_users": ["root"], "db_names": ["hr"], "node_labels": {"*": "*"}}});
    assert!(check(&set(&[everything(), other]), "alice", Some("app")).is_ok());
}

#[test]
fn expressions_on_labels() {
    let allow = |extra: Value| {
        let mut allow = json!({"db_users": ["*"], "db_names": ["*"], "db_labels_expression": "labels[\"env\"] == \"dev\""});
        allow.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        check(&set(&[json!({"allow": allow})]), "alice", Some("app"))
    };
    assert_eq!(allow(json!({})), Ok(vec!["r0: spec.allow.db_labels_expression".to_owned()]));
    assert!(allow(json!({"db_labels": {"env": "*"}})).is_ok());
    assert!(allow(json!({"db_labels": {"env": "prod"}})).is_err());
}

#[test]
fn a_demand_that_cannot_be_met_refuses() {
    let demand = json!({"options": {"require_session_mfa": true}});
    let both = set(&[everything(), demand]);
    let error = check(&both, "alice", Some("app")).unwrap_err();
    assert_eq!(error, "r1: spec.options.require_session_mfa cannot be met");
    assert!(!both.reaches_database(&dev()));
}

#[test]
fn what_listings_show() {
    let names = |allowed: &[&str], denied: &[&str]| Names {
        allowed: allowed.iter().map(ToString::to_string).collect(),
        denied: denied.iter().map(ToString::to_string).collect(),
    };
    let users = |specs: &[Value]| set(specs).database_users(&dev());
    let deny = |users: &[&str]| json!({"deny": {"db_users": users}});
    let some = json!({"allow": {"db_labels": {"*": "*"}, "db_users": ["b", "a", "{{internal.db_users}}"]}});
    assert_eq!(users(std::slice::from_ref(&some)), names(&["a", "b", "joe"], &[]));
    assert_eq!(users(&[some.clone(), deny(&["a"])]), names(&["b", "joe"], &[]));
    assert_eq!(users(&[everything(), some.clone(), deny(&["root"])]), names(&["*"], &["root"]));
    assert_eq!(users(&[some.clone(), deny(&["*"])]), names(&[], &[]));
    assert_eq!(
        users(&[some.clone(), json!({"deny": {"db_labels": {"env": "dev"}}})]),
        names(&[], &[])
    );
    assert!(set(std::slice::from_ref(&some)).reaches_database(&dev()));
    assert!(!set(&[some, deny(&["^.*$"])]).reaches_database(&dev()));
    let nobody = json!({"allow": {"db_labels": {"*": "*"}}});
    assert!(!set(&[nobody]).reaches_database(&dev()));
    assert_eq!(set(&[everything()]).database_names(&dev()), names(&["*"], &[]));
}

fn any_names() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("*"),
        Just("a"),
        Just("b*"),
        Just("^[ab]$"),
        Just("{{internal.db_users}}"),
        Just("^($")
    ];
    proptest::collection::vec(name, 0..3).prop_map(|names| json!(names))
}

proptest! {
    #[test]
    fn a_deny_never_gives_access_and_the_listing_tells_the_truth(
        allow in any_names(), deny in any_names(), user in "[ab]{1,2}", deny_first in any::<bool>()
    ) {
        let allow = json!({"allow": {"db_labels": {"*": "*"}, "db_users": allow, "db_names": ["*"]}});
        let deny = json!({"deny": {"db_users": deny}});
        let without = check(&set(std::slice::from_ref(&allow)), &user, Some("x")).is_ok();
        let both = if deny_first { set(&[deny, allow]) } else { set(&[allow, deny]) };
        let with = check(&both, &user, Some("x")).is_ok();
        prop_assert!(!with || without);
        let listed = both.database_users(&dev());
        let shown = listed.allowed.iter().any(|name| name == "*" || *name == user);
        prop_assert!(!with || shown);
        if !listed.allowed.contains(&"*".to_owned()) {
            prop_assert_eq!(with, shown);
        }
    }
}
