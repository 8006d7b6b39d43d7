//! Databases in a profile: `keys/P/U-db/K/DB.crt` and `.key` for each that the user is logged in to.

use std::io::ErrorKind;
use std::path::PathBuf;

use crate::profile::{Profile, ProfileDir, ProfileError, remove_file};

/// Longest name that is also a file's name with an ending behind it.
const LONGEST_NAME: usize = 240;

impl ProfileDir {
    fn databases_folder(&self, profile: &Profile) -> PathBuf {
        self.keys(profile).join(format!("{}-db", profile.user)).join(profile.cluster.as_ref())
    }

    /// A database's name comes from outside and becomes a file's name.
    fn database_path(
        &self,
        profile: &Profile,
        database: &str,
        ending: &str,
    ) -> Result<PathBuf, ProfileError> {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '@' | ' ');
        let fit = !database.is_empty()
            && database.len() <= LONGEST_NAME
            && !database.starts_with(['.', '-', ' '])
            && database.chars().all(plain);
        if !fit {
            return Err(ProfileError::Name(database.chars().take(64).collect()));
        }
        Ok(self.databases_folder(profile).join(format!("{database}.{ending}")))
    }

    /// The certificate for a database.
    pub fn database_cert_path(
        &self,
        profile: &Profile,
        database: &str,
    ) -> Result<PathBuf, ProfileError> {
        self.database_path(profile, database, "crt")
    }

    /// Its private key.
    pub fn database_key_path(
        &self,
        profile: &Profile,
        database: &str,
    ) -> Result<PathBuf, ProfileError> {
        self.database_path(profile, database, "key")
    }

    /// Names of databases kept for completion.
    pub fn database_names_path(&self, profile: &Profile) -> PathBuf {
        self.keys(profile).join(format!("{}-databases", profile.user))
    }

    /// The databases with a certificate here, by name, whether or not it has ended.
    pub fn databases(&self, profile: &Profile) -> Result<Vec<String>, ProfileError> {
        let folder = self.databases_folder(profile);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(ProfileError::Io { step: "list", path: folder, source }),
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".crt").map(str::to_owned))
            .filter(|name| self.database_cert_path(profile, name).is_ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Removes a database's key and certificate; answers whether there were any.
    pub fn remove_database(&self, profile: &Profile, database: &str) -> Result<bool, ProfileError> {
        let cert = remove_file(self.database_cert_path(profile, database)?)?;
        let key = remove_file(self.database_key_path(profile, database)?)?;
        // Empty folders go too.
        let folder = self.databases_folder(profile);
        if std::fs::remove_dir(&folder).is_ok()
            && let Some(parent) = folder.parent()
        {
            std::fs::remove_dir(parent).ok();
        }
        Ok(cert || key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile::new(
            "p:3080".into(),
            "p:3023".into(),
            "joe".parse().unwrap(),
            "example.test".parse().unwrap(),
            true,
        )
    }

    #[test]
    fn databases_are_listed_and_leave_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ProfileDir::at(folder.path());
        let profile = profile();
        assert!(dir.databases(&profile).unwrap().is_empty());
        for name in ["web-pg", "audit"] {
            dir.write_secret(&dir.database_cert_path(&profile, name).unwrap(), b"c").unwrap();
            dir.write_secret(&dir.database_key_path(&profile, name).unwrap(), b"k").unwrap();
        }
        assert!(folder.path().join("keys/p/joe-db/example.test/web-pg.key").exists());
        assert_eq!(dir.databases(&profile).unwrap(), ["audit", "web-pg"]);
        assert!(dir.remove_database(&profile, "audit").unwrap());
        assert!(!dir.remove_database(&profile, "audit").unwrap());
        assert_eq!(dir.databases(&profile).unwrap(), ["web-pg"]);
        dir.save(&profile).unwrap();
        dir.remove(&profile).unwrap();
        assert!(!folder.path().join("keys/p/joe-db").exists());
    }

    #[test]
    fn names_stay_inside_the_folder() {
        let dir = ProfileDir::at(std::path::Path::new("/nowhere"));
        for name in ["", "..", "../x", "a/b", "-x", ".x", "a\nb", "a\0b", &"x".repeat(300)] {
            assert!(dir.database_cert_path(&profile(), name).is_err(), "{name:?}");
            assert!(dir.remove_database(&profile(), name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn addresses_of_their_own_are_kept_and_others_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let dir = ProfileDir::at(folder.path());
        let mut profile = profile();
        dir.save(&profile).unwrap();
        let text = || std::fs::read_to_string(folder.path().join("p.yaml")).unwrap();
        assert!(!text().contains("postgres_proxy_addr"));
        profile.postgres_proxy_addr = "p:5432".to_owned();
        dir.save(&profile).unwrap();
        assert!(text().contains("postgres_proxy_addr: p:5432"), "{}", text());
        assert_eq!(dir.load("p").unwrap().unwrap(), profile);
    }
}
