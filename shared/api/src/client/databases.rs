//! Calls about databases.

use http::Method;
use serde_json::Value;

use super::calls::query;
use super::{Client, ClientError};
use crate::paths;
use crate::types::*;

impl Client {
    /// The databases that the caller may use.
    pub async fn databases(
        &self,
        request: &DatabasesQuery,
    ) -> Result<Vec<DatabaseEntry>, ClientError> {
        let path = format!("{}{}", paths::DATABASES, query(request));
        Ok(self.get::<DatabasesReply>(&path).await?.items)
    }

    /// Says what databases this host serves. Answers when to come again, and which proxies there are.
    pub async fn heartbeat_db(&self, served: &DbPresence) -> Result<DbPresenceReply, ClientError> {
        let wait = self.inner.timeouts.request;
        self.json(Method::PUT, paths::PRESENCE_DB, Some(served), wait).await
    }

    /// Says that this host serves no database any more.
    pub async fn withdraw_db(&self) -> Result<(), ClientError> {
        let wait = self.inner.timeouts.request;
        self.json::<Value>(Method::DELETE, paths::PRESENCE_DB, None::<&()>, wait).await.map(drop)
    }

    /// A certificate by which this agent meets a database as one of its users.
    pub async fn sign_database_client(
        &self,
        request: &DatabaseCertRequest,
    ) -> Result<DatabaseCertReply, ClientError> {
        self.post(paths::CERTS_DATABASE, request).await
    }

    /// A certificate for a database server.
    pub async fn sign_database_server(
        &self,
        request: &DatabaseServerCertRequest,
    ) -> Result<DatabaseServerCertReply, ClientError> {
        self.post(paths::CERTS_DATABASE_SERVER, request).await
    }
}
