use shared_events::{AuthAttempt, SessionConnect};

use super::*;
use crate::testing::{FakeAuthority, identity, state};

fn request<'a>(
    who: &'a Identity,
    login: &'a Login,
    host: &'a HostName,
    labels: &'a Labels,
) -> SshRequest<'a> {
    SshRequest {
        identity: who,
        login,
        host,
        reach: Reach::Addr("192.0.2.7:22".parse().unwrap()),
        labels,
        protected: false,
        via: Via { server: HostId::random(), confirmed: Utc::now() },
    }
}

fn refused(why: &str) -> AuditEvent {
    let mut event = AuthAttempt::default();
    event.status.error = why.to_owned();
    event.into()
}

#[tokio::test]
async fn granted_only_after_the_event_is_durable() {
    let (state, who, labels) = (state(), identity(), Labels::new());
    let (login, host) = ("root".parse().unwrap(), "db-7".parse().unwrap());
    let asked = request(&who, &login, &host, &labels);
    let sink = FakeAuthority::new();
    let granted = authorize_ssh(&state, &sink, asked, SessionConnect::default().into(), refused)
        .await
        .unwrap();
    assert_eq!(sink.kinds(), ["session.connect"]);
    assert!(!granted.rules().is_empty());
    assert_eq!(granted.redeem().reach, asked.reach);

    sink.set_away(true);
    let err = authorize_ssh(&state, &sink, asked, SessionConnect::default().into(), refused)
        .await
        .unwrap_err();
    assert!(matches!(err, AccessRefused::NotDurable(_)), "{err}");
}

#[tokio::test]
async fn refusals_are_written_down_and_say_nothing_to_the_peer() {
    let (state, labels) = (state(), Labels::new());
    let host = "db-7".parse().unwrap();
    let (root, nobody): (Login, Login) = ("root".parse().unwrap(), "nobody".parse().unwrap());
    let good = identity();
    let mut cases = vec![(good.clone(), &nobody, "no role allows the login nobody there")];
    cases.push((
        Identity { valid_until: Utc::now(), ..good.clone() },
        &root,
        "certificate has expired",
    ));
    cases.push((
        Identity { roles: vec!["gone".parse().unwrap()], ..good.clone() },
        &root,
        "role gone does not exist",
    ));
    cases.push((
        Identity { system_role: Some(shared_types::SystemRole::Proxy), ..good.clone() },
        &root,
        "certificate is a service's, not a user's",
    ));
    cases.push((
        Identity { cluster: "other".parse().unwrap(), ..good },
        &root,
        "certificate is of another cluster",
    ));
    for (who, login, why) in cases {
        let sink = FakeAuthority::new();
        let asked = request(&who, login, &host, &labels);
        let err = authorize_ssh(&state, &sink, asked, SessionConnect::default().into(), refused)
            .await
            .unwrap_err();
        assert_eq!(err.to_string(), why);
        assert!(["access denied", "certificate has expired"].contains(&err.peer_text().as_ref()));
        let told = sink.events();
        assert!(
            matches!(told.as_slice(), [AuditEvent::AuthAttempt(event)] if event.status.error == why),
            "{why}"
        );
    }
}

#[test]
fn accounts_and_locks_stop_whatever_the_roles_say() {
    let (who, labels, host) = (identity(), Labels::new(), "db-7".parse().unwrap());
    let login: Login = "root".parse().unwrap();
    let asked = request(&who, &login, &host, &labels);
    let told = |change: &dyn Fn(&mut ClusterState)| {
        let mut state = state();
        change(&mut state);
        check_ssh(&state, &asked)
            .map(drop)
            .map_err(|err| (err.to_string(), err.peer_text().into_owned()))
    };
    let lock = |target: serde_json::Value, expires: Option<chrono::DateTime<Utc>>| {
        let spec = serde_json::json!({"target": target, "message": "gone", "expires": expires});
        let lock = shared_types::resource::Lock::new("l", serde_json::from_value(spec).unwrap());
        told(&|state| state.locks.push(lock.clone()))
    };
    assert_eq!(told(&|_| {}), Ok(()));
    let closed = "the account is locked or does not exist any more".to_owned();
    let no_account = Err((closed.clone(), closed));
    assert_eq!(told(&|state| state.users.clear()), no_account);
    let of_joe = |state: &mut ClusterState, change: fn(&mut shared_api::Account)| {
        change(state.users.get_mut(&who.user).unwrap());
    };
    assert_eq!(told(&|state| of_joe(state, |joe| joe.locked = true)), no_account);
    assert_eq!(told(&|state| of_joe(state, |joe| joe.expires = Some(Utc::now()))), no_account);
    // A role that was taken away does not count, though the certificate still names it.
    let lost = told(&|state| of_joe(state, |joe| joe.roles.clear()));
    assert_eq!(lost.unwrap_err().0, "no role admits the host");

    for (target, shown) in [
        (serde_json::json!({"user": "joe"}), "User:\"joe\"".to_owned()),
        (serde_json::json!({"role": "access"}), "Role:\"access\"".to_owned()),
        (serde_json::json!({"login": "root"}), "Login:\"root\"".to_owned()),
        (
            serde_json::json!({"server_id": asked.via.server}),
            format!("ServerID:\"{}\"", asked.via.server),
        ),
    ] {
        let text = format!("lock targeting {shown} is in force: gone");
        assert_eq!(lock(target.clone(), None), Err((text.clone(), text)));
        assert_eq!(lock(target, Some(Utc::now())), Ok(()), "its time is over");
    }
    assert_eq!(lock(serde_json::json!({"user": "ann"}), None), Ok(()));
    assert_eq!(lock(serde_json::json!({"login": "admin"}), None), Ok(()));
}

#[test]
fn strict_locks_take_a_fresh_view() {
    let (who, fresh) = (identity(), HostId::random());
    let check = |state: &ClusterState, minutes| {
        let confirmed = Utc::now() - TimeDelta::minutes(minutes);
        check_user(state, &who, None, Via { server: fresh, confirmed }).is_ok()
    };
    let mut state = state();
    assert!(check(&state, 60), "best effort is the default");
    state.auth_preference.spec.locking_mode = Strictness::Strict;
    assert!(check(&state, 4) && !check(&state, 6));
    let role = state.roles.get_mut("access").unwrap();
    role.spec.options.lock = Some(Strictness::BestEffort);
    assert!(check(&state, 60), "the role says otherwise");
    state.auth_preference.spec.locking_mode = Strictness::BestEffort;
    let role = state.roles.get_mut("access").unwrap();
    role.spec.options.lock = Some(Strictness::Strict);
    assert!(!check(&state, 6));
}
