//! Locks: who or what is stopped, until when, and why.

use super::ResourceKind;
use super::object::{Object, ResourceError, Spec};
use crate::{HostId, Login, NameError, RoleName, UserName, flex};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Longest message of a lock, in bytes.
const MAX_MESSAGE: usize = 1024;

/// A lock.
pub type Lock = Object<LockSpec>;

/// Whom or what a lock stops. Everything that is set must fit; kinds of targets this release has no notion of are
/// refused with the document, since such a lock would stop nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockTarget {
    /// A user of the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// Everybody who holds this role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<RoleName>,
    /// An OS login on targets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<Login>,
    /// A service that joined the cluster; `node` in old documents.
    #[serde(alias = "node", skip_serializing_if = "Option::is_none")]
    pub server_id: Option<HostId>,
}

/// Who does something, and what of it a lock may be about.
#[derive(Debug, Clone, Copy, Default)]
pub struct LockSubject<'a> {
    /// The user.
    pub user: Option<&'a UserName>,
    /// The user's roles.
    pub roles: &'a [RoleName],
    /// The OS login, once one is asked for.
    pub login: Option<&'a str>,
    /// The service that does it, or through which it is done.
    pub server: Option<HostId>,
}

impl LockTarget {
    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether everything that is set fits `subject`.
    pub fn matches(&self, subject: &LockSubject<'_>) -> bool {
        let fits = |wanted: Option<bool>| wanted.unwrap_or(true);
        !self.is_empty()
            && fits(self.user.as_ref().map(|user| subject.user == Some(user)))
            && fits(self.role.as_ref().map(|role| subject.roles.contains(role)))
            && fits(self.login.as_ref().map(|login| subject.login == Some(login.as_str())))
            && fits(self.server_id.map(|server| subject.server == Some(server)))
    }
}

impl std::fmt::Display for LockTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let server = self.server_id.map(|id| id.to_string());
        let set = [
            ("User", self.user.as_ref().map(UserName::as_str)),
            ("Role", self.role.as_ref().map(RoleName::as_str)),
            ("Login", self.login.as_ref().map(Login::as_str)),
            ("ServerID", server.as_deref()),
        ];
        let mut blank = "";
        for (name, value) in set.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            write!(f, "{blank}{name}:{value:?}")?;
            blank = " ";
        }
        Ok(())
    }
}

/// What a lock says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockSpec {
    /// Whom or what it stops.
    pub target: LockTarget,
    /// What those who are stopped read.
    #[serde(deserialize_with = "flex::null_default", skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When it ends; never where unset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<DateTime<Utc>>,
    /// When it was made; set by the auth service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<DateTime<Utc>>,
    /// Who made it; set by the auth service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
}

impl Lock {
    /// Whether it stops `subject` at `now`.
    pub fn stops(&self, subject: &LockSubject<'_>, now: DateTime<Utc>) -> bool {
        self.spec.expires.is_none_or(|end| end > now) && self.spec.target.matches(subject)
    }

    /// What those who are stopped read.
    pub fn text(&self) -> String {
        let LockSpec { target, message, .. } = &self.spec;
        match message.as_str() {
            "" => format!("lock targeting {target} is in force"),
            message => format!("lock targeting {target} is in force: {message}"),
        }
    }
}

