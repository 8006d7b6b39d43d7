//! Events about databases.

use shared_events::{
    AuditEvent, DatabaseCreate, DatabaseDelete, DatabaseMetadata, DatabaseUpdate, RouteToDatabase,
};
use shared_pki::DatabaseRoute;
use shared_types::Database;

use super::{about, by};
use crate::caller::Caller;

/// A database as events tell of it.
fn metadata(database: &Database) -> DatabaseMetadata {
    DatabaseMetadata {
        db_service: database.name().to_owned(),
        db_protocol: database.spec.protocol.to_string(),
        db_uri: database.spec.uri.clone(),
        db_labels: database.all_labels(),
        db_type: "self-hosted".to_owned(),
        db_origin: "dynamic".to_owned(),
        ..DatabaseMetadata::default()
    }
}

pub(super) fn written(database: &Database, created: bool, caller: &Caller) -> AuditEvent {
    let (user, resource) = (by(caller), about(database.name(), None, caller));
    let database = metadata(database);
    if created {
        DatabaseCreate { user, resource, database, ..DatabaseCreate::default() }.into()
    } else {
        DatabaseUpdate { user, resource, database, ..DatabaseUpdate::default() }.into()
    }
}

pub(super) fn deleted(database: &Database, caller: &Caller) -> AuditEvent {
    let (user, resource) = (by(caller), about(database.name(), None, caller));
    DatabaseDelete { user, resource, ..DatabaseDelete::default() }.into()
}

/// The database that a certificate is for.
pub(crate) fn route(route: &DatabaseRoute) -> RouteToDatabase {
    RouteToDatabase {
        service_name: route.service.clone(),
        protocol: route.protocol.clone(),
        username: route.user.clone(),
        database: route.name.clone(),
        ..RouteToDatabase::default()
    }
}
