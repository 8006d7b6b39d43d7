use super::*;
use proptest::prelude::*;
use shared_types::resource::NodeSpec;
use shared_types::{Labels, Node, Traits};

fn holds(text: &str, participants: Option<&[String]>) -> Result<bool, Unknown> {
    let condition: Condition = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    let ctx = WhereCtx { participants, ..WhereCtx::default() };
    let traits: Traits = [("team".to_owned(), vec!["db".to_owned(), "web".to_owned()])].into();
    let labels: Labels = [("env".to_owned(), "dev".to_owned())].into();
    let roles = ["access".to_owned()];
    condition.holds(&Subject {
        user: "joe",
        roles: &roles,
        traits: &traits,
        ctx: &ctx,
        labels: Some(&labels),
        queried: None,
    })
}

#[test]
fn answers() {
    let joe = ["joe".to_owned(), "amy".to_owned()];
    for (text, expected) in [
        ("contains(session.participants, user.metadata.name)", true),
        ("contains(session.participants, \"bob\")", false),
        ("!contains(session.participants, \"bob\")", true),
        ("equals(user.metadata.name, \"joe\")", true),
        ("equals(user.metadata.name, `amy`)", false),
        (
            "contains(user.spec.roles, \"access\") && contains(user.spec.traits[\"team\"], \"db\")",
            true,
        ),
        ("contains(user.spec.traits.team, \"x\") || user.metadata.name == \"joe\"", true),
        ("user.metadata.name != \"joe\"", false),
        ("!(user.metadata.name == \"joe\" && labels.env == \"prod\")", true),
        ("labels[\"env\"] == \"dev\"", true),
        ("labels.missing == \"\"", true),
        ("contains_any(user.spec.traits[\"team\"], set(\"x\", \"web\"))", true),
        ("contains_all(user.spec.traits[\"team\"], set(\"web\", \"db\"))", true),
        ("contains_all(user.spec.traits[\"team\"], set())", false),
        ("equals(user.spec.traits[\"team\"], set(\"db\", \"web\"))", true),
        // && binds tighter than ||.
        (
            "user.metadata.name == \"joe\" || user.metadata.name == \"joe\" && user.metadata.name == \"x\"",
            true,
        ),
    ] {
        assert_eq!(holds(text, Some(&joe)), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_not_known_has_no_answer() {
    assert_eq!(holds("contains(session.participants, user.metadata.name)", None), Err(Unknown));
    assert_eq!(holds("!contains(session.participants, user.metadata.name)", None), Err(Unknown));
    assert_eq!(holds("resource.metadata.labels[\"x\"] == \"\"", None), Err(Unknown));
    assert_eq!(holds("contains(session_tracker.participants, \"joe\")", None), Err(Unknown));
}

#[test]
fn refusals_have_a_place() {
    for (text, expected) in [
        ("", "column 1: expected a name"),
        ("user.metadata.nam == \"x\"", "column 1: unknown identifier \"user.metadata.nam\""),
        (
            "contains(session.participant, \"x\")",
            "column 10: unknown identifier \"session.participant\"",
        ),
        ("exec(\"id\")", "column 1: unknown function \"exec\""),
        ("contains(user.metadata.name, \"x\")", "column 1: contains takes a list and a text"),
        ("user.spec.roles == \"access\"", "a text and a list are never equal"),
        ("user.metadata.name", "column 19: expected \"==\" or \"!=\""),
        ("user.metadata.name == \"x", "column 23: unclosed quote"),
        ("equals(user.metadata.name, \"x\"))", "column 32: unexpected \")\""),
        ("equals(user.metadata.name \"x\")", "column 27: expected \",\""),
        ("a = b", "column 3: unexpected '='"),
        ("user.metadata.name == \"a\" &&", "column 29: expected a name"),
        (
            "contains(user.spec.roles, \"a\") contains(user.spec.roles, \"a\")",
            "column 32: unexpected \"contains\"",
        ),
    ] {
        let error = text.parse::<Condition>().unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
    assert!("(".repeat(5000).parse::<Condition>().is_err());
    assert!("!".repeat(4000).parse::<Condition>().is_err());
}

#[test]
fn queries_over_nodes() {
    let spec = NodeSpec { hostname: "db-1".to_owned(), ..NodeSpec::default() };
    let mut node = Node::new("5f2d4c1e-7f0a-4a8e-9a53-2f1d9d0c7a11", spec);
    node.metadata.labels = [("env".to_owned(), "prod".to_owned())].into();
    let labels = node.all_labels();
    let asks = |text: &str| text.parse::<Query>().unwrap().matches(&node, &labels);
    for text in [
        r#"labels["env"] == "prod""#,
        r#"labels.env == "prod" && name == "db-1""#,
        r#"hasPrefix(name, "db-") && exists(labels["env"])"#,
        r#"search("PROD", "db")"#,
        r#"resource.metadata.labels["env"] != "dev" && equals(resource.spec.hostname, "db-1")"#,
        r#"!search("web") || name == "x""#,
    ] {
        assert!(asks(text), "{text}");
    }
    for text in [r#"labels["env"] == "dev""#, r#"exists(labels["team"])"#, r#"search("db", "web")"#]
    {
        assert!(!asks(text), "{text}");
    }
    for text in ["name", r#"exists(name)"#, r#"hasPrefix(name)"#, r#"shoot("x")"#] {
        assert!(text.parse::<Query>().is_err(), "{text}");
    }
    // What is for queries stays out of roles.
    for text in [r#"name == "db-1""#, r#"search("db")"#, r#"exists(labels["env"])"#] {
        assert!(text.parse::<Condition>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in "[a-z.\\[\\]\"()!&|=, \\\\`ä]{0,60}") {
        let _ = text.parse::<Query>();
        if let Ok(condition) = text.parse::<Condition>() {
            let subject = Subject { user: "u", roles: &[], traits: &Traits::new(), ctx: &WhereCtx::default(), labels: None, queried: None };
            let _ = condition.holds(&subject);
        }
    }
}
