//! Real object stores on loopback: MinIO, which speaks S3, and fake-gcs-server, which speaks Google's JSON API.
//!
//! `cargo xtask test` builds both into the cache. Where they are missing, the test says so and does nothing; in
//! continuous integration it fails.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cluster::ClusterOptions;
use crate::process::{Guard, command, run};
use crate::wait::{free_port, until};

/// The access key of the S3 server.
pub const S3_KEY: &str = "store-test-key";
/// The secret key of the S3 server.
pub const S3_SECRET: &str = "store-test-secret-5c1d";
/// The region that the S3 server is in.
pub const S3_REGION: &str = "eu-test-1";
/// The key management key of the S3 server: a name, and 32 bytes.
const KMS: &str = "test-key:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Where programs are kept that no package brings: below `GATEHOUSE_CACHE`, or the user's cache folder.
pub fn tools() -> PathBuf {
    let cache = std::env::var_os("GATEHOUSE_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let home = || std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        caches.unwrap_or_else(|| home().join(".cache")).join("gatehouse")
    });
    cache.join("tools")
}

/// The program `name`. `None` with a word on standard error where it is missing.
fn tool(name: &str) -> Result<Option<PathBuf>> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(tools())
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|program| program.is_file());
    if found.is_none() {
        if std::env::var_os("CI").is_some() {
            bail!("{name} is missing; cargo xtask test installs it");
        }
        eprintln!("skipped: {name} is not installed; run: cargo xtask test");
    }
    Ok(found)
}

/// A running object store.
#[derive(Debug)]
pub struct ObjectServer {
    program: PathBuf,
    folder: PathBuf,
    port: u16,
    google: bool,
    process: Guard,
}

impl ObjectServer {
    /// Starts MinIO with its data in `folder`. `None` where it is missing.
    pub fn start_s3(folder: &Path) -> Result<Option<Self>> {
        tool("minio")?.map(|program| Self::start(program, folder, false)).transpose()
    }

    /// Starts fake-gcs-server with its data in `folder`. `None` where it is missing.
    pub fn start_gcs(folder: &Path) -> Result<Option<Self>> {
        tool("fake-gcs-server")?.map(|program| Self::start(program, folder, true)).transpose()
    }

    fn start(program: PathBuf, folder: &Path, google: bool) -> Result<Self> {
        std::fs::create_dir_all(folder.join("data"))?;
        let port = free_port()?;
        let process = Self::spawn(&program, folder, port, google)?;
        let mut server = Self { program, folder: folder.to_path_buf(), port, google, process };
        server.wait()?;
        Ok(server)
    }

    fn spawn(program: &Path, folder: &Path, port: u16, google: bool) -> Result<Guard> {
        let mut server = command(program, folder);
        let address = format!("127.0.0.1:{port}");
        if google {
            server.args(["-scheme", "http", "-host", "127.0.0.1", "-backend", "filesystem"]);
            server.args(["-port", &port.to_string(), "-public-host", &address]);
            server.arg("-filesystem-root").arg(folder.join("data"));
        } else {
            server.env("MINIO_ROOT_USER", S3_KEY).env("MINIO_ROOT_PASSWORD", S3_SECRET);
            server.env("MINIO_KMS_SECRET_KEY", KMS).env("MINIO_BROWSER", "off");
            server.env("MINIO_REGION", S3_REGION);
            server.arg("server").arg(folder.join("data")).args(["--address", &address, "--quiet"]);
        }
        Guard::start("object store", &mut server, &folder.join("server.log"))
    }

    fn wait(&mut self) -> Result<()> {
        until("the object store to answer", 30, || {
            let answered = match self.google {
                true => {
                    let url = format!("{}/storage/v1/b?project=test", self.endpoint());
                    let asked = run(Command::new("curl").args(["-sf", &url]), "", 5);
                    asked.is_ok_and(|outcome| outcome.code == 0)
                }
                false => self.s3_text("").is_ok(),
            };
            (answered || !self.process.running()).then_some(())
        })?;
        ensure!(self.process.running(), "the object store ended: {}", self.process.log());
        Ok(())
    }

    /// Kills it, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again on the same port and data.
    pub fn restart(&mut self) -> Result<()> {
        self.process = Self::spawn(&self.program, &self.folder, self.port, self.google)?;
        self.wait()
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Has a cluster keep its recordings in a bucket of this S3 server, below `records`, through `address`.
    pub fn keeps_recordings(bucket: &str, address: &str, options: &mut ClusterOptions) {
        options.auth_extra += &format!(
            "  audit_sessions_uri: \"s3://{bucket}/records?endpoint={address}&insecure=true&region={S3_REGION}\"\n"
        );
        let keys = [("AWS_ACCESS_KEY_ID", S3_KEY), ("AWS_SECRET_ACCESS_KEY", S3_SECRET)];
        options.env.extend(keys.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// Makes a bucket; one of S3 keeps versions where asked.
    pub fn make_bucket(&self, bucket: &str, versions: bool) -> Result<()> {
        if self.google {
            let url = format!("{}/storage/v1/b?project=test", self.endpoint());
            let body = format!("{{\"name\":\"{bucket}\"}}");
            let mut curl = Command::new("curl");
            curl.args(["-sf", "-H", "Content-Type: application/json", "-d", &body, &url]);
            let _made = run(&mut curl, "", 20)?.ok();
            return Ok(());
        }
        self.s3(&["PUT", bucket])?;
        if versions {
            let body =
                "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
            self.s3(&["PUT", &format!("{bucket}?versioning="), body])?;
        }
        Ok(())
    }

    /// Writes an object as somebody else would, over what is there.
    pub fn put(&self, bucket: &str, key: &str, content: &str) -> Result<()> {
        if self.google {
            let url = format!(
                "{}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={key}",
                self.endpoint()
            );
            let _put = run(Command::new("curl").args(["-sf", "-d", content, &url]), "", 20)?.ok();
            return Ok(());
        }
        self.s3(&["PUT", &format!("{bucket}/{key}"), content]).map(|_| ())
    }

    /// Deletes an object as somebody else would: in a bucket with versions, a deletion is put above it.
    pub fn delete(&self, bucket: &str, key: &str) -> Result<()> {
        self.s3(&["DELETE", &format!("{bucket}/{key}")]).map(|_| ())
    }

    /// What an S3 bucket answers to a request signed by the owner; `what` is a path with its query.
    pub fn s3_text(&self, what: &str) -> Result<String> {
        self.s3(&["GET", what])
    }

    /// The headers of an S3 object.
    pub fn s3_head(&self, what: &str) -> Result<String> {
        self.s3(&["HEAD", what])
    }

    /// Sends a request signed by the owner.
    fn s3(&self, ask: &[&str]) -> Result<String> {
        let mut python = Command::new("python3");
        python.args(["-c", include_str!("s3.py"), &self.endpoint(), S3_REGION, S3_KEY, S3_SECRET]);
        let outcome = run(python.args(ask), "", 20).context("run python3")?;
        ensure!(outcome.code == 0, "{}", outcome.stderr);
        Ok(outcome.text())
    }
}
