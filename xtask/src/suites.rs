//! What the tests with databases need that is not a package's program: regression suites and drivers. They are kept
//! beside the object stores, in the cache that outlives the build folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::run::succeed;

/// The drivers of Java programs, from the Maven repository: for which database, as which file.
const JDBC: &[(&str, &str, &str)] = &[
    ("PostgreSQL", "postgresql-jdbc.jar", "org.postgresql:postgresql:42.7.8"),
    ("MariaDB", "mariadb-jdbc.jar", "org.mariadb.jdbc:mariadb-java-client:3.5.3"),
];
/// Where this machine gets its packages from.
const PLACES: [&str; 2] = ["/etc/apt/sources.list", "/etc/apt/sources.list.d"];

/// Brings what is missing. Outside continuous integration its tests can be done without.
pub(crate) fn bring() -> Result<()> {
    let tools = shared_testkit::stores::tools();
    let suite = tools.join(shared_testkit::postgres_suite::FOLDER);
    once(&suite.join("regress.so"), "PostgreSQL's regression suite", || postgres(&suite))?;
    for (database, file, artifact) in JDBC {
        let driver = tools.join(file);
        once(&driver, &format!("{database}'s JDBC driver"), || jdbc(&driver, artifact))?;
    }
    Ok(())
}

fn once(result: &Path, name: &str, bring: impl FnOnce() -> Result<()>) -> Result<()> {
    if result.is_file() {
        return Ok(());
    }
    eprintln!("fetching {name}");
    match bring() {
        Err(error) if std::env::var_os("CI").is_none() => {
            eprintln!("skipped: {name} is not to be had: {error:#}; its tests do nothing");
            Ok(())
        }
        brought => brought.with_context(|| format!("fetch {name}")),
    }
}

/// The SQL, its expected results and its library, of the version that is installed: from the source package, and
/// compiled with that version's headers.
fn postgres(suite: &Path) -> Result<()> {
    let version =
        output(Command::new("dpkg-query").args(["-W", "-f=${Version}", "postgresql-15"]))?;
    let work = suite.with_extension("building");
    std::fs::create_dir_all(work.join("lists/partial"))?;
    let places = work.join("places");
    std::fs::create_dir_all(&places)?;
    PLACES.iter().try_for_each(|place| sources(Path::new(place), &places))?;
    let apt = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        command.current_dir(&work).stdout(Stdio::null()).arg("-q");
        for (name, path) in [("Etc::sourceparts", "places"), ("State::lists", "lists")] {
            command.arg("-o").arg(format!("Dir::{name}={}", work.join(path).display()));
        }
        command.args(["-o", "Dir::Etc::sourcelist=/dev/null"]).args(words);
        command
    };
    // Some places have no sources, which is an error of this and none of ours.
    let _some = apt(&["update"]).stderr(Stdio::null()).status()?;
    succeed(&mut apt(&["source", "--download-only", &format!("postgresql-15={version}")]))?;
    let headers = format!("postgresql-server-dev-15={version}");
    // The headers alone: the package itself wants a compiler of its own.
    succeed(
        Command::new("apt-get")
            .current_dir(&work)
            .args(["-q", "download", &headers])
            .stdout(Stdio::null()),
    )?;
    let source = found(&work, ".orig.tar.bz2")?;
    let mut unpack = Command::new("tar");
    unpack.current_dir(&work).args(["--strip-components=4", "--wildcards", "-xjf"]).arg(source);
    succeed(unpack.arg("*/src/test/regress"))?;
    succeed(
        Command::new("dpkg").current_dir(&work).arg("-x").arg(found(&work, ".deb")?).arg("headers"),
    )?;
    let mut compile = Command::new("cc");
    compile.current_dir(&work).args([
        "-shared",
        "-fPIC",
        "-O1",
        "-Iheaders/usr/include/postgresql/15/server",
    ]);
    succeed(compile.args(["-Iheaders/usr/include/postgresql", "-o", "regress.so", "regress.c"]))?;
    std::fs::create_dir_all(suite)?;
    // Modules of the server that it also loads from here.
    for name in ["refint.so", "autoinc.so"] {
        std::fs::copy(Path::new("/usr/lib/postgresql/15/lib").join(name), suite.join(name))?;
    }
    // The library last: with it the suite is whole.
    for name in ["sql", "expected", "data", "parallel_schedule", "resultmap", "regress.so"] {
        std::fs::rename(work.join(name), suite.join(name))?;
    }
    Ok(std::fs::remove_dir_all(work)?)
}

/// Writes the places of packages as places of sources, both forms that apt reads.
fn sources(place: &Path, to: &Path) -> Result<()> {
    if place.is_dir() {
        let mut entries = std::fs::read_dir(place)?;
        return entries.try_for_each(|entry| sources(&entry?.path(), to));
    }
    let (Ok(text), Some(name)) = (std::fs::read_to_string(place), place.file_name()) else {
        return Ok(());
    };
    let source = |line: &str| match line {
        line if line.starts_with("deb ") => line.replacen("deb ", "deb-src ", 1),
        line if line.starts_with("Types:") => "Types: deb deb-src".to_owned(),
        line => line.to_owned(),
    };
    let text: Vec<String> = text.lines().map(source).collect();
    Ok(std::fs::write(to.join(name), text.join("\n") + "\n")?)
}

fn jdbc(driver: &Path, artifact: &str) -> Result<()> {
    let folder = driver.with_extension("fetching");
    let mut maven = Command::new("mvn");
    maven.args(["-q", "-B", "dependency:copy", &format!("-Dartifact={artifact}")]);
    succeed(maven.arg(format!("-DoutputDirectory={}", folder.display())))?;
    std::fs::rename(found(&folder, ".jar")?, driver)?;
    Ok(std::fs::remove_dir_all(folder)?)
}

/// The file whose name ends so.
fn found(folder: &Path, end: &str) -> Result<PathBuf> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            return Ok(path);
        }
    }
    bail!("no {end} in {}", folder.display())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    anyhow::ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
