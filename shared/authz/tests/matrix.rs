//! The presets' role × resource × action matrix, for review.
#![allow(clippy::unwrap_used)]

use shared_authz::{DbTarget, RoleSet, SshTarget, Verb, WhereCtx};
use shared_types::{DbProtocol, Labels, Login, Role, Traits, UserName};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Kinds that have no preset rule must show up as denied, too.
const OTHERS: [&str; 8] = [
    "access_request",
    "auth_server",
    "cert_authority",
    "download",
    "host_cert",
    "proxy",
    "ssh_session",
    "unheard_of",
];

fn line(set: &RoleSet, kind: &str, ctx: &WhereCtx<'_>) -> String {
    let allowed = Verb::ALL.iter().filter(|verb| set.check_rule(kind, **verb, ctx).is_allowed());
    allowed.map(|verb| verb.as_str()).collect::<Vec<_>>().join(" ")
}

fn matrix() -> String {
    let joe = UserName::new("joe").unwrap();
    let values = |values: &[&str]| values.iter().map(ToString::to_string).collect();
    let traits: Traits = [
        ("logins".to_owned(), values(&["joe", "root"])),
        ("db_users".to_owned(), values(&["joe"])),
        ("db_names".to_owned(), values(&["app"])),
    ]
    .into();
    let mut kinds: BTreeSet<String> = OTHERS.iter().map(|kind| (*kind).to_owned()).collect();
    for role in Role::presets() {
        kinds.extend(role.spec.allow.rules.iter().flat_map(|rule| rule.resources.clone()));
    }
    let mut sets: Vec<(String, RoleSet)> = Role::presets()
        .into_iter()
        .map(|role| (role.metadata.name.clone(), RoleSet::new(vec![role], &traits, &joe)))
        .collect();
    sets.insert(0, ("(no role)".to_owned(), RoleSet::new(vec![], &traits, &joe)));
    sets.push((
        "access+editor+auditor".to_owned(),
        RoleSet::new(Role::presets().to_vec(), &traits, &joe),
    ));

    let mut out = String::new();
    let (own, foreign) = (["joe".to_owned()], ["amy".to_owned()]);
    for (name, set) in &sets {
        writeln!(out, "{name}").unwrap();
        for kind in &kinds {
            let row = |out: &mut String, label: &str, ctx: &WhereCtx<'_>| {
                writeln!(
                    out,
                    "  {label:<28} {}",
                    match line(set, kind, ctx).as_str() {
                        "" => "-",
                        text => text,
                    }
                )
                .unwrap();
            };
            if kind == "session" {
                row(&mut out, "session (took part)", &WhereCtx::session(&own));
                row(&mut out, "session (did not)", &WhereCtx::session(&foreign));
                row(&mut out, "session (not known)", &WhereCtx::none());
            } else {
                row(&mut out, kind, &WhereCtx::none());
            }
        }
        for login in ["joe", "root", "admin"] {
            for (host, address) in
                [("db-7", "10.0.0.7"), ("localhost", "127.0.0.1"), ("metadata", "169.254.169.254")]
            {
                let target = SshTarget::unregistered(host, address.parse().unwrap(), 22);
                let text = match set.check_ssh(&Login::new(login).unwrap(), &target).into_result() {
                    Ok(rules) => format!(
                        "allowed by {}",
                        rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                    ),
                    Err(reason) => format!("{reason}"),
                };
                writeln!(out, "  ssh {:<24} {text}", format!("{login}@{host}")).unwrap();
            }
        }
        for (user, name) in [("joe", "app"), ("root", "app"), ("joe", "hr")] {
            let labels = Labels::new();
            let protocol = DbProtocol::Postgres;
            let target =
                DbTarget { service: "pg", labels: &labels, protocol, user, name: Some(name) };
            let text = match set.check_database(&target).into_result() {
                Ok(rules) => format!(
                    "allowed by {}",
                    rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                ),
                Err(reason) => format!("{reason}"),
            };
            writeln!(out, "  db  {:<24} {text}", format!("{user}@pg/{name}")).unwrap();
        }
        writeln!(out).unwrap();
    }
    out
}

#[test]
fn presets() {
    insta::assert_snapshot!("presets", matrix());
}

#[test]
fn deny_wins_over_every_preset() {
    let joe = UserName::new("joe").unwrap();
    let mut deny = Role::new("deny", Default::default());
    let everything = shared_types::resource::Rule {
        resources: vec!["*".into()],
        verbs: vec!["*".into()],
        ..Default::default()
    };
    deny.spec.deny.rules.push(everything);
    let mut roles = Role::presets().to_vec();
    roles.push(deny);
    let set = RoleSet::new(roles, &Traits::new(), &joe);
    let own = ["joe".to_owned()];
    for kind in ["role", "user", "session", "audit_query", "event"] {
        for verb in Verb::ALL {
            let decision = set.check_rule(kind, verb, &WhereCtx::session(&own));
            assert_eq!(
                decision.into_result().unwrap_err().to_string(),
                "denied by deny: spec.deny.rules[0]"
            );
        }
        assert!(!set.may_some(kind, Verb::List));
    }
}
