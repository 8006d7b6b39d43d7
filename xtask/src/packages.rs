//! What tests and the demo need from the machine, installed with its ordinary package managers.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::run::{self, succeed};

/// A program, and the Debian package that brings it.
pub(crate) struct Need {
    program: &'static str,
    package: &'static str,
}

const fn need(program: &'static str, package: &'static str) -> Need {
    Need { program, package }
}

/// For the demo.
pub(crate) const DEMO: &[Need] =
    &[need("sshd", "openssh-server"), need("ssh", "openssh-client"), need("curl", "curl")];

/// For the tests.
pub(crate) const TEST: &[Need] = &[
    need("sshd", "openssh-server"),
    need("ssh", "openssh-client"),
    need("curl", "curl"),
    need("openssl", "openssl"),
    need("vim.tiny", "vim-tiny"),
    need("rsync", "rsync"),
    need("python3", "python3"),
    need("tmux", "tmux"),
    need("htop", "htop"),
    need("less", "less"),
    need("asciinema", "asciinema"),
    need("chromium", "chromium"),
    need("testssl", "testssl.sh"),
    need("plink", "putty-tools"),
    need("dbclient", "dropbear-bin"),
    need("/usr/lib/x86_64-linux-gnu/libnss_wrapper.so", "libnss-wrapper"),
    need("/usr/lib/postgresql/15/bin/postgres", "postgresql-15"),
    need("psql", "postgresql-client-15"),
    need("java", "default-jdk-headless"),
    need("mvn", "maven"),
    need("cc", "gcc"),
    need("mariadbd", "mariadb-server"),
    need("mariadb", "mariadb-client"),
    need("mariadb-test", "mariadb-test"),
    need("redis-server", "redis-server"),
    need("redis-cli", "redis-tools"),
    need("java", "default-jre-headless"),
    need("mvn", "maven"),
];

/// For the benchmarks.
pub(crate) const BENCH: &[Need] = &[
    need("sshd", "openssh-server"),
    need("ssh", "openssh-client"),
    need("/usr/lib/postgresql/15/bin/postgres", "postgresql-15"),
    need("psql", "postgresql-client-15"),
    need("pgbouncer", "pgbouncer"),
];

/// Installs what is missing. Without the rights to do so, says what to type.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    let mut missing: Vec<&str> =
        needs.iter().filter(|need| !present(need.program)).map(|need| need.package).collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    if !present("apt-get") {
        bail!(
            "missing on this machine: {}; install them with its package manager",
            missing.join(" ")
        );
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.starts_with(b"0\n"));
    let apt = |args: &[&str]| {
        let mut command = if root {
            Command::new("apt-get")
        } else {
            let mut sudo = Command::new("sudo");
            sudo.args(["-n", "apt-get"]);
            sudo
        };
        command.env("DEBIAN_FRONTEND", "noninteractive").args(args).stdout(Stdio::null());
        command
    };
    eprintln!("installing {}", missing.join(" "));
    // A package may start its service; tests start their own, so the machine's stays off.
    let mut install = apt(&["install", "-y", "-q", "--no-install-recommends"]);
    install.args(&missing).env("RUNLEVEL", "1");
    if succeed(&mut install).is_err() {
        succeed(&mut apt(&["update", "-q"]))?;
        if succeed(&mut install).is_err() {
            bail!("could not install; type: apt-get install {}", missing.join(" "));
        }
    }
    Ok(())
}

/// Python programs and libraries for the tests, in an environment of their own below the build folder. Returns the
/// folder the programs are in, the interpreter that knows the libraries among them.
pub(crate) fn python(programs: &[&str]) -> Result<PathBuf> {
    let environment = run::target(false).join("python");
    let folder = environment.join("bin");
    let there = |program: &&str| {
        // `name[extra]` is what is installed; `name` is what is imported, if it is not in this list.
        let module = match *program {
            "mysql-connector-python" => "mysql.connector",
            program => program.split('[').next().unwrap_or(program),
        };
        let import = format!("import {module}");
        folder.join(program).is_file()
            || Command::new(folder.join("python3"))
                .args(["-c", &import])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
    };
    if programs.iter().all(there) {
        return Ok(folder);
    }
    eprintln!("installing {}", programs.join(" "));
    if succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment)).is_err() {
        install(&[need("/usr/share/doc/python3-venv", "python3-venv")])?;
        succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    }
    succeed(Command::new(folder.join("pip")).args(["install", "--quiet"]).args(programs))?;
    Ok(folder)
}

/// Object stores for the tests, as Go modules. They are built once, into the cache that outlives the build folder.
const STORES: &[(&str, &str)] = &[
    ("fake-gcs-server", "github.com/fsouza/fake-gcs-server@v1.56.1"),
    ("minio", "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"),
];

/// Builds the object stores that are missing. Outside continuous integration their tests can be done without.
pub(crate) fn stores() -> Result<()> {
    let folder = shared_testkit::stores::tools();
    let missing = || STORES.iter().filter(|(name, _)| !folder.join(name).is_file());
    for (name, module) in missing() {
        eprintln!("building {name}; this takes minutes, once");
        let scratch = folder.join(format!("{name}.building"));
        std::fs::create_dir_all(&scratch)?;
        let mut go = Command::new("go");
        go.args(["install", module]).env("GOBIN", &scratch).env("CGO_ENABLED", "0");
        // Gigabytes that nobody needs again.
        go.env("GOMODCACHE", scratch.join("modules")).env("GOCACHE", scratch.join("objects"));
        go.env("GOFLAGS", "-modcacherw");
        let built = succeed(&mut go);
        match built {
            // The name appears when the program is whole.
            Ok(()) => std::fs::rename(scratch.join(name), folder.join(name))?,
            Err(error) if std::env::var_os("CI").is_some() => {
                return Err(error.context(format!("build {name}, for which Go is needed")));
            }
            Err(error) => {
                eprintln!("skipped: {name} cannot be built: {error:#}; its tests do nothing")
            }
        }
        std::fs::remove_dir_all(&scratch).ok();
    }
    Ok(())
}

/// DynamoDB Local, by Maven, into the cache that outlives the build folder.
pub(crate) fn dynamodb() -> Result<()> {
    let folder = shared_testkit::DynamoDb::libraries();
    if folder.is_dir() {
        return Ok(());
    }
    eprintln!("bringing DynamoDB Local");
    let scratch = folder.with_extension("coming");
    std::fs::create_dir_all(&scratch)?;
    std::fs::write(scratch.join("pom.xml"), DYNAMODB)?;
    let mut maven = Command::new("mvn");
    maven.current_dir(&scratch).args(["-q", "-B", "dependency:copy-dependencies"]);
    match succeed(maven.args(["-DoutputDirectory=lib", "-DincludeScope=runtime"])) {
        // The name appears when it is whole.
        Ok(()) => std::fs::rename(scratch.join("lib"), &folder)?,
        Err(error) if std::env::var_os("CI").is_some() => {
            return Err(error.context("bring DynamoDB Local, for which Maven is needed"));
        }
        Err(error) => eprintln!("skipped: DynamoDB Local: {error:#}; its tests do nothing"),
    }
    std::fs::remove_dir_all(&scratch).ok();
    Ok(())
}

/// The project whose only dependency it is.
const DYNAMODB: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>test</groupId><artifactId>tools</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>com.amazonaws</groupId><artifactId>DynamoDBLocal</artifactId><version>2.6.1</version>
    </dependency>
  </dependencies>
</project>
"#;

fn present(program: &str) -> bool {
    if program.starts_with('/') {
        return std::path::Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into(), "/usr/local/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}
