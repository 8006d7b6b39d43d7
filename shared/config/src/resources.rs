//! Resource documents, as `tctl create` reads them: several to a file, separated by `---`.

use crate::ConfigError;
use crate::places::{Kind, Places, is_blank};
use crate::yaml::{self, Fault};
use shared_types::resource::{Object, Spec};
use shared_types::{Resource, ResourceKind};

/// Reads every resource of a text; `name` is how messages call it.
pub fn read_resources(text: &str, name: &str) -> Result<Vec<Resource>, ConfigError> {
    documents(text)
        .iter()
        .filter(|document| !is_blank(document))
        .map(|document| read(document).map_err(|fault| located(fault, name)))
        .collect()
}

/// The documents of a text, each behind as many empty lines as stand before it, so that places are right.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (number, line) in text.lines().enumerate() {
        // Three dashes in the first column always separate documents, even inside a block of text.
        let rest = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        if rest.is_some() || line.trim_end() == "..." {
            documents.push("\n".repeat(number));
        }
        let Some(document) = documents.last_mut() else { continue };
        match rest {
            Some(rest) => document.extend(["   ", rest, "\n"]),
            None if line.trim_end() == "..." => document.push('\n'),
            None => document.extend([line, "\n"]),
        }
    }
    documents
}

fn located(fault: Fault, name: &str) -> ConfigError {
    ConfigError::Document {
        name: name.to_owned(),
        line: fault.line,
        column: fault.column,
        message: fault.message,
    }
}

fn read(document: &str) -> Result<Resource, Fault> {
    fn typed<S: Spec>(document: &str) -> Result<Object<S>, Fault> {
        yaml::read(document)
    }
    let at = |path: &str, message: String| Fault::new(Places::of(document).find(path), message);
    let Kind(kind) = yaml::read(document)?;
    let Some(kind) = kind else {
        let kinds = ResourceKind::ALL.map(ResourceKind::as_str).join(", ");
        return Err(at("", format!("kind is missing, expected one of {kinds}")));
    };
    let kind: ResourceKind = kind.parse().map_err(|error| at("kind", format!("kind: {error}")))?;
    Ok(match kind {
        ResourceKind::Role => Resource::Role(typed(document)?),
        ResourceKind::User => Resource::User(typed(document)?),
        ResourceKind::Token => Resource::Token(typed(document)?),
        ResourceKind::Lock => Resource::Lock(typed(document)?),
        ResourceKind::Proxy => Resource::Proxy(typed(document)?),
        ResourceKind::Node => Resource::Node(typed(document)?),
        ResourceKind::Db => Resource::Db(typed(document)?),
        ResourceKind::DbServer => Resource::DbServer(typed(document)?),
        ResourceKind::SessionRecordingConfig => Resource::SessionRecordingConfig(typed(document)?),
        ResourceKind::ClusterAuthPreference => Resource::ClusterAuthPreference(typed(document)?),
        ResourceKind::ClusterNetworkingConfig => {
            Resource::ClusterNetworkingConfig(typed(document)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_documents() {
        let text = "# roles\n---\nkind: role\nversion: v7\nmetadata: {name: a}\nspec:\n  options:\n    forward_agent: yes\n---\n\
                    kind: session_recording_config\nversion: v2\nspec:\n  mode: off\n  proxy_checks_host_keys: no\n---\n";
        let found = read_resources(text, "r.yaml").unwrap();
        let names: Vec<&str> = found.iter().map(Resource::name).collect();
        assert_eq!(names, ["a", "session-recording-config"]);
        assert!(read_resources("", "r.yaml").unwrap().is_empty());
    }

    #[test]
    fn json_is_yaml() {
        let text = r#"{"kind": "user", "version": "v2", "metadata": {"name": "joe"}, "spec": {"roles": ["access"]}}"#;
        assert_eq!(read_resources(text, "u.json").unwrap().len(), 1);
    }

    #[test]
    fn faults_have_a_place_in_the_whole_file() {
        let first = "kind: role\nmetadata:\n  name: a\nspec: {}\n---\n";
        for (text, expected) in [
            (
                "kind: role\nmetadata:\n  name: b\nspec:\n  alow: {}\n",
                "r.yaml:10:3: spec.alow: unknown key \"alow\", did you mean \"allow\"?",
            ),
            ("kind: rol\n", "r.yaml:6:7: kind: unsupported resource: \"rol\""),
            ("metadata: {}\n", "r.yaml:6:1: kind is missing, expected one of role, user"),
            (
                "kind: role\nmetadata:\n  name: b\nspec:\n  allow:\n    rules:\n    - resources: [role]\n      verbs: [raed]\n",
                "r.yaml:13:14: spec.allow.rules[0].verbs: unknown verb \"raed\", expected one of",
            ),
            (
                "kind: user\nmetadata:\n  name: 'a b'\nspec: {}\n",
                "metadata.name of user: user name may not contain ' '",
            ),
            (
                "kind: role\nmetadata:\n  name: b\nspec:\n  options:\n    max_session_ttl: long\n",
                "r.yaml:11:22: spec.options.max_session_ttl: \"long\" is not a duration, expected a form like 12h",
            ),
            ("kind: role\n  spec: [\n", "r.yaml:7:"),
            ("just text\n", "r.yaml:6:1: found string \"just text\", expected a resource"),
        ] {
            let shown =
                read_resources(&format!("{first}{text}"), "r.yaml").unwrap_err().to_string();
            assert!(shown.contains(expected), "{expected}\n{shown}");
        }
    }
}
