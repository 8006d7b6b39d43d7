//! The databases that this agent serves: those of its configuration file, and those of the cluster's whose labels it
//! was told to serve, as they are now.
//!
//! What must stay true: a name stands for one database, and the file's wins; commands that give labels are run for the
//! file's databases only, so that nobody who may write resources of a cluster runs programs on its agents.

use std::collections::BTreeMap;
use std::sync::Arc;

use server_core::ClusterState;
use server_core::labels::HostLabels;
use shared_authz::{LabelMatcher, PatternError};
use shared_types::resource::{DbHealth, LabelMap};
use shared_types::{Database, Traits};
use tokio::sync::watch;

/// The label that says where a resource comes from.
pub(crate) const ORIGIN: &str = "teleport.dev/origin";
/// Most databases of one agent.
const MOST: usize = shared_api::limits::MAX_DATABASES;

/// A database that is served.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// The database; labels that commands give have their results.
    pub database: Arc<Database>,
    /// Whether it answers.
    pub health: DbHealth,
}

/// What is served, by name.
pub type Listing = BTreeMap<String, Listed>;

/// A database of the configuration file.
struct Written {
    database: Database,
    labels: HostLabels,
}

/// What this agent serves.
pub(crate) struct Catalog {
    written: Vec<Written>,
    matchers: Vec<LabelMatcher>,
    listing: watch::Sender<Arc<Listing>>,
}

impl Catalog {
    /// The databases of the file, and which others are chosen. Needs a runtime, for the commands of labels.
    pub(crate) fn new(
        databases: Vec<Database>,
        resources: &[LabelMap],
    ) -> Result<Self, PatternError> {
        let chosen = |labels| LabelMatcher::allowing(labels, &Traits::new());
        let matchers = resources.iter().map(chosen).collect::<Result<_, _>>()?;
        let written = databases
            .into_iter()
            .map(|mut database| {
                let fixed = database.metadata.labels.clone();
                let labels = HostLabels::start(fixed, database.spec.dynamic_labels.clone());
                database.metadata.labels.insert(ORIGIN.to_owned(), "config-file".to_owned());
                Written { database, labels }
            })
            .collect();
        Ok(Self { written, matchers, listing: watch::Sender::default() })
    }

    /// Tells of every change.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Listing>> {
        self.listing.subscribe()
    }

    /// The database of a name.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Database>> {
        self.listing.borrow().get(name).map(|listed| Arc::clone(&listed.database))
    }

    /// What a database is now, as long as it is still the same one at the same place; its labels may have changed.
    pub(crate) fn same(&self, before: &Arc<Database>) -> Option<Arc<Database>> {
        let now = self.get(before.name())?;
        let place = |database: &Database| {
            let spec = &database.spec;
            (spec.protocol, spec.uri.clone(), spec.tls.clone(), spec.ca_cert.clone())
        };
        (Arc::ptr_eq(&now, before) || place(&now) == place(before)).then_some(now)
    }

    /// Makes the listing anew. What did not change keeps its place in memory.
    pub(crate) fn refresh(&self, state: &ClusterState) {
        let before = Arc::clone(&self.listing.borrow());
        let mut now = Listing::new();
        let mut add = |database: Database| {
            if now.contains_key(database.name()) {
                return;
            }
            if now.len() >= MOST {
                tracing::warn!(database = database.name(), "is not served: {MOST} are already");
                return;
            }
            let name = database.name().to_owned();
            let listed = match before.get(&name) {
                Some(listed) if *listed.database == database => listed.clone(),
                _ => Listed { database: Arc::new(database), health: DbHealth::default() },
            };
            now.insert(name, listed);
        };
        self.written.iter().for_each(|written| add(written.current()));
        let chosen = |database: &&Database| {
            let labels = database.all_labels();
            self.matchers.iter().any(|matcher| matcher.matches(&labels))
        };
        state.databases.iter().filter(chosen).cloned().for_each(|mut database| {
            let labels = &mut database.metadata.labels;
            labels.entry(ORIGIN.to_owned()).or_insert_with(|| "dynamic".to_owned());
            add(database);
        });
        self.listing.send_if_modified(|listing| {
            let changed = **listing != now;
            if changed {
                *listing = Arc::new(now);
            }
            changed
        });
    }

    /// Notes how the databases are.
    pub(crate) fn note(&self, health: impl Fn(&Arc<Database>) -> Option<DbHealth>) {
        self.listing.send_if_modified(|listing| {
            let mut now = Listing::clone(listing);
            for listed in now.values_mut() {
                listed.health = health(&listed.database).unwrap_or_else(|| listed.health.clone());
            }
            let changed = **listing != now;
            if changed {
                *listing = Arc::new(now);
            }
            changed
        });
    }

    /// Pends until a command gave another value for a label.
    pub(crate) async fn relabelled(&self, seen: &mut [LabelWatch]) {
        let changes = seen.iter_mut().map(|labels| Box::pin(labels.changed()));
        let changes: Vec<_> = changes.collect();
        if changes.is_empty() {
            return std::future::pending().await;
        }
        let (_, _, _) = futures::future::select_all(changes).await;
    }

    /// What [`Catalog::relabelled`] has seen.
    pub(crate) fn labels(&self) -> Vec<LabelWatch> {
        let with_commands =
            self.written.iter().filter(|written| !written.database.spec.dynamic_labels.is_empty());
        with_commands.map(|written| LabelWatch(written.labels.watch())).collect()
    }
}

