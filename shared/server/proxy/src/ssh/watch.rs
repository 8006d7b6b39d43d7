//! When a running access has to end.

use std::time::Duration;

use chrono::Utc;

use super::access;
use super::visit::Visit;

/// A clock that was set is noticed after this.
const LOOK: Duration = Duration::from_secs(30);

/// Pends until the access of a visit's user ends: the roles no longer allow it, or the certificate has run out where
/// that ends sessions. Says why.
pub(super) async fn ended(visit: &Visit, login: &str) -> String {
    let mut states = visit.proxy.authority.watch();
    loop {
        let state = states.borrow_and_update().clone();
        if !access::still_allowed(visit, &state, login) {
            return "access was revoked".to_owned();
        }
        let expires = access::ends_with_certificate(&state, &visit.identity)
            .then_some(visit.identity.valid_until);
        let left = match expires {
            Some(end) => match (end - Utc::now()).to_std() {
                Ok(left) if !left.is_zero() => left,
                _ => return "client certificate expired".to_owned(),
            },
            None => LOOK,
        };
        tokio::select! {
            changed = states.changed() => {
                if changed.is_err() {
                    // The service is stopping, and ends sessions itself.
                    std::future::pending::<()>().await;
                }
            }
            () = tokio::time::sleep(left.min(LOOK)) => {}
        }
    }
}