impl Spec for LockSpec {
    const KIND: ResourceKind = ResourceKind::Lock;
    const VERSIONS: &'static [&'static str] = &["v2"];
    const DEFAULT_VERSION: &'static str = "v2";

    fn check_name(name: &str) -> Result<(), NameError> {
        crate::name::check_lock(name)
    }

    fn check(&self) -> Result<(), ResourceError> {
        let refuse = |field: &str, why: &str| {
            Err(ResourceError::Field { field: field.to_owned(), why: why.to_owned() })
        };
        if self.target.is_empty() {
            return refuse(
                "spec.target",
                "is empty, expected at least one of user, role, login, server_id",
            );
        }
        if self.message.len() > MAX_MESSAGE {
            return refuse("spec.message", "is longer than 1024 bytes");
        }
        // It is shown on terminals of others.
        if self.message.chars().any(char::is_control) {
            return refuse("spec.message", "has a control character");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;
    use serde_json::{Value, json};

    fn read(spec: Value) -> Result<Lock, ResourceError> {
        let document =
            json!({"kind": "lock", "version": "v2", "metadata": {"name": "l"}, "spec": spec});
        match Resource::from_json(document)? {
            Resource::Lock(lock) => Ok(lock),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_that_is_set_must_fit() {
        let (joe, ann) = (UserName::new("joe").unwrap(), UserName::new("ann").unwrap());
        let roles = [RoleName::new("dev").unwrap()];
        let server = HostId::random();
        let joe_as =
            |login| LockSubject { user: Some(&joe), roles: &roles, login, server: Some(server) };
        let cases = [
            (json!({"user": "joe"}), true),
            (json!({"user": "ann"}), false),
            (json!({"role": "dev"}), true),
            (json!({"role": "ops"}), false),
            (json!({"login": "root"}), true),
            (json!({"user": "joe", "login": "root"}), true),
            (json!({"user": "joe", "login": "admin"}), false),
            (json!({"user": "joe", "role": "ops"}), false),
            (json!({"server_id": server}), true),
            (json!({"node": server}), true),
            (json!({"server_id": HostId::random()}), false),
        ];
        for (target, stops) in cases {
            let lock = read(json!({"target": target})).unwrap();
            assert_eq!(lock.stops(&joe_as(Some("root")), Utc::now()), stops, "{target}");
        }
        let both = read(json!({"target": {"user": "joe", "login": "root"}})).unwrap();
        assert!(!both.stops(&joe_as(None), Utc::now()), "no login was asked for yet");
        let of_ann = LockSubject { user: Some(&ann), ..LockSubject::default() };
        assert!(!both.stops(&of_ann, Utc::now()));
        assert!(!LockTarget::default().matches(&joe_as(None)), "a lock on nothing stops nobody");
    }

    #[test]
    fn it_ends_when_it_says() {
        let now = Utc::now();
        let joe = UserName::new("joe").unwrap();
        let subject = LockSubject { user: Some(&joe), ..LockSubject::default() };
        let lock = read(json!({"target": {"user": "joe"}, "expires": now})).unwrap();
        assert!(lock.stops(&subject, now - chrono::TimeDelta::seconds(1)));
        assert!(!lock.stops(&subject, now));
    }

    #[test]
    fn texts() {
        let lock = read(json!({"target": {"user": "joe"}, "message": "left the company"})).unwrap();
        assert_eq!(lock.text(), "lock targeting User:\"joe\" is in force: left the company");
        let lock = read(json!({"target": {"role": "dev", "login": "root"}})).unwrap();
        assert_eq!(lock.text(), "lock targeting Role:\"dev\" Login:\"root\" is in force");
    }

    #[test]
    fn what_would_stop_nothing_or_harm_a_terminal_is_refused() {
        for (spec, expected) in [
            (json!({}), "spec.target: is empty"),
            (json!({"target": {}}), "spec.target: is empty"),
            (json!({"target": {"mfa_device": "x"}}), "unknown field `mfa_device`"),
            (json!({"target": {"user": "joe"}, "message": "a\u{1b}[2J"}), "control character"),
            (json!({"target": {"user": "joe"}, "message": "x".repeat(1025)}), "1024 bytes"),
            (json!({"target": {"server_id": "web-1"}}), "must be GUID"),
        ] {
            let error = read(spec).unwrap_err();
            let source = std::error::Error::source(&error).map(ToString::to_string);
            let shown = format!("{error}: {}", source.unwrap_or_default());
            assert!(shown.contains(expected), "{expected}: {shown}");
        }
    }
}
