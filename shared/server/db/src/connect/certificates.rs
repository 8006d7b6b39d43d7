//! Certificates of the database client authority: one for each user's certificate and database user, made when first
//! needed, and kept while it is good.
//!
//! What must stay true: a certificate is used for nobody but the holder of the user's certificate it was made for, and
//! no session is let in because one is kept: each is decided before.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use server_core::{Authority, ClusterState};
use shared_api::DatabaseCertRequest;
use shared_pki::TlsKey;
use shared_transport::tls;
use shared_types::Database;

use super::ConnectError;
use super::tls::DatabaseVerifier;
use crate::session::Session;

/// How many are kept.
const MOST: usize = 1024;
/// How long one has to be good still, to be used.
const MARGIN: TimeDelta = TimeDelta::seconds(30);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// The user's certificate.
    certificate: Bytes,
    service: String,
    user: String,
}

/// Where one is made, or kept; whoever needs it at the same time waits for the same.
type Place = Arc<tokio::sync::Mutex<Option<Arc<Shown>>>>;

/// The certificates of a service.
#[derive(Default)]
pub(crate) struct Certificates(Mutex<HashMap<Key, Place>>);

/// One of them, with its key.
pub(super) struct Shown {
    certificates: Vec<CertificateDer<'static>>,
    key: TlsKey,
    valid_until: DateTime<Utc>,
    /// The set-up it was last used in.
    config: Mutex<Option<SetUp>>,
}

/// A set-up, and what it was made for.
struct SetUp {
    database: Arc<Database>,
    state: Arc<ClusterState>,
    config: Arc<ClientConfig>,
}

impl Certificates {
    /// The certificate with which `session` meets its database as `user`.
    pub(super) async fn shown(
        &self,
        authority: &dyn Authority,
        session: &Session,
        user: &str,
    ) -> Result<Arc<Shown>, ConnectError> {
        let key = Key {
            certificate: session.certificate().clone(),
            service: session.database().name().to_owned(),
            user: user.to_owned(),
        };
        let place = self.place(key);
        let mut place = place.lock().await;
        let now = Utc::now();
        if let Some(shown) = place.as_ref().filter(|shown| shown.valid_until > now + MARGIN) {
            return Ok(Arc::clone(shown));
        }
        let shown = Arc::new(ask(authority, session, user).await?);
        *place = Some(Arc::clone(&shown));
        Ok(shown)
    }

    fn place(&self, key: Key) -> Place {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST && !all.contains_key(&key) {
            let now = Utc::now();
            // What is being made or used stays; a certificate that is dropped is made again.
            all.retain(|_, place| match place.try_lock() {
                Ok(shown) => shown.as_ref().is_some_and(|shown| shown.valid_until > now),
                Err(_) => true,
            });
            if all.len() >= MOST {
                all.retain(|_, place| Arc::strong_count(place) > 1);
            }
        }
        Arc::clone(all.entry(key).or_default())
    }
}

async fn ask(
    authority: &dyn Authority,
    session: &Session,
    user: &str,
) -> Result<Shown, ConnectError> {
    let key = TlsKey::generate().map_err(ConnectError::Key)?;
    let service = session.database().name();
    let request =
        DatabaseCertRequest::new(key.public().to_pem(), session.certificate(), service, user);
    let signed =
        authority.sign_database_client(request).await.map_err(ConnectError::Certificate)?;
    let certificates =
        tls::certs_from_pem(signed.certificate.as_bytes()).map_err(ConnectError::Tls)?;
    Ok(Shown { certificates, key, valid_until: signed.valid_until, config: Mutex::default() })
}

impl Shown {
    /// The set-up for one database as it is now.
    pub(super) fn config(
        &self,
        database: &Arc<Database>,
        state: &Arc<ClusterState>,
    ) -> Result<Arc<ClientConfig>, ConnectError> {
        let mut kept = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set_up) = kept.as_ref()
            && Arc::ptr_eq(&set_up.database, database)
            && (Arc::ptr_eq(&set_up.state, state) || set_up.state.authorities == state.authorities)
        {
            return Ok(Arc::clone(&set_up.config));
        }
        let verifier = Arc::new(DatabaseVerifier::new(database, state)?);
        let identity = (self.certificates.clone(), self.key.to_rustls());
        let config = tls::client_config(verifier, Some(identity)).map_err(ConnectError::Tls)?;
        let config = Arc::new(config);
        let (database, state) = (Arc::clone(database), Arc::clone(state));
        *kept = Some(SetUp { database, state, config: Arc::clone(&config) });
        Ok(config)
    }
}