/// The values of one database's labels.
pub(crate) struct LabelWatch(
    watch::Receiver<Arc<BTreeMap<String, shared_types::resource::CommandLabel>>>,
);

impl LabelWatch {
    async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Written {
    fn current(&self) -> Database {
        let mut database = self.database.clone();
        database.spec.dynamic_labels = self.labels.commands().as_ref().clone();
        database
    }
}

#[cfg(test)]
mod tests {
    use shared_types::resource::{DatabaseSpec, DbProtocol};

    use super::*;

    fn database(name: &str, uri: &str, env: &str) -> Database {
        let mut database = Database::new(name, DatabaseSpec::new(DbProtocol::Postgres, uri));
        database.metadata.labels.insert("env".to_owned(), env.to_owned());
        database
    }

    fn state(databases: Vec<Database>) -> ClusterState {
        ClusterState {
            revision: 1,
            cluster: "main".parse().unwrap(),
            authorities: Vec::new(),
            roles: BTreeMap::new(),
            users: BTreeMap::new(),
            locks: Vec::new(),
            recording: Default::default(),
            networking: Default::default(),
            auth_preference: Default::default(),
            databases,
        }
    }

    fn resources(env: &str) -> LabelMap {
        let values = shared_types::flex::Values(vec![env.to_owned()]);
        LabelMap::from([("env".to_owned(), values)])
    }

    #[tokio::test]
    async fn the_file_wins_and_labels_choose_among_the_others() {
        let written = vec![database("orders", "file:1", "prod")];
        let catalog = Catalog::new(written, &[resources("dev")]).unwrap();
        let resources = vec![
            database("orders", "resource:1", "dev"),
            database("shop", "shop:1", "dev"),
            database("hr", "hr:1", "prod"),
        ];
        catalog.refresh(&state(resources));
        let served = catalog.watch().borrow().clone();
        assert_eq!(served.keys().collect::<Vec<_>>(), ["orders", "shop"]);
        assert_eq!(served["orders"].database.spec.uri, "file:1");
        let origin = |name: &str| served[name].database.metadata.labels[ORIGIN].clone();
        assert_eq!(
            (origin("orders").as_str(), origin("shop").as_str()),
            ("config-file", "dynamic")
        );
    }

    #[tokio::test]
    async fn changes_are_told_once_and_what_stays_keeps_its_place_and_its_health() {
        let catalog = Catalog::new(Vec::new(), &[resources("dev"), resources("test")]).unwrap();
        let (shop, hr) = (database("shop", "shop:1", "dev"), database("hr", "hr:1", "dev"));
        catalog.refresh(&state(vec![shop.clone(), hr.clone()]));
        let sick = DbHealth { message: "no".to_owned(), ..DbHealth::default() };
        catalog.note(|database| (database.name() == "shop").then(|| sick.clone()));
        let mut listing = catalog.watch();
        let before = listing.borrow_and_update().clone();
        catalog.refresh(&state(vec![shop.clone(), hr.clone()]));
        assert!(!listing.has_changed().unwrap());
        let moved = database("hr", "other:1", "dev");
        catalog.refresh(&state(vec![shop.clone(), moved]));
        let after = listing.borrow_and_update().clone();
        assert!(Arc::ptr_eq(&before["shop"].database, &after["shop"].database));
        assert_eq!(after["shop"].health, sick);
        assert!(catalog.same(&before["hr"].database).is_none(), "it is elsewhere now");
        // Other labels: still the same database, to be judged by the new ones.
        catalog.refresh(&state(vec![database("shop", "shop:1", "test")]));
        let same = catalog.same(&before["shop"].database).unwrap();
        assert_eq!(same.metadata.labels["env"], "test");
        catalog.refresh(&state(Vec::new()));
        assert!(catalog.same(&same).is_none() && catalog.get("shop").is_none());
    }

    #[tokio::test]
    async fn commands_of_resources_are_not_run() {
        let label = shared_types::resource::CommandLabel {
            command: vec!["/bin/echo".to_owned(), "yes".to_owned()],
            period: shared_types::GoDuration::from_secs(1),
            result: String::new(),
        };
        let mut written = database("orders", "file:1", "dev");
        written.spec.dynamic_labels.insert("ran".to_owned(), label.clone());
        let mut resource = database("shop", "shop:1", "dev");
        resource.spec.dynamic_labels.insert("ran".to_owned(), label);
        let catalog = Catalog::new(vec![written], &[resources("dev")]).unwrap();
        let mut seen = catalog.labels();
        let state = state(vec![resource]);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            catalog.refresh(&state);
            if catalog.get("orders").unwrap().all_labels()["ran"] == "yes" {
                break;
            }
            assert!(std::time::Instant::now() < deadline);
            let change = catalog.relabelled(&mut seen);
            let _ = tokio::time::timeout(std::time::Duration::from_secs(1), change).await;
        }
        assert_eq!(catalog.get("shop").unwrap().all_labels()["ran"], "");
    }
}
